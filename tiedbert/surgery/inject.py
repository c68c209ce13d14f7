"""A model with one more input per cut point, which is added to the tensor there."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.surgery.call_arguments import model_arguments
from tiedbert.surgery.graph import Graph, points_of
from tiedbert.surgery.masks.order import settled, settled_inside
from tiedbert.surgery.masks.received import Masks
from tiedbert.surgery.names import unique
from tiedbert.surgery.rebuild import rebuild
from tiedbert.surgery.replay import Substitution


@keras.utils.register_keras_serializable("tiedbert")
class AddDelta(keras.layers.Layer):
    """``[tensor, delta]`` -> their sum; the mask of the tensor stays.

    Raises:
        InputError: the two have different shapes; nothing is broadcast.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def call(self, inputs: Sequence) -> tf.Tensor:
        """Return the sum."""
        tensor, delta = inputs
        if not tensor.shape.is_compatible_with(delta.shape):
            raise InputError(
                f"{self.name}: a delta has the shape of the tensor it is added to, "
                f"{tuple(tensor.shape)}; received {tuple(delta.shape)}"
            )
        return tensor + delta

    def compute_output_shape(self, input_shape: Sequence) -> Any:
        """Return the shape of the tensor."""
        return input_shape[0]

    def compute_mask(self, inputs: Sequence, mask: Any = None) -> Any:
        """Return the mask of the tensor."""
        return None if mask is None else mask[0]


def inject(model: keras.Model, at: Any) -> keras.Model:
    """A model that takes a perturbation for each cut point and adds it there.

    Args:
        model: a functional model; left as it is.
        at: cut points as in :func:`split`, of float tensors; here they may depend on
            each other.

    Returns:
        A model with the inputs of the old one and then one delta per cut point, in
        the order of `at`, with the shape and dtype of the tensor there: a flat list
        ``[*inputs, *deltas]``. A model that takes a dict takes a dict with the deltas
        as ``"<layer>_delta"``. Deltas of zero give what the model gives.

    Raises:
        InputError: as :func:`split`; or a tensor that is not of floats.

    Example:
        >>> import tensorflow as tf
        >>> from tensorflow import keras
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dense(3, name="middle")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2)(h))
        >>> batch = tf.ones([5, 4])
        >>> outputs = inject(model, "middle")([batch, tf.zeros([5, 3])])
        >>> bool(tf.reduce_all(outputs == model(batch)))
        True
    """
    points = points_of(at)
    masks = settled(Masks(Graph(model)), points)
    return _injected(masks, points, f"{masks.graph.name}_injected")[0]


def _injected(masks: Masks, points: Sequence, name: str) -> tuple[keras.Model, list]:
    """The model, and its deltas in the order of `points`."""
    graph = masks.graph
    here, inside = graph.placed(points)
    changes, deltas = Substitution(), {}
    layers = set(graph.names)
    # A model may have been injected before.
    known = [name for name in layers if name.endswith("_delta")]
    names = {name.removesuffix("_delta") for name in known}
    for i, tensor in here.items():
        deltas[i] = _delta_for(tensor, _keras.maker(tensor).name, names)
        changes.after[tensor] = partial(_add, deltas[i])
    for call, inner_points in inside:
        inner_masks = settled_inside(masks, call.layer, inner_points.values())
        inner_name = unique(f"{call.layer.name}_injected", layers)
        inner, inner_deltas = _injected(
            inner_masks, list(inner_points.values()), inner_name
        )
        passed = {}
        for i, tensor in zip(inner_points, inner_deltas, strict=True):
            name_inside = _keras.maker(tensor).name
            outside = f"{call.layer.name}_{name_inside.removesuffix('_delta')}"
            passed[name_inside] = deltas[i] = _delta_for(tensor, outside, names)
        changes.layers[call] = partial(_call_with, inner, inner_masks.graph, passed)
    ordered = [deltas[i] for i in range(len(points))]
    return rebuild(graph, changes, ordered, name=name), ordered


def _delta_for(tensor, name, taken) -> tf.Tensor:
    """An Input for what is added to `tensor`; its name differs from those `taken`."""
    dtype = _keras.dtype_name(tensor)
    if "float" not in dtype:
        raise InputError(
            f'a delta is added to floats, and "{name}" holds {dtype}: choose a point '
            "behind an embedding"
        )
    return _keras.input_like(tensor, f"{unique(name, taken)}_delta")


def _add(delta, tensor):
    name = _keras.maker(delta).name.removesuffix("_delta")
    return AddDelta(name=f"{name}_add_delta")([tensor, delta])


def _call_with(model, graph, deltas, *args, **kwargs):
    """Call an injected nested model on the inputs of the old one and its deltas."""
    inputs, options = model_arguments(graph, args, kwargs)
    masks = _keras.flatten(options.pop("mask", None))
    if isinstance(inputs, dict):
        # Keras flattens a dict in the order of its keys.
        known = dict(zip(sorted(inputs), masks, strict=False))
        inputs = {**inputs, **deltas}
        masks = [known.get(name) for name in sorted(inputs)]
    else:
        inputs = [*_keras.flatten(inputs), *deltas.values()]
        masks += [None] * (len(inputs) - len(masks))
    if any(mask is not None for mask in masks):
        options["mask"] = masks
    return model(inputs, **options)
