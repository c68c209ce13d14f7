"""Which calls of a model receive an implicit mask with which tensor."""

from collections.abc import Iterable, Mapping
from functools import cached_property

import tensorflow as tf

from tiedbert import _keras
from tiedbert._identity import IdentityMap, IdentitySet
from tiedbert.errors import InputError
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.masks.explicit import AttachMask, CopyMask, DropMask
from tiedbert.surgery.masks.run import Run, watched, with_open_sizes


class Masks:
    """The masks that arrive in a graph, looked up once, when they are first asked for.

    A reader of a tensor is a call, or None for the outputs of the model.

    Args:
        graph: the calls of a model.
        entering: dict, index of an input -> shape of the mask with which a nested model
            is called, where that is known.
    """

    def __init__(self, graph: Graph, entering: Mapping[int, tuple] | None = None):
        self.graph = graph
        self.entering = entering or {}

    @classmethod
    def none(cls, graph: Graph) -> "Masks":
        """Masks of a graph, as if none arrived."""
        masks = cls(graph)
        masks.may_arrive = False
        return masks

    def look(self) -> None:
        """Compute both maps.

        Raises:
            InputError: Keras 3: the model fails on placeholders.
        """
        _ = self.received, self.in_one_mode

    @cached_property
    def may_arrive(self) -> bool:
        """Whether masks may arrive, so that they must be looked up."""
        # Where symbolic tensors show masks, no model has to run.
        return (
            _keras.symbolic_tensors_tell_masks()
            or bool(self.entering)
            or has_masks(self.graph)
        )

    @cached_property
    def run(self) -> Run:
        """What happens when the model runs in inference."""
        return watched(self.graph, self.entering)

    @cached_property
    def received(self) -> IdentityMap:
        """Map, a tensor -> dict, a reader -> shape of the mask that it receives.

        Raises:
            InputError: Keras 3: the model fails when it runs.
        """
        received = IdentityMap()
        for reader, tensor, mask in self.run.reads if self.may_arrive else ():
            if mask is not None:
                shape = with_open_sizes(mask.shape, tensor)
                received.setdefault(tensor, {})[reader] = shape
        return received

    @cached_property
    def in_one_mode(self) -> IdentityMap:
        """Map, a tensor -> the set of those who receive a mask in one mode alone.

        The modes are training and inference, where Dropout gives the very tensor that
        it was given: a call that takes the mask off one takes it off the other.
        """
        if not self.may_arrive:
            return IdentityMap()
        run = self.run
        if not any(run.changed_through_another(t, mask) for _, t, mask in run.reads):
            return IdentityMap()
        training = watched(self.graph, self.entering, training=True).masked_readers()
        inference = run.masked_readers()
        return IdentityMap(
            (tensor, inference.get(tensor, set()) ^ training.get(tensor, set()))
            for tensor in IdentitySet([*inference, *training])
        )

    def shape(self, readers: Iterable, tensor: tf.Tensor) -> tuple | None:
        """The shape of the mask that the first of `readers` receives with a tensor.

        Returns:
            The shape; None if none of them receives one.

        Raises:
            InputError: one of them receives it in training, or in inference, alone.
        """
        readers = list(readers)
        if not self.in_one_mode.get(tensor, set()).isdisjoint(readers):
            raise InputError(self.depends_on_training(tensor))
        received = self.received.get(tensor, {})
        return next((received[r] for r in readers if r in received), None)

    def depends_on_training(self, tensor: tf.Tensor) -> str:
        """The message about a tensor whose mask arrives in one mode alone."""
        return (
            f'whether the padding mask of "{self._own_name(tensor)}" arrives at a '
            "later layer depends on `training`, which no part of the model could "
            "repeat: Dropout gives its input itself in inference, and a "
            "MultiHeadAttention takes the mask off both then; let the layers on both "
            "sides of the Dropout read one tensor"
        )

    def _own_name(self, tensor) -> str:
        """The name of a tensor, or of that of the user's that it copies."""
        producers = self.graph.producers
        put_in = AttachMask | CopyMask | DropMask
        while isinstance(_keras.maker(tensor), put_in) and tensor in producers:
            tensor = producers[tensor].inputs[0]
        return self.graph.shown(tensor)


def has_masks(graph: Graph) -> bool:
    """Whether a tensor of `graph`, or of a model nested in it, may have a mask."""
    return (
        _keras.starts_masks(call.layer for call in graph.calls)
        or any(call.kwargs.get("mask") is not None for call in graph.calls)
        or any(has_masks(graph.nested(layer)) for layer in graph.nested_models)
    )
