"""A model that gives the tensors in the middle of another."""

from tensorflow import keras

from tiedbert import _keras
from tiedbert.surgery.edit import unique
from tiedbert.surgery.graph import Graph, points_of
from tiedbert.surgery.masks.explicit import CopyMask
from tiedbert.surgery.masks.order import settled, settled_inside
from tiedbert.surgery.replay import replay


def features(model, at):
    """A model from the inputs of `model` to the tensors at some of its points.

    Args:
        model: a functional model; left as it is.
        at: cut points as in :func:`split`, in nested models too; here they may depend
            on each other.

    Returns:
        A model with the inputs of `model`. It gives the tensor when `at` is one cut
        point or a list of one, else the list of the tensors in the order of `at`, with
        their implicit masks. No layer runs that they do not need, and none twice.

    Raises:
        InputError: as :func:`split`.

    Example:
        >>> import tensorflow as tf
        >>> from tensorflow import keras
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dense(3, name="first")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2, name="last")(h))
        >>> first, last = features(model, ["first", "last"])(tf.ones([5, 4]))
        >>> first.shape.as_list(), last.shape.as_list()
        ([5, 3], [5, 2])
    """
    graph = settled(Graph(model), points_of(at))
    tensors = _tensors(graph, at)
    tensors = tensors[0] if len(tensors) == 1 else tensors
    return keras.Model(graph.inputs, tensors, name=f"{graph.name}_features")


def _tensors(graph, at, more=()) -> list:
    """The tensors at some points, then those that `more` of this graph became."""
    here, inside = graph.placed(at)
    read = [tensor for call, _ in inside for tensor in call.inputs]
    needed = graph.needed_for([*here.values(), *more, *read])
    names = graph.names
    exposed = [
        _Exposed(graph, call, points, id(call) in needed, names)
        for call, points in inside
    ]
    new = {}
    replay(graph.calls, new, instead={id(part.call): part for part in exposed})
    found = {i: new.get(id(tensor), tensor) for i, tensor in here.items()}
    for part in exposed:
        found.update(part.found)
    return [found[i] for i in sorted(found)] + [new.get(id(t), t) for t in more]


class _Exposed:
    """What takes the place of a nested model's call: one that gives tensors inside.

    Attributes:
        call: the call of the nested model.
        found: once called: index of a point -> its tensor.
    """

    def __init__(self, outer, call, points, outputs_too, names):
        self.call, self._points, self._outputs_too = call, points, outputs_too
        self.found = {}
        graph = settled_inside(outer, call.layer, points.values())
        outputs = graph.output_tensors if outputs_too else []
        tensors = _tensors(graph, list(points.values()), outputs)
        if _keras.returns_inputs_themselves():
            inputs = {id(tensor) for tensor in graph.input_tensors}
            tensors = [CopyMask()([t, t]) if id(t) in inputs else t for t in tensors]
        name = unique(f"{graph.name}_features", names)
        self._model = keras.Model(graph.inputs, tensors, name=name)

    def __call__(self, *args, **kwargs):
        """The outputs of the nested model where they are needed."""
        tensors = _keras.flatten(self._model(*args, **kwargs))
        count = len(self._points)
        self.found.update(zip(self._points, tensors[:count], strict=True))
        return tensors[count:] if self._outputs_too else self.call.outputs
