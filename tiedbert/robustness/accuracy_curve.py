"""How the accuracy of a model falls as its activations are attacked."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from tiedbert.adversarial import Method
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.errors import InputError
from tiedbert.robustness.attacked_model import AttackedModel
from tiedbert.robustness.curve_inputs import check, radii, unpack_batch


def curve(
    model: keras.Model,
    dataset: tf.data.Dataset,
    at: Any,
    method: Method,
    epsilons: Sequence[float],
    perturbation_mask: Callable[[Any], tf.Tensor] | None = None,
    restarts: int = 1,
) -> list[tuple[float, float]]:
    """Accuracy against the radius of an attack on the activations at a cut point.

    The attack runs the model in inference mode, knows the true labels, and raises the
    loss that the model was compiled with. An example counts at a radius if its answer
    is right unperturbed, and no attack of this radius or of a smaller one in `epsilons`
    makes it wrong: smaller perturbations lie in the ball too.

    Args:
        model: a functional classifier, or a built `Sequential`, compiled with a loss;
            output ``[batch, classes]``.
        dataset: batches ``(inputs, labels)``, int labels ``[batch]``; or ``(inputs,
            labels, sample_weight)``, weights ``[batch]``: then the accuracies are
            weighted means.
        at: the cut points, as in :class:`tiedbert.adversarial.AdversarialTraining`.
        method: an attack: ``FGM()``, ``PGD()`` or ``RandomNoise()``. Its epsilon is
            replaced by each radius; a `step_size` is not, and None grows with the
            radius.
        epsilons: radii, numbers >= 0, in the norm of the method; 0 gives the accuracy
            without an attack.
        perturbation_mask: as in :class:`tiedbert.adversarial.AdversarialTraining`; None
            by default.
        restarts: attacks on each example, >= 1; 1 by default. One that succeeds is
            enough. Several help a method that draws, e.g. ``PGD(random_start=True)``.

    Returns:
        list of ``(epsilon, accuracy)``, floats, in the order given.

    Raises:
        InputError: no such cut point; a model without a graph or a loss; a method that
            is no attack; radii that are not numbers >= 0; or data of another kind:
            arrays, examples without a batch axis, no labels, labels that the model has
            no output for, no examples.

    Warns:
        UserWarning: the attack could not move some examples, because its first gradient
            was exactly 0 or not finite there. They count as right, so the accuracy may
            be too high. The usual reason is a model whose outputs are saturated
            probabilities without logits behind them, or a loss with a flat part, such
            as a hinge.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from tensorflow import keras
        >>> from tiedbert.adversarial import FGM
        >>> x = keras.Input((1,))
        >>> hidden = keras.layers.Identity(name="hidden")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2, use_bias=False)(hidden))
        >>> model.set_weights([np.array([[-1.0, 1.0]])])
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile(loss=loss)
        >>> data = tf.data.Dataset.from_tensors(([[1.0], [3.0]], [1, 1]))
        >>> curve(model, data, "hidden", FGM(), [0.0, 2.0])
        [(0.0, 1.0), (2.0, 0.5)]
    """
    epsilons = radii(epsilons)
    right, weights = _attack_dataset(
        model, dataset, at, method, epsilons, perturbation_mask, restarts
    )
    accuracies = [_mean(row, weights) for row in right]
    return list(zip(epsilons, accuracies, strict=True))


def correct_under_attack(
    model: keras.Model,
    dataset: tf.data.Dataset,
    at: Any,
    method: Method,
    epsilons: Sequence[float],
    perturbation_mask: Callable[[Any], tf.Tensor] | None = None,
    restarts: int = 1,
) -> np.ndarray:
    """Which examples a model gets right under attack: what :func:`curve` averages.

    Args:
        model: this and all other arguments are those of :func:`curve`.
        dataset: its examples are taken in order; sample weights have no effect.
        at: the cut points.
        method: the attack.
        epsilons: radii.
        perturbation_mask: where a perturbation may be; None by default.
        restarts: attacks on each example; 1 by default.

    Returns:
        bool ``[epsilons, examples]``, NumPy.

    Raises:
        InputError: as in :func:`curve`.

    Warns:
        UserWarning: as in :func:`curve`.
    """
    epsilons = radii(epsilons)
    right, _ = _attack_dataset(
        model, dataset, at, method, epsilons, perturbation_mask, restarts
    )
    return right


def _attack_dataset(
    model, dataset, at, method, epsilons, perturbation_mask, restarts
) -> tuple:
    """What is right, bool ``[epsilons, examples]``, and the weights of the examples."""
    check(dataset, at, method, restarts)
    cut = CutModel(model, at, perturbation_mask=perturbation_mask)
    attacked_model = AttackedModel(model, cut, method)
    right_of = attack = None
    results = []
    for batch in dataset.as_numpy_iterator():
        inputs, labels, weights = unpack_batch(batch, model)
        if attack is None:
            types = _of_any_size(dataset.element_spec[0], inputs)
            right_of, attack = _functions(attacked_model, types, labels.dtype)
        found = _attack_batch((inputs, labels), right_of, attack, epsilons, restarts)
        results.append((*found, weights))
    if not results:
        raise InputError("robustness.curve received a dataset without examples")
    right, stuck, weights = (
        np.concatenate(arrays, axis=-1) for arrays in zip(*results, strict=True)
    )
    if stuck.any():
        _warn_of_stuck(stuck)
    return right, weights


def _attack_batch(batch, right_of, attack, epsilons, restarts) -> tuple:
    """What is right, bool ``[epsilons, batch]``, and which no attack could move.

    Radii are taken in ascending order; what is wrong already is not attacked again.
    """
    right = right_of(*batch).numpy()
    at_radius = {0.0: right.copy()}
    ever_stuck = np.zeros_like(right)
    for epsilon in sorted(set(epsilons) - {0.0}):
        stuck = right.copy()  # in all attempts
        for _ in range(restarts):
            rows = np.flatnonzero(right)
            if not len(rows):
                break
            some = tf.nest.map_structure(lambda x: x[rows], batch)  # noqa: B023
            outcome = attack(*some, tf.constant(epsilon))
            right[rows] = outcome.right.numpy()
            stuck[rows] &= outcome.stuck.numpy()
        at_radius[epsilon] = right.copy()
        ever_stuck |= stuck & right
    return np.stack([at_radius[epsilon] for epsilon in epsilons]), ever_stuck


def _mean(right, weights):
    """The weighted mean of what is right; InputError if all weights are 0."""
    if not weights.sum() > 0:
        raise InputError("robustness.curve expected sample weights that are not all 0")
    # Weights that are all alike give the plain mean, to the last digit.
    alike = (weights == weights[0]).all()
    return float(right.mean() if alike else np.average(right, weights=weights))


def _warn_of_stuck(stuck):
    warnings.warn(
        f"robustness.curve: the attack could not move {stuck.sum()} of {stuck.size} "
        "examples, because its first gradient was exactly 0 or not finite. They are "
        "counted as right, which does not show that the model is robust. Let the model "
        "give logits, without the softmax, and compile it with a loss of logits "
        "(from_logits=True), or attack with RandomNoise() too",
        stacklevel=4,  # the call of `curve`
    )


def _of_any_size(spec, inputs):
    """The types of the inputs of a dataset, without the size of a batch."""

    def of_any_size(one, value):
        known = one.shape.rank is not None
        rest = one.shape[1:] if known else [None] * (value.ndim - 1)
        return tf.TensorSpec([None, *rest], one.dtype)

    return tf.nest.map_structure(of_any_size, spec, inputs)


def _functions(attacked_model, inputs, labels) -> tuple:
    """`AttackedModel.right` and `.attack`, each traced once for batches of any size.

    Args:
        attacked_model: whose functions they are.
        inputs: the types of the inputs.
        labels: the dtype of the labels.
    """
    batch = [inputs, tf.TensorSpec([None], labels)]
    signatures = {
        attacked_model.right: batch,
        attacked_model.attack: [*batch, tf.TensorSpec([])],
    }
    return tuple(
        # Autograph would hide the type of our errors.
        tf.function(function, input_signature=signature, autograph=False)
        for function, signature in signatures.items()
    )
