"""A model cut into parts at the points that are perturbed."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.adversarial.cut_order import Locations, cuts_in_order
from tiedbert.adversarial.perturbation_mask import (
    ID_INPUTS,
    gathered_by,
    input_named,
    ordinary_tokens,
    token_ids_of,
)
from tiedbert.errors import InputError
from tiedbert.surgery.graph import points_of

EMBEDDING = "Embedding-Norm"


class OneOf:
    """Cut points of which each training step perturbs one, drawn at random.

    Args:
        points: one or more names of cut points, as for
            :func:`tiedbert.surgery.split`.

    Attributes:
        points: tuple of the cut points.

    Raises:
        InputError: no point.

    Source: Pereira et al., "ALICE++: Adversarial training for robust and effective
    inference in language models", 2021.

    Example:
        >>> OneOf("Embedding-Norm", "Transformer-0-FeedForward-Norm").points
        ('Embedding-Norm', 'Transformer-0-FeedForward-Norm')
    """

    def __init__(self, *points: Any):
        points_of(points)  # InputError for none
        self._points = points

    @property
    def points(self) -> tuple:
        """The cut points."""
        return self._points

    def __repr__(self) -> str:
        return f"OneOf(points={self.points!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OneOf):
            return NotImplemented
        return self.points == other.points

    def __hash__(self) -> int:
        return hash((self.points,))


class CutModel:
    """The parts of `model` between cut points.

    Args:
        model: a functional `keras.Model`.
        at: the cut points, of float activations ``[batch, ...]``: one or a list, which
            may depend on each other; or :class:`OneOf`. None (the default):
            ``"Embedding-Norm"`` of a bert4keras model.
        until: name of one more cut point behind them, which is not perturbed; or None
            (the default).
        perturbation_mask: function of the inputs -> bool ``[batch, time]``, True where
            a token may be perturbed. None (the default): the ordinary tokens of a BERT;
            in other models where the Keras mask of the cut tensor is True; without one
            everywhere. For a tensor of gathered tokens the mask is gathered too; a
            pooled state is perturbed as a whole.

    Attributes:
        front: the part before the first point: inputs -> crossing tensors.
        behind: list of the parts after it: crossing tensors -> crossing tensors, the
            last of them -> the outputs.
        counts: list of int: how many of the crossing tensors before each part are
            perturbed.
        one_of: bool, whether only one point is perturbed in a step.

    Raises:
        InputError: no such cut point, or one that is not of float activations.
    """

    def __init__(
        self,
        model: keras.Model,
        at: Any = None,
        until: str | None = None,
        perturbation_mask: Callable | None = None,
    ):
        at = _default(model) if at is None else at
        self.one_of = isinstance(at, OneOf)
        points = points_of(at.points if self.one_of else at)
        self._model, self._mask_function = model, perturbation_mask
        locations = Locations(model)
        if len(points) == 1:  # it may be a symbolic tensor
            levels = [[locations.locate(points[0])]]
        else:
            levels = locations.levels(points)
        end = [] if until is None else [[locations.locate(until)]]
        cuts = cuts_in_order(model, levels + end)
        perturbed = cuts[: len(levels)]
        for cut in perturbed:
            _check_floats(cut, points)
        self.front = cuts[0].front()
        self.behind = [cut.front() for cut in cuts[1:]] + [cuts[-1].rest()]
        self.counts = [cut.num_cut for cut in perturbed] + [0] * len(end)
        self._mask_indices = [cut.mask_index for cut in cuts]
        self._gathers = [
            [gathered_by(model, location.made_from()) for location in level]
            for level in levels
        ]

    def shaped(self, inputs: Any) -> Any:
        """Inputs of unknown rank with the shapes that the model declares for them.

        A dataset may not know the rank, e.g. after `tf.py_function`.
        """
        # Run eagerly, they may be NumPy arrays.
        shapes = [tf.TensorShape(value.shape) for value in tf.nest.flatten(inputs)]
        if all(shape.rank is not None for shape in shapes):
            return inputs
        if isinstance(inputs, dict):
            return {
                name: tf.ensure_shape(value, self._declared(name).shape)
                for name, value in inputs.items()
            }
        pairs = zip(tf.nest.flatten(inputs), self._model.inputs, strict=True)
        flat = [tf.ensure_shape(value, declared.shape) for value, declared in pairs]
        return tf.nest.pack_sequence_as(inputs, flat)

    def _declared(self, name):
        """The symbolic input of this name, or key of the model's dict of inputs."""
        structure, _ = _keras.structures(_keras.functional(self._model))
        if isinstance(structure, dict):
            return structure[name]
        return input_named(name, self._model, self._model.inputs)

    def run(
        self, inputs: Any, crossing: list, delta: list | None, call: Callable
    ) -> tuple[Any, list, list]:
        """Call the parts behind the first point one after another, perturbed.

        Args:
            inputs: those of the model.
            crossing: list of tensors that the front gives for them.
            delta: for each cut point what is added there, float32; None: nothing.
            call: function of the index of a part and the list of tensors that cross
                before it -> what the part gives.

        Returns:
            ``(outputs, hidden, masks)``: the model's outputs; the list of the tensors
            at the cut points before anything was added; and for each of them where it
            may be perturbed, bool or None.
        """
        hidden, masks = [], []
        for i, count in enumerate(self.counts):
            hidden += crossing[:count]
            masks += self.perturbation_mask(inputs, i, crossing)
            here = None if delta is None else delta[len(hidden) - count : len(hidden)]
            crossing = call(i, add_delta(crossing, here))
        return crossing, hidden, masks

    def perturbation_mask(self, inputs: Any, part: int, crossing: list) -> list:
        """Where the tensors before a part may be perturbed.

        Args:
            inputs: those of the model.
            part: index of the part.
            crossing: the tensors that cross before it.

        Returns:
            list: for each tensor that is perturbed there bool ``[batch, time]``, True
            where it may be; None: everywhere.
        """
        if not self.counts[part]:
            return []
        of_tokens = self._token_mask(inputs)
        triples = zip(
            crossing, self._mask_indices[part], self._gathers[part], strict=False
        )
        masks = []
        for tensor, index, gather in triples:
            if tensor.shape.rank < 3:
                masks.append(None)  # A pooled state has no time axis, and no padding.
            elif of_tokens is None:
                masks.append(None if index is None else crossing[index])
            else:
                masks.append(self._mask_for(tensor, of_tokens, inputs, gather))
        return masks

    def _mask_for(self, tensor, of_tokens, inputs, gather):
        """The mask of a hidden state by that of the tokens, which it may gather."""
        mask = of_tokens
        if gather is not None:
            index = tf.cast(input_named(gather, self._model, inputs), tf.int32)
            mask = tf.gather(of_tokens, index, batch_dims=1)
        _check_time(mask, tensor)
        return mask

    def _token_mask(self, inputs):
        """Which tokens of the inputs may be perturbed; None: the Keras masks tell."""
        if self._mask_function is None:
            tokens = token_ids_of(self._model, inputs)
            return None if tokens is None else ordinary_tokens(*tokens)
        given = self._mask_function(inputs)
        if given is not None:
            given = tf.convert_to_tensor(given)
        if given is None or given.dtype != tf.bool or given.shape.rank != 2:
            received = None if given is None else f"{given.dtype.name} {given.shape}"
            raise InputError(
                "perturbation_mask: expected a function that gives bool [batch, time], "
                f"received {received}"
            )
        return given


def add_delta(crossing: list, delta: list | None) -> list:
    """Crossing tensors with `delta` added to the first of them; None: as they are."""
    if delta is None:
        return crossing
    sums = [h + tf.cast(d, h.dtype) for h, d in zip(crossing, delta, strict=False)]
    return [*sums, *crossing[len(sums) :]]


def _check_time(mask, tensor):
    """InputError unless a mask, ``[batch, time]``, is that of a hidden state."""
    if not mask.shape.is_compatible_with(tensor.shape[:2]):
        raise InputError(
            "perturbation_mask: expected bool [batch, time] for a hidden state "
            f"{tensor.shape}, received {mask.shape}"
        )


def _default(model):
    names = [layer.name for layer in model.layers]
    if EMBEDDING in names:
        return EMBEDDING
    raise InputError(
        f'model {model.name!r} has no layer "{EMBEDDING}", where a BERT of bert4keras '
        "is perturbed: say at= which cut point"
    )


def _check_floats(cut, points):
    for tensor in cut.tensors[: cut.num_cut]:
        if storage := ", ".join(_keras.sparse_or_ragged(tensor)):
            raise InputError(
                f"a perturbation needs a dense tensor, and {_shown(points)} is "
                f"{storage}: cut after a layer that pads or pools it"
            )
        if "float" not in _keras.dtype_name(tensor):
            dtypes = ", ".join(map(_keras.dtype_name, cut.tensors[: cut.num_cut]))
            raise InputError(
                f"a perturbation needs float activations, received the cut point "
                f"{_shown(points)} ({dtypes})"
            )
        if _keras.maker(tensor).name in ID_INPUTS:
            raise InputError(
                f"a perturbation needs float activations, and {_shown(points)} holds "
                'ids: cut after an embedding, e.g. at "Embedding-Norm"'
            )


def _shown(points) -> str:
    return repr(points[0] if len(points) == 1 else points)
