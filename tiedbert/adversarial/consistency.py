"""Training on a divergence between unperturbed and perturbed outputs."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.method import Method
from tiedbert.adversarial.perturbation_ball import Ball, Perturbation
from tiedbert.adversarial.results import Pass, StepResult
from tiedbert.adversarial.step import Step


@dataclass(frozen=True)
class ConsistencyMethod(Method):
    """Base of the methods that keep the outputs equal under a perturbation.

    Each step minimizes ``loss + weight * D(f(h), f(h + delta))``. A subclass has the
    fields ``weight``, ``divergence``, ``epsilon``, ``norm`` and ``relative``, and
    implements :meth:`find_perturbation`.

    Attributes:
        symmetric: bool, whether a KL is the symmetric one.
        weighted: bool, whether the sample weights of rows count in the divergence.
        constant_target: bool, whether no gradient flows through ``f(h)`` in the
            divergence.
    """

    symmetric = True
    weighted = True
    constant_target = False

    def find_perturbation(
        self, gradient: Callable[..., list], ball: Ball
    ) -> Perturbation:
        """The perturbation at which the outputs are compared.

        Args:
            gradient: function of a perturbation (list of float32 tensors; None: zero)
                -> the gradient of the divergence there, times a positive number.
            ball: the ball that the perturbation should lie in.
        """
        raise NotImplementedError

    def extra_loss(self, step: Step, clean: Pass) -> tf.Tensor | float:
        """What is added to the loss beside the divergence: a scalar; 0.0 here.

        Args:
            step: the training step.
            clean: the unperturbed pass.
        """
        return 0.0

    def train(self, step: Step) -> StepResult:
        """Make one training step."""
        with step.record() as tape:
            clean = step.run()
            target = tf.nest.map_structure(_constant, clean.outputs)
            with tape.stop_recording():
                ball = step.ball(self)
                found = self._attack(step, ball, target)
            perturbed = step.run(found.delta)
            if not self.constant_target:
                target = clean.outputs
            divergence = self._divergence(step, target, perturbed)
            step.clean_loss = step.loss(clean)
            weight = self.weight  # type: ignore[attr-defined]  # of the subclass
            added = weight * divergence + self.extra_loss(step, clean)
            loss = step.clean_loss + tf.cast(added, step.clean_loss.dtype)
        step.learn(tape, loss)
        return StepResult(loss, divergence, ball.size(found.delta), found.failed)

    def _attack(self, step, ball, target) -> Perturbation:
        """The perturbation at which outputs differ from `target`, a constant."""
        divergence = functools.partial(self._divergence, step, target)
        gradient = functools.partial(step.gradient, objective=divergence)
        return self.find_perturbation(gradient, ball)

    def _divergence(self, step, outputs, done: Pass) -> tf.Tensor:
        """The divergence between some outputs and those of a pass."""
        given = self.divergence  # type: ignore[attr-defined]  # of the subclass
        return step.divergence(
            outputs, done.outputs, self.weighted, given, self.symmetric
        )


def _constant(output):
    """An output through which no gradient flows, with the metadata that Keras keeps."""
    metadata = [
        x if x is None else tf.stop_gradient(x) for x in _keras.metadata_of(output)
    ]
    return _keras.with_metadata(tf.stop_gradient(output), metadata)
