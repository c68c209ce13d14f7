"""The primitive under all surgery: calls of a model made again on other tensors."""

import functools

from tiedbert import _keras


def replay(calls, new, *, recorded_masks=False, seen_by=None, instead=None, after=None):
    """Call the layers of `calls` again; `new` maps old tensors' ids to new tensors.

    A tensor that is not in `new` stays itself, and a call that nothing new reaches is
    not made again. What the calls give is added to `new`. The calls of one layer come
    in the order in which they were made: the k-th of them is the k-th again.

    Args:
        calls: calls of one graph in topological order.
        new: dict, id of an old tensor -> the tensor in its place.
        recorded_masks: give each call the masks that Keras once filled in for it and
            recorded, and no others; else those of its new arguments.
        seen_by: dict, (id of a call, id of an old tensor) -> function of the tensor in
            its place that gives what that call is given instead.
        instead: dict, id of a call -> what is called in place of its layer.
        after: dict, id of an old tensor -> function of the new tensor that gives the
            one that takes its place.
    """
    seen_by, instead, after = seen_by or {}, instead or {}, after or {}
    for call in sorted(calls, key=lambda call: call.place):
        reached = any(
            id(tensor) in new or (id(call), id(tensor)) in seen_by
            for tensor in call.inputs
        )
        outputs = call.outputs
        if id(call) in instead or (reached and not _keras.is_side_effect(call.layer)):
            args, kwargs = _arguments(call, new, seen_by, recorded_masks)
            function = instead.get(id(call), call.layer)
            outputs = _keras.flatten(function(*args, **kwargs))
        for old, tensor in zip(call.outputs, outputs, strict=True):
            if recorded_masks and _keras.implicit_mask(old) is None:
                _keras.forget_mask(tensor)
            tensor = after[id(old)](tensor) if id(old) in after else tensor
            if tensor is not old:
                new[id(old)] = tensor


def outputs_of(graph, new, seen_by=None):
    """The outputs of a graph after `replay`, in their structure.

    The key of an output in `seen_by` is (None, id of the old tensor).
    """
    seen_by = seen_by or {}

    def output(tensor):
        seen = seen_by.get((None, id(tensor)))
        tensor = new.get(id(tensor), tensor)
        return tensor if seen is None else seen(tensor)

    return _keras.map_structure(output, graph.outputs)


def _arguments(call, new, seen_by, recorded_masks):
    """The `args` and `kwargs` of `call` with new tensors for old ones."""

    @functools.cache  # one layer where a call reads a tensor twice
    def seen(tensor_id):
        return seen_by[id(call), tensor_id](new.get(tensor_id, old[tensor_id]))

    old = {id(tensor): tensor for tensor in call.inputs}

    def mapped(value):
        if not _keras.is_symbolic(value):
            return value
        if (id(call), id(value)) in seen_by:
            return seen(id(value))
        return new.get(id(value), value)

    implicit = {} if recorded_masks else _keras.masks_filled_in(call)
    kwargs = {name: call.kwargs[name] for name in call.kwargs if name not in implicit}
    args, kwargs = _keras.map_structure(mapped, (tuple(call.args), kwargs))
    for name, argument in implicit.items():
        # Keras would not record it beside another keyword argument, and a layer can
        # take the mask off its input before this call runs.
        tensors = _keras.map_structure(mapped, argument)
        masks = _keras.map_structure(_keras.implicit_mask, tensors)
        if any(_keras.is_symbolic(mask) for mask in _keras.flatten(masks)):
            kwargs[name] = masks
    return args, kwargs
