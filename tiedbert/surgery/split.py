"""A model in two halves: the public faces of a cut."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert.surgery.cut import Front
from tiedbert.surgery.cut_nested import cut_at


def split(model: keras.Model, at: Any) -> tuple[Front, keras.Model]:
    """Cut a functional model in two: ``rest(front(x))`` is ``model(x)`` bit for bit.

    Args:
        model: a functional `keras.Model` of the running Keras; left as it is.
        at: a cut point or a list of them. A cut point is the name of a layer or of an
            input, ``"name:k"`` for the k-th call (from 0) of a layer that is called
            several times, ``"name#k"`` for the k-th output (from 0) of a layer that
            gives several, ``"outer/inner"`` for a layer inside a nested model, at any
            depth, or a symbolic tensor of the model or of a nested one. No cut point
            may be computed from another: `rest` takes all of them as inputs.

    Returns:
        ``(front, rest)``, both sharing the model's weights. `front` takes what the
        model takes. It always gives a list, also where one tensor crosses (`features`
        and `get_outputs_of` give a single tensor without a list): first the cut tensors
        in the order of `at`, then the context in the order of its first use (skip
        connections, attention biases, inputs, outputs that do not depend on the cut),
        last the implicit masks, bool ``[batch, time]``, made explicit. `rest` takes
        that list and gives what the model gives. They are named after the model,
        ``"..._front"`` and ``"..._rest"``; a nested model that is cut stays nested in
        two parts with such names. The outputs of `rest` have the names, for `compile`,
        of those of the model. Call both with the same `training`. A loss that
        belongs to a weight (a regularizer) is a loss of each part that has the weight.

    Raises:
        InputError: no such layer (the closest names are shown), a layer that is called
            several times or has several outputs (they are listed), a tensor of another
            model, cut points that depend on each other, a point that no output depends
            on, a model or layer without a graph, or masks that depend on `training`
            (see :mod:`tiedbert.surgery.masks.order`).

    Example:
        >>> import tensorflow as tf
        >>> from tensorflow import keras
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dense(3, name="middle")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2)(h))
        >>> front, rest = split(model, "middle")
        >>> batch = tf.ones([5, 4])
        >>> hidden, *context = front(batch)
        >>> bool(tf.reduce_all(rest([hidden, *context]) == model(batch)))
        True
    """
    cut = cut_at(model, at)
    return cut.front(), cut.rest()


def get_outputs_of(
    model: keras.Model,
    start_tensors: Any,
    input_layers: tf.Tensor | Sequence | None = None,
) -> tuple[Any, Any]:
    """The part of a model after some of its tensors, as ``(inputs, outputs)``.

    The function of Su Jianlin's 2019 post (kexue.fm/archives/6985), with its
    signature: ``keras.Model(*get_outputs_of(model, tensor))`` is the rest of the model.

    Args:
        model: a functional model; left as it is.
        start_tensors: cut points as in :func:`split`.
        input_layers: symbolic tensors that take the place of the crossing tensors,
            in the order in which the `front` of :func:`split` gives them. New Inputs
            are made for those that are not given.

    Returns:
        ``(inputs, outputs)``: symbolic tensors. `inputs` is a list, or a single
        tensor where one tensor crosses the cut (the `front` of :func:`split` gives a
        list then); `outputs` has the model's own structure.

    Raises:
        InputError: as :func:`split`; or too many input layers.

    Example:
        >>> from tensorflow import keras
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dense(3)(x)
        >>> model = keras.Model(x, keras.layers.Dense(2)(h))
        >>> inputs, outputs = get_outputs_of(model, h)
        >>> tuple(inputs.shape), tuple(outputs.shape)
        ((None, 3), (None, 2))
    """
    cut = cut_at(model, start_tensors)
    inputs = cut.inputs(_as_list(input_layers))
    outputs = cut.outputs(inputs)
    return (inputs[0] if len(inputs) == 1 else inputs), outputs


def _as_list(tensors) -> list:
    if tensors is None:
        return []
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]
