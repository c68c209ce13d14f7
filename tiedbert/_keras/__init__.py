"""The only package that knows that two generations of Keras exist.

Each generation has one module; the two have the same names, and ``choice.py`` takes one
of them. What is equal in both is in modules named for what they do. The rest of the
library writes ``from tiedbert import _keras`` and takes every name from here.
"""

from tiedbert._keras.choice import generation as _generation
from tiedbert._keras.graphs import (
    ancestors,
    calls,
    functional,
    has_graph,
    maker,
    name_outputs,
    output_names,
)
from tiedbert._keras.input_errors import input_errors_unwrapped
from tiedbert._keras.inputs import dtype_name, input_like, type_spec
from tiedbert._keras.internals import GENERATION, VERSION, module_in_file
from tiedbert._keras.layer_state import copy_flags, own_variables, statistics, sublayers
from tiedbert._keras.layers import given_output_shape, layers_within, leaves
from tiedbert._keras.loading import called_by_user, layers_being_loaded
from tiedbert._keras.masks import in_training, starts_masks, trace
from tiedbert._keras.operations import copy_operation, rewire
from tiedbert._keras.tensor_metadata import (
    implicit_mask,
    logits_behind,
    metadata_of,
    set_implicit_mask,
    with_metadata,
)
from tiedbert._keras.training import (
    accumulates,
    check_logs_method,
    given_losses,
    losses_not_counted,
    losses_of_calls,
    update_metrics,
)
from tiedbert._keras.unique_names import keep_names_unique
from tiedbert._keras.user_code import (
    class_of_edited,
    is_from_keras,
    overriding_class,
    takes_inputs_and_outputs,
)

# Assigned here, so that callers look up one name.
is_symbolic = _generation.is_symbolic
map_structure = _generation.map_structure
flatten = _generation.flatten
structures = _generation.structures
is_side_effect = _generation.is_side_effect
repeat_side_effects = _generation.repeat_side_effects
returns_inputs_themselves = _generation.returns_inputs_themselves
call = _generation.call
sparse_or_ragged = _generation.sparse_or_ragged
symbolic_tensors_tell_masks = _generation.symbolic_tensors_tell_masks
supports_masking = _generation.supports_masking
masks_filled_in = _generation.masks_filled_in
forget_mask = _generation.forget_mask
changes_masks = _generation.changes_masks
table_of = _generation.table_of
is_variable = _generation.is_variable
tf_variable = _generation.tf_variable
quantization_mode = _generation.quantization_mode
copy_variable = _generation.copy_variable
set_sublayers = _generation.set_sublayers
rename = _generation.rename
track_metric = _generation.track_metric
without_autocast = _generation.without_autocast
deserialize_layer = _generation.deserialize_layer
in_keras_file = _generation.in_keras_file
unsafe_deserialization = _generation.unsafe_deserialization
variables_to_read = _generation.variables_to_read
is_compiled = _generation.is_compiled
count_added_losses = _generation.count_added_losses
losses_of_weights = _generation.losses_of_weights
result_of_sum = _generation.result_of_sum
scale_loss = _generation.scale_loss
apply_gradients = _generation.apply_gradients
skips_nonfinite_gradients = _generation.skips_nonfinite_gradients
AdamW = _generation.AdamW
EpochLogs = _generation.EpochLogs
optimizer_attached = _generation.optimizer_attached

__all__ = [
    "AdamW",
    "EpochLogs",
    "GENERATION",
    "VERSION",
    "accumulates",
    "ancestors",
    "apply_gradients",
    "call",
    "called_by_user",
    "calls",
    "changes_masks",
    "check_logs_method",
    "class_of_edited",
    "copy_flags",
    "copy_operation",
    "copy_variable",
    "count_added_losses",
    "deserialize_layer",
    "dtype_name",
    "flatten",
    "forget_mask",
    "functional",
    "given_losses",
    "given_output_shape",
    "has_graph",
    "implicit_mask",
    "in_keras_file",
    "in_training",
    "input_errors_unwrapped",
    "input_like",
    "is_compiled",
    "is_from_keras",
    "is_side_effect",
    "is_symbolic",
    "is_variable",
    "keep_names_unique",
    "layers_being_loaded",
    "layers_within",
    "leaves",
    "logits_behind",
    "losses_not_counted",
    "losses_of_calls",
    "losses_of_weights",
    "maker",
    "map_structure",
    "masks_filled_in",
    "metadata_of",
    "module_in_file",
    "name_outputs",
    "optimizer_attached",
    "output_names",
    "overriding_class",
    "own_variables",
    "quantization_mode",
    "rename",
    "repeat_side_effects",
    "result_of_sum",
    "returns_inputs_themselves",
    "rewire",
    "scale_loss",
    "set_implicit_mask",
    "set_sublayers",
    "skips_nonfinite_gradients",
    "sparse_or_ragged",
    "starts_masks",
    "statistics",
    "structures",
    "sublayers",
    "supports_masking",
    "symbolic_tensors_tell_masks",
    "table_of",
    "takes_inputs_and_outputs",
    "tf_variable",
    "trace",
    "track_metric",
    "type_spec",
    "unsafe_deserialization",
    "update_metrics",
    "variables_to_read",
    "with_metadata",
    "without_autocast",
]
