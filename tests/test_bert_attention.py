"""The probabilities of an attention are a layer of the graph, under Keras 3."""

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import BATCH, CONFIG, TOKENS, scramble, write_config
from generation import IS_LEGACY
from tensorflow import keras

from tiedbert.bert import build_bert, masked_lm
from tiedbert.surgery import clone, features, inject, insert, split

pytestmark = pytest.mark.skipif(IS_LEGACY, reason="bert4keras has no such layer")

ATTENTION = "Transformer-0-MultiHeadSelfAttention"
PROBABILITIES = f"{ATTENTION}-Probabilities"
HEADS, SIZE = 2, CONFIG["hidden_size"] // 2


@pytest.fixture
def bert(tmp_path):
    return scramble(build_bert(write_config(tmp_path, num_hidden_layers=2)))


def batch():
    return [tf.constant(x) for x in BATCH]


def softmax_of_scores(hidden, weights, padding):
    """The formula of the paper, in NumPy and float64."""
    query, query_bias, key, key_bias = (w.astype("float64") for w in weights[:4])
    q, k = hidden @ query + query_bias, hidden @ key + key_bias
    q, k = (x.reshape(*x.shape[:2], HEADS, SIZE).transpose(0, 2, 1, 3) for x in (q, k))
    scores = q @ k.transpose(0, 1, 3, 2) / SIZE**0.5
    scores = np.where(padding[:, None, None, :], -np.inf, scores)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def test_they_are_the_softmax_of_the_scores(bert):
    read = features(bert, ["Embedding-Norm", PROBABILITIES])
    hidden, found = (x.numpy() for x in read(batch()))
    weights = bert.get_layer(ATTENTION).get_weights()
    assert len(weights) == 8
    expected = softmax_of_scores(hidden, weights, TOKENS == 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.all(found[0, :, :, 5:] == 0)  # padding is never looked at


def test_they_are_read_before_dropout(tmp_path):
    config = write_config(tmp_path, attention_probs_dropout_prob=0.5)
    read = features(build_bert(config), PROBABILITIES)
    assert_same(read(batch(), training=True), read(batch(), training=False))


def assert_same(found, expected):
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["bert", "albert", "nezha", "roformer_v2"])
@pytest.mark.parametrize("application", ["encoder", "unilm"])
def test_a_cut_at_them_is_exact(kind, application, tmp_path):
    options = {"model": kind, "application": application}
    bert = scramble(build_bert(write_config(tmp_path), **options))
    name = "Transformer-MultiHeadSelfAttention" if kind == "albert" else ATTENTION
    front, rest = split(bert, f"{name}-Probabilities")
    assert_same(rest(front(batch())), bert(batch()))


def test_each_call_of_a_shared_block_has_its_own(tmp_path):
    config = write_config(tmp_path, num_hidden_layers=2)
    bert = scramble(build_bert(config, model="albert"))
    name = "Transformer-MultiHeadSelfAttention-Probabilities"
    first, second = features(bert, [f"{name}:0", f"{name}:1"])(batch())
    assert not np.allclose(first, second)
    assert len({id(w) for w in bert.weights}) == len(bert.weights)


@pytest.mark.parametrize("part", [0, 1], ids=["front", "rest"])
def test_the_halves_of_a_cut_at_them_are_saved(part, bert, tmp_path):
    halves = split(bert, PROBABILITIES)
    crossing = halves[0](batch())
    given, expected = [(batch(), crossing), (crossing, bert(batch()))][part]
    halves[part].save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    for a, b in zip(
        tf.nest.flatten(loaded(given)), tf.nest.flatten(expected), strict=True
    ):
        assert_same(a, b)


def again_from_config(model, folder):
    again = keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    return again


def again_from_file(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def again_from_weights(model, folder):
    model.save_weights(folder / "model.weights.h5")
    again = keras.models.model_from_json(model.to_json())
    again.load_weights(folder / "model.weights.h5")
    return again


@pytest.mark.parametrize(
    "copied",
    [again_from_config, again_from_file, again_from_weights, lambda m, _: clone(m)],
)
def test_a_copy_has_one_set_of_weights(copied, bert, tmp_path):
    model = masked_lm(bert)
    copy = copied(model, tmp_path)
    inputs = [*batch(), tf.constant([[1, 3], [2, 6]])]
    assert_same(copy(inputs), model(inputs))
    attention, first = copy.get_layer(ATTENTION), copy.get_layer(PROBABILITIES)
    assert attention.probabilities is first
    assert attention.q_dense is first.q_dense
    assert first is not model.get_layer(PROBABILITIES)
    for old, new in zip(
        model.get_layer(ATTENTION).weights, attention.weights, strict=True
    ):
        assert_same(old, new)
    assert [w.shape for w in copy.weights] == [w.shape for w in model.weights]
    assert len(copy.trainable_weights) == len(model.trainable_weights)


def test_they_can_be_changed_on_the_way(bert):
    perturbed = inject(bert, PROBABILITIES)
    probabilities = features(bert, PROBABILITIES)(batch())
    assert_same(perturbed([*batch(), tf.zeros_like(probabilities)]), bert(batch()))
    uniform = tf.ones_like(probabilities) / 7 - probabilities
    found = perturbed([*batch(), uniform])
    averaged = insert(bert, PROBABILITIES, Uniform(name="uniform"))
    np.testing.assert_allclose(found, averaged(batch()), atol=1e-5)


@keras.utils.register_keras_serializable("test")
class Uniform(keras.layers.Layer):
    """Every key counts alike."""

    def call(self, inputs):
        return tf.ones_like(inputs) / tf.cast(tf.shape(inputs)[-1], inputs.dtype)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_quantized_weights_are_multiplied_by_their_layers(tmp_path):
    bert = scramble(build_bert(write_config(tmp_path, hidden_size=32)))
    expected = bert(batch()).numpy()
    bert.quantize("int8")
    assert bert.get_layer(PROBABILITIES).q_dense.quantization_mode == "int8"
    np.testing.assert_allclose(
        bert(batch()), expected, rtol=0, atol=0.1 * np.abs(expected).max()
    )


def test_changed_probabilities_are_gathered_behind_the_attention(bert):
    last = "Transformer-1-MultiHeadSelfAttention-Probabilities"
    perturbed = inject(bert, last)
    model = masked_lm(perturbed, predictions=2, early_gather=True)
    plain = masked_lm(perturbed, predictions=2)
    plain.set_weights(model.get_weights())
    delta = 0.1 * np.ones([2, 2, 7, 7], np.float32)
    given = {**dict(zip(["Input-Token", "Input-Segment"], batch(), strict=True))}
    given |= {"Masked-Positions": tf.constant([[1, 3], [2, 6]])}
    inputs = [given.get(x.name, tf.constant(delta)) for x in model.inputs]
    np.testing.assert_allclose(model(inputs), plain(inputs), rtol=0, atol=1e-5)


def test_an_attention_without_its_other_half_says_so(bert, tmp_path):
    split(bert, PROBABILITIES)[1].save(tmp_path / "rest.keras")
    rest = keras.models.load_model(tmp_path / "rest.keras")
    attention = rest.get_layer(ATTENTION)
    assert len(attention.weights) == 4
    assert attention.key_size is None
    with pytest.raises(AttributeError, match="has no q_dense"):
        _ = attention.q_dense
