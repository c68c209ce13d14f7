"""The model in a run: written, opened, and refused when its files do not fit."""

import json

import numpy as np
import pytest
from bert_samples import BATCH, scramble, write_config
from text_samples import VOCAB_SIZE, tokenizer

from tiedbert.bert import (
    build_bert,
    classifier,
    load_classifier,
    load_safetensors,
    masked_lm,
    open_pretrained,
    save_google_checkpoint,
)
from tiedbert.bert.models import read_config
from tiedbert.bert.saved_models import (
    save_classifier,
    save_description,
    save_weights,
    saved_tokenizer,
)
from tiedbert.errors import InputError
from tiedbert.jobs.max_length import check_max_length

LABELS = ["bad", "good", "so-so"]


@pytest.fixture
def pretrained(tmp_path):
    """A model as `tiedbert pretrain` writes it."""
    folder = tmp_path / "pretrain"
    settings = read_config(write_config(tmp_path, vocab_size=VOCAB_SIZE))
    config = save_description(folder, settings, tokenizer())
    save_weights(folder, scramble(masked_lm(build_bert(config))))
    return folder


@pytest.fixture
def finetuned(tmp_path, pretrained):
    """A classifier, and the folder in which it is saved."""
    saved = open_pretrained(pretrained)
    model = scramble(classifier(build_bert(saved.config, saved.checkpoint), 3), seed=1)
    save_classifier(tmp_path / "finetune", model, LABELS, saved)
    return model, tmp_path / "finetune"


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_pretrained_model_is_config_checkpoint_and_tokenizer(pretrained):
    saved = open_pretrained(pretrained)
    bert = build_bert(saved.config, saved.checkpoint)
    assert saved.tokenizer.fingerprint == tokenizer().fingerprint
    assert bert.get_layer("Embedding-Token").input_dim == VOCAB_SIZE


def test_a_classifier_comes_back_whole(finetuned):
    model, folder = finetuned
    again, names, its_tokenizer = load_classifier(folder)
    assert names == LABELS
    assert its_tokenizer.fingerprint == tokenizer().fingerprint
    np.testing.assert_array_equal(again(BATCH), model(BATCH))
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_saved_classifier_is_json_tensors_and_a_tokenizer(finetuned):
    """Nothing that holds code; `labels.json` is in the order of the logits."""
    _, folder = finetuned
    assert sorted(path.name for path in (folder / "model").iterdir()) == [
        "bert_config.json",
        "bert_model.ckpt.data-00000-of-00001",
        "bert_model.ckpt.index",
        "config.json",
        "labels.json",
        "model.safetensors",
        "tokenizer.model",
    ]
    assert json.loads((folder / "model" / "labels.json").read_text()) == LABELS


def test_a_saved_classifier_is_there_for_hugging_face_too(finetuned):
    model, folder = finetuned
    again = classifier(build_bert(folder / "model" / "config.json"), len(LABELS))
    load_safetensors(again, folder / "model")
    np.testing.assert_array_equal(again(BATCH), model(BATCH))


def test_a_classifiers_encoder_can_be_fine_tuned_on(finetuned):
    model, folder = finetuned
    saved = open_pretrained(folder)
    bert = build_bert(saved.config, saved.checkpoint)
    np.testing.assert_array_equal(
        bert.get_weights()[0], model.get_layer("Embedding-Token").get_weights()[0]
    )


def test_an_encoder_has_the_pooler_of_its_checkpoint(pretrained, finetuned):
    model, folder = finetuned
    kept = classifier(open_pretrained(folder).encoder(), 5)
    for name in ("Pooler-Dense", "Transformer-0-FeedForward"):
        for ours, theirs in zip(
            kept.get_layer(name).get_weights(),
            model.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
    assert open_pretrained(pretrained).encoder().output_shape == (None, None, 16)
    new = open_pretrained(folder).encoder(random_init=True)
    assert np.any(new.get_weights()[0] != model.get_weights()[0])


def test_a_vocabulary_of_another_size_is_refused(pretrained):
    change_json(pretrained / "model" / "bert_config.json", vocab_size=7)
    with pytest.raises(
        InputError, match="vocabulary does not belong .* expected 7 tokens, found 120"
    ):
        open_pretrained(pretrained)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model/bert_config.json", "no BERT configuration at "),
        ("model/tokenizer.model", "expected a sentencepiece model, found nothing"),
    ],
)
def test_a_missing_file_is_named(pretrained, missing, message):
    (pretrained / missing).unlink()
    with pytest.raises(InputError, match=message):
        open_pretrained(pretrained)


@pytest.mark.parametrize("folder", ["corpus", "nowhere"])
def test_a_folder_without_a_model_is_refused(tmp_path, folder):
    (tmp_path / "corpus").mkdir()
    message = f"{folder} holds no model: expected a run of `tiedbert pretrain` or `tied"
    with pytest.raises(InputError, match=message):
        open_pretrained(tmp_path / folder)


def test_a_pretrained_model_is_no_classifier(pretrained):
    message = "model: expected a classifier, as `tiedbert finetune` writes it, found no"
    with pytest.raises(InputError, match=message):
        load_classifier(pretrained)


def test_the_tokenizer_of_a_run_may_not_be_written_yet(pretrained, tmp_path):
    assert saved_tokenizer(pretrained).fingerprint == tokenizer().fingerprint
    assert saved_tokenizer(tmp_path) is None


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "labels.json cannot be read"),
        ("{}", "labels.json: expected a JSON list of label names"),
        ("[1, 2, 3]", "labels.json: expected a JSON list of label names"),
        ('["bad", "good"]', r"output_weights: expected shape \(16, 2\), found \(16, 3"),
    ],
)
def test_labels_that_do_not_fit_are_refused(finetuned, content, message):
    _, folder = finetuned
    (folder / "model" / "labels.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_classifier(folder)


def test_a_checkpoint_without_its_classifier_is_refused(finetuned):
    """An untrained head would predict at random."""
    _, folder = finetuned
    bert = build_bert(folder / "model" / "bert_config.json")
    save_google_checkpoint(bert, folder / "model" / "bert_model.ckpt")
    message = "expected a classifier: .*no weights for Pooler-Dense and Classifier"
    with pytest.raises(InputError, match=message):
        load_classifier(folder)


def test_another_padding_than_the_tokenizers_is_refused(pretrained):
    change_json(pretrained / "model" / "bert_config.json", pad_token_id=1)
    with pytest.raises(InputError, match="expected 1 as the id of padding, found 0"):
        open_pretrained(pretrained)


def test_a_classifier_without_labels_is_refused(finetuned):
    _, folder = finetuned
    (folder / "model" / "labels.json").unlink()
    with pytest.raises(InputError, match="expected a classifier.* no labels.json"):
        load_classifier(folder)


def test_texts_must_fit_the_positions(finetuned):
    model, _ = finetuned
    check_max_length(model, 32)
    with pytest.raises(InputError, match="--max_length 33: the model has 32 positions"):
        check_max_length(model, 33)
