"""The tensors that cross a cut of a graph. It builds no layer, so counting is cheap."""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from tiedbert import _keras
from tiedbert._identity import IdentityMap, IdentitySet
from tiedbert.surgery.masks.received import Masks


@dataclass(frozen=True, eq=False)
class UnreadMask:
    """A mask that crosses a cut and is no tensor of the graph yet.

    Attributes:
        shape: its shape, None for an unknown size.
    """

    shape: tuple


class Crossing:
    """The tensors that cross a cut, masks included.

    Args:
        masks: a graph, and the masks that arrive in it.
        cut: the cut tensors, of this graph and none downstream of another.

    Attributes:
        cut: the cut tensors.
        calls: the calls behind the cut.
        context: what crosses beside the cut tensors. In Keras 3 masks of other tensors
            are among it, where layers take them as arguments.

    Raises:
        InputError: a cut tensor depends on another.
    """

    def __init__(self, masks: Masks, cut: Sequence[tf.Tensor]) -> None:
        self._graph, self._masks = masks.graph, masks
        self.cut = list(cut)
        self.calls = self._graph.downstream(cut)
        self.context = self._graph.context(cut, self.calls)
        self._readers = [*self.calls, None]

    def unused(self) -> list[tf.Tensor]:
        """The cut tensors on which no output depends."""
        used = IdentitySet(tensor for call in self.calls for tensor in call.inputs)
        used.update(self._graph.output_tensors)
        return [tensor for tensor in self.cut if tensor not in used]

    def masks(self) -> IdentityMap:
        """Map, a crossing tensor -> its mask, where that crosses as well.

        A mask crosses if a call behind the cut receives it. That of a cut tensor
        crosses in any case: it tells what is padding. Each is a tensor of the graph or
        an :class:`UnreadMask`.

        Raises:
            InputError: whether a mask arrives depends on `training`.
        """
        masks = self._masks_of(self.cut, in_any_case=True)
        masks.update(self._masks_of(self.context))
        return masks

    def count(self) -> int:
        """How many tensors cross."""
        return len(IdentitySet([*self.cut, *self.context, *self.masks().values()]))

    def count_beside(self) -> int:
        """How many tensors cross beside the cut tensors and the masks of those."""
        masks = self._masks_of(self.context)
        return len(IdentitySet([*self.context, *masks.values()]))

    def _masks_of(self, tensors, in_any_case=False) -> IdentityMap:
        masks = IdentityMap()
        for tensor in tensors:
            shape = self._masks.shape(self._readers, tensor)
            mask = _keras.implicit_mask(tensor)
            if shape is None and (mask is None or not in_any_case):
                continue
            known = _keras.is_symbolic(mask)
            masks[tensor] = mask if known else UnreadMask(shape or tuple(mask.shape))
        return masks
