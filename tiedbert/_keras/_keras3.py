"""Keras 3: what tiedbert needs of it and Keras 2 does otherwise."""

import collections
import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert._keras.fused_adamw import FusedAdamW
from tiedbert._keras.internals import (
    VERSION,
    base_and_next_number,
    internal,
    internal_in_module,
)
from tiedbert._keras.layers import layers_within, leaves
from tiedbert._keras.tensor_metadata import implicit_mask, set_implicit_mask
from tiedbert._keras.user_code import class_with_own_call

if keras.config.backend() != "tensorflow":
    raise ImportError(
        f"tiedbert runs on TensorFlow, but Keras {VERSION} was set to the "
        f"{keras.config.backend()!r} backend: set KERAS_BACKEND=tensorflow"
    )

# Private attributes of Keras that mean the same in both generations.
LAYER = "operation"
TRAINABLE = "_trainable_variables"
NON_TRAINABLE = "_non_trainable_variables"
COMPILED_LOSS = "_compile_loss"
COMPILED_METRICS = "_compile_metrics"
GIVEN_LOSSES = "_user_loss"
LOSSES_OF_CALLS = "_losses"
LOGS_METHOD = "_get_metrics_result_or_logs"

# Where Keras itself keeps the layers that the attributes of a layer hold.
BOOKKEEPING = (
    "_layers",
    "_self_unconditional_checkpoint_dependencies",
    "_self_unconditional_dependency_names",
)

# Which function of Keras makes a model again, and its name of what there is so far.
REBUILDING = {
    ("keras.src.models.functional", "functional_from_config"): "created_layers",
    ("keras.src.models.sequential", "from_config"): "model",
}


def is_symbolic(value: Any) -> bool:
    """Whether `value` is a tensor of a functional graph."""
    return isinstance(value, keras.KerasTensor)


def map_structure(function: Callable, structure: Any) -> Any:
    """Apply `function` to every leaf of nested lists, tuples and dicts."""
    return keras.tree.map_structure(function, structure)


def flatten(structure: Any) -> list:
    """The leaves of nested lists, tuples and dicts, in Keras' own order."""
    return keras.tree.flatten(structure)


# Graphs


def graph_of(layer: Any) -> keras.Model | None:
    """The functional model whose graph runs when `layer` is called, or None."""
    if isinstance(layer, keras.Sequential):
        graph = internal(layer, "_functional") if layer.built else None
    else:
        is_graph = isinstance(layer, keras.Model) and getattr(layer, "inputs", None)
        graph = layer if is_graph else None
    return None if graph is None or class_with_own_call(layer) else graph


def structures(model: keras.Model) -> tuple:
    """The nested inputs and outputs of a functional model, as its user gave them."""
    return internal(model, "_inputs_struct"), internal(model, "_outputs_struct")


def arguments_and_outputs(node: Any) -> tuple[tuple, dict, list, list]:
    """The args, kwargs, input tensors and output tensors of a node."""
    arguments = internal(node, "arguments")
    return (
        arguments.args,
        arguments.kwargs,
        list(internal(node, "input_tensors")),
        list(internal(node, "output_tensors")),
    )


def is_side_effect(layer: Any) -> bool:
    """Whether `layer` is how Keras keeps a symbolic `add_loss` or `add_metric`.

    There is no such thing.
    """
    return False


def repeat_side_effects(model: keras.Model, calls: Iterable, new: Mapping) -> None:
    """Add the losses and metrics of `calls` to `model`; `new` as in `Substitution`."""


def returns_inputs_themselves() -> bool:
    """Whether a model that outputs one of its inputs returns the very tensor given.

    So the graph that the model is called in does not show that it was called.
    """
    return True


def call(model: keras.Model, inputs: Any, training: bool) -> Any:
    """Call a model as `fit` would, from a function that autograph does not convert."""
    return model(inputs, training=training)


def in_a_call() -> bool:
    """Whether a layer is being called."""
    return _global_attribute("current_call_ctx") is not None


def _global_attribute(name):
    state = internal_in_module("keras.src.backend.common", "global_state")
    return state.get_global_attribute(name)


# Inputs


def sparse_or_ragged(tensor: Any) -> dict[str, bool]:
    """``{"sparse": True}``, ``{"ragged": True}`` or, for a dense tensor, nothing."""
    return {name: True for name in ("sparse", "ragged") if getattr(tensor, name, False)}


def input_options(tensor: Any) -> dict[str, bool]:
    """Options of `keras.Input` for a tensor, beside shape and dtype."""
    maker = internal(internal(tensor, "_keras_history"), LAYER)
    optional = getattr(maker, "optional", False)
    return sparse_or_ragged(tensor) | ({"optional": True} if optional else {})


def scalar_input(dtype: Any, name: str) -> Any:
    """A new Input without dimensions, not even that of the batch."""
    return keras.Input(batch_shape=(), dtype=dtype, name=name)


# Implicit masks


def symbolic_tensors_tell_masks() -> bool:
    """Whether symbolic tensors show which implicit masks arrive when a model runs.

    A nested model passes masks on that its output does not show, and
    MultiHeadAttention takes the mask off its inputs: a model must run to show it.
    """
    return False


def supports_masking(layer: Any) -> bool:
    """Whether `layer` may be called on a tensor that has an implicit mask."""
    return bool(getattr(layer, "supports_masking", False))


def masks_filled_in(call: Any) -> dict[str, Any]:
    """The keyword arguments of a call that Keras itself filled with masks.

    In some nodes it records the implicit masks of the arguments as if the user had
    given them.

    Returns:
        dict, name of the keyword argument -> the argument whose masks it has.
    """
    named = [n for n in call.kwargs if n == "mask" or n.endswith("_mask")]
    if not named:
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


def forget_mask(tensor: Any) -> None:
    """Remove the implicit mask from a symbolic tensor; a run may still produce one.

    Keras records the mask of a symbolic tensor in the calls that read it. A mask that
    is not recorded is found again whenever the model runs.
    """
    set_implicit_mask(tensor, None)


def changes_masks(layer: Any) -> bool:
    """Whether calling a layer may change the implicit masks of the tensors it reads.

    MultiHeadAttention takes them off.
    """
    attention = keras.layers.MultiHeadAttention
    return any(isinstance(part, attention) for part in layers_within(layer))


# Layers and variables


def table_of(embedding: Any) -> Any:
    """The variable that an embedding layer looks up, or None when it is not built."""
    if not isinstance(embedding, keras.layers.Embedding):
        return getattr(embedding, "embeddings", None)
    # `embeddings` is a tensor when an adapter (LoRA) is added to the layer.
    return internal(embedding, "_embeddings") if embedding.built else None


def is_variable(value: Any) -> bool:
    """Whether `value` is a variable of TensorFlow or of Keras."""
    return isinstance(value, tf.Variable | keras.Variable)


def tf_variable(variable: Any) -> tf.Variable:
    """The variable of TensorFlow that holds the value of a variable."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def quantization_mode(layer: Any) -> str | None:
    """How the weights of a layer are quantized, or None."""
    return getattr(layer, "quantization_mode", None)


def random_states(layer: keras.layers.Layer) -> list:
    """The variables that hold the state of the random numbers that `layer` draws."""
    return [generator.state for generator in internal(layer, "_seed_generators")]


def copy_variable(source: Any, copy: Any) -> None:
    """Copy the value of a variable (Keras 3: trainable, regularizer, constraint too).

    Args:
        source: the variable that is copied.
        copy: the variable that takes the value.
    """
    copy.assign(source)
    for name in ("trainable", "regularizer", "constraint"):
        if getattr(copy, name) != getattr(source, name):
            setattr(copy, name, getattr(source, name))


def set_sublayers(layer: keras.layers.Layer, name: str, value: Any) -> None:
    """Set an attribute of `layer` that holds layers.

    They take the places of those that it held, in the order of the weights too.
    """
    tracker = internal(layer, "_tracker")
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


def rename(layer: keras.layers.Layer, name: str) -> None:
    """Give another name to a layer that is not built."""
    if not layer.built:
        layer.name = name


def reserve_name(name: str) -> None:
    """Let no layer or operation that is made from now on be numbered to this name."""
    state = internal_in_module("keras.src.backend.common", "global_state")
    numbers = state.get_global_attribute(
        "object_name_uids", collections.defaultdict(int), set_to_default=True
    )
    base, next_number = base_and_next_number(name)
    numbers[base] = max(numbers[base], next_number)


def rename_operation(operation: Any) -> None:
    """Give an operation that is no layer a new name."""
    uniquify = internal_in_module("keras.src.utils.naming", "uniquify")
    operation.name = uniquify(base_and_next_number(operation.name)[0])


def track_metric(layer: keras.layers.Layer, name: str, metric: Any) -> None:
    """Set an attribute of `layer` that its model reports and resets."""
    setattr(layer, name, metric)


def without_autocast() -> contextlib.AbstractContextManager:
    """Context in which variables are read in their own dtype under any policy."""
    return internal_in_module("keras.src.backend", "AutocastScope")(None)


# Files


def deserialize_layer(config: dict[str, Any]) -> Any:
    """The layer of a config that `serialize_keras_object` gave, of any file format."""
    return keras.utils.deserialize_keras_object(config)


def in_keras_file() -> bool:
    """Whether Keras writes or reads a ``.keras`` file, which records shared objects."""
    return _global_attribute("shared_objects/id_to_obj_map") is not None


def unsafe_deserialization() -> contextlib.AbstractContextManager:
    """Context in which configs of this process's own layers may make Lambda layers."""
    module = "keras.src.saving.serialization_lib"
    return internal_in_module(module, "SafeModeScope")(safe_mode=False)


def variables_to_read(version: str) -> str | None:
    """The environment variables to set for reading a file of another Keras.

    Args:
        version: the version of the Keras that saved the file.

    Returns:
        ``"NAME=value NAME=value"``, or None if this Keras reads the file.
    """
    of_the_other = version.startswith("2.")
    return "TF_USE_LEGACY_KERAS=1 TF_KERAS=1" if of_the_other else None


# Losses, metrics, optimizers


def is_compiled(model: keras.Model) -> bool:
    """Whether `model.compile` was called."""
    return model.compiled


def count_added_losses(layer: Any) -> int:
    """How many losses a layer has that were added as functions without arguments.

    Keras 3 takes none.
    """
    return 0


def losses_of_weights(model: keras.Model) -> list:
    """The losses of `model` that belong to its weights, computed now."""
    return internal(model, "_get_regularization_losses")()


def replace_loss_metrics(container: Any, metric: Any) -> None:
    """Let one metric take the places of all in a container of losses."""
    known = internal(container, "_metrics")
    vars(container)["_metrics"] = [metric for _ in known]


def result_of_sum(metric: keras.metrics.Sum) -> tf.Tensor:
    """The result of a sum, over all replicas of a training step."""
    # In a replica it is the mean of what the replicas say.
    one = tf.distribute.in_cross_replica_context()
    replicas = 1 if one else tf.distribute.get_strategy().num_replicas_in_sync
    return metric.result() * replicas


def scale_loss(optimizer: Any, loss: tf.Tensor) -> tf.Tensor:
    """`loss` as `optimizer` wants it differentiated: scaled in half precision."""
    return optimizer.scale_loss(loss)


def apply_gradients(optimizer: Any, gradients: Sequence, variables: Sequence) -> None:
    """Apply the gradients of a loss that :func:`scale_loss` gave."""
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


AdamW = FusedAdamW


def skips_nonfinite_gradients(optimizer: Any) -> bool:
    """Whether `optimizer` takes no step when a gradient is infinite or not a number."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


class EpochLogs:
    """Base of a model that computes the logs of an epoch itself.

    At the end of an epoch, when the metrics of several replicas are added up, Keras
    calls the one method of this class.
    """

    def _epoch_logs(self, logs: dict) -> dict | None:
        """The logs of an epoch; None for those that Keras gives.

        Args:
            logs: dict, name -> value of the last step.
        """
        raise NotImplementedError

    def _get_metrics_result_or_logs(self, logs: dict) -> dict:
        """Return the logs of an epoch."""
        of_keras = super()._get_metrics_result_or_logs  # type: ignore[misc]
        return self._epoch_logs(logs) or of_keras(logs)


@contextlib.contextmanager
def optimizer_attached(wrapper: Any, model: keras.Model) -> Iterator[None]:
    """Context in which Keras saves and loads a wrapper's optimizer with `model`.

    A file of weights holds it by the name of the attribute, so an interrupted training
    goes on.
    """
    optimizer = getattr(wrapper, "optimizer", None)
    if optimizer is None:
        yield
        return
    before = dict(vars(model))
    object.__setattr__(model, "optimizer", optimizer)
    try:
        yield
    finally:
        object.__delattr__(model, "optimizer")
        if "optimizer" in before:
            object.__setattr__(model, "optimizer", before["optimizer"])
