"""A part of a cut model as a function: traced once, run in every pass of a step."""

from typing import Any, NamedTuple

import tensorflow as tf

from tiedbert import _keras
from tiedbert.errors import InputError


class Called(NamedTuple):
    """What one call of a part gives.

    Attributes:
        outputs: in the structure of the part's model.
        losses: list of the losses that layers added in this call.
    """

    outputs: Any
    losses: list


class Part:
    """`model` in training mode as a function of its input tensors and a seed.

    Two calls with one seed draw the same random numbers, whatever layer draws them:
    in the traced graph a draw is a tensor like all others, and those who read it are
    given one made from the seed instead. So the model itself is not touched. (Without
    this, calls of one function would draw the same numbers in Keras 2 whenever the
    global seed is set, and never else.)

    Args:
        model: a functional model.
        seeded: whether every draw must follow the seed.
    """

    def __init__(self, model, seeded=False):
        self.model, self._seeded = model, seeded
        self.statistics = _keras.statistics(model)
        self._traced = tf.function(self._run, autograph=False, reduce_retracing=True)

    def __call__(self, tensors, seed) -> Called:
        """Call the model on a list of tensors; `seed`: int32 ``[2]``."""
        values, notes, losses = self._traced(tensors, seed)
        # They do not cross the border of a function by themselves.
        flat = map(_keras.with_metadata, tf.nest.flatten(values), notes)
        return Called(tf.nest.pack_sequence_as(values, list(flat)), list(losses))

    def _run(self, tensors, seed):
        values = _keras.call(self.model, tensors, training=True)
        notes = [_keras.metadata_of(tensor) for tensor in tf.nest.flatten(values)]
        losses = _keras.losses_of_calls(self.model)
        graph = tf.compat.v1.get_default_graph()
        if self._seeded:
            self._check_all_can_follow(graph)
        _follow_seed(graph, seed)
        return values, notes, losses

    def _check_all_can_follow(self, graph):
        here = [(op.type, op.name) for op in graph.get_operations()]
        library = graph.as_graph_def().library.function
        inside = [(node.op, node.name) for f in library for node in f.node_def]
        unknown = [found for found in here if found[0] in _OTHERS]
        for kind, name in unknown + [f for f in inside if f[0] in {*_DRAW, *_OTHERS}]:
            raise InputError(
                f"the random numbers of {name} ({kind}) in model {self.model.name!r} "
                "cannot be drawn again, or differently, at will: they are drawn in a "
                "loop or a function, or from activations. Use a layer without them "
                "(e.g. a recurrent layer without dropout of its own), or a method "
                "that does not need it, without same_dropout=True"
            )


def _follow_seed(graph, seed):
    """Let the readers of all random numbers read others, made from `seed`."""
    draws = [op for op in graph.get_operations() if op.type in _DRAW]
    for i, op in enumerate(draws):
        draw = _DRAW[op.type](op, seed + [i, 0])
        for reader in op.outputs[0].consumers():
            for place, tensor in enumerate(reader.inputs):
                if tensor.op is op:
                    _keras.rewire(reader, place, draw)


def _uniform(op, seed):
    return tf.random.stateless_uniform(op.inputs[0], seed, dtype=op.outputs[0].dtype)


def _normal(op, seed):
    return tf.random.stateless_normal(op.inputs[0], seed, dtype=op.outputs[0].dtype)


def _truncated_normal(op, seed):
    return tf.random.stateless_truncated_normal(
        op.inputs[0], seed, dtype=op.outputs[0].dtype
    )


def _integers(op, seed):
    low, high = op.inputs[-2:]
    return tf.random.stateless_uniform(
        op.inputs[0], seed, minval=low, maxval=high, dtype=op.outputs[0].dtype
    )


def _all_integers(op, seed):
    return tf.random.stateless_uniform(
        op.inputs[0], seed, minval=None, dtype=op.outputs[0].dtype
    )


# Types of ops whose result depends on a shape, a range and a seed, and nothing else.
_DRAW = {
    "RandomUniform": _uniform,
    "StatelessRandomUniform": _uniform,
    "StatelessRandomUniformV2": _uniform,
    "RandomStandardNormal": _normal,
    "StatelessRandomNormal": _normal,
    "StatelessRandomNormalV2": _normal,
    "TruncatedNormal": _truncated_normal,
    "StatelessTruncatedNormal": _truncated_normal,
    "StatelessTruncatedNormalV2": _truncated_normal,
    "RandomUniformInt": _integers,
    "StatelessRandomUniformInt": _integers,
    "StatelessRandomUniformIntV2": _integers,
    "StatelessRandomUniformFullInt": _all_integers,
    "StatelessRandomUniformFullIntV2": _all_integers,
}
_OTHERS = {
    "Multinomial",
    "ParameterizedTruncatedNormal",
    "RandomGamma",
    "RandomPoissonV2",
    "RandomShuffle",
    "StatefulRandomBinomial",
    "StatelessMultinomial",
    "StatelessParameterizedTruncatedNormal",
    "StatelessRandomBinomial",
    "StatelessRandomGammaV2",
    "StatelessRandomGammaV3",
    "StatelessRandomPoisson",
    "StatelessShuffle",
}
