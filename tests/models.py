"""Small functional models: each has something that a cut must not lose."""

import numpy as np
import tensorflow as tf
from tensorflow import keras

layers = keras.layers
register = keras.utils.register_keras_serializable("tests")


@register
class ShowMask(layers.Layer):
    """The mask that this layer receives, as 0 and 1; -1 everywhere when none comes."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        nothing = tf.zeros(tf.shape(inputs)[:2]) - 1
        return nothing if mask is None else tf.cast(mask, tf.float32)

    def compute_mask(self, inputs, mask=None):
        return None


@register
class Plain(layers.Layer):
    """The same values; the mask ends: this layer knows nothing of masks."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs):
        return tf.identity(inputs)

    def compute_output_spec(self, inputs):  # Keras 3: also of a bool or sparse tensor
        return keras.KerasTensor(inputs.shape, inputs.dtype)


@register
class Aware(Plain):
    """The same values and the same mask."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True


@register
class CountCalls(layers.Layer):
    """Its input; `calls` is how often it really ran."""

    def build(self, input_shape):
        self.calls = self.add_weight(
            name="calls", shape=(), initializer="zeros", trainable=False
        )
        self.built = True

    def call(self, inputs):
        self.calls.assign_add(tf.ones([], self.calls.dtype))
        return tf.identity(inputs)


@register
class Scaled(layers.Layer):
    """A layer with tensors among its keyword arguments."""

    def call(self, inputs, scale=None, shift=None):
        return inputs * scale + shift["by"]

    def compute_output_shape(self, input_shape, **_):
        return input_shape


def chain():
    x = keras.Input((4,), name="x")
    h = layers.Dense(3, activation="relu", name="first")(x)
    h = layers.Dense(5, activation="tanh", name="middle")(h)
    return keras.Model(x, layers.Dense(2, name="last")(h), name="chain")


def sequential():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="first"), layers.Dense(2, name="last")]
    )


def residual():
    """Two residual blocks with normalization statistics that are not the initial."""
    x = h = keras.Input((4, 4, 2), name="image")
    for block in "ab":
        y = layers.Conv2D(2, 3, padding="same", use_bias=False)(h)
        y = layers.BatchNormalization(name=f"{block}_norm")(y)
        h = layers.Add(name=f"{block}_sum")([layers.Activation("relu")(y), h])
    y = layers.Dense(2, name="last")(layers.GlobalAveragePooling2D()(h))
    model = keras.Model(x, y)
    draw = np.random.default_rng(0)
    model.set_weights([draw.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


def recurrent(last=layers.SimpleRNN):
    """The padding mask steers both recurrent layers, and is an output too."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    h = layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
    h = layers.Dense(4, name="dense")(h)
    h = layers.SimpleRNN(4, return_sequences=True, name="states")(h)
    y = last(3, name="summary")(h)
    return keras.Model(tokens, [y, ShowMask(name="mask")(h), h])


def attention():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    e = layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
    h = layers.MultiHeadAttention(2, 2, name="attention")(e, e)
    h = layers.LayerNormalization(name="norm")(layers.Add(name="sum")([e, h]))
    pooled = layers.GlobalAveragePooling1D(name="pooled")(h)
    return keras.Model(tokens, [pooled, ShowMask(name="mask")(h)])


def dictionaries():
    """Two inputs and two outputs by name; one output knows only one input."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    features = keras.Input((3,), name="features")
    e = layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
    text = layers.SimpleRNN(4, name="summary")(e)
    side = layers.Dense(4, name="side")(features)
    both = layers.Concatenate(name="both")([text, side])
    outputs = {
        "score": layers.Dense(1, name="score")(both),
        "side": layers.Dense(2, name="side_score")(side),
        "states": e,
    }
    return keras.Model({"tokens": tokens, "features": features}, outputs)


def shared():
    """One layer called three times, one of them on another's result."""
    left = keras.Input((3,), name="left")
    right = keras.Input((3,), name="right")
    dense = layers.Dense(3, activation="tanh", name="dense")
    h = layers.Add(name="sum")([dense(dense(left)), dense(right)])
    return keras.Model([left, right], layers.Dense(2, name="last")(h), name="shared")


def keywords():
    """Tensors as keyword arguments, also inside a dictionary."""
    x = keras.Input((3,), name="x")
    scale = layers.Dense(3, name="scale")(x)
    shift = layers.Dense(3, name="shift")(x)
    h = Scaled(name="scaled")(x, scale=scale, shift={"by": shift})
    return keras.Model(x, layers.Dense(2, name="last")(h))


def constants():
    """Arrays and numbers among the arguments of calls, and operators."""
    x = keras.Input((3,), name="x")
    h = layers.Dense(3, name="first")(x)
    h = layers.Add(name="sum")([h, tf.constant([[1.0, 2.0, 3.0]])])
    h = layers.Dense(4, name="middle")(h * 2.0 + np.float32(0.5))
    return keras.Model(x, layers.Dense(2, name="last")(h[:, 1:3]))


def states():
    """A layer with several outputs, each used."""
    x = keras.Input((4, 2), name="x")
    sequence, h = layers.SimpleRNN(
        3, return_sequences=True, return_state=True, name="states"
    )(x)
    again = layers.SimpleRNN(3, name="again")(sequence, initial_state=h)
    return keras.Model(x, [layers.Dense(2, name="last")(again), h])


def nested():
    """A model called twice inside a model, and an input that is an output too."""
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    inner = chain_of(3, name="inner")
    h = layers.Concatenate(name="both")([inner(a), inner(b)])
    return keras.Model([a, b], [layers.Dense(2, name="last")(h), b])


def chain_of(width, name):
    x = keras.Input((width,))
    return keras.Model(x, layers.Dense(width)(layers.Dense(4)(x)), name=name)


MODELS = [
    chain,
    sequential,
    residual,
    recurrent,
    attention,
    dictionaries,
    shared,
    keywords,
    constants,
    states,
    nested,
]


def batch(model, time=5):
    """Inputs of `model`: random numbers, or token ids with padding (0) at the end."""
    draw = np.random.default_rng(1)
    lengths = time, 2, 3

    def values(tensor):
        shape = [len(lengths), *(size or time for size in tensor.shape[1:])]
        if "int" not in str(tensor.dtype):
            return tf.constant(draw.normal(size=shape), tf.float32)
        token_ids = draw.integers(1, 9, shape)
        for row, length in zip(token_ids, lengths, strict=True):
            row[length:] = 0
        return tf.constant(token_ids, tf.int32)

    if isinstance(model, keras.Sequential):  # Keras 3 gives it no `input`.
        return values(model.inputs[0])
    return tf.nest.map_structure(values, model.input)


def assert_same(left, right):
    """Same structure, same types, same bits."""
    tf.nest.assert_same_structure(left, right)
    for a, b in zip(tf.nest.flatten(left), tf.nest.flatten(right), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
