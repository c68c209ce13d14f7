"""Keras 2 (``tf_keras``): the names of ``_keras3.py``, which explains more of them.

Nobody develops Keras 2 any more. Only ``choice.py`` imports this file.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras
from tensorflow.python.autograph.core import ag_ctx

from tiedbert._keras.internals import (
    base_and_next_number,
    internal,
    internal_in_module,
)
from tiedbert._keras.user_code import class_with_own_call

# Private attributes of Keras that mean the same in both generations.
LAYER = "layer"
TRAINABLE = "_trainable_weights"
NON_TRAINABLE = "_non_trainable_weights"
COMPILED_LOSS = "compiled_loss"
COMPILED_METRICS = "compiled_metrics"
GIVEN_LOSSES = "_user_losses"
LOSSES_OF_CALLS = "_eager_losses"
LOGS_METHOD = "_validate_and_get_metrics_result"

# Where Keras itself keeps the layers that the attributes of a layer hold.
BOOKKEEPING = (
    "_layers",
    "_self_tracked_trackables",
    "_self_unconditional_checkpoint_dependencies",
    "_self_unconditional_dependency_names",
)

# Which function of Keras makes a model again, and its name of what there is so far.
REBUILDING = {
    ("tf_keras.src.engine.functional", "reconstruct_from_config"): "created_layers",
    ("tf_keras.src.engine.sequential", "from_config"): "model",
}


def is_symbolic(value: Any) -> bool:
    """Whether `value` is a tensor of a functional graph."""
    return hasattr(value, "_keras_history")


def map_structure(function: Callable, structure: Any) -> Any:
    """Apply `function` to every leaf of nested lists, tuples and dicts."""
    return tf.nest.map_structure(function, structure)


def flatten(structure: Any) -> list:
    """The leaves of nested lists, tuples and dicts, in Keras' own order."""
    return tf.nest.flatten(structure)


# Graphs


def graph_of(layer: Any) -> keras.Model | None:
    """The functional model whose graph runs when `layer` is called, or None."""
    is_graph = isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))
    return layer if is_graph and class_with_own_call(layer) is None else None


def structures(model: keras.Model) -> tuple:
    """The nested inputs and outputs of a functional model, as its user gave them."""
    return internal(model, "_nested_inputs"), internal(model, "_nested_outputs")


def arguments_and_outputs(node: Any) -> tuple[tuple, dict, list, list]:
    """The args, kwargs, input tensors and output tensors of a node."""
    return (
        tuple(internal(node, "call_args")),
        dict(internal(node, "call_kwargs")),
        list(internal(node, "keras_inputs")),
        flatten(internal(node, "outputs")),
    )


def is_side_effect(layer: Any) -> bool:
    """Whether `layer` is how Keras keeps a symbolic `add_loss` or `add_metric`."""
    return type(layer).__name__ in ("AddLoss", "AddMetric")


def repeat_side_effects(model: keras.Model, calls: Iterable, new: Mapping) -> None:
    """Add the losses and metrics of `calls` to `model`; `new` as in `Substitution`."""
    for call in calls:
        value = new.get(call.inputs[0], call.inputs[0])
        layer = call.layer
        if type(layer).__name__ == "AddLoss":
            model.add_loss(value)
        else:
            name = layer.metric_name
            model.add_metric(value, aggregation=layer.aggregation, name=name)


def returns_inputs_themselves() -> bool:
    """Whether a model that outputs one of its inputs returns the very tensor given."""
    return False


def call(model: keras.Model, inputs: Any, training: bool) -> Any:
    """Call a model as `fit` would, from a function that autograph does not convert."""
    # It then lets autograph convert the `call` of users' layers.
    with ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED):
        return model(inputs, training=training)


def in_a_call() -> bool:
    """Whether a layer is being called."""
    context = internal_in_module("tf_keras.src.engine.base_layer_utils", "call_context")
    return internal(context(), "in_call")


# Inputs


def sparse_or_ragged(tensor: Any) -> dict[str, bool]:
    """``{"sparse": True}``, ``{"ragged": True}`` or, for a dense tensor, nothing."""
    names = {tf.SparseTensorSpec: "sparse", tf.RaggedTensorSpec: "ragged"}
    name = names.get(type(tensor.type_spec))
    return {name: True} if name else {}


def input_options(tensor: Any) -> dict[str, bool]:
    """Options of `keras.Input` for a tensor, beside shape and dtype."""
    return sparse_or_ragged(tensor)


def scalar_input(dtype: Any, name: str) -> Any:
    """A new Input without dimensions, not even that of the batch."""
    return keras.Input(type_spec=tf.TensorSpec([], dtype), name=name)


# Implicit masks


def symbolic_tensors_tell_masks() -> bool:
    """Whether symbolic tensors show which implicit masks arrive when a model runs.

    All but one: the mask that a nested model is given by keyword.
    """
    return True


def supports_masking(layer: Any) -> bool:
    """Whether `layer` may be called on a tensor that has an implicit mask.

    A functional model may, although it does not say so.
    """
    return bool(getattr(layer, "supports_masking", False)) or bool(graph_of(layer))


def masks_filled_in(call: Any) -> dict[str, Any]:
    """The keyword arguments of a call that Keras itself filled with masks."""
    return {}


def forget_mask(tensor: Any) -> None:
    """Remove the implicit mask from a symbolic tensor; a run may still produce one.

    Nothing to do: the mask of a symbolic tensor is recorded in no call.
    """


def changes_masks(layer: Any) -> bool:
    """Whether calling a layer may change the implicit masks of the tensors it reads."""
    return False


# Layers and variables


def table_of(embedding: Any) -> Any:
    """The variable that an embedding layer looks up, or None when it is not built."""
    return getattr(embedding, "embeddings", None)


def is_variable(value: Any) -> bool:
    """Whether `value` is a variable of TensorFlow or of Keras."""
    return isinstance(value, tf.Variable)


def tf_variable(variable: Any) -> tf.Variable:
    """The variable of TensorFlow that holds the value of a variable."""
    return variable


def quantization_mode(layer: Any) -> str | None:
    """How the weights of a layer are quantized, or None."""
    return None


def random_states(layer: keras.layers.Layer) -> list:
    """The variables that hold the state of the random numbers that `layer` draws."""
    random_layer = internal_in_module(
        "tf_keras.src.engine.base_layer", "BaseRandomLayer"
    )
    if not isinstance(layer, random_layer):
        return []
    random = internal(layer, "_random_generator")
    if not internal(random, "_built"):
        return []
    generator = internal(random, "_generator")  # None: it draws from a global one
    return [] if generator is None else [generator.state]


def copy_variable(source: Any, copy: Any) -> None:
    """Copy the value of a variable (Keras 3: trainable, regularizer, constraint too).

    Args:
        source: the variable that is copied.
        copy: the variable that takes the value.
    """
    copy.assign(source)


def set_sublayers(layer: keras.layers.Layer, name: str, value: Any) -> None:
    """Set an attribute of `layer` that holds layers.

    They take the places of those that it held, in the order of the weights too.
    """
    before = list(internal(layer, "_self_tracked_trackables"))
    setattr(layer, name, value)
    tracked = internal(layer, "_self_tracked_trackables")
    remaining = [each for each in before if _is_in(each, tracked)]
    added = [each for each in tracked if not _is_in(each, before)]
    removed = (i for i, each in enumerate(before) if not _is_in(each, remaining))
    place = next(removed, len(remaining))
    tracked[:] = remaining[:place] + added + remaining[place:]


def _is_in(value, values):
    return any(value is each for each in values)


def rename(layer: keras.layers.Layer, name: str) -> None:
    """Give another name to a layer that is not built."""
    if not layer.built:
        layer._name = name


def reserve_name(name: str) -> None:
    """Let no layer or operation that is made from now on be numbered to this name."""
    numbers = internal_in_module("tf_keras.src.backend", "get_default_graph_uid_map")()
    base, next_number = base_and_next_number(name)
    numbers["", base] = max(numbers["", base], next_number)


def rename_operation(operation: Any) -> None:
    """Give an operation that is no layer a new name."""
    raise NotImplementedError("in Keras 2 all of a graph are layers")


def track_metric(layer: keras.layers.Layer, name: str, metric: Any) -> None:
    """Set an attribute of `layer` that its model reports and resets.

    Set as others are, the state of the metric would count among the layer's weights.
    """
    internal(layer, "_metrics").append(metric)
    object.__setattr__(layer, name, metric)


def without_autocast() -> contextlib.AbstractContextManager:
    """Context in which variables are read in their own dtype under any policy."""
    module = "tf_keras.src.mixed_precision.autocast_variable"
    return internal_in_module(module, "enable_auto_cast_variables")(None)


# Files


def deserialize_layer(config: dict[str, Any]) -> Any:
    """The layer of a config that `serialize_keras_object` gave, of any file format."""
    module = "tf_keras.src.saving.legacy.saved_model.utils"
    # Then the other function knows no layers of Keras' own.
    if internal_in_module(module, "in_tf_saved_model_scope")():
        old = "module" not in config
        return keras.layers.deserialize(config, use_legacy_format=old)
    return keras.utils.deserialize_keras_object(config)


def in_keras_file() -> bool:
    """Whether Keras writes or reads a ``.keras`` file, which records shared objects."""
    module = "tf_keras.src.saving.serialization_lib"
    return getattr(internal_in_module(module, "SHARED_OBJECTS"), "enabled", False)


def unsafe_deserialization() -> contextlib.AbstractContextManager:
    """Context in which configs of this process's own layers may make Lambda layers."""
    return contextlib.nullcontext()


def variables_to_read(version: str) -> str | None:
    """The environment variables to set for reading a file of another Keras.

    Args:
        version: the version of the Keras that saved the file.

    Returns:
        ``"NAME=value NAME=value"``, or None if this Keras reads the file.
    """
    of_this = version.startswith("2.")
    return None if of_this else "TF_USE_LEGACY_KERAS=0 TF_KERAS=0"


# Losses, metrics, optimizers


def is_compiled(model: keras.Model) -> bool:
    """Whether `model.compile` was called."""
    return internal(model, "_is_compiled")


def count_added_losses(layer: Any) -> int:
    """How many losses a layer has that were added as functions without arguments."""
    return len(internal(layer, "_callable_losses"))


def losses_of_weights(model: keras.Model) -> list:
    """The losses of `model` that belong to its weights, computed now."""
    layers = internal(model, "_flatten_layers")()
    functions = [f for layer in layers for f in internal(layer, "_callable_losses")]
    return [loss for loss in (f() for f in functions) if loss is not None]


def replace_loss_metrics(container: Any, metric: Any) -> None:
    """Let one metric take the places of all in a container of losses."""
    known = tf.nest.flatten(internal(container, "_per_output_metrics"))
    container._per_output_metrics = [each and metric for each in known]
    container._total_loss_mean = metric


def result_of_sum(metric: keras.metrics.Sum) -> tf.Tensor:
    """The result of a sum, over all replicas of a training step."""
    return metric.result()


def scale_loss(optimizer: Any, loss: tf.Tensor) -> tf.Tensor:
    """`loss` as `optimizer` wants it differentiated: scaled in half precision."""
    scale = getattr(optimizer, "get_scaled_loss", None)
    return loss if scale is None else scale(loss)


def apply_gradients(optimizer: Any, gradients: Sequence, variables: Sequence) -> None:
    """Apply the gradients of a loss that :func:`scale_loss` gave."""
    if hasattr(optimizer, "get_unscaled_gradients"):
        gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


AdamW = keras.optimizers.AdamW


def skips_nonfinite_gradients(optimizer: Any) -> bool:
    """Whether `optimizer` takes no step when a gradient is infinite or not a number."""
    return isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)


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

    def _validate_and_get_metrics_result(self, logs: dict) -> dict:
        """Return the logs of an epoch."""
        of_keras = super()._validate_and_get_metrics_result  # type: ignore[misc]
        return self._epoch_logs(logs) or of_keras(logs)


@contextlib.contextmanager
def optimizer_attached(wrapper: Any, model: keras.Model) -> Iterator[None]:
    """Context in which Keras saves and loads a wrapper's optimizer with `model`.

    A file of weights holds none.
    """
    yield
