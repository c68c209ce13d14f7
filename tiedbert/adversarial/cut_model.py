"""A model cut into parts at the points that are perturbed."""

import os
import re
from dataclasses import dataclass

import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.perturbation_mask import (
    ID_INPUTS,
    gathered_by,
    input_named,
    ordinary_tokens,
    token_ids_of,
)
from tiedbert.errors import InputError
from tiedbert.surgery import cut_at
from tiedbert.surgery.graph import points_of
from tiedbert.surgery.points import cut_points

EMBEDDING = "Embedding-Norm"


@dataclass(frozen=True)
class OneOf:
    """Cut points of which each training step perturbs one, drawn at random.

    Args:
        points: their names, as for :func:`tiedbert.surgery.split`.

    Source: Pereira et al., "ALICE++: Adversarial training for robust and effective
    inference in language models", 2021.

    Example:
        >>> OneOf("Embedding-Norm", "Transformer-0-FeedForward-Norm").points
        ('Embedding-Norm', 'Transformer-0-FeedForward-Norm')
    """

    points: tuple

    def __init__(self, *points):
        object.__setattr__(self, "points", points)
        points_of(points)


class CutModel:
    """The parts of `model` between cut points.

    Args:
        model: a functional `keras.Model`.
        at: the cut points, of float activations ``[batch, ...]``: one or a list, which
            may depend on each other; or :class:`OneOf`. None: bert4keras'
            ``"Embedding-Norm"``.
        until: one more cut point behind them, which is not perturbed; or None.
        perturbation_mask: function of the inputs -> bool ``[batch, time]``, where a
            perturbation may be. None: the ordinary tokens of a BERT, else what the
            Keras mask of the cut tensor leaves, else everywhere. Of tokens that the
            model has gathered, those of them; a pooled state is perturbed whole.

    Attributes:
        front: the part before the first point: inputs -> crossing tensors.
        behind: the parts after it: crossing tensors -> crossing tensors, the last of
            them -> the outputs.
        widths: how many of the crossing tensors before each part are perturbed.
        one_of: whether only one point is perturbed in a step.
    """

    def __init__(self, model, at=None, until=None, perturbation_mask=None):
        at = _default(model) if at is None else at
        self.one_of = isinstance(at, OneOf)
        points = points_of(at.points if self.one_of else at)
        levels = [points] if len(points) == 1 else _levels(model, points)
        cuts = _cuts(model, levels, until)
        self._model, self._positions = model, perturbation_mask
        self.front = cuts[0].front()
        self.behind = [cut.front() for cut in cuts[1:]] + [cuts[-1].rest()]
        self.widths = [cut.width for cut in cuts]
        self._masks = [cut.mask_index for cut in cuts]
        self._gathers = [
            [gather for point in level for gather in _gathers(model, point)]
            for level in levels
        ]
        perturbed = cuts if until is None else cuts[:-1]
        if until is not None:
            self.widths[-1] = 0
        for cut in perturbed:
            _check_floats(cut, points)

    def shaped(self, inputs):
        """Inputs of unknown rank with the shapes that the model declares for them.

        A data set may know none, as behind `tf.py_function`.
        """
        # Run eagerly they may be arrays of NumPy.
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

    def run(self, inputs, crossing, delta, call) -> tuple:
        """What is behind the first point, perturbed.

        Args:
            inputs: the model's.
            crossing: what the front gives for them.
            delta: for each point what is added there, float32; None: nothing.
            call: function of the index of a part and of what crosses before it.

        Returns:
            ``(outputs, points, masks)``: lists of the tensors at the points before
            anything was added, and of where they may be perturbed.
        """
        points, masks = [], []
        for i, width in enumerate(self.widths):
            points += crossing[:width]
            masks += self.perturbation_mask(inputs, i, crossing)
            here = None if delta is None else delta[len(points) - width : len(points)]
            crossing = call(i, moved(crossing, here))
        return crossing, points, masks

    def perturbation_mask(self, inputs, level, crossing) -> list:
        """Where each tensor before a part may be perturbed: bool, None: everywhere."""
        if not self.widths[level]:
            return []
        given, found = self._given(inputs), []
        places = zip(crossing, self._masks[level], self._gathers[level], strict=False)
        for tensor, mask, gather in places:
            if tensor.shape.rank < 3:
                # A pooled state has no time axis, and no padding in it.
                found.append(None)
            elif given is None:
                found.append(None if mask is None else crossing[mask])
            else:
                here = given
                if gather is not None:
                    index = tf.cast(input_named(gather, self._model, inputs), tf.int32)
                    here = tf.gather(given, index, batch_dims=1)
                _check_time(here, tensor)
                found.append(here)
        return found

    def _given(self, inputs):
        """Where each token of the inputs may be perturbed; None: the masks tell."""
        if self._positions is None:
            tokens = token_ids_of(self._model, inputs)
            return None if tokens is None else ordinary_tokens(*tokens)
        given = self._positions(inputs)
        if given is not None:
            given = tf.convert_to_tensor(given)
        if given is None or given.dtype != tf.bool or given.shape.rank != 2:
            kind = None if given is None else f"{given.dtype.name} {given.shape}"
            raise InputError(
                "perturbation_mask: expected a function that gives bool [batch, time], "
                f"received {kind}"
            )
        return given


def moved(crossing, delta) -> list:
    """Crossing tensors with `delta` (None: nothing) added to the first of them."""
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


def _cuts(model, levels, until) -> list:
    """The cuts one after another, each in what the one before left."""
    if until is not None:
        levels = [*levels, [until]]
    cuts, rest = [], model
    while levels:
        done, *levels = levels
        cuts.append(cut_at(rest, done))
        if levels:
            rest = cuts[-1].rest()
            # It names the points in its own way.
            levels = [[_in_rest(p, done, cuts[-1]) for p in later] for later in levels]
    return cuts


def _levels(model, points) -> list:
    """The points in the model's order; those that can be cut at once, together."""
    order = {_plain(point.at): i for i, point in enumerate(cut_points(model))}
    for point in points:
        if not isinstance(point, str):
            raise InputError("several cut points are given by name, not as tensors")
        cut_at(model, point)  # It tells what is wrong with a point.
    places = [order[_plain(point)] for point in points]
    if len(set(places)) < len(places):
        raise InputError(f"the cut points {points} name a tensor twice: give it once")
    levels = []
    for _, point in sorted(zip(places, points, strict=True)):
        # In the first level that it does not depend on: it is not behind that cut.
        fitting = [lvl for lvl in levels if _independent(model, [*lvl, point])]
        if fitting:
            fitting[0].append(point)
        else:
            levels.append([point])
    return levels


def _gathers(model, point) -> list:
    """For each tensor at a point the input that says which tokens it holds, or None."""
    cut = cut_at(model, point)
    return [gathered_by(model, tensor) for tensor in cut.tensors[: cut.width]]


def _plain(point) -> str:
    """A point without the ``:0`` and ``#0`` that a name may have and need not."""
    return re.sub(r":0(?=[/#]|$)|#0(?=/|$)", "", point)


def _independent(model, points) -> bool:
    try:
        cut_at(model, points)
    except InputError:
        return False
    return True


def _in_rest(point, done, cut):
    """A point as the rest of a model names it that was cut at the points `done`.

    There, calls of a layer that come before the cut do not count, and a nested model
    that was cut leaves its second half, under another name.
    """
    path = point.split("/")
    others = [other.split("/") for other in done if isinstance(other, str)]
    opened = max((_common(path, other) for other in others), default=0)
    if not opened:
        if of_a_call := re.fullmatch(r"(.*):(\d+)(#\d+)?", path[0]):
            name, index, output = of_a_call.groups(default="")
            path[0] = f"{name}:{cut.call_in_rest(name, int(index))}{output}"
        return "/".join(path)
    if ":" in point:
        raise InputError(
            f'"{point}" is one of several calls, in a nested model that has another '
            "cut point before it: give it a name of its own with tiedbert.surgery."
            f'insert(model, "{point}", keras.layers.Activation("linear", name=...))'
        )
    return "/".join([*(f"{name}_rest" for name in path[:opened]), *path[opened:]])


def _common(path, other) -> int:
    """How many nested models two paths have in common."""
    return len(os.path.commonprefix([path[:-1], other[:-1]]))


def _check_floats(cut, points):
    for tensor in cut.tensors[: cut.width]:
        if kind := ", ".join(_keras.sparse_or_ragged(tensor)):
            raise InputError(
                f"a perturbation needs a dense tensor, and {_shown(points)} is {kind}: "
                "cut after a layer that pads or pools it"
            )
        if "float" not in _keras.dtype_name(tensor):
            dtypes = ", ".join(map(_keras.dtype_name, cut.tensors[: cut.width]))
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
