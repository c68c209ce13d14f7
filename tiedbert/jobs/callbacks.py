"""Keras callbacks that write into a run directory."""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError, reason
from tiedbert.jobs.runs import append_metrics

# Metrics by name, as `fit` passes them; a callback may add to them.
Logs = dict[str, Any]

_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
)


class MetricsLog(keras.callbacks.Callback):
    """Writes a line of ``metrics.jsonl`` and TensorBoard scalars after each epoch.

    A loss that is not finite ends the training with an InputError, before a later
    callback saves the model.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._writer = tf.summary.create_file_writer(str(self._folder / "events"))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the epoch's metrics."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        step = int(self.model.optimizer.iterations.numpy())
        if not math.isfinite(values.get("loss", 0.0)):
            raise InputError(
                f"the loss is {values['loss']} at step {step}: the training diverged; "
                "lower the learning rate"
            )
        seconds = round(time.perf_counter() - self._start, 3)
        append_metrics(
            self._folder,
            {"epoch": epoch + 1, "step": step, "seconds": seconds, **values},
        )
        with self._writer.as_default():
            for name, value in values.items():
                # tf.summary.scalar needs TensorBoard installed; the format does not.
                tf.summary.write(name, tf.constant(value), step, metadata=_SCALAR)
        self._writer.flush()


class StepTime(keras.callbacks.Callback):
    """Adds ``step_seconds``, the median time of a step, to the metrics of an epoch.

    The median excludes the first step, which is traced. Put it before
    :class:`MetricsLog` in the list of callbacks.
    """

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Forget the times of the last epoch."""
        self._seconds = []

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Stop the clock."""
        self._seconds.append(time.perf_counter() - self._start)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Add the median, in seconds with 4 digits."""
        logs["step_seconds"] = round(statistics.median(self._seconds), 4)


class TrainingState(keras.callbacks.Callback):
    """Saves model, optimizer and epoch after each epoch, to resume a killed run.

    `tf.train.CheckpointManager` restores every optimizer exactly; a ``.keras`` file
    does not.

    Args:
        folder: the run.
        model: the model that is trained.
        optimizer: its optimizer.
        **extra: further objects to save and restore, as `tf.train.Checkpoint` takes
            them.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        **extra: Any,
    ) -> None:
        super().__init__()
        optimizer.build(
            model.trainable_variables
        )  # else its variables are restored at its first step
        self._epoch = tf.Variable(0, dtype=tf.int64)
        # TensorFlow restores what it finds by name: half of a state of the other Keras.
        self._keras = tf.Variable(_keras.GENERATION)
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(
                model=model,
                optimizer=optimizer,
                epoch=self._epoch,
                keras=self._keras,
                **extra,
            ),
            str(Path(folder) / "checkpoints"),
            max_to_keep=1,
        )

    def restore(self) -> int:
        """Restore the newest state, if there is one; the number of finished epochs."""
        try:
            self._manager.restore_or_initialize()
        # IndexError: the data are cut short; ValueError: the list of states is empty.
        except (tf.errors.OpError, IndexError, ValueError) as error:
            raise InputError(
                f"{self._manager.directory} cannot be read: {reason(error)}"
            ) from None
        written = int(self._keras.numpy())
        if written != _keras.GENERATION:
            raise InputError(
                f"{self._manager.directory}: the run was begun under Keras {written} "
                f"and cannot be resumed under Keras {_keras.GENERATION}: start with "
                f"TF_USE_LEGACY_KERAS={int(written == 2)}"
            )
        return int(self._epoch.numpy())

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save."""
        self._epoch.assign(epoch + 1)
        try:
            self._manager.save()
        except tf.errors.OpError as error:
            raise OSError(
                f"{self._manager.directory} cannot be written: {reason(error)}"
            ) from None


class StopAfter(keras.callbacks.Callback):
    """Ends the training after a number of optimizer steps, even within an epoch."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Stop after the last step."""
        if self.model.optimizer.iterations.numpy() >= self._steps:
            self.model.stop_training = True


class BestEpoch(keras.callbacks.Callback):
    """Saves the model after each epoch that is better than all before it.

    Args:
        save: called without arguments.
        metric: the name of the metric; larger is better.
        earlier: values of the metric before a resume.
        patience: epochs without a better one after which the training ends; None (the
            default): it does not end early.
    """

    def __init__(
        self,
        save: Callable[[], None],
        metric: str,
        earlier: Iterable[float] = (),
        patience: int | None = None,
    ) -> None:
        super().__init__()
        self._save = save
        self._metric = metric
        self._patience = patience
        self.best, self._waited = float("-inf"), 0
        for value in earlier:
            self._is_best(value)

    @property
    def done(self) -> bool:
        """Whether `patience` is used up."""
        return self._patience is not None and self._waited >= self._patience

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Save if the metric is the best so far; else stop if `patience` is used up."""
        if self._is_best(float(logs[self._metric])):
            self._save()
        elif self.done:
            self.model.stop_training = True

    def _is_best(self, value: float) -> bool:
        is_better = value > self.best
        self.best = max(value, self.best)
        self._waited = 0 if is_better else self._waited + 1
        return is_better
