"""The contract of a tie: whatever Keras does to a model, one table or an error."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from models import assert_same
from tensorflow import keras

from tiedbert import surgery
from tiedbert.errors import InputError
from tiedbert.layers import EmbeddingDense, check_tied

layers = keras.layers

VOCABULARY, WIDTH = 5, 3
TOKENS = tf.constant([[1, 2, 4], [3, 1, 0]])

needs_keras_3 = pytest.mark.skipif(IS_LEGACY, reason="Keras 2 has no such thing")
needs_keras_2 = pytest.mark.skipif(not IS_LEGACY, reason="Keras 3 has no such thing")


# --- three places for a table and its head


def tokens_input():
    return keras.Input((None,), dtype="int32", name="ids")


def parts():
    table = layers.Embedding(VOCABULARY, WIDTH, name="tokens")
    head = EmbeddingDense(table, activation="linear", name="head")
    return table, layers.Dense(WIDTH, name="dense"), head


def shaken(model):
    """Every weight away from its start."""
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
    return model


def side_by_side():
    """Table and head are layers of one model."""
    table, dense, head = parts()
    ids = tokens_input()
    return shaken(keras.Model(ids, head(dense(table(ids))), name="whole"))


def table_in_a_nested_model():
    """The table lies in a backbone, the head outside."""
    table, dense, head = parts()
    ids, again = tokens_input(), tokens_input()
    backbone = keras.Model(ids, dense(table(ids)), name="backbone")
    return shaken(keras.Model(again, head(backbone(again)), name="whole"))


def siblings():
    """The table lies in one nested model, the head in the other."""
    table, dense, head = parts()
    ids, again = tokens_input(), tokens_input()
    hidden = keras.Input((None, WIDTH), name="hidden")
    front = keras.Model(ids, dense(table(ids)), name="front")
    rest = keras.Model(hidden, head(hidden), name="rest")
    return shaken(keras.Model(again, rest(front(again)), name="whole"))


def siblings_deep_down():
    """The same, each of them in a model of its own."""
    table, dense, head = parts()
    ids, again, last = tokens_input(), tokens_input(), tokens_input()
    hidden = keras.Input((None, WIDTH), name="hidden")
    outer_hidden = keras.Input((None, WIDTH), name="outer_hidden")
    front = keras.Model(ids, dense(table(ids)), name="front")
    rest = keras.Model(hidden, head(hidden), name="rest")
    fronts = keras.Model(again, front(again), name="fronts")
    rests = keras.Model(outer_hidden, rest(outer_hidden), name="rests")
    return shaken(keras.Model(last, rests(fronts(last)), name="whole"))


def sequential_siblings():
    table, dense, head = parts()
    front = keras.Sequential([tokens_input(), table, dense], name="front")
    hidden = keras.Input((None, WIDTH), name="hidden")
    rest = keras.Sequential([hidden, head], name="rest")
    whole = keras.Sequential([tokens_input(), front, rest], name="whole")
    return shaken(whole)


MODELS = [
    side_by_side,
    table_in_a_nested_model,
    siblings,
    siblings_deep_down,
    sequential_siblings,
]


# --- what may be done to a model; each gives a model with the same values


def keras_file(model, build, path):
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


def weights_file(model, build, path):
    model.save_weights(path / "model.weights.h5")
    other = zeroed(build())
    other.load_weights(path / "model.weights.h5")
    return other


def checkpoint(model, build, path):
    prefix = tf.train.Checkpoint(model=model).save(str(path / "checkpoint"))
    shapes = [tuple(shape) for _, shape in tf.train.list_variables(prefix)]
    assert shapes.count((VOCABULARY, WIDTH)) == 1
    other = zeroed(build())
    tf.train.Checkpoint(model=other).restore(prefix).assert_consumed()
    return other


def weights_set(model, build, path):
    other = zeroed(build())
    other.set_weights(model.get_weights())
    return other


def clone_model(model, build, path):
    return same_values(keras.models.clone_model(model), model)


def from_config(model, build, path):
    return same_values(type(model).from_config(model.get_config()), model)


def from_config_under_a_mixed_policy(model, build, path):
    """Layers that name no policy of their own would take today's."""
    with global_policy("mixed_bfloat16"):
        return from_config(model, build, path)


def surgery_clone(model, build, path):
    return surgery.clone(model)


def nested(model, build, path):
    ids = tokens_input()
    return keras.Model(ids, model(ids), name="around")


def pickled(model, build, path):
    return pickle.loads(pickle.dumps(model))


def deep_copied(model, build, path):
    return copy.deepcopy(model)


def h5_file(model, build, path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are saving your model as an HDF5 file")
        model.save(str(path / "model.h5"))
    # Keras 2 forgets in a nested Sequential what is registered.
    known = {"EmbeddingDense": EmbeddingDense}
    return keras.models.load_model(str(path / "model.h5"), known, compile=False)


def saved_model_for_keras(model, build, path):
    """What Keras 2 makes of a SavedModel is a Keras model again."""
    model.save(str(path / "saved_model"), save_format="tf")
    return keras.models.load_model(str(path / "saved_model"))


def cut_and_joined(model, build, path):
    front, rest = surgery.split(model, path_of(model, "dense"))
    ids = tokens_input()
    return keras.Model(ids, rest(front(ids)), name="joined")


def zeroed(model):
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    return model


def same_values(other, model):
    other.set_weights(model.get_weights())
    return other


class global_policy:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        set_policy(self.name)

    def __exit__(self, *_):
        set_policy("float32")


def set_policy(name):
    if IS_LEGACY:
        keras.mixed_precision.set_global_policy(name)
    else:
        keras.config.set_dtype_policy(name)


WAYS = [
    keras_file,
    weights_file,
    checkpoint,
    weights_set,
    clone_model,
    from_config,
    from_config_under_a_mixed_policy,
    surgery_clone,
    nested,
    pickled,
    deep_copied,
    h5_file,
    cut_and_joined,
    *([saved_model_for_keras] if IS_LEGACY else []),
]


# --- what is asked of the result


def layers_named(model, name):
    """The distinct layers of this name in a model's graph and in nested ones."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= {id(part): part for part in layers_named(layer, name)}
        elif layer.name == name:
            found[id(layer)] = layer
    return list(found.values())


def named(model, name):
    (layer,) = layers_named(model, name)
    return layer


def path_of(model, name):
    """The cut point of a layer, in nested models too; None when it is not there."""
    for layer in model.layers:
        if layer.name == name:
            return name
        inside = path_of(layer, name) if isinstance(layer, keras.Model) else None
        if inside:
            return f"{layer.name}/{inside}"
    return None


def numbers(value):
    return np.array(tf.cast(tf.convert_to_tensor(value), tf.float32))


def by_hand(model):
    """The logits of TOKENS, from the table that the embedding layer looks up."""
    table = numbers(named(model, "tokens").embeddings)
    dense, head = named(model, "dense"), named(model, "head")
    hidden = table[TOKENS] @ numbers(dense.kernel) + numbers(dense.bias)
    return hidden @ table.T + numbers(head.bias)


def assert_agrees(model):
    np.testing.assert_allclose(model(TOKENS), by_hand(model), rtol=1e-5, atol=1e-5)


def train_a_step(model):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.cast(model(TOKENS), tf.float32) ** 2)
    gradients = tape.gradient(loss, model.trainable_weights)
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))


def assert_tied(model):
    """By identity, by values after steps, and by what check_tied says."""
    table, head = named(model, "tokens"), named(model, "head")
    assert head.embedding_layer is table
    shapes = [tuple(weight.shape) for weight in model.weights]
    assert shapes.count((VOCABULARY, WIDTH)) == 1
    assert any(weight is table.weights[0] for weight in model.weights)
    assert_agrees(model)
    start = numbers(table.embeddings)
    for _ in range(2):
        train_a_step(model)
    assert np.all(np.any(numbers(table.embeddings) != start, axis=1))
    assert_agrees(model)
    assert check_tied(model) == [(head, table, table.weights[0], True)]


# Keras rebuilds a nested model without what lies around it, and these ways do not
# tell what was one layer.
SIBLINGS = {siblings, siblings_deep_down, sequential_siblings}
IMPOSSIBLE = {
    clone_model,
    from_config,
    from_config_under_a_mixed_policy,
    h5_file,
    saved_model_for_keras,
}


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_a_tie_is_kept_or_an_error_tells_that_it_cannot_be(way, build, tmp_path):
    model = build()
    expected = model(TOKENS)
    if way in IMPOSSIBLE and build in SIBLINGS:
        with pytest.raises(InputError, match="use tiedbert.surgery.clone"):
            way(model, build, tmp_path)
        assert_tied(model)  # nothing happened to it
        return
    other = way(model, build, tmp_path)
    assert_same(other(TOKENS), expected)
    assert_tied(other)


def test_the_rest_of_a_cut_trains_the_table_of_the_front():
    front, rest = surgery.split(side_by_side(), "dense")
    table = named(front, "tokens")
    (tie,) = check_tied(rest)
    assert tie == (named(rest, "head"), table, table.weights[0], False)
    before = numbers(front(TOKENS)[0])
    train_on = tf.ones([1, 2, WIDTH])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(rest(train_on) ** 2)
    gradient = tape.gradient(loss, rest.trainable_weights)
    keras.optimizers.SGD(0.1).apply_gradients(
        zip(gradient, rest.trainable_weights, strict=True)
    )
    assert np.all(numbers(front(TOKENS)[0]) != before)
