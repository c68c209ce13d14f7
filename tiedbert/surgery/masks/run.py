"""A run of a model that is watched: who reads which tensor with which mask.

In Keras 2 symbolic tensors show all masks but one: that given by keyword to a nested
model. In Keras 3 they do not: a nested model passes masks on that its symbolic output
does not show, and MultiHeadAttention takes the mask off its own input, so that layers
that run later receive none. There the model runs once, on placeholders, and is watched.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import tensorflow as tf

from tiedbert import _keras
from tiedbert._identity import IdentityMap
from tiedbert.errors import InputError, reason
from tiedbert.surgery.call_arguments import flat_arguments
from tiedbert.surgery.calls import Call
from tiedbert.surgery.graph import Graph

# Sizes of the placeholders, in turn: (batch, every other size that a shape leaves
# open). Some layers read sizes while they run, and fail where these are not known.
SIZES = (None, None), (2, 8), (2, 32), (2, 224), (1, 1)


@dataclass
class Run:
    """What happened when a model ran once.

    Attributes:
        training: whether the model ran in training.
        values: map, a symbolic tensor -> its value. Tensors that have one value have
            one mask: a layer that has nothing to do, as Dropout in inference, gives
            what it is given.
        first_mask: map, a symbolic tensor -> the mask that its value had first.
        reads: list of (call, or None for the outputs, tensor, mask or None).
        changes: list of (call, tensor, mask): the call changed the mask of a tensor
            that it read, to this one.
    """

    training: bool = False
    values: IdentityMap = field(default_factory=IdentityMap)
    first_mask: IdentityMap = field(default_factory=IdentityMap)
    reads: list = field(default_factory=list)
    changes: list = field(default_factory=list)

    def record(self, graph: Graph, inputs: Sequence) -> None:
        """Let the calls of `graph` run one after another, as its model runs them."""
        self.add_values(graph.input_tensors, inputs)
        for call in graph.calls:
            before = self.add_reads(call, call.inputs, self._mask)
            outputs = _keras.flatten(self._call(call))
            for tensor, mask in zip(call.inputs, before, strict=True):
                if self._mask(tensor) is not mask:
                    self.changes.append((call, tensor, self._mask(tensor)))
            self.add_values(call.outputs, outputs)
        self.add_reads(None, graph.output_tensors, self._mask)

    def add_values(self, tensors: Iterable, values: Iterable) -> None:
        """Record the values of symbolic tensors, and the masks that these have now."""
        for tensor, value in zip(tensors, values, strict=True):
            self.values[tensor] = value
            self.first_mask[tensor] = _keras.implicit_mask(value)

    def add_reads(
        self, reader: Call | None, tensors: Iterable, mask_of: Callable[[Any], Any]
    ) -> list:
        """Record that a call, or the outputs (None), read some tensors; their masks."""
        masks = [mask_of(tensor) for tensor in tensors]
        pairs = zip(tensors, masks, strict=True)
        self.reads += [(reader, tensor, mask) for tensor, mask in pairs]
        return masks

    def masked_readers(self) -> IdentityMap:
        """Map, a tensor -> the set of those who read it with a mask."""
        readers = IdentityMap()
        for reader, tensor, mask in self.reads:
            if mask is not None:
                readers.setdefault(tensor, set()).add(reader)
        return readers

    def changed_through_another(self, tensor: tf.Tensor, mask: Any) -> bool:
        """Whether no call that reads `tensor` itself gave it the mask that it has."""
        by_itself = any(changed is tensor for _, changed, _ in self.changes)
        return mask is not self.first_mask[tensor] and not by_itself

    def _mask(self, tensor):
        return _keras.implicit_mask(self.values[tensor])

    def _call(self, call):
        def value(leaf):
            return self.values[leaf] if _keras.is_symbolic(leaf) else leaf

        args, kwargs = _keras.map_structure(value, (tuple(call.args), call.kwargs))
        if self.training:
            kwargs = _keras.in_training(call.layer, kwargs)
        return call.layer(*args, **kwargs)


def watched(graph: Graph, entering: Mapping[int, tuple], training: bool = False) -> Run:
    """What happens when a model runs; in Keras 3 on placeholders, all inputs given.

    Args:
        graph: the calls of the model.
        entering: dict, index of an input -> shape of the mask with which it enters.
        training: whether the model runs in training.

    Raises:
        InputError: Keras 3: the model fails when it runs.
    """
    if _keras.symbolic_tensors_tell_masks():
        return _followed(graph)
    errors = []
    for batch, size in SIZES:
        try:
            return _run_at(graph, entering, training, batch, size)
        except InputError:
            raise
        except Exception as error:  # whatever a user's layer raises
            errors.append(error)
    raise InputError(
        f"model {graph.name!r} was run on placeholders, to see which padding masks "
        f"arrive where, and failed at every size tried: {reason(errors[0])}"
    ) from errors[0]


def _followed(graph) -> Run:
    """The same for Keras 2, where symbolic tensors show all masks but one.

    That is the mask given by keyword to a nested model, which puts it on its inputs.
    """
    run = Run()
    masks = IdentityMap()  # a tensor -> the mask that it has by now

    def mask_of(tensor):
        return masks.get(tensor, _keras.implicit_mask(tensor))

    for made in (graph.input_tensors, *(call.outputs for call in graph.calls)):
        run.add_values(made, made)
    for call in graph.calls:
        run.add_reads(call, call.inputs, mask_of)
        for tensor, mask in given_masks(graph, call):
            masks[tensor] = mask
            run.changes.append((call, tensor, mask))
    run.add_reads(None, graph.output_tensors, mask_of)
    return run


def given_masks(graph: Graph, call: Call) -> list[tuple]:
    """(input of a nested model, the mask by keyword with which it is called), if any.

    Keras puts that mask on the very tensor, for all that read it later.
    """
    if not _keras.has_graph(call.layer):
        return []
    inner = graph.nested(call.layer)
    tensors, masks, _ = flat_arguments(inner, call.args, call.kwargs)
    pairs = zip(tensors, masks, strict=True)
    return [(t, m) for t, m in pairs if _keras.is_symbolic(m) and _keras.is_symbolic(t)]


def filled(shape: Iterable, batch: int | None, size: int | None) -> list:
    """A shape with sizes for those that it leaves open."""
    return [(size if i else batch) if n is None else n for i, n in enumerate(shape)]


def with_open_sizes(mask_shape: Iterable, tensor: tf.Tensor) -> tuple:
    """The shape of a mask; a size that the tensor leaves open, it leaves open too."""
    sizes = zip(mask_shape, tensor.shape, strict=False)
    return tuple(None if wanted is None else size for size, wanted in sizes)


def _run_at(graph, entering, training, batch, size) -> Run:
    sizes = partial(filled, batch=batch, size=size)
    run, tensors = Run(training=training), graph.input_tensors
    specs = [_keras.type_spec(tensor, sizes(tensor.shape)) for tensor in tensors]
    specs += [tf.TensorSpec(sizes(shape), tf.bool) for shape in entering.values()]

    def function(*values):
        inputs, masks = values[: len(tensors)], values[len(tensors) :]
        for i, mask in zip(entering, masks, strict=True):
            _keras.set_implicit_mask(inputs[i], mask)
        run.record(graph, inputs)

    _keras.trace(function, specs)
    return run
