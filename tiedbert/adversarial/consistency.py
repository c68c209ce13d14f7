"""Methods that keep the outputs where they are: VAT, SMART, ALUM, R3F, R-Drop."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.argument_rules import (
    COUNT,
    DIVERGENCE,
    LENGTH,
    NORM,
    RADIUS,
    STEP_SIZE,
    SWITCH,
    Rule,
    argument,
    is_length,
    one_of,
)
from tiedbert.adversarial.attacks import ascend
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.perturbation_ball import Moved
from tiedbert.adversarial.step import Trained

_POSITIVE = Rule("a number > 0", lambda value: is_length(value) and value > 0)
_SHARE = Rule("a number >= 0 and < 1", lambda value: is_length(value) and value < 1)


@dataclass(frozen=True)
class VAT(Method):
    """Virtual adversarial training: no label is needed.

    ``loss + weight * KL(p(h) || p(h + delta))``, the first a constant, where ``delta``
    of length `epsilon` is the direction in which the divergence grows most, found by
    `steps` power iterations from a random direction.

    Every example counts in the divergence, whatever its sample weight: a text without
    a label has any label and the sample weight 0. So does every token, also one whose
    label is the `ignore_class` of the loss. (Weights within an example, as those of the
    tokens of a masked language model, count: 0 leaves a token out.)

    Args:
        epsilon: radius per example, in units of the hidden state: a number, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`.
        steps: power iterations.
        xi: length at which the divergence is differentiated. In bfloat16, whose
            numbers near 1 are 1/128 apart, 0.1 is mostly rounded away: take 1.
        weight: of the divergence.
        divergence: function of two outputs -> ``[batch, ...]``; None: by the loss, KL
            for a cross-entropy and the squared difference else.
        norm: ``"l2"``, ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether lengths are in units of the root mean square of the hidden
            state of the example.

    Source: Miyato et al., "Virtual adversarial training: a regularization method for
    supervised and semi-supervised learning", 2018, algorithm 1.

    Cost: ``(2 steps + 6) / 3`` training steps.

    Example:
        >>> VAT(epsilon=2.0).steps
        1
    """

    epsilon: float | Callable = argument(RADIUS, 1.0)
    steps: int = argument(COUNT, 1)
    xi: float = argument(_POSITIVE, 0.1)
    weight: float = argument(LENGTH, 1.0)
    divergence: Callable | None = argument(DIVERGENCE, None)
    norm: str = argument(NORM, "l2")
    relative: bool = argument(SWITCH, False)

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs."""
        return Passes(2, ascending=self.steps)

    def train(self, step) -> Trained:
        """One training step."""
        return _train(
            step,
            self,
            self._attack,
            fixed_target=True,
            weighted=False,
            symmetric=False,
        )

    def _attack(self, ball, gradient):
        near = ball.resized(self.xi)
        way, failed = ball.normal(1.0), 0.0
        for _ in range(self.steps):
            way = gradient(near.step(None, way, failed=failed).delta)
            moved = ball.step(None, way, failed=failed)
            failed = moved.failed
        return moved


@dataclass(frozen=True)
class SMART(Method):
    """Smoothness-inducing adversarial regularization, with its proximal term.

    ``loss + weight * D(f(h), f(h + delta)) + proximal * D(f(h), f'(h))``, where D is
    the symmetric KL (the squared difference for a regression), ``delta`` climbs D from
    a normal draw of standard deviation `epsilon`, and ``f'`` has the moving average of
    the weights.

    Args:
        epsilon: radius per example, in units of the hidden state: a number, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`.
        steps: of ascent.
        step_size: length of a step, in the same norm and unit; None: `epsilon`.
        weight: of the divergence.
        proximal: of the divergence from the moving average (Bregman proximal point).
        momentum: of that average. It begins with the weights at the construction, and
            is no part of any file.
        divergence: function of two outputs -> ``[batch, ...]``; None: by the loss.
        norm: ``"linf_scaled"`` (the paper's: the largest magnitude, climbed along the
            gradient itself), ``"linf"``, ``"l2"`` or ``"l2_per_token"``.
        relative: whether lengths are in units of the root mean square of the hidden
            state of the example.

    Source: Jiang et al., "SMART: Robust and efficient fine-tuning for pre-trained
    natural language models through principled regularized optimization", 2020. The
    lengths there (1e-5) are for embeddings before their norm, and in float32 a KL is
    lost in rounding at them; after a norm 0.01 moves the outputs visibly.

    Cost: ``(2 steps + 6) / 3`` training steps; with `proximal` a forward pass, and a
    copy of the weights.

    Example:
        >>> SMART(proximal=1.0).momentum
        0.99
    """

    epsilon: float | Callable = argument(RADIUS, 0.01)
    steps: int = argument(COUNT, 1)
    step_size: float | None = argument(STEP_SIZE, None)
    weight: float = argument(LENGTH, 1.0)
    proximal: float = argument(LENGTH, 0.0)
    momentum: float = argument(_SHARE, 0.99)
    divergence: Callable | None = argument(DIVERGENCE, None)
    norm: str = argument(NORM, "linf_scaled")
    relative: bool = argument(SWITCH, False)

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs."""
        average = float(self.proximal > 0)
        return Passes(2, ascending=self.steps, forward=average)

    def train(self, step) -> Trained:
        """One training step."""
        extra = (lambda clean: self._proximal(step, clean)) if self.proximal else None
        return _train(step, self, _climb(self), extra=extra)

    def _proximal(self, step, clean):
        average = step.average_outputs()
        given = self.divergence
        return self.proximal * step.divergence(clean.outputs, average, given=given)


@dataclass(frozen=True)
class ALUM(Method):
    """Adversarial pretraining: the masked language model is kept smooth.

    ``loss + weight * KL(f(h) || f(h + delta))``, where ``delta`` climbs the divergence
    from a normal draw of standard deviation `epsilon`. Unlike in VAT, both sides of it
    are trained.

    Args:
        epsilon: radius per example, in units of the hidden state: a number, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`.
        steps: of ascent.
        step_size: length of a step, in the same norm and unit; None: `epsilon`.
        weight: of the divergence: 10 for pretraining, 1 for fine-tuning, says the
            paper.
        divergence: function of two outputs -> ``[batch, ...]``; None: by the loss.
        norm: as for :class:`SMART`.
        relative: whether lengths are in units of the root mean square of the hidden
            state of the example.

    Source: Liu et al., "Adversarial training for large neural language models", 2020,
    algorithm 1. For the lengths see :class:`SMART`.

    Cost: ``(2 steps + 6) / 3`` training steps.

    Example:
        >>> ALUM(weight=1.0).epsilon
        0.01
    """

    epsilon: float | Callable = argument(RADIUS, 0.01)
    steps: int = argument(COUNT, 1)
    step_size: float | None = argument(STEP_SIZE, None)
    weight: float = argument(LENGTH, 10.0)
    divergence: Callable | None = argument(DIVERGENCE, None)
    norm: str = argument(NORM, "linf_scaled")
    relative: bool = argument(SWITCH, False)

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs."""
        return Passes(2, ascending=self.steps)

    def train(self, step) -> Trained:
        """One training step."""
        return _train(step, self, _climb(self), symmetric=False)


@dataclass(frozen=True)
class R3F(Method):
    """Consistency under plain noise: the control of the methods with an attack.

    ``loss + weight * (KL(f(h) || f(h + z)) + KL(f(h + z) || f(h)))``, where ``z`` is
    noise, independent in each number.

    Args:
        epsilon: the noise is uniform between -epsilon and epsilon, or normal with
            this standard deviation; a number, or a function of the step.
        noise: ``"uniform"`` or ``"normal"``.
        weight: of the divergence.
        divergence: function of two outputs -> ``[batch, ...]``; None: by the loss.
        relative: whether `epsilon` is in units of the root mean square of the hidden
            state of the example.

    Source: Aghajanyan et al., "Better fine-tuning by reducing representational
    collapse", 2021.

    Cost: 2 training steps.

    Example:
        >>> R3F(noise="normal").weight
        1.0
    """

    epsilon: float | Callable = argument(RADIUS, 0.01)
    noise: str = argument(one_of("uniform", "normal"), "uniform")
    weight: float = argument(LENGTH, 1.0)
    divergence: Callable | None = argument(DIVERGENCE, None)
    relative: bool = argument(SWITCH, False)

    norm = "linf"

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs."""
        return Passes(2)

    def train(self, step) -> Trained:
        """One training step."""
        return _train(step, self, self._draw)

    def _draw(self, ball, gradient):
        noise = ball.random() if self.noise == "uniform" else ball.normal()
        return Moved(noise, 0.0)


@dataclass(frozen=True)
class RDrop(Method):
    """R-Drop: two passes with different dropout are to give the same outputs.

    ``(loss_1 + loss_2) / 2 + weight * (KL(f_1 || f_2) + KL(f_2 || f_1)) / 2``. Half of
    the paper's loss: its alpha is twice `weight`. Only the dropout after the cut point
    differs between the passes.

    Args:
        weight: of the divergence.
        divergence: function of two outputs -> ``[batch, ...]``; None: by the loss.

    Source: Liang et al., "R-Drop: Regularized dropout for neural networks", 2021.

    Cost: 2 training steps.

    Example:
        >>> RDrop(weight=0.5).weight
        0.5
    """

    weight: float = argument(LENGTH, 1.0)
    divergence: Callable | None = argument(DIVERGENCE, None)

    replays_dropout = False

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs."""
        return Passes(2)

    def train(self, step) -> Trained:
        """One training step."""
        told = []

        def loss():
            one, other = step.run(), step.run()
            apart = step.divergence(one.outputs, other.outputs, given=self.divergence)
            apart /= 2.0
            told.append(apart)
            both = step.loss(one) + step.loss(other)
            step.clean = both / 2.0
            return step.clean + tf.cast(self.weight * apart, step.clean.dtype)

        return Trained(step.learn(loss).loss, told[0])


def _constant(output):
    """An output without a gradient; what Keras says of it stays said."""
    notes = [
        x if x is None else tf.stop_gradient(x) for x in _keras.metadata_of(output)
    ]
    return _keras.with_metadata(tf.stop_gradient(output), notes)


def _climb(method):
    """The ascent of SMART and ALUM."""

    def attack(ball, gradient):
        length = ball.epsilon if method.step_size is None else method.step_size
        return ascend(gradient, ball, ball.normal(), method.steps, length)

    return attack


def _train(
    step,
    method,
    attack,
    *,
    fixed_target=False,
    weighted=True,
    symmetric=True,
    extra=None,
) -> Trained:
    """Train on the loss and the divergence at what `attack` finds.

    Args:
        step: :class:`tiedbert.adversarial.step.Step`.
        method: with ``weight`` and ``divergence``.
        attack: function of a ball and of a gradient function -> ``Moved``.
        fixed_target: whether the unperturbed outputs are a constant in the divergence.
        weighted: whether the sample weights of rows count in it.
        symmetric: whether it is the symmetric one.
        extra: function of the unperturbed pass -> what is added to the loss; or None.
    """
    told = []

    def apart(one, other):
        return step.divergence(one, other, weighted, method.divergence, symmetric)

    def loss():
        clean = step.run()
        target = tf.nest.map_structure(_constant, clean.outputs)
        with step.pause():
            ball = step.ball(method)
            moved = attack(
                ball,
                lambda delta: step.gradient(
                    delta, lambda done: apart(target, done.outputs)
                ),
            )
        perturbed = step.run(moved.delta)
        kept = target if fixed_target else clean.outputs
        value = apart(kept, perturbed.outputs)
        told.append(Trained(None, value, ball.size(moved.delta), moved.failed))
        step.clean = step.loss(clean)
        added = method.weight * value
        added += 0.0 if extra is None else extra(clean)
        return step.clean + tf.cast(added, step.clean.dtype)

    minimized = step.learn(loss).loss
    return told[0]._replace(loss=minimized)
