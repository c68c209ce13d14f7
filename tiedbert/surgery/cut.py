"""A functional model cut in two, whatever crosses the cut handed over."""

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.explicit_mask import AttachMask, mask_of, without_mask
from tiedbert.graph import Graph
from tiedbert.surgery.replay import replay


@keras.utils.register_keras_serializable("tiedbert")
class Front(keras.Model):
    """The part before a cut: a functional model that gives a list, even of one.

    Keras unpacks a list of one; ``hidden, *context = front(x)`` must not depend on
    how many tensors cross a cut. Save it as ``.keras``: older formats do not know it.
    """

    def call(self, inputs, training=None, mask=None):
        """Return the crossing tensors as a list."""
        outputs = super().call(inputs, training=training, mask=mask)
        # New tensors, free of implicit masks: those cross as tensors of their own.
        return [tf.identity(tensor) for tensor in _keras.flatten(outputs)]


def split(model, at):
    """Cut a functional model in two: ``rest(front(x))`` is ``model(x)`` bit for bit.

    Args:
        model: a functional `keras.Model` of the running Keras; left as it is.
        at: a cut point or a list of them: the name of a layer, ``"name:k"`` for the
            k-th call (from 0) of a layer that is called several times, or a symbolic
            tensor of the model. Cut points must not depend on each other, nor lie
            inside a nested model.

    Returns:
        ``(front, rest)``, both sharing the model's weights. `front` takes what the
        model takes and gives the list of crossing tensors: first the cut tensors in
        the order of `at`, then the context (skip connections, attention biases,
        inputs, and last the implicit masks, bool ``[batch, time]``, made explicit).
        `rest` takes that list and gives what the model gives.

    Raises:
        InputError: no such layer (the closest names are shown), a layer called
            several times (the calls are shown), cut points that depend on each
            other, or a model without a graph.

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
    cut = Cut(model, at)
    return cut.front(), cut.rest()


def get_outputs_of(model, start_tensors, input_layers=None):
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
        ``(inputs, outputs)``: symbolic tensors. `inputs` is a single tensor when one
        tensor crosses the cut, else a list; `outputs` has the model's own structure.

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
    cut = Cut(model, start_tensors)
    inputs = cut.inputs(_as_list(input_layers))
    outputs = cut.outputs(inputs)
    return (inputs[0] if len(inputs) == 1 else inputs), outputs


class Cut:
    """The tensors that cross a cut of `model`, and the models on its two sides.

    Attributes:
        width: the number of cut tensors, which come first in `tensors`.
        tensors: the crossing tensors of the model, in the order of `split`.
        mask_index: for each cut tensor the index of its mask in `tensors`, or None.
    """

    def __init__(self, model, at):
        self._graph = Graph(model)
        cut = self._graph.resolve(at)
        self._calls = self._graph.downstream(cut)
        context = self._graph.context(cut)
        self._values = cut + context
        self._masks = [mask_of(tensor) for tensor in self._values]
        masks = {id(mask): mask for mask in self._masks if mask is not None}
        # Keras 3 hands masks to some layers as edges: those are in the context too.
        context = [tensor for tensor in context if id(tensor) not in masks]
        crossing = [*cut, *context, *masks.values()]
        self.tensors = list({id(tensor): tensor for tensor in crossing}.values())
        self.width = len(cut)
        ids = [id(tensor) for tensor in self.tensors]
        self.mask_index = [
            None if mask is None else ids.index(id(mask))
            for mask in self._masks[: self.width]
        ]

    def front(self):
        """The model's inputs -> the list of crossing tensors."""
        name = f"{self._graph.name}_front"
        # The masks cross as tensors: a second, implicit copy would only mislead.
        outputs = [without_mask(tensor) for tensor in self.tensors]
        return Front(self._graph.inputs, outputs, name=name)

    def rest(self):
        """The list of crossing tensors -> the model's outputs."""
        inputs = self.inputs()
        name = f"{self._graph.name}_rest"
        return keras.Model(inputs, self.outputs(inputs), name=name)

    def inputs(self, given=()) -> list:
        """The `given` tensors, then new Inputs for the other crossing tensors."""
        if len(given) > len(self.tensors):
            raise InputError(
                f"{len(self.tensors)} tensors cross this cut, received "
                f"{len(given)} input layers"
            )
        names = _unique_names(f"{_keras.maker(t).name}_crossing" for t in self.tensors)
        missing = list(zip(self.tensors, names, strict=True))[len(given) :]
        return [*given, *(_keras.input_like(tensor, name) for tensor, name in missing)]

    def outputs(self, inputs):
        """The model's outputs as functions of `inputs`, one per crossing tensor."""
        new = {id(old): x for old, x in zip(self.tensors, inputs, strict=True)}
        for value, mask in zip(self._values, self._masks, strict=True):
            if mask is not None:
                new[id(value)] = AttachMask()([new[id(value)], new[id(mask)]])
        replay(self._calls, new)
        return _keras.map_structure(lambda tensor: new[id(tensor)], self._graph.outputs)


def _as_list(tensors) -> list:
    if tensors is None:
        return []
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]


def _unique_names(names) -> list:
    seen = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique
