"""Every method against its paper's pseudo-code, in NumPy with gradients by hand.

Two steps of SGD on a small network: ``softmax((tanh((x A + delta) B + b)) C + c)``.
"""

import adversarial_problems as problems
import numpy as np
import pytest
from adversarial_problems import FROM_LOGITS, NOISE, assert_close
from tensorflow import keras

from tiedbert.adversarial import (
    ALUM,
    FGM,
    KL,
    PGD,
    R3F,
    SMART,
    VAT,
    YOPO,
    AdversarialTraining,
    FreeAT,
    FreeLB,
    GradientPenalty,
    RandomNoise,
    RDrop,
)

RATE, ROWS = 0.5, 3
DRAW = np.random.default_rng(2)
X = DRAW.normal(size=(2 * ROWS, 3))
Y = np.array([0, 2, 1, 1, 0, 2])
DRAWN = NOISE[:ROWS, 0, :4].astype(float)  # what every draw of the tests gives
FRONT, BLOCK, REST = [0], [1, 2], [3, 4]  # places of the weights


class Net:
    """The network, float64."""

    def __init__(self, weights):
        self.weights = [np.array(w, float) for w in weights]

    def forward(self, x, delta=0.0):
        """Logits; keeps what the way back needs."""
        a, b, b0, c, c0 = self.weights
        self.x, self.hidden = x, x @ a + delta
        self.states = np.tanh(self.hidden @ b + b0)
        return self.states @ c + c0

    def backward(self, d_logits):
        """Gradients of the weights, and that of the hidden state."""
        _, _, _, c, _ = self.weights
        rest = [self.states.T @ d_logits, d_logits.sum(0)]
        before, d_hidden = self.backward_block(d_logits @ c.T)
        return [*before, *rest], d_hidden

    def backward_block(self, d_states):
        """Gradients of the weights before the states, and that of the hidden state."""
        d_sum = d_states * (1 - self.states**2)
        d_hidden = d_sum @ self.weights[1].T
        return [self.x.T @ d_hidden, self.hidden.T @ d_sum, d_sum.sum(0)], d_hidden

    def descend(self, gradients):
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight -= RATE * gradient


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def d_cross_entropy(logits, y):
    """Of the mean over the batch, with respect to the logits."""
    return (softmax(logits) - np.eye(3)[y]) / len(y)


def d_kl(p_logits, q_logits):
    """Of the mean of KL(p || q) with respect to both logits."""
    p, q = softmax(p_logits), softmax(q_logits)
    ratio = np.log(p / q)
    kl = (p * ratio).sum(-1, keepdims=True)
    return p * (ratio - kl) / len(p), (q - p) / len(p)


def d_symmetric_kl(p_logits, q_logits):
    there, back = d_kl(p_logits, q_logits), d_kl(q_logits, p_logits)
    return there[0] + back[1], there[1] + back[0]


def unit(gradient):
    return gradient / np.linalg.norm(gradient, axis=1, keepdims=True)


def to_ball(delta, epsilon):
    norm = np.linalg.norm(delta, axis=1, keepdims=True)
    return delta * np.minimum(1.0, epsilon / norm)


def to_cube(delta, epsilon):
    return np.clip(delta, -epsilon, epsilon)


def largest_out(gradient):
    return gradient / np.abs(gradient).max(1, keepdims=True)


def start_in_ball(epsilon):
    """FreeLB's: uniform in a cube that the ball contains."""
    return epsilon * DRAWN / np.sqrt(4)


def add(*gradients):
    return [sum(entries) for entries in zip(*gradients, strict=True)]


def times(scale, gradients):
    return [scale * gradient for gradient in gradients]


def supervised(net, x, y, delta=0.0):
    return net.backward(d_cross_entropy(net.forward(x, delta), y))


# The methods: functions of the network and a batch that take one step.


def fgm(net, x, y, epsilon, clean):
    """Miyato et al., 2017, equation 2."""
    at_zero, gradient = supervised(net, x, y)
    attacked, _ = supervised(net, x, y, epsilon * unit(gradient))
    net.descend(times(0.5, add(at_zero, attacked)) if clean else attacked)


def pgd(net, x, y, epsilon, alpha, steps, random_start):
    """Madry et al., 2018, in the L2 ball."""
    delta = start_in_ball(epsilon) if random_start else 0.0
    for _ in range(steps):
        _, gradient = supervised(net, x, y, delta)
        delta = to_ball(delta + alpha * unit(gradient), epsilon)
    net.descend(supervised(net, x, y, delta)[0])


def random_noise(net, x, y, epsilon):
    net.descend(supervised(net, x, y, epsilon * unit(DRAWN))[0])


def free_at(net, x, y, epsilon, replays):
    """Shafahi et al., 2019, algorithm 1, from zero in each batch."""
    delta = np.zeros_like(DRAWN)
    for _ in range(replays):
        gradients, gradient = supervised(net, x, y, delta)
        net.descend(gradients)
        delta = to_cube(delta + epsilon * np.sign(gradient), epsilon)


def free_lb(net, x, y, epsilon, alpha, steps):
    """Zhu et al., 2020, algorithm 1."""
    delta, gathered = start_in_ball(epsilon), times(0.0, net.weights)
    for _ in range(steps):
        gradients, gradient = supervised(net, x, y, delta)
        gathered = add(gathered, times(1.0 / steps, gradients))
        delta = to_ball(delta + alpha * unit(gradient), epsilon)
    net.descend(gathered)


def yopo(net, x, y, epsilon, alpha, m, n):
    """Zhang et al., 2019, algorithm 1."""
    delta, gathered = start_in_ball(epsilon), times(0.0, net.weights)
    for _ in range(m):
        d_logits = d_cross_entropy(net.forward(x, delta), y)
        slack = d_logits @ net.weights[3].T
        rest = net.backward(d_logits)[0][3:]
        for _ in range(n):
            net.forward(x, delta)
            _, gradient = net.backward_block(slack)
            delta = to_ball(delta + alpha * unit(gradient), epsilon)
        net.forward(x, delta)
        before, _ = net.backward_block(slack)
        gathered = add(gathered, times(1.0 / m, [*before, *rest]))
    net.descend(gathered)


def vat(net, x, y, epsilon, xi, steps, weight):
    """Miyato et al., 2018, algorithm 1; the target is a constant."""
    target, direction = net.forward(x), DRAWN
    gradients, _ = supervised(net, x, y)
    for _ in range(steps):
        near = net.forward(x, xi * unit(direction))
        _, direction = net.backward(d_kl(target, near)[1])
    far = net.forward(x, epsilon * unit(direction))
    regular, _ = net.backward(d_kl(target, far)[1])
    net.descend(add(gradients, times(weight, regular)))


def climb(net, x, d_divergence, step, to_set, epsilon, alpha, steps):
    """From a normal draw up a divergence from the unperturbed outputs."""
    target, delta = net.forward(x), epsilon * DRAWN
    for _ in range(steps):
        _, gradient = net.backward(d_divergence(target, net.forward(x, delta))[1])
        delta = to_set(delta + alpha * step(gradient), epsilon)
    return delta


def smooth(net, x, d_divergence, delta):
    """The gradients of a divergence through both of its sides."""
    clean, perturbed = net.forward(x), net.forward(x, delta)
    d_clean, d_perturbed = d_divergence(clean, perturbed)
    through_perturbed, _ = net.backward(d_perturbed)
    net.forward(x)
    return add(net.backward(d_clean)[0], through_perturbed)


def smart(net, x, y, average, epsilon, alpha, steps, weight, proximal, momentum):
    """Jiang et al., 2020, algorithm 1, one inner iteration of the proximal point."""
    delta = climb(net, x, d_symmetric_kl, largest_out, to_cube, epsilon, alpha, steps)
    gradients, _ = supervised(net, x, y)
    regular = smooth(net, x, d_symmetric_kl, delta)
    target = average.forward(x)
    near, _ = net.backward(d_symmetric_kl(target, net.forward(x))[1])
    net.descend(add(gradients, times(weight, regular), times(proximal, near)))
    for old, new in zip(average.weights, net.weights, strict=True):
        old[...] = momentum * old + (1 - momentum) * new


def alum(net, x, y, epsilon, alpha, steps, weight):
    """Liu et al., 2020, algorithm 1."""
    delta = climb(net, x, d_kl, unit, to_ball, epsilon, alpha, steps)
    gradients, _ = supervised(net, x, y)
    net.descend(add(gradients, times(weight, smooth(net, x, d_kl, delta))))


def r3f(net, x, y, epsilon, weight):
    """Aghajanyan et al., 2021, equation 5."""
    gradients, _ = supervised(net, x, y)
    regular = smooth(net, x, d_symmetric_kl, epsilon * DRAWN)
    net.descend(add(gradients, times(weight, regular)))


def gradient_penalty(net, x, y, weight):
    """Drucker and LeCun, 1992; its gradient by central differences, in float64."""

    def loss():
        logits = net.forward(x)
        entropy = -np.mean(np.log(softmax(logits)[np.arange(len(y)), y]))
        _, gradient = net.backward(d_cross_entropy(logits, y))
        squares = np.square(len(y) * gradient).sum(1)
        return entropy + weight / 2 * squares.mean()

    net.descend([central_differences(loss, array) for array in net.weights])


def central_differences(loss, array, step=1e-5):
    """The gradient of `loss()` with respect to an array that it reads."""
    gradient = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        value, ends = array[place], []
        for sign in (1, -1):
            array[place] = value + sign * step
            ends.append(loss())
        array[place] = value
        gradient[place] = (ends[0] - ends[1]) / (2 * step)
    return gradient


# The comparison


def weights_after(method):
    model = problems.network()
    training = AdversarialTraining(model, method, "hidden")
    optimizer = keras.optimizers.SGD(RATE)
    training.compile(optimizer, FROM_LOGITS, run_eagerly=True)
    training.fit(X, Y, batch_size=ROWS, shuffle=False, verbose=0)
    return model.get_weights()


def assert_as_reference(monkeypatch, method, reference, *extra, **options):
    problems.fix_noise(monkeypatch)
    start = problems.network().get_weights()
    net = Net(start)
    for rows in (slice(0, ROWS), slice(ROWS, None)):
        reference(net, X[rows], Y[rows], *extra, **options)
    assert_close(weights_after(method), net.weights, rtol=1e-5, atol=1e-5)
    plain = Net(start)
    for rows in (slice(0, ROWS), slice(ROWS, None)):
        plain.descend(supervised(plain, X[rows], Y[rows])[0])
    distance = max(
        np.abs(a - b).max() for a, b in zip(plain.weights, net.weights, strict=True)
    )
    assert distance > 1e-3, "it is not plain training"


CASES = {
    "FGM": (FGM(0.5), fgm, {"epsilon": 0.5, "clean": True}),
    "FGM alone": (FGM(0.5, clean=False), fgm, {"epsilon": 0.5, "clean": False}),
    "PGD": (
        PGD(0.5, 3, 0.3),
        pgd,
        {"epsilon": 0.5, "alpha": 0.3, "steps": 3, "random_start": False},
    ),
    "PGD at random": (
        PGD(0.5, 2, random_start=True),
        pgd,
        {"epsilon": 0.5, "alpha": 2.5 * 0.5 / 2, "steps": 2, "random_start": True},
    ),
    "RandomNoise": (RandomNoise(0.5), random_noise, {"epsilon": 0.5}),
    "FreeAT": (
        FreeAT(0.2, replays=3, norm="linf"),
        free_at,
        {"epsilon": 0.2, "replays": 3},
    ),
    "FreeLB": (
        FreeLB(0.5, 3, 0.3),
        free_lb,
        {"epsilon": 0.5, "alpha": 0.3, "steps": 3},
    ),
    "YOPO-1-3": (
        YOPO(0.5, 1, 3, 0.2, until="block"),
        yopo,
        {"epsilon": 0.5, "alpha": 0.2, "m": 1, "n": 3},
    ),
    "YOPO-3-2": (
        YOPO(0.5, 3, 2, until="block"),
        yopo,
        {"epsilon": 0.5, "alpha": 2.5 * 0.5 / 6, "m": 3, "n": 2},
    ),
    "VAT": (
        VAT(0.5, steps=1, xi=0.8, weight=2.0),
        vat,
        {"epsilon": 0.5, "xi": 0.8, "steps": 1, "weight": 2.0},
    ),
    "VAT, two iterations": (
        VAT(0.5, steps=2, xi=0.3, weight=2.0),
        vat,
        {"epsilon": 0.5, "xi": 0.3, "steps": 2, "weight": 2.0},
    ),
    "ALUM": (
        ALUM(0.5, 2, 0.3, weight=2.0, norm="l2"),
        alum,
        {"epsilon": 0.5, "alpha": 0.3, "steps": 2, "weight": 2.0},
    ),
    "R3F": (R3F(0.5, weight=2.0), r3f, {"epsilon": 0.5, "weight": 2.0}),
    "R3F, normal": (
        R3F(0.3, noise="normal", weight=2.0),
        r3f,
        {"epsilon": 0.3, "weight": 2.0},
    ),
    "GradientPenalty": (GradientPenalty(0.7), gradient_penalty, {"weight": 0.7}),
}


@pytest.mark.cases(8)
@pytest.mark.parametrize("name", CASES)
def test_two_steps_are_those_of_the_paper(name, monkeypatch):
    method, reference, options = CASES[name]
    assert_as_reference(monkeypatch, method, reference, **options)


@pytest.mark.parametrize("proximal", [0.0, 3.0])
def test_two_steps_of_smart_are_those_of_the_paper(proximal, monkeypatch):
    """The second step is drawn back to an average that is no longer the model."""
    options = {"epsilon": 0.4, "steps": 2, "weight": 2.0}
    options |= {"proximal": proximal, "momentum": 0.7}
    average = Net(problems.network().get_weights())
    assert_as_reference(
        monkeypatch,
        SMART(step_size=0.3, **options),
        smart,
        average,
        alpha=0.3,
        **options,
    )


def test_rdrop_is_its_formula_on_the_outputs_of_its_two_passes():
    """With dropout before the logits: both passes' masks are read off the outputs."""
    x = keras.Input((4,))
    h = keras.layers.Activation("linear", name="hidden")(x)
    model = keras.Model(x, keras.layers.Dropout(0.5)(h))
    spy = problems.Spy(RDrop(weight=3.0))
    values = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    y = np.array([0, 1, 2, 3, 0])
    logs = problems.trained(model, spy, values, y, loss=FROM_LOGITS)
    (_, one), (_, other) = spy.seen[0]
    assert np.any(one != other)
    losses = [
        -np.mean(np.log(softmax(logits)[np.arange(5), y])) for logits in (one, other)
    ]
    p, q = softmax(one.astype(float)), softmax(other.astype(float))
    divergence = np.mean(((p - q) * np.log(p / q)).sum(-1)) / 2
    assert logs["adversarial_loss"] == pytest.approx(divergence, rel=1e-5)
    assert logs["loss"] == pytest.approx(np.mean(losses) + 3.0 * divergence, rel=1e-5)
    assert logs["clean_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_alum_with_a_given_divergence_is_alum_with_that(monkeypatch):
    """The symmetric one, which ALUM does not take by itself."""
    options = {"epsilon": 0.5, "steps": 1, "weight": 2.0}

    def symmetric_alum(net, x, y, epsilon, steps, weight):
        delta = climb(net, x, d_symmetric_kl, unit, to_ball, epsilon, epsilon, steps)
        gradients, _ = supervised(net, x, y)
        regular = smooth(net, x, d_symmetric_kl, delta)
        net.descend(add(gradients, times(weight, regular)))

    method = ALUM(divergence=KL(symmetric=True), norm="l2", **options)
    assert_as_reference(monkeypatch, method, symmetric_alum, **options)
