"""The kinds of Keras 3 alone: Hugging Face's RoBERTa, and DistilBERT."""

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import CONFIG, names_of, scramble, write_config
from generation import IS_LEGACY
from numpy_bert import encode
from safetensors.numpy import load_file
from tensorflow import keras
from variants import others_slow, slow

from tiedbert.adversarial import FGM, AdversarialTraining
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.bert import (
    build_bert,
    classifier,
    load_google_checkpoint,
    masked_lm,
    save_google_checkpoint,
    save_safetensors,
)
from tiedbert.bert.saved_models import SavedModel
from tiedbert.errors import InputError
from tiedbert.jobs.max_length import check_max_length
from tiedbert.surgery import clone, split

needs_keras_3 = pytest.mark.skipif(IS_LEGACY, reason="kinds of Keras 3")
PAD = 1
TEXT = [5, 7, 8, 9, 6]
RIGHT = np.array([[*TEXT, PAD, PAD], [5, 11, 12, 7, 8, 13, 6]], np.int32)
LEFT = np.array([[PAD, PAD, *TEXT], [5, 11, 12, 7, 8, 13, 6]], np.int32)
POSITIONS = np.array([[1, 3], [5, 0]], np.int32)
both = pytest.mark.parametrize("kind", ["hf_roberta", "distilbert"])
either = pytest.mark.parametrize("kind", ["hf_roberta", slow("distilbert")])


def build(folder, kind="hf_roberta", **changes):
    settings = {"type_vocab_size": 1, "pad_token_id": PAD, "num_hidden_layers": 2}
    options = {k: changes.pop(k) for k in list(changes) if k not in CONFIG}
    config = write_config(folder, **{**settings, **changes})
    return scramble(build_bert(config, model=kind, **options))


@pytest.mark.skipif(not IS_LEGACY, reason="the error of Keras 2")
@pytest.mark.parametrize("kind", ["hf_roberta", "distilbert"])
def test_under_keras_2_they_are_refused(tmp_path, kind):
    with pytest.raises(
        InputError, match=f"'{kind}' model is tiedbert's own and needs Keras 3"
    ):
        build_bert(write_config(tmp_path), model=kind)
    config = write_config(tmp_path, model_type="camembert")
    with pytest.raises(InputError, match="'hf_roberta' model is tiedbert's own"):
        build_bert(config)


@needs_keras_3
def test_what_is_null_counts_as_absent(tmp_path):
    config = write_config(tmp_path, model_type=None, pad_token_id=None)
    model = build_bert(config, model="hf_roberta", pad_token_id=None)
    assert model.get_layer("Embedding-Token").pad_id == PAD
    text = config.read_text().replace("{", '{"model_type": null, ', 1)
    config.write_text(text)
    assert build_bert(config).get_layer("Embedding-Token").kind == "bert"


@needs_keras_3
def test_the_kind_tells_the_names_of_a_file_without_a_type(tmp_path):
    names = {"hidden_size": "dim", "num_hidden_layers": "n_layers"}
    config = write_config(tmp_path)
    text = config.read_text()
    for ours, theirs in names.items():
        text = text.replace(ours, theirs)
    config.write_text(text)
    assert build_bert(config, model="distilbert").output_shape[-1] == 16
    config.write_text(text.replace("{", '{"model": ["bert"], ', 1))
    with pytest.raises(InputError, match="lacks"):
        build_bert(config)


@needs_keras_3
def test_packed_positions_behind_another_padding_are_not_written(tmp_path):
    model = build(tmp_path, with_pack=True, keep_tokens=[PAD, *range(2, 30)])
    with pytest.raises(InputError, match="padding 0, and position 1 for it"):
        save_safetensors(model, tmp_path / "files")


@needs_keras_3
@pytest.mark.parametrize("tokens", [RIGHT, LEFT], ids=["right", "left"])
def test_the_positions_of_roberta_are_those_of_fairseq(tmp_path, tokens):
    """The oracle is NumPy's BERT with the positions of fairseq's make_positions."""
    model = build(tmp_path, layer_norm_eps=1e-12)
    save_safetensors(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    real = tokens != PAD
    positions = np.cumsum(real, axis=1) * real + PAD
    assert positions[0].tolist() in ([2, 3, 4, 5, 6, 1, 1], [1, 1, 2, 3, 4, 5, 6])
    expected = encode(
        {f"bert.{name}": value for name, value in tensors.items()},
        tokens,
        np.zeros_like(tokens),
        CONFIG["num_attention_heads"],
        positions,
        PAD,
    )
    found = model([tokens]).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


@needs_keras_3
@both
def test_padding_changes_no_token(tmp_path, kind):
    model = build(tmp_path, kind)
    alone = model([np.array([TEXT])])
    np.testing.assert_allclose(model([RIGHT])[:1, :5], alone, atol=1e-5)
    if kind == "hf_roberta":  # those of DistilBERT have other positions then
        np.testing.assert_allclose(model([LEFT])[:1, 2:], alone, atol=1e-5)
    empty = model([np.full((1, 4), PAD)])
    assert np.isfinite(empty).all()


@needs_keras_3
def test_a_padding_of_the_left_is_not_attended_to(tmp_path):
    """Also at the first position, which BERT never masks."""
    model = build(tmp_path, "distilbert")
    mask = model.get_layer("Embedding-Token").compute_mask(tf.constant(LEFT))
    assert mask.numpy().tolist() == (LEFT != PAD).tolist()


@needs_keras_3
def test_a_text_that_is_too_long_is_refused(tmp_path):
    model = build(tmp_path, max_position_embeddings=8)  # 6 tokens
    long = np.array([[5, 7, 8, 9, 6, 5, 7]])
    message = "texts of 7 tokens, but 'Embedding-Counted-Position' has 6 positions"
    with pytest.raises(InputError, match=message):
        model([long])
    with pytest.raises(tf.errors.InvalidArgumentError, match="has 6 positions"):
        tf.function(model)([long])
    # Padding needs no position.
    padded = np.array([[5, 7, 8, 9, 6, 5, *[PAD] * 6]])
    assert np.isfinite(model([padded])).all()
    with pytest.raises(InputError, match="texts of 7 tokens, but the model has 6"):
        build(tmp_path, max_position_embeddings=8, sequence_length=7)
    with pytest.raises(InputError, match="max_position_embeddings: expected more than"):
        build(tmp_path, max_position_embeddings=2)


@needs_keras_3
def test_the_jobs_know_how_long_a_text_may_be(tmp_path):
    roberta = build(tmp_path, max_position_embeddings=8)
    check_max_length(roberta, 6)
    with pytest.raises(InputError, match="--max_length 7: the model has 6 positions"):
        check_max_length(roberta, 7)
    check_max_length(build_bert(write_config(tmp_path), model="roformer"), 1000)


@needs_keras_3
def test_tokens_that_are_kept_have_their_positions(tmp_path):
    """Padding has another id then, and the position that it had."""
    whole, kept = build(tmp_path), [9, PAD, *range(5, 9)]
    part = build(tmp_path, keep_tokens=kept)
    weights = whole.get_weights()
    part.set_weights([weights[0][kept], *weights[1:]])
    tokens = np.array([[5, 7, 8, 6, PAD]])
    renumbered = np.vectorize(kept.index)(tokens)
    np.testing.assert_array_equal(part([renumbered]), whole([tokens]))
    moved = build(tmp_path, keep_tokens=kept[::-1])
    with pytest.raises(InputError, match="positions that begin behind the id of paddi"):
        save_safetensors(moved, tmp_path / "no")


@needs_keras_3
def test_texts_in_one_row_have_the_positions_of_each(tmp_path):
    alone, packed = build(tmp_path), build(tmp_path, with_pack=True)
    packed.set_weights(alone.get_weights())
    tokens, pack = np.array([[5, 7, 8, 9, 11, 12]]), np.array([[1, 1, 1, 2, 2, 2]])
    found = packed([tokens, pack])
    np.testing.assert_allclose(found[:, 3:], alone([tokens[:, 3:]]), atol=1e-5)


@needs_keras_3
def test_one_segment_needs_no_input(tmp_path):
    one, two = build(tmp_path), build(tmp_path, type_vocab_size=2)
    assert names_of(one.inputs) == ["Input-Token"]
    assert names_of(two.inputs) == ["Input-Token", "Input-Segment"]
    weights = two.get_weights()
    one.set_weights([w[:1] if w.shape == (2, 16) else w for w in weights])
    expected = two([RIGHT, np.zeros_like(RIGHT)])
    np.testing.assert_array_equal(one([RIGHT]), expected)
    assert names_of(build(tmp_path, "distilbert").inputs) == ["Input-Token"]


@needs_keras_3
def test_dropout_is_where_distilbert_has_it(tmp_path):
    """In its code none is applied to what the attention gives."""
    model = build(tmp_path, "distilbert", dropout_rate=0.1, num_hidden_layers=1)
    found = [x.name for x in model.layers if isinstance(x, keras.layers.Dropout)]
    assert found == ["Embedding-Dropout", "Transformer-0-FeedForward-Dropout"]


@needs_keras_3
@pytest.mark.parametrize(
    ("kind", "option", "message"),
    [
        ("hf_roberta", {"with_nsp": True}, "no option with_nsp"),
        ("hf_roberta", {"hierarchical_position": True}, "no option hierarchical_pos"),
        ("distilbert", {"with_pool": True}, "no option with_pool"),
        ("distilbert", {"segment_vocab_size": 2}, "no option segment_vocab_size"),
        ("distilbert", {"application": "unilm"}, "expected encoder or lm"),
    ],
)
def test_what_they_do_not_have_is_refused(tmp_path, kind, option, message):
    with pytest.raises(InputError, match=message):
        build(tmp_path, kind, **option)


@needs_keras_3
@either
def test_a_cut_of_them_is_exact(tmp_path, kind):
    model = build(tmp_path, kind)
    front, rest = split(model, "Embedding-Norm")
    np.testing.assert_array_equal(rest(front([LEFT])), model([LEFT]))


@needs_keras_3
@either
def test_a_file_and_a_copy_are_of_the_kind(tmp_path, kind):
    model = build(tmp_path, kind, hidden_act="relu")
    model.save(tmp_path / "model.keras")
    for copy in (keras.models.load_model(tmp_path / "model.keras"), clone(model)):
        np.testing.assert_array_equal(copy([LEFT]), model([LEFT]))
        act = masked_lm(copy).get_layer("MLM-Dense").activation.__name__
        assert act == {"hf_roberta": "gelu", "distilbert": "relu"}[kind]


@needs_keras_3
@either
def test_the_head_reads_the_masked_tokens(tmp_path, kind):
    bert = build(tmp_path, kind)
    models = [
        masked_lm(bert, early_gather=early, with_loss=loss)
        for early, loss in ((False, False), (True, False), (True, True))
    ]
    for model in models[1:]:
        model.set_weights(models[0].get_weights())
    logits = models[0]([RIGHT, POSITIONS]).numpy()
    np.testing.assert_allclose(models[1]([RIGHT, POSITIONS]), logits, atol=2e-5)
    losses = models[2]([RIGHT, POSITIONS, POSITIONS, np.ones((2, 2))])
    expected = keras.losses.SparseCategoricalCrossentropy(True, reduction="none")
    np.testing.assert_allclose(losses, expected(POSITIONS, logits), rtol=1e-4)


@needs_keras_3
@either
def test_they_are_trained_against_an_adversary(tmp_path, kind):
    bert = build(tmp_path, kind, dropout_rate=0.0, attention_dropout_rate=0.0)
    model = classifier(bert, num_labels=3, dropout=0.0)
    before = model.get_weights()
    training = AdversarialTraining(model, FGM(0.01), at="Embedding-Norm")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    training.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    texts = {"Input-Token": RIGHT}
    history = training.fit(texts, np.array([0, 1]), verbose=0).history
    assert history["adversarial_loss"][0] > history["clean_loss"][0]
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


@needs_keras_3
@pytest.mark.parametrize(("tokens", "start"), [(RIGHT, 0), (LEFT, 2)])
def test_no_end_of_a_padded_text_is_perturbed(tmp_path, tokens, start):
    cut = CutModel(build(tmp_path), "Embedding-Norm")
    (mask,) = cut.perturbation_mask([tokens], 0, cut.front([tokens]))
    expected = np.zeros([2, 7], bool)
    expected[0, start + 1 : start + 4] = expected[1, 1:6] = True
    assert mask.numpy().tolist() == expected.tolist()


POOLERS = {
    "hf_roberta": "tanh",
    "distilbert": "relu",
    "electra": "gelu",
    "roformer": "silu",
    "albert": "tanh",
}


@needs_keras_3
@pytest.mark.parametrize("kind", others_slow(["distilbert", "roformer"], list(POOLERS)))
def test_a_pooler_has_the_activation_of_its_kind(tmp_path, kind):
    bert = build_bert(write_config(tmp_path, hidden_act="silu"), model=kind)
    pooler = classifier(bert, 2).get_layer("Pooler-Dense")
    assert pooler.activation.__name__ == POOLERS[kind]


# Checkpoints in Google's format, under names of our own.


@needs_keras_3
@either
def test_a_checkpoint_is_read_back(tmp_path, kind):
    model = scramble(masked_lm(build(tmp_path, kind)))
    save_google_checkpoint(model, tmp_path / "x.ckpt")
    again = masked_lm(build(tmp_path, kind))
    load_google_checkpoint(again, tmp_path / "x.ckpt")
    inputs = [RIGHT, POSITIONS]
    np.testing.assert_array_equal(again(inputs), model(inputs))
    names = [name for name, _ in tf.train.list_variables(str(tmp_path / "x.ckpt"))]
    beginning = {"hf_roberta": "roberta", "distilbert": "distilbert"}[kind]
    assert {name.split("/")[0] for name in names} == {beginning, "cls"}
    bert = build_bert(write_config(tmp_path, type_vocab_size=0))
    with pytest.raises(InputError, match="expected a variable bert/embeddings/word"):
        load_google_checkpoint(bert, tmp_path / "x.ckpt")


@needs_keras_3
@pytest.mark.parametrize(
    ("kind", "shape"),
    [("hf_roberta", (None, 16)), ("distilbert", (None, None, 16))],
)
def test_the_jobs_read_the_encoder_of_a_classifier(tmp_path, kind, shape):
    """With its pooler, if the kind has one apart from a head."""
    model = scramble(classifier(build(tmp_path, kind), 3))
    save_google_checkpoint(model, tmp_path / "x.ckpt")
    settings = {"model": kind, "type_vocab_size": 1, "pad_token_id": PAD}
    config = write_config(tmp_path, num_hidden_layers=2, **settings)
    encoder = SavedModel(config, tmp_path / "x.ckpt", None).encoder()
    assert encoder.output_shape == shape
    norm = "Transformer-1-FeedForward-Norm"
    for part in (encoder, model):
        part.hidden = keras.Model(part.inputs, part.get_layer(norm).output)([RIGHT])
    np.testing.assert_array_equal(encoder.hidden, model.hidden)
