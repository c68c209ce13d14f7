"""A model as a function of a seed: the same seed gives the same random numbers."""

from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError


class PartResult(NamedTuple):
    """The result of one call of a :class:`SeededFunction`.

    Attributes:
        outputs: in the structure of the model's outputs.
        losses: list of scalars: the losses that layers added in this call.
    """

    outputs: Any
    losses: list[tf.Tensor]

    def differentiable(self) -> list[tf.Tensor]:
        """The float tensors among flat outputs, then the losses."""
        return [x for x in self.outputs if x.dtype.is_floating] + self.losses


class SeededFunction:
    """`model` in training mode as a function of its input tensors and a seed.

    The model is traced to a graph once. In that graph every random op is replaced by a
    stateless one driven by the seed; the model itself stays as it is. (Otherwise, in
    Keras 2, all calls of one traced function draw the same numbers when the global seed
    is set, and different ones when it is not.)

    Args:
        model: a functional model.
        seeded: whether to refuse a model with random ops that cannot be replaced;
            False (the default): these ops draw as they do in the model.

    Attributes:
        model: the model.
        statistics: list of the variables that a call updates, e.g. moving averages.
    """

    def __init__(self, model: keras.Model, seeded: bool = False):
        self.model, self._seeded = model, seeded
        self.statistics = _keras.statistics(model)
        self._traced = tf.function(self._run, autograph=False, reduce_retracing=True)

    def __call__(self, tensors: Any, seed: tf.Tensor) -> PartResult:
        """Call the model.

        Args:
            tensors: the inputs of the model.
            seed: int32 ``[2]``.

        Raises:
            InputError: a random op that cannot be replaced, where `seeded` asks for it.
        """
        values, metadata, losses = self._traced(tensors, seed)
        # A traced function does not return the metadata of its tensors by itself.
        flat = map(_keras.with_metadata, tf.nest.flatten(values), metadata)
        outputs = tf.nest.pack_sequence_as(values, list(flat))
        return PartResult(outputs, list(losses))

    def _run(self, tensors, seed):
        values = _keras.call(self.model, tensors, training=True)
        metadata = [_keras.metadata_of(tensor) for tensor in tf.nest.flatten(values)]
        losses = _keras.losses_of_calls(self.model)
        graph = tf.compat.v1.get_default_graph()
        if self._seeded:
            self._check_all_replaceable(graph)
        _replace_random_ops(graph, seed)
        return values, metadata, losses

    def _check_all_replaceable(self, graph):
        """InputError for a random op in a loop or a function, or of another kind."""
        here = [(op.type, op.name) for op in graph.get_operations()]
        library = graph.as_graph_def().library.function
        inside = [(node.op, node.name) for f in library for node in f.node_def]
        refused = [(op, name) for op, name in here if op in _NOT_REPLACEABLE]
        random = {*_STATELESS, *_NOT_REPLACEABLE}
        refused += [(op, name) for op, name in inside if op in random]
        if refused:
            op, name = refused[0]
            raise InputError(
                f"the random numbers of {name} ({op}) in model {self.model.name!r} "
                "cannot be seeded: they are drawn in a loop or a function, or from "
                "activations. Use a layer without them (e.g. a recurrent layer without "
                "dropout of its own), or a method that needs no seeds, without "
                "same_dropout=True"
            )


def _replace_random_ops(graph, seed):
    """Let the readers of every random op read a stateless one driven by `seed`."""
    random_ops = [op for op in graph.get_operations() if op.type in _STATELESS]
    for i, op in enumerate(random_ops):
        replacement = _STATELESS[op.type](op, seed + [i, 0])
        for reader in op.outputs[0].consumers():
            for place, tensor in enumerate(reader.inputs):
                if tensor.op is op:
                    _keras.rewire(reader, place, replacement)


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


# Type of a random op whose result depends on a shape, a range and a seed alone -> a
# function of the op and a seed that gives the same draw by a stateless op.
_STATELESS = {
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
# Random ops whose result depends on something else as well.
_NOT_REPLACEABLE = {
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
