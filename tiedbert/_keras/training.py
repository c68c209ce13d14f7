"""What `compile` gave a model: its losses, its metrics and its optimizer."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tensorflow import keras

from tiedbert._keras.choice import generation
from tiedbert._keras.internals import internal
from tiedbert._keras.layers import layers_within


def given_losses(model: keras.Model) -> tuple:
    """The ``loss`` and the ``loss_weights`` that `model` was compiled with."""
    container = internal(model, generation.COMPILED_LOSS)
    if container is None:
        return None, None
    losses = internal(container, generation.GIVEN_LOSSES)
    return losses, internal(container, "_user_loss_weights")


def losses_of_calls(model: keras.Model) -> list:
    """What the last call of `model` added to the losses: those of activations."""
    name = generation.LOSSES_OF_CALLS
    return [loss for layer in layers_within(model) for loss in internal(layer, name)]


class _NoMetric:
    """Takes the place of a metric that must not see something."""

    def update_state(self, *args, **kwargs):
        """Do nothing."""


@contextlib.contextmanager
def losses_not_counted(model: keras.Model) -> Iterator[None]:
    """Context in which `model.compute_loss` leaves the metrics of the losses alone."""
    name = generation.COMPILED_LOSS
    container = internal(model, name)
    if container is None:  # Keras 3: all losses are inside the model.
        yield
        return
    # Keras 3 does not let it be copied.
    silent = object.__new__(type(container))
    vars(silent).update(vars(container))
    generation.replace_loss_metrics(silent, _NoMetric())
    object.__setattr__(model, name, silent)
    try:
        yield
    finally:
        object.__setattr__(model, name, container)


def update_metrics(
    model: keras.Model, y: Any, outputs: Any, sample_weight: Any
) -> None:
    """Let the metrics given to `compile` see some outputs.

    Unlike `compute_metrics` it does not ask for their results, which replicas would
    have to add up.
    """
    container = internal(model, generation.COMPILED_METRICS)
    if container is not None:
        container.update_state(y, outputs, sample_weight)


def check_logs_method(model: keras.Model) -> None:
    """Check the name of the method by which `fit` asks a model for its logs.

    Raises:
        RuntimeError: Keras has another name for it.
    """
    internal(model, generation.LOGS_METHOD)


def accumulates(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether `optimizer` takes a step in several calls only: Keras 3 alone has it."""
    # What scales the loss has the optimizer inside.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return any(
        (getattr(each, "gradient_accumulation_steps", None) or 1) > 1
        for each in (optimizer, inner)
    )
