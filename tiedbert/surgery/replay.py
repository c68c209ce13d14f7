"""The primitive under all surgery: calls of a model made again on other tensors."""

from tiedbert import _keras


def replay(calls, new):
    """Call the layers of `calls` again; `new` maps old tensors' ids to new tensors."""

    def mapped(value):
        return new[id(value)] if _keras.is_symbolic(value) else value

    for call in calls:
        args = _keras.map_structure(mapped, call.args)
        kwargs = _keras.map_structure(mapped, call.kwargs)
        outputs = _keras.flatten(call.layer(*args, **kwargs))
        new.update((id(t), y) for t, y in zip(call.outputs, outputs, strict=True))
