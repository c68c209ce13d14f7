"""The only module that knows that two generations of Keras exist.

TensorFlow decides which one a program gets: ``tf.keras`` is Keras 3, or Keras 2
(``tf_keras``) when ``TF_USE_LEGACY_KERAS=1``. What is below answers in the same words
for both. Much of it reads what Keras calls private; every such read passes through
:func:`_internal`, which turns a moved attribute into one clear line.
"""

import contextlib
import functools
import inspect
import sys
import warnings
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow import keras
from tensorflow.python.autograph.core import ag_ctx

from tiedbert.errors import InputError

LEGACY = keras.Model.__module__.startswith("tf_keras")
VERSION = sys.modules["tf_keras" if LEGACY else "keras"].__version__

if not LEGACY and keras.config.backend() != "tensorflow":
    raise ImportError(
        f"tiedbert runs on TensorFlow, but Keras {VERSION} was set to the "
        f"{keras.config.backend()!r} backend: set KERAS_BACKEND=tensorflow"
    )


class RawCall(NamedTuple):
    """One use of a layer (Keras: a node): what it was called on and what it gave.

    `order` grows with each use of the layer, those in other models included.
    """

    layer: Any
    order: int
    args: tuple
    kwargs: dict
    inputs: list
    outputs: list


def _internal(owner, name):
    try:
        return getattr(owner, name)
    except AttributeError:
        raise RuntimeError(
            f"Keras {VERSION} has no {type(owner).__name__}.{name}, which "
            "tiedbert reads to follow a model's graph; use a Keras that tiedbert's "
            "README lists, or report it"
        ) from None


def is_symbolic(value) -> bool:
    """Whether `value` is a tensor of a functional graph."""
    if LEGACY:
        return hasattr(value, "_keras_history")
    return isinstance(value, keras.KerasTensor)


def map_structure(function, structure):
    """Apply `function` to every leaf of nested lists, tuples and dicts."""
    if LEGACY:
        return tf.nest.map_structure(function, structure)
    return keras.tree.map_structure(function, structure)


def flatten(structure) -> list:
    """The leaves of nested lists, tuples and dicts, in Keras' own order."""
    if LEGACY:
        return tf.nest.flatten(structure)
    return keras.tree.flatten(structure)


def functional(model):
    """The functional graph inside `model`; InputError when there is none."""
    if not has_graph(model):
        raise InputError(
            "expected a functional model (or a built Sequential), received "
            f"{_description(model)}: {_why_no_graph(model)}"
        )
    if isinstance(model, keras.Sequential) and not LEGACY:
        return _internal(model, "_functional")
    return model


def has_graph(layer) -> bool:
    """Whether calling `layer` runs a graph of calls that can be followed."""
    if isinstance(layer, keras.Sequential) and not LEGACY:
        graph = layer.built and _internal(layer, "_functional") is not None
        return graph and _call_of_its_own(layer) is None
    return (
        isinstance(layer, keras.Model)
        and bool(getattr(layer, "inputs", None))
        and _call_of_its_own(layer) is None
    )


def _call_of_its_own(model):
    """The class that gives `model` a `call` that its graph does not tell, or None."""
    definer = next(kind for kind in type(model).__mro__ if "call" in vars(kind))
    known = ("keras.src.", "tf_keras.src.", "tiedbert.surgery.")
    return None if definer.__module__.startswith(known) else definer


def _description(model) -> str:
    name = getattr(model, "name", None)
    return type(model).__name__ + (f" {name!r}" if isinstance(name, str) else "")


def _why_no_graph(model) -> str:
    if not isinstance(model, keras.Model):
        return "only a model has a graph to cut"
    own, sequential = _call_of_its_own(model), isinstance(model, keras.Sequential)
    if own is not None and (sequential or getattr(model, "inputs", None)):
        return f"{own.__name__}.call runs something else than it"
    if sequential:
        return "it is not built; call it once, or give it an Input first"
    return (
        "a subclassed or unbuilt model has no graph to cut: build it with inputs = "
        "keras.Input(...), its layers called on them, keras.Model(inputs, outputs)"
    )


def class_of_edited(model):
    """The class of an edited `model`: its own if inputs and outputs make one."""
    plain = isinstance(model, keras.Sequential) or not takes_inputs_and_outputs(model)
    return keras.Model if plain else type(model)


def structures(model) -> tuple:
    """The nested inputs and outputs of a functional model, as its user gave them."""
    if LEGACY:
        return _internal(model, "_nested_inputs"), _internal(model, "_nested_outputs")
    return _internal(model, "_inputs_struct"), _internal(model, "_outputs_struct")


def calls(model) -> list:
    """The model's own calls in topological order, its inputs left out.

    Other models that share a layer add nodes to that layer; `_nodes_by_depth` holds
    only those of this model.
    """
    by_depth = _internal(model, "_nodes_by_depth")
    depths = sorted(by_depth, reverse=True)
    nodes = [node for depth in depths for node in by_depth[depth]]
    return [_raw_call(node) for node in nodes if not _internal(node, "is_input")]


def _raw_call(node) -> RawCall:
    layer = _internal(node, "layer" if LEGACY else "operation")
    # Not `_inbound_nodes.index`: the list grows with every model that shares a layer.
    made = flatten(_internal(node, "outputs"))[0]
    order = _internal(_internal(made, "_keras_history"), "node_index")
    if LEGACY:
        return RawCall(
            layer,
            order,
            tuple(_internal(node, "call_args")),
            dict(_internal(node, "call_kwargs")),
            list(_internal(node, "keras_inputs")),
            flatten(_internal(node, "outputs")),
        )
    arguments = _internal(node, "arguments")
    return RawCall(
        layer,
        order,
        arguments.args,
        arguments.kwargs,
        list(_internal(node, "input_tensors")),
        list(_internal(node, "output_tensors")),
    )


def maker(tensor):
    """The layer (or operation) that made a symbolic tensor."""
    history = _internal(tensor, "_keras_history")
    return _internal(history, "layer" if LEGACY else "operation")


def dtype_name(tensor) -> str:
    """``"float32"``: Keras 2 has a dtype object where Keras 3 has its name."""
    return tf.as_dtype(tensor.dtype).name


def implicit_mask(tensor):
    """The implicit mask that Keras keeps at a tensor, or None.

    At a symbolic tensor, Keras 3 keeps a tensor of the graph; Keras 2 keeps a bare
    placeholder that says only that there is a mask.
    """
    return _metadata(tensor, "_keras_mask")


def masks_filled_in(call) -> dict:
    """The keyword arguments of a call that Keras itself filled with masks.

    Keras 3 records in some nodes the implicit masks of the arguments, as if the user
    had given them; Keras 2 never does.

    Returns:
        dict, name of the keyword argument -> the argument whose masks it has.
    """
    named = [n for n in call.kwargs if n == "mask" or n.endswith("_mask")]
    if LEGACY or not named:
        return {}
    bound = inspect.signature(call.layer.call).bind(*call.args, **call.kwargs).arguments
    first = next(iter(bound))
    found = {}
    for name in named:
        argument = first if name == "mask" else name.removesuffix("_mask")
        if argument in bound and _are_masks_of(bound[argument], call.kwargs[name]):
            found[name] = bound[argument]
    return found


def _are_masks_of(argument, masks) -> bool:
    masks, tensors = flatten(masks), flatten(argument)
    return len(masks) == len(tensors) and all(
        mask is None or mask is implicit_mask(tensor)
        for mask, tensor in zip(masks, tensors, strict=True)
    )


def forget_mask(tensor):
    """Let a symbolic tensor of Keras 3 say nothing of a mask; it may still have one.

    What a tensor says makes Keras record the mask in the calls that follow. A mask
    that is not recorded is found again whenever the model runs.
    """
    if not LEGACY:
        set_implicit_mask(tensor, None)


def starts_masks(layers) -> bool:
    """Whether one of `layers`, or one nested in them, may give a tensor a mask."""
    return any(
        _starts_a_mask(part) for layer in layers for part in layers_within(layer)
    )


def _starts_a_mask(layer) -> bool:
    if not isinstance(layer, keras.layers.Layer):
        return False  # an operation of Keras 3
    definer = next(kind for kind in type(layer).__mro__ if "compute_mask" in vars(kind))
    if not definer.__module__.startswith(("keras.src.", "tf_keras.src.")):
        return True  # It may do anything; to look for a mask in vain does no harm.
    if isinstance(layer, keras.layers.Lambda):
        return layer.mask is not None
    masking = isinstance(layer, keras.layers.Masking)
    return masking or bool(getattr(layer, "mask_zero", False))


def trace(function, specs):
    """Run `function` once on placeholders of the given `tf.TypeSpec`.

    Nothing is computed and no variable, loss or random state changes. Keras 3 only.
    """
    with keras.StatelessScope(collect_losses=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The model warns when it really runs.
        tf.function(function, autograph=False).get_concrete_function(*specs)


def type_spec(tensor, shape):
    """The `tf.TypeSpec` of a value of `shape` for a symbolic tensor."""
    kinds = {"sparse": tf.SparseTensorSpec, "ragged": tf.RaggedTensorSpec}
    kind = next((kinds[name] for name in sparse_or_ragged(tensor)), tf.TensorSpec)
    return kind(shape, tensor.dtype)


def call(model, inputs, training):
    """Call a model as `fit` would, from a function that autograph does not convert."""
    if not LEGACY:
        return model(inputs, training=training)
    # Keras 2 then lets autograph convert the `call` of users' layers.
    with ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED):
        return model(inputs, training=training)


def _metadata(tensor, name):
    """An attribute that Keras sets on some tensors, or None."""
    _check_metadata()
    return getattr(tensor, name, None)


@functools.cache
def _check_metadata():
    """Keras still says where it did that a tensor has a mask or is made of logits."""
    with tf.init_scope():
        _internal(keras.layers.Masking(name="masking")(tf.ones([1, 1, 1])), METADATA[0])
        _internal(keras.activations.softmax(tf.ones([1, 2])), METADATA[1])


def changes_masks(layer) -> bool:
    """Whether calling a layer may change the implicit masks of the tensors it reads.

    MultiHeadAttention of Keras 3 takes them off.
    """
    kind = keras.layers.MultiHeadAttention
    return not LEGACY and any(isinstance(part, kind) for part in layers_within(layer))


def in_training(layer, kwargs) -> dict:
    """The keyword arguments of a call as a Keras 3 model in training makes it."""
    if not isinstance(layer, keras.layers.Layer):
        return kwargs  # an operation
    takes = "training" in _internal(layer, "_call_context_args")
    return {**kwargs, "training": True} if takes else kwargs


def set_implicit_mask(tensor, mask):
    """Give a tensor of Keras 3 an implicit mask."""
    _check_metadata()
    tensor._keras_mask = mask


def supports_masking(layer) -> bool:
    """Whether `layer` may be called on a tensor that has an implicit mask.

    Keras 2 says of no functional model that it may, and lets every one.
    """
    knows = bool(getattr(layer, "supports_masking", False))
    return knows or (LEGACY and has_graph(layer))


def symbolic_tensors_tell_masks() -> bool:
    """Whether symbolic tensors tell which implicit masks arrive when a model runs.

    In Keras 2 they do, but for a mask that a nested model is given by keyword. In
    Keras 3 a model must run to show it.
    """
    return LEGACY


def returns_inputs_themselves() -> bool:
    """Whether a model with an input among its outputs returns the tensor it is given.

    Keras 3 does, so the graph that the model is called in does not show this call.
    """
    return not LEGACY


def variables_to_read(version) -> str | None:
    """The environment variables to set for reading a file of another Keras.

    Args:
        version: the version of the Keras that saved the file.

    Returns:
        ``"NAME=value NAME=value"``, or None if this Keras reads the file.
    """
    legacy = version.startswith("2.")
    if legacy == LEGACY:
        return None
    return f"TF_USE_LEGACY_KERAS={legacy:d} TF_KERAS={legacy:d}"


def is_side_effect(layer) -> bool:
    """Whether `layer` is how Keras 2 keeps a symbolic `add_loss` or `add_metric`."""
    return LEGACY and type(layer).__name__ in ("AddLoss", "AddMetric")


def repeat_side_effects(model, calls, new):
    """Add the losses and metrics of `calls` to `model`; `new` as in `replay`."""
    for call in calls:
        value = new.get(id(call.inputs[0]), call.inputs[0])
        if type(call.layer).__name__ == "AddLoss":
            model.add_loss(value)
        else:
            layer = call.layer
            model.add_metric(
                value, aggregation=layer.aggregation, name=layer.metric_name
            )


def input_like(tensor, name):
    """A new Input with the shape, batch size, dtype and kind of a symbolic tensor.

    Where that is an Input that may be None, so may the new one.
    """
    shape = tuple(tensor.shape)
    kind = sparse_or_ragged(tensor)
    if not shape:
        return _scalar_input(tensor.dtype, name)
    if not LEGACY and getattr(maker(tensor), "optional", False):
        kind["optional"] = True
    return keras.Input(
        shape=shape[1:], batch_size=shape[0], dtype=tensor.dtype, name=name, **kind
    )


def _scalar_input(dtype, name):
    if LEGACY:
        return keras.Input(type_spec=tf.TensorSpec([], dtype), name=name)
    return keras.Input(batch_shape=(), dtype=dtype, name=name)


def output_names(model) -> list:
    """The names of the outputs of a functional model, as `compile` takes them."""
    return list(_internal(functional(model), "output_names"))


def name_outputs(model, names):
    """Let `compile` take these names for the outputs of a functional model."""
    # Keras 2 would make a list of its own kind of it.
    object.__setattr__(functional(model), "output_names", list(names))


def sparse_or_ragged(tensor) -> dict:
    """``{"sparse": True}``, ``{"ragged": True}`` or, for a dense tensor, nothing."""
    if LEGACY:
        kinds = {tf.SparseTensorSpec: "sparse", tf.RaggedTensorSpec: "ragged"}
        name = kinds.get(type(tensor.type_spec))
        return {name: True} if name else {}
    return {name: True for name in ("sparse", "ragged") if getattr(tensor, name, False)}


def ancestors(tensors):
    """The layers that a symbolic tensor (or structure of them) comes from."""
    pending = [t for t in flatten(tensors) if is_symbolic(t)]
    seen = set()
    while pending:
        history = _internal(pending.pop(), "_keras_history")
        layer, node_index = history[0], history[1]
        if layer is None or (id(layer), node_index) in seen:
            continue
        seen.add((id(layer), node_index))
        yield layer
        node = _internal(layer, "_inbound_nodes")[node_index]
        pending.extend(_raw_call(node).inputs)


def called_by_user(inputs) -> bool:
    """Whether a layer that is called now on `inputs` is called on numbers, by a user.

    And not by another layer or a trace.
    """
    if LEGACY:
        module = sys.modules["tf_keras.src.engine.base_layer_utils"]
        inside = _internal(_internal(module, "call_context")(), "in_call")
    else:
        inside = _keras_3_state("current_call_ctx") is not None
    symbolic = any(map(is_symbolic, flatten(inputs)))
    return tf.executing_eagerly() and not inside and not symbolic


def _keras_3_state(name):
    state = _internal(sys.modules["keras.src.backend.common"], "global_state")
    return state.get_global_attribute(name)


def table_of(embedding):
    """The variable that an embedding layer looks up, or None when it is not built."""
    if LEGACY or not isinstance(embedding, keras.layers.Embedding):
        return getattr(embedding, "embeddings", None)
    # Keras 3 gives a tensor for `embeddings` when an adapter (LoRA) is added to it.
    return _internal(embedding, "_embeddings") if embedding.built else None


def layers_within(layer) -> list:
    """`layer` itself and every layer nested in it, at any depth."""
    if not isinstance(layer, keras.layers.Layer):
        return [layer]  # an operation of Keras 3
    return list(_internal(layer, "_flatten_layers")())


def deserialize_layer(config):
    """The layer of a config that `serialize_keras_object` gave, of any file format."""
    if LEGACY:
        module = sys.modules["tf_keras.src.saving.legacy.saved_model.utils"]
        # Then the other function knows no layers of Keras' own.
        if _internal(module, "in_tf_saved_model_scope")():
            old = "module" not in config
            return keras.layers.deserialize(config, use_legacy_format=old)
    return keras.utils.deserialize_keras_object(config)


def in_keras_file() -> bool:
    """Whether Keras writes or reads a ``.keras`` file, which tells shared objects."""
    if LEGACY:
        module = sys.modules["tf_keras.src.saving.serialization_lib"]
        return getattr(_internal(module, "SHARED_OBJECTS"), "enabled", False)
    return _keras_3_state("shared_objects/id_to_obj_map") is not None


# Which function of Keras makes a model again, and its name of what there is so far.
_REBUILDING = {
    ("keras.src.models.functional", "functional_from_config"): "created_layers",
    ("keras.src.models.sequential", "from_config"): "model",
    ("tf_keras.src.engine.functional", "reconstruct_from_config"): "created_layers",
    ("tf_keras.src.engine.sequential", "from_config"): "model",
}


def layers_being_loaded() -> list:
    """What is made so far of the models that Keras is making from configs just now.

    Keras hands it to none of the layers that it makes, so it is read off the stack.
    """
    found, frame = [], sys._getframe()
    while frame is not None:
        place = frame.f_globals.get("__name__"), frame.f_code.co_name
        if place in _REBUILDING:
            made = _local(frame, _REBUILDING[place])
            found += list(made.values()) if isinstance(made, dict) else [made]
        frame = frame.f_back
    return [layer for layer in found if isinstance(layer, keras.layers.Layer)]


def _local(frame, name):
    if name not in frame.f_locals:
        raise RuntimeError(
            f"Keras {VERSION} has no {name} in {frame.f_code.co_name}, where tiedbert "
            "finds the table of a tied head; use a Keras that tiedbert's README lists, "
            "or report it"
        )
    return frame.f_locals[name]


def is_compiled(model) -> bool:
    """Whether `model.compile` was called."""
    return _internal(model, "_is_compiled") if LEGACY else model.compiled


def track_metric(layer, name, metric):
    """Set an attribute of `layer` that its model reports and resets.

    Keras 2 would count the state of the metric among the weights of the layer.
    """
    if LEGACY:
        _internal(layer, "_metrics").append(metric)
        object.__setattr__(layer, name, metric)
    else:
        setattr(layer, name, metric)


def without_autocast():
    """Context in which variables are read in their own dtype under any policy."""
    if LEGACY:
        module = sys.modules["tf_keras.src.mixed_precision.autocast_variable"]
        return _internal(module, "enable_auto_cast_variables")(None)
    return _internal(sys.modules["keras.src.backend"], "AutocastScope")(None)


def scale_loss(optimizer, loss):
    """`loss` as `optimizer` wants it differentiated: scaled in half precision."""
    if LEGACY:
        scale = getattr(optimizer, "get_scaled_loss", lambda loss: loss)
        return scale(loss)
    return optimizer.scale_loss(loss)


def skips_nonfinite_gradients(optimizer) -> bool:
    """Whether `optimizer` takes no step when a gradient is infinite or no number."""
    where = keras.mixed_precision if LEGACY else keras.optimizers
    return isinstance(optimizer, where.LossScaleOptimizer)


def accumulates(optimizer) -> bool:
    """Whether `optimizer` takes a step in several calls only: Keras 3 alone has it."""
    # What scales the loss has the optimizer inside.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return any(
        (getattr(each, "gradient_accumulation_steps", None) or 1) > 1
        for each in (optimizer, inner)
    )


def apply_gradients(optimizer, gradients, variables):
    """Apply the gradients of a loss that :func:`scale_loss` gave."""
    if LEGACY and hasattr(optimizer, "get_unscaled_gradients"):
        gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


def takes_inputs_and_outputs(model) -> bool:
    """Whether inputs and outputs are all there is to a model with a graph.

    Else its class has a constructor or a config of its own.
    """
    methods = type(model).__init__, type(model).get_config
    root = keras.Model.__module__.partition(".")[0]
    return all(method.__module__.partition(".")[0] == root for method in methods)


def unsafe_deserialization():
    """Let the configs of this process's own layers make Lambda layers again."""
    if LEGACY:
        return contextlib.nullcontext()
    module = sys.modules["keras.src.saving.serialization_lib"]
    return _internal(module, "SafeModeScope")(safe_mode=False)


def copy_operation(operation):
    """An operation of a Keras 3 graph again, as if it had not been called."""
    copy = type(operation).__new__(type(operation))
    vars(copy).update(vars(operation), _inbound_nodes=[], _outbound_nodes=[])
    if sublayers(copy):
        raise InputError(
            f"the operation {operation.name!r} ({type(operation).__name__}) holds "
            "layers: call a model instead"
        )
    return copy


def is_variable(value) -> bool:
    """Whether `value` is a variable of TensorFlow or of Keras."""
    return isinstance(value, tf.Variable if LEGACY else tf.Variable | keras.Variable)


def leaves(value) -> list:
    """What lists, tuples and dicts hold at any depth, whatever it is."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


# Where Keras itself keeps the layers that the attributes of a layer hold.
_BOOKKEEPING = (
    "_layers",
    "_self_tracked_trackables",
    "_self_unconditional_checkpoint_dependencies",
    "_self_unconditional_dependency_names",
)


def sublayers(layer) -> dict:
    """name -> value of the attributes of `layer` that hold layers."""
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in _BOOKKEEPING
        and any(isinstance(leaf, keras.layers.Layer) for leaf in leaves(value))
    }


def set_sublayers(layer, name, value):
    """Set an attribute of `layer` that holds layers.

    They take the places of those that it held, in the order of the weights too.
    """
    if LEGACY:
        _set_sublayers_legacy(layer, name, value)
        return
    tracker = _internal(layer, "_tracker")
    for old, new in zip(leaves(vars(layer).get(name)), leaves(value), strict=False):
        if old is not new and tracker.is_in_store("layers", old):
            if tracker.is_in_store("layers", new):
                tracker.untrack(old)
            else:
                tracker.replace_tracked_value("layers", old, new)
    locked = tracker.locked
    tracker.unlock()  # The original may have taken it before it was built.
    setattr(layer, name, value)
    tracker.locked = locked


def _set_sublayers_legacy(layer, name, value):
    before = list(_internal(layer, "_self_tracked_trackables"))
    setattr(layer, name, value)
    tracked = _internal(layer, "_self_tracked_trackables")
    kept = [t for t in before if any(t is u for u in tracked)]
    added = [t for t in tracked if not any(t is u for u in before)]
    gone = (i for i, t in enumerate(before) if not any(t is u for u in kept))
    place = next(gone, len(kept))
    tracked[:] = kept[:place] + added + kept[place:]


def rename(layer, name):
    """Give another name to a layer that is not built."""
    if not layer.built:
        setattr(layer, "_name" if LEGACY else "name", name)


def given_output_shape(layer):
    """The `output_shape` that a Lambda layer was made with."""
    return _internal(layer, "_output_shape")


def own_variables(layer) -> list:
    """The variables of `layer` that are not those of a sublayer, random state too."""
    if not isinstance(layer, keras.layers.Layer):
        return []
    if LEGACY:
        kinds = "_trainable_weights", "_non_trainable_weights"
        states = _legacy_generator_state(layer)
    else:
        kinds = "_trainable_variables", "_non_trainable_variables"
        states = [generator.state for generator in _internal(layer, "_seed_generators")]
    weights = [weight for kind in kinds for weight in _internal(layer, kind)]
    # Keras 2 counts the table of a lookup layer among the weights, and neither Keras
    # the states of a stateful recurrent layer.
    states += leaves(getattr(layer, "states", None))
    return [variable for variable in weights + states if is_variable(variable)]


def _legacy_generator_state(layer) -> list:
    module = sys.modules["tf_keras.src.engine.base_layer"]
    if not isinstance(layer, _internal(module, "BaseRandomLayer")):
        return []
    random = _internal(layer, "_random_generator")
    if not _internal(random, "_built"):
        return []
    generator = _internal(random, "_generator")  # None: it draws from a global one
    return [] if generator is None else [generator.state]


def copy_variable(source, copy):
    """Give `copy` the value of `source`, and what Keras 3 keeps at a variable."""
    copy.assign(source)
    if LEGACY:
        return
    for name in ("trainable", "regularizer", "constraint"):
        if getattr(copy, name) != getattr(source, name):
            setattr(copy, name, getattr(source, name))


def copy_flags(source, copy):
    """Make a layer trainable like another, and a model of the same dtype policy."""
    # The public setter would reach down into every sublayer.
    copy._trainable = _internal(source, "_trainable")
    if has_graph(source):
        copy._dtype_policy = _internal(source, "_dtype_policy")


def count_added_losses(layer) -> int:
    """How many losses a Keras 2 layer has as functions without arguments."""
    return len(_internal(layer, "_callable_losses")) if LEGACY else 0


def losses_of_calls(model) -> list:
    """What the last call of `model` added to the losses: those of activations."""
    layers = _internal(model, "_flatten_layers")()
    name = "_eager_losses" if LEGACY else "_losses"
    return [loss for layer in layers for loss in _internal(layer, name)]


def losses_of_weights(model) -> list:
    """The losses of `model` that belong to its weights, computed now."""
    if not LEGACY:
        return _internal(model, "_get_regularization_losses")()
    layers = _internal(model, "_flatten_layers")()
    functions = [f for layer in layers for f in _internal(layer, "_callable_losses")]
    return [loss for loss in (f() for f in functions) if loss is not None]


def statistics(model) -> list:
    """The variables that calls of `model` update by themselves, random state left out.

    Moving averages, and the metrics that a layer keeps.
    """
    layers = _internal(model, "_flatten_layers")()
    kind = "_non_trainable_weights" if LEGACY else "_non_trainable_variables"
    found = [v for layer in layers for v in _internal(layer, kind)]
    metrics = [m for layer in layers for m in _internal(layer, "_metrics")]
    found += [variable for metric in metrics for variable in metric.variables]
    found = {id(variable): variable for variable in found if is_variable(variable)}
    return list(found.values())


_LOGITS = {"Softmax": "_tiedbert_softmax_of", "Sigmoid": "_tiedbert_sigmoid_of"}
METADATA = "_keras_mask", "_keras_logits", *_LOGITS.values()


def metadata_of(tensor) -> list:
    """What is known of a tensor beside its values, None where it is not.

    Its implicit mask, the logits that Keras' losses take instead of it, and those of
    which it is the softmax or the sigmoid.
    """
    known = [_metadata(tensor, name) for name in METADATA[:2]]
    return known + [_made_of(tensor, kind) for kind in _LOGITS]


def logits_behind(tensor, kind):
    """The logits of which a tensor is the ``"Softmax"`` or ``"Sigmoid"``, or None.

    Where nothing tells which of the two, those that Keras' losses would take.
    """
    made = {each: _made_of(tensor, each) for each in _LOGITS}
    if any(logits is not None for logits in made.values()):
        return made[kind]
    return _metadata(tensor, "_keras_logits")


def _made_of(tensor, kind):
    noted = getattr(tensor, _LOGITS[kind], None)
    if noted is None and tf.is_symbolic_tensor(tensor) and tensor.op.type == kind:
        return tensor.op.inputs[0]
    return noted


def with_metadata(tensor, metadata):
    """`tensor`, of which the same is known from now on."""
    for name, value in zip(METADATA, metadata, strict=True):
        if value is not None:
            setattr(tensor, name, value)
    return tensor


class _NoMetric:
    """Takes the place of a metric that is not to see something."""

    def update_state(self, *args, **kwargs):
        """Do nothing."""


@contextlib.contextmanager
def losses_not_counted(model):
    """Context in which `model.compute_loss` leaves the metrics of the losses alone."""
    name = "compiled_loss" if LEGACY else "_compile_loss"
    container = _internal(model, name)
    if container is None:  # Keras 3: all losses are inside the model.
        yield
        return
    # Keras 3 does not let it be copied.
    silent = object.__new__(type(container))
    vars(silent).update(vars(container))
    if LEGACY:
        known = tf.nest.flatten(_internal(container, "_per_output_metrics"))
        silent._per_output_metrics = [m and _NoMetric() for m in known]
        silent._total_loss_mean = _NoMetric()
    else:
        known = _internal(container, "_metrics")
        vars(silent)["_metrics"] = [_NoMetric() for _ in known]
    object.__setattr__(model, name, silent)
    try:
        yield
    finally:
        object.__setattr__(model, name, container)


def given_losses(model) -> tuple:
    """The ``loss`` and the ``loss_weights`` that `model` was compiled with."""
    container = _internal(model, "compiled_loss" if LEGACY else "_compile_loss")
    if container is None:
        return None, None
    name = "_user_losses" if LEGACY else "_user_loss"
    weights = _internal(container, "_user_loss_weights")
    return _internal(container, name), weights


def update_metrics(model, y, outputs, sample_weight):
    """Let the metrics given to `compile` see some outputs.

    Unlike `compute_metrics` it does not ask for their results, which replicas would
    have to add up.
    """
    name = "compiled_metrics" if LEGACY else "_compile_metrics"
    container = _internal(model, name)
    if container is not None:
        container.update_state(y, outputs, sample_weight)


def result_of_sum(metric):
    """What a `keras.metrics.Sum` says, summed over the replicas of a training step."""
    # Keras 3 gives the mean of what the replicas say.
    one = LEGACY or tf.distribute.in_cross_replica_context()
    replicas = 1 if one else tf.distribute.get_strategy().num_replicas_in_sync
    return metric.result() * replicas


def check_logs_method(model):
    """RuntimeError where Keras has another name for the logs of an epoch."""
    old, new = "_validate_and_get_metrics_result", "_get_metrics_result_or_logs"
    _internal(model, old if LEGACY else new)


@contextlib.contextmanager
def optimizer_attached(wrapper, model):
    """Context in which Keras 3 saves and loads a wrapper's optimizer with `model`.

    It keeps the optimizer in a file of weights, by the name of the attribute: what
    was interrupted goes on. Keras 2 has only weights there.
    """
    lent = getattr(wrapper, "optimizer", None)
    if LEGACY or lent is None:
        yield
        return
    own = dict(vars(model))
    object.__setattr__(model, "optimizer", lent)
    try:
        yield
    finally:
        object.__delattr__(model, "optimizer")
        if "optimizer" in own:
            object.__setattr__(model, "optimizer", own["optimizer"])


def overriding_class(model, name):
    """The class of a user's that overrides a method of `keras.Model`, or None."""
    definer = next(kind for kind in type(model).__mro__ if name in vars(kind))
    return None if is_from_keras(definer) else definer


def rewire(operation, place, tensor):
    """Let an operation of a graph that is being made read another tensor."""
    _internal(operation, "_update_input")(place, tensor)


def is_from_keras(kind) -> bool:
    """Whether a class or a function is one of Keras."""
    return kind.__module__.startswith(("keras.src.", "tf_keras.src."))


@contextlib.contextmanager
def input_errors_unwrapped():
    """Context in which neither autograph nor Keras writes around an InputError."""
    try:
        yield
    except Exception as error:
        found, first = error, None
        while found is not None:
            first = found if isinstance(found, InputError) else first
            found = found.__context__
        if first is None or first is error:
            raise
        raise first from None
