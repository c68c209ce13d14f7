"""What `AdversarialTraining` accepts: models, arguments, results of methods."""

from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert.adversarial.argument_rules import is_count
from tiedbert.adversarial.method import Method
from tiedbert.adversarial.results import StepResult
from tiedbert.errors import InputError

# Methods of a model that `fit` and `evaluate` call, unless it is wrapped.
_REFUSED = "train_step", "test_step", "compute_loss", "compute_metrics"


def check_arguments(
    model: Any,
    method: Any,
    perturbation_mask: Any,
    same_dropout: Any,
    micro_batches: Any,
) -> None:
    """InputError for an argument of `AdversarialTraining` of another kind."""
    if not isinstance(model, keras.Model):
        raise InputError(
            f"AdversarialTraining expected a keras.Model, received {model!r}"
        )
    if not isinstance(method, Method):
        raise InputError(
            f"AdversarialTraining expected a method such as FGM(), received {method!r}"
        )
    if perturbation_mask is not None and not callable(perturbation_mask):
        raise InputError(
            "AdversarialTraining expected perturbation_mask: a function of the "
            f"inputs or None; received a {type(perturbation_mask).__name__}"
        )
    if same_dropout not in (None, True, False):
        raise InputError(
            "AdversarialTraining expected same_dropout: True, False or None; "
            f"received {same_dropout!r}"
        )
    if not is_count(micro_batches):
        raise InputError(
            "AdversarialTraining expected micro_batches: a whole number >= 1; "
            f"received {micro_batches!r}"
        )
    if micro_batches > 1 and method.replays > 1:
        raise InputError(
            f"{type(method).__name__} steps within a batch: it takes {method.replays} "
            "optimizer steps, and micro-batches share one; give micro_batches=1"
        )


def check_model(model: keras.Model) -> None:
    """InputError for a model that adversarial training would not train as it is."""
    names = _keras.functional(model).output_names  # InputError without a graph
    taken = {"clean", "adversarial"} & set(names)
    if taken and len(names) > 1:
        name = min(taken)
        raise InputError(
            f"the loss of the output {name!r} would have the name of a log of "
            f"adversarial training, {name}_loss: give its layer another name"
        )
    for layer in _keras.layers_within(model):
        if isinstance(layer, keras.layers.RNN) and layer.stateful:
            raise InputError(
                f"layer {layer.name!r} is stateful: each pass of a step would change "
                "its state; build it with stateful=False"
            )
    for name in _REFUSED:
        owner = _keras.overriding_class(model, name) if hasattr(model, name) else None
        if owner is not None:
            raise InputError(
                f"model {model.name!r} has a {name} of its own ({owner.__name__}), "
                "which adversarial training would ignore: wrap a plain functional "
                "model with the same layers, keras.Model(model.inputs, model.outputs)"
            )


def checked_result(result: Any, method: Method) -> StepResult:
    """What ``method.train`` returned; InputError when it is something else."""
    if not isinstance(result, StepResult):
        raise InputError(
            f"{type(method).__name__}.train: expected a "
            f"tiedbert.adversarial.StepResult, received {result!r}"
        )
    return result


def use_same_dropout(method: Method, asked: bool | None) -> bool:
    """Whether the passes of a step have the same random numbers.

    Args:
        method: its ``same_dropout`` is True, False or None (no requirement).
        asked: by the user; None: as the method requires, else False.

    Raises:
        InputError: `asked` differs from what the method requires.
    """
    needed = method.same_dropout
    if asked is None:
        return bool(needed)
    if needed is not None and asked != needed:
        name = type(method).__name__
        raise InputError(
            f"{name} is defined with same_dropout={needed}, received {asked}; leave "
            "same_dropout out"
        )
    return asked
