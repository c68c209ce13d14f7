"""Which calls of a model receive an implicit mask with which tensor.

In Keras 2 a symbolic tensor tells, but for a mask that a nested model is given by
keyword. In Keras 3 what it tells is not what happens: a nested model passes masks on
that its symbolic output does not show, and MultiHeadAttention takes the mask off its
own input, so that what runs later receives none. There the model runs once, on
placeholders, and is watched.
"""

from dataclasses import dataclass, field
from functools import partial

import tensorflow as tf

from tiedbert import _keras
from tiedbert.errors import InputError, reason
from tiedbert.surgery.graph import Graph, model_arguments

# Sizes of the placeholders, in turn: (batch, every other size that a shape leaves
# open). Some layers read sizes while they run, and fail where these are not known.
SIZES = (None, None), (2, 8), (2, 32), (2, 224), (1, 1)


def masks_received(graph) -> dict:
    """The masks that arrive when the model runs.

    Args:
        graph: the calls of a model.

    Returns:
        :class:`Received`: (id of a call, id of a tensor) -> shape of the mask that the
        call receives with the tensor; (None, id of a tensor) tells of the outputs of
        the model.

    Raises:
        InputError: Keras 3: the model fails when it runs.
    """
    if not may_have_masks(graph):
        return Received()
    run = watched(graph)
    received = Received(
        ((reader, id(tensor)), _with_open_sizes(mask.shape, tensor))
        for reader, tensor, mask in run.reads
        if mask is not None
    )
    received.in_one_mode = in_one_mode(graph, run)
    return received


def may_have_masks(graph) -> bool:
    """Whether it is worth a look which masks arrive in a model."""
    if _keras.symbolic_tensors_tell_masks():
        return True  # To look costs nothing.
    return bool(graph.entering) or has_masks(graph)


class Received(dict):
    """What `masks_received` gives.

    Attributes:
        in_one_mode: the keys of masks that arrive only in training, or only in
            inference.
    """

    in_one_mode = frozenset()


def in_one_mode(graph, run) -> set:
    """(reader, id of a tensor) of the masks that arrive in training or else inference.

    `run` is one in inference. Dropout gives there the very tensor that it was given:
    a call that takes the mask off one takes it off the other.
    """
    if not any(run.changed_through_another(t, mask) for _, t, mask in run.reads):
        return set()
    return run.masked_reads() ^ watched(graph, training=True).masked_reads()


def has_masks(graph) -> bool:
    """Whether a tensor of `graph`, or of a model nested in it, may have a mask."""
    return _keras.starts_masks(call.layer for call in graph.calls) or any(
        call.kwargs.get("mask") is not None
        or (_keras.has_graph(call.layer) and has_masks(Graph(call.layer)))
        for call in graph.calls
    )


def _with_open_sizes(mask_shape, tensor) -> tuple:
    """The shape of a mask; a size that the tensor leaves open, it leaves open too."""
    sizes = zip(mask_shape, tensor.shape, strict=False)
    return tuple(None if wanted is None else size for size, wanted in sizes)


def mask_shapes(inner, call, received) -> dict:
    """index of an input of a nested model -> shape of the mask with which it enters.

    `inner`: the graph of the nested model that `call` calls.
    """
    tensors, given, _ = flat_arguments(inner, call.args, call.kwargs)
    shapes = {}
    for i, tensor in enumerate(tensors):
        shape = received.get((id(call), id(tensor)))
        mask_shape = shape if given[i] is None else given[i].shape
        if mask_shape is not None:
            shapes[i] = _with_open_sizes(mask_shape, inner.input_tensors[i])
    return shapes


def flat_arguments(inner, args, kwargs) -> tuple:
    """A call's inputs in a flat list, the masks given with them, and the rest."""
    inputs, options = model_arguments(inner, args, kwargs)
    inputs = _keras.flatten(inputs)
    masks = _keras.flatten(options.pop("mask", None))
    if len(masks) != len(inputs):
        masks = [None] * len(inputs)
    return inputs, masks, options


@dataclass
class Run:
    """What happened when a model ran once.

    Attributes:
        training: whether the model ran in training.
        tensors: the symbolic tensors.
        values: dict, id of a symbolic tensor -> its value. Tensors that have one value
            have one mask: a layer that has nothing to do, as Dropout in inference,
            gives what it is given.
        first_mask: dict, id of a symbolic tensor -> the mask that its value had first.
        reads: list of (id of a call or None for an output, tensor, mask or None).
        changes: list of (call, tensor, mask): the call changed the mask of a tensor
            that it read, to this one.
    """

    training: bool = False
    tensors: list = field(default_factory=list)
    values: dict = field(default_factory=dict)
    first_mask: dict = field(default_factory=dict)
    reads: list = field(default_factory=list)
    changes: list = field(default_factory=list)

    def record(self, graph, inputs):
        """Let the calls of `graph` run one after another, as its model runs them."""
        self.keep(graph.input_tensors, inputs, map(_keras.implicit_mask, inputs))
        for call in graph.calls:
            before = self.read(id(call), call.inputs, self._mask)
            outputs = _keras.flatten(self._call(call))
            for tensor, mask in zip(call.inputs, before, strict=True):
                if self._mask(tensor) is not mask:
                    self.changes.append((call, tensor, self._mask(tensor)))
            self.keep(call.outputs, outputs, map(_keras.implicit_mask, outputs))
        self.read(None, graph.output_tensors, self._mask)

    def keep(self, tensors, values, masks):
        """Remember the values of some tensors, and the masks that these have now."""
        self.tensors += tensors
        for tensor, value, mask in zip(tensors, values, masks, strict=True):
            self.values[id(tensor)] = value
            self.first_mask[id(tensor)] = mask

    def read(self, reader, tensors, mask_of) -> list:
        """Remember that somebody reads some tensors; their masks."""
        masks = [mask_of(tensor) for tensor in tensors]
        pairs = zip(tensors, masks, strict=True)
        self.reads += [(reader, tensor, mask) for tensor, mask in pairs]
        return masks

    def masked_reads(self) -> set:
        """(reader, id of a tensor) of each read with a mask."""
        return {(reader, id(t)) for reader, t, mask in self.reads if mask is not None}

    def changed_through_another(self, tensor, mask) -> bool:
        """Whether no call that reads `tensor` itself gave it the mask that it has."""
        by_itself = any(changed is tensor for _, changed, _ in self.changes)
        return mask is not self.first_mask[id(tensor)] and not by_itself

    def _mask(self, tensor):
        return _keras.implicit_mask(self.values[id(tensor)])

    def _call(self, call):
        def value(leaf):
            return self.values[id(leaf)] if _keras.is_symbolic(leaf) else leaf

        args, kwargs = _keras.map_structure(value, (tuple(call.args), call.kwargs))
        if self.training:
            kwargs = _keras.in_training(call.layer, kwargs)
        return call.layer(*args, **kwargs)


def watched(graph, training=False) -> Run:
    """What happens when a model runs; in Keras 3 on placeholders, all inputs given."""
    if _keras.symbolic_tensors_tell_masks():
        return _followed(graph)
    errors = []
    for batch, size in SIZES:
        try:
            return _run_at(graph, training, batch, size)
        except InputError:
            raise
        except Exception as error:  # whatever a user's layer raises
            errors.append(error)
    raise InputError(
        f"model {graph.name!r} was run on placeholders, to see which padding masks "
        f"arrive where, and failed at every size tried: {reason(errors[0])}"
    ) from errors[0]


def _followed(graph) -> Run:
    """The same for Keras 2, where symbolic tensors tell all but one thing.

    A nested model puts the mask that it is called with on its inputs.
    """
    run = Run()
    masks = {}  # id of a tensor -> the mask that it has by now

    def mask_of(tensor):
        return masks.get(id(tensor), _keras.implicit_mask(tensor))

    for made in (graph.input_tensors, *(call.outputs for call in graph.calls)):
        run.keep(made, made, map(_keras.implicit_mask, made))
    for call in graph.calls:
        run.read(id(call), call.inputs, mask_of)
        for tensor, mask in given_masks(call):
            masks[id(tensor)] = mask
            run.changes.append((call, tensor, mask))
    run.read(None, graph.output_tensors, mask_of)
    return run


def given_masks(call) -> list:
    """(input of a nested model, the mask by keyword with which it is called), if any.

    Keras puts that mask on the very tensor, for all that read it later.
    """
    if not _keras.has_graph(call.layer):
        return []
    tensors, masks, _ = flat_arguments(Graph(call.layer), call.args, call.kwargs)
    pairs = zip(tensors, masks, strict=True)
    return [(t, m) for t, m in pairs if _keras.is_symbolic(m) and _keras.is_symbolic(t)]


def filled(shape, batch, size) -> list:
    """A shape with sizes for those that it leaves open."""
    return [(size if i else batch) if n is None else n for i, n in enumerate(shape)]


def _run_at(graph, training, batch, size) -> Run:
    sizes = partial(filled, batch=batch, size=size)
    run, tensors = Run(training=training), graph.input_tensors
    specs = [_keras.type_spec(tensor, sizes(tensor.shape)) for tensor in tensors]
    masks = graph.entering.values()
    specs += [tf.TensorSpec(sizes(shape), tf.bool) for shape in masks]

    def function(*values):
        inputs, masks = values[: len(tensors)], values[len(tensors) :]
        for i, mask in zip(graph.entering, masks, strict=True):
            _keras.set_implicit_mask(inputs[i], mask)
        run.record(graph, inputs)

    _keras.trace(function, specs)
    return run
