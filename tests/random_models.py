"""Random functional models: a small description is drawn, a model is built from it.

The description is what hypothesis shrinks and prints. Its numbers pick tensors, counted
from the newest, so that every description gives a model and zeros give a chain.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from generation import IS_LEGACY
from hypothesis import strategies as st
from models import Plain, Scaled, ShowMask
from tensorflow import keras

layers = keras.layers

WIDTH, TIME, WORDS = 4, 5, 9
OF_TOKENS = "embedding", "bert_tokens", "bert_causal"  # not in nested models


@dataclass(frozen=True)
class Step:
    """One layer, on the `x`-th and `y`-th tensor from the newest."""

    kind: str
    x: int = 0
    y: int = 0


@dataclass(frozen=True)
class Nested:
    """A model as a layer, with one or two inputs, called once or twice."""

    steps: tuple
    x: int = 0
    inputs: int = 1
    outputs: int = 1
    dicts: bool = False
    twice: bool = False
    mask: bool = False


@dataclass(frozen=True)
class Sequential:
    """A Sequential model as a layer."""

    x: int = 0
    twice: bool = False


@dataclass(frozen=True)
class Description:
    """A whole model; `time` is the static length of its sequences."""

    steps: tuple
    outputs: tuple = (0,)
    dicts: bool = False
    time: int | None = None


def dense(name, **options):
    return layers.Dense(WIDTH, activation="tanh", name=name, **options)


def rnn(name, sequences=True, **options):
    return layers.SimpleRNN(WIDTH, name=name, return_sequences=sequences, **options)


def heads(name):
    return layers.MultiHeadAttention(2, 2, name=name)


def to_float32(tensor):
    return (
        tf.cast(tensor, "float32") if IS_LEGACY else keras.ops.cast(tensor, "float32")
    )


def not_zero(tensor):
    return tf.not_equal(tensor, 0) if IS_LEGACY else keras.ops.not_equal(tensor, 0)


# kind -> function of (the tensors so far, name for the layer, two sequences).
STEPS = {
    "dense": lambda t, name, x, y: dense(name)(x),
    "shared": lambda t, name, x, y: t.shared(x),
    "plain": lambda t, name, x, y: Plain(name=name)(x),
    "probe": lambda t, name, x, y: ShowMask(name=name)(x),
    "norm": lambda t, name, x, y: layers.LayerNormalization(name=name)(x),
    "batch_norm": lambda t, name, x, y: layers.BatchNormalization(name=name)(x),
    "dropout": lambda t, name, x, y: layers.Dropout(0.5, name=name)(x),
    "no_dropout": lambda t, name, x, y: layers.Dropout(0.5, name=name)(
        x, training=False
    ),
    "masking": lambda t, name, x, y: layers.Masking(name=name)(
        layers.ReLU(threshold=0.5, name=f"{name}_zeros")(x)
    ),
    "embedding": lambda t, name, x, y: layers.Embedding(
        WORDS, WIDTH, mask_zero=True, name=name
    )(t.tokens),
    "rnn": lambda t, name, x, y: rnn(name)(x),
    "gru": lambda t, name, x, y: layers.GRU(WIDTH, return_sequences=True, name=name)(x),
    # In Keras 3 `training=True` would reach the models that run after it.
    "lstm": lambda t, name, x, y: layers.LSTM(WIDTH, return_sequences=True, name=name)(
        x, training=False
    ),
    "rnn_of_cell": lambda t, name, x, y: layers.RNN(
        layers.GRUCell(WIDTH, name=f"{name}_cell"), return_sequences=True, name=name
    )(x),
    "rnn_mask": lambda t, name, x, y: rnn(name)(x, mask=t.mask()),
    "rnn_from": lambda t, name, x, y: rnn(name)(x, initial_state=t.vector()),
    "rnn_last": lambda t, name, x, y: rnn(name, sequences=False)(x),
    "rnn_state": lambda t, name, x, y: rnn(name, return_state=True)(x),
    "both_ways": lambda t, name, x, y: layers.Bidirectional(
        rnn(name), merge_mode="sum", name=f"{name}_both"
    )(x),
    "each": lambda t, name, x, y: layers.TimeDistributed(
        dense(name), name=f"{name}_each"
    )(x),
    "heads": lambda t, name, x, y: heads(name)(x, y),
    "heads_of_one": lambda t, name, x, y: heads(name)(x, x),
    "heads_mask": lambda t, name, x, y: heads(name)(
        x, value=y, use_causal_mask=True, return_attention_scores=True
    )[0],
    "heads_beside": lambda t, name, x, y: layers.Add(name=f"{name}_sum")(
        [heads(name)(x, x), heads(f"{name}_other")(x, y)]
    ),
    "heads_beside_projection": lambda t, name, x, y: layers.Add(name=f"{name}_sum")(
        [heads(name)(x, x), heads(f"{name}_other")(dense(f"{name}_dense")(x), x)]
    ),
    "attention_beside": lambda t, name, x, y: layers.Add(name=f"{name}_sum")(
        [layers.Attention(name=name)([x, x]), heads(f"{name}_heads")(x, y)]
    ),
    "additive_beside": lambda t, name, x, y: layers.Add(name=f"{name}_sum")(
        [layers.AdditiveAttention(name=name)([x, y]), heads(f"{name}_heads")(x, x)]
    ),
    "attention": lambda t, name, x, y: layers.Attention(name=name)([x, y]),
    "additive": lambda t, name, x, y: layers.AdditiveAttention(name=name)([x, y]),
    "add": lambda t, name, x, y: layers.Add(name=name)([x, y]),
    "concatenate": lambda t, name, x, y: dense(f"{name}_dense")(
        layers.Concatenate(name=name)([x, y])
    ),
    "keywords": lambda t, name, x, y: Scaled(name=name)(x, scale=y, shift={"by": x}),
    "constant": lambda t, name, x, y: layers.Add(name=name)(
        [x, tf.ones([1, 1, WIDTH], x.dtype)]
    ),
    "operators": lambda t, name, x, y: x * 0.5 + 0.25,
    "slice": lambda t, name, x, y: x[:, ::-1],
    "bfloat16": lambda t, name, x, y: dense(name, dtype="mixed_bfloat16")(x),
    "float16": lambda t, name, x, y: dense(name, dtype="mixed_float16")(x),
    "cast": lambda t, name, x, y: to_float32(x),
    "repeat": lambda t, name, x, y: layers.RepeatVector(TIME, name=name)(t.vector()),
    "pool": lambda t, name, x, y: layers.GlobalAveragePooling1D(name=name)(x),
    "pool_both": lambda t, name, x, y: layers.GlobalAveragePooling1D(name=name)(
        layers.Concatenate(axis=1, name=f"{name}_concatenate")([x, x])
    ),
    "first": lambda t, name, x, y: x[:, 0],
    "vector": lambda t, name, x, y: dense(name)(t.vector()),
    "vector_shared": lambda t, name, x, y: t.shared(t.vector()),
    "vector_add": lambda t, name, x, y: layers.Add(name=name)(
        [t.vector(), t.vector(1)]
    ),
}

if not IS_LEGACY:
    import bert_steps  # of our own layers

    STEPS |= bert_steps.of_width(WIDTH, TIME, WORDS)

small = st.integers(0, 3)
flat = st.builds(Step, st.sampled_from(list(STEPS)), small, small)


def nested(steps):
    return st.builds(
        Nested,
        st.lists(steps, min_size=1, max_size=3).map(tuple),
        x=small,
        inputs=st.integers(1, 2),
        outputs=st.integers(1, 2),
        dicts=st.booleans(),
        twice=st.booleans(),
        mask=st.booleans(),
    )


sequential = st.builds(Sequential, x=small, twice=st.booleans())
inner = flat | nested(flat | sequential)
descriptions = st.builds(
    Description,
    st.lists(flat | flat | nested(inner) | sequential, min_size=1, max_size=4).map(
        tuple
    ),
    outputs=st.lists(small, min_size=1, max_size=3).map(tuple),
    dicts=st.booleans(),
    time=st.sampled_from([None, TIME]),
)


class Tensors:
    """What the steps of one graph have made so far."""

    def __init__(self, made, names, shared, tokens=None):
        self.made, self.names, self.shared = list(made), names, shared
        self.tokens = tokens
        self.outputs = []  # of ShowMask: they are outputs of the graph in any case

    def _newest(self, rank, index):
        fitting = [tensor for tensor in self.made if len(tensor.shape) == rank]
        return fitting[-1 - index % len(fitting)]

    def sequence(self, index=0):
        return self._newest(3, index)

    def vector(self, index=0):
        if all(len(tensor.shape) == 3 for tensor in self.made):
            self.made.append(self.made[0][:, -1])
        return self._newest(2, index)

    def mask(self):
        return not_zero(
            self.sequence()[:, :, 0] if self.tokens is None else self.tokens
        )

    def name(self, kind):
        self.names[kind] += 1
        return f"{kind}{self.names[kind]}"

    def take(self, step):
        if isinstance(step, Step):
            self._take_layer(step)
            return
        name = self.name("inner")
        if isinstance(step, Sequential):
            model = _sequential(name)
            step = Nested((), step.x, twice=step.twice)
        else:
            model = self._model(step, name)
        for call in range(1 + step.twice):
            self._keep(self._call(model, step, call))

    def _take_layer(self, step):
        if step.kind in OF_TOKENS and self.tokens is None:
            return
        x, y = self.sequence(step.x), self.sequence(step.y)
        outputs = STEPS[step.kind](self, self.name(step.kind), x, y)
        if step.kind == "probe":
            self.outputs.append(outputs)
        else:
            self._keep(outputs)

    def _keep(self, outputs):
        for tensor in _flatten(outputs):
            if tensor.shape[-1] == WIDTH:  # else it is what a ShowMask gave
                self.made.append(tensor)
            else:
                self.outputs.append(tensor)

    def _model(self, step, name):
        inputs = [
            keras.Input((None, WIDTH), name=f"{name}_{k}") for k in range(step.inputs)
        ]
        inside = Tensors(inputs, self.names, self.shared)
        for part in step.steps:
            inside.take(part)
        made = inside.made[step.inputs :] or [dense(f"{name}_dense")(inputs[0])]
        outputs = made[: -1 - step.outputs : -1] + inside.outputs
        return keras.Model(
            _structured(inputs, step.dicts), _structured(outputs, step.dicts), name=name
        )

    def _call(self, model, step, call):
        given = [self.sequence(step.x + call + k) for k in range(step.inputs)]
        options = {}
        if step.mask:
            masks = [self.mask()] * step.inputs
            options["mask"] = masks if step.inputs > 1 else masks[0]
        if step.dicts:
            return model(dict(zip(model.input, given, strict=True)), **options)
        return model(given if step.inputs > 1 else given[0], **options)


def _sequential(name):
    return keras.Sequential(
        [
            keras.Input((None, WIDTH)),
            dense(f"{name}_dense"),
            layers.Dropout(0.5, name=f"{name}_dropout"),
            rnn(f"{name}_rnn"),
        ],
        name=name,
    )


def _structured(tensors, dicts):
    """A dict, a list, or the tensor itself when it is the only one of a list."""
    if dicts:
        return {_name(tensor, i): tensor for i, tensor in enumerate(tensors)}
    return tensors if len(tensors) > 1 else tensors[0]


def _name(tensor, index):
    """The name of an Input is its key."""
    history = tensor._keras_history
    name = history[0].name
    return name if isinstance(history[0], layers.InputLayer) else f"{index}_{name}"


def _flatten(structure):
    return tf.nest.flatten(structure) if IS_LEGACY else keras.tree.flatten(structure)


def build(description):
    """The model; its statistics and biases are not those of a start."""
    tokens = keras.Input((description.time,), dtype="int32", name="tokens")
    numbers = keras.Input((description.time, WIDTH), name="numbers")
    embedded = layers.Embedding(WORDS, WIDTH, mask_zero=True, name="words")(tokens)
    tensors = Tensors([numbers, embedded], Counter(), dense("shared"), tokens)
    for step in description.steps:
        tensors.take(step)
    chosen = [tensors.made[-1 - i % len(tensors.made)] for i in description.outputs]
    chosen = list({id(tensor): tensor for tensor in chosen}.values())
    model = keras.Model(
        _structured([tokens, numbers], description.dicts),
        _structured(chosen + tensors.outputs, description.dicts),
        name="drawn",
    )
    draw = np.random.default_rng(0)
    model.set_weights(
        [w + draw.uniform(0.1, 0.5, w.shape) for w in model.get_weights()]
    )
    return model


def batch(model):
    """Numbers, and token ids with padding (0) at the end, in the middle, or none."""
    draw = np.random.default_rng(1)
    tokens = [[3, 1, 4, 1, 5], [2, 7, 0, 0, 0], [8, 0, 3, 1, 0]]
    values = {
        "tokens": tf.constant(tokens, "int32"),
        "numbers": tf.constant(draw.normal(size=(3, TIME, WIDTH)), "float32"),
    }
    return values if isinstance(model.input, dict) else list(values.values())
