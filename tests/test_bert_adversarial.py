"""Adversarial training of models of bert4keras: dropout and perturbation masks."""

import numpy as np
import pytest
import tensorflow as tf
from bert_mlm import POSITIONS
from bert_samples import BATCH, names_of, scramble, write_config
from generation import IS_LEGACY
from tensorflow import keras
from variants import slow

from tiedbert.adversarial import FGM, AdversarialTraining, except_tokens
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.adversarial.seeded_function import SeededFunction
from tiedbert.bert import build_bert, classifier, masked_lm
from tiedbert.surgery import features, inject


@pytest.fixture
def bert(tmp_path):
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5}
    return build_bert(write_config(tmp_path, **rates))


def test_attention_follows_the_seed(bert):
    function = SeededFunction(bert, seeded=True)
    inputs = [tf.constant(values, tf.float32) for values in BATCH]
    one, same, other = (
        function(inputs, tf.constant(seed)).outputs for seed in ([1, 2], [1, 2], [3, 4])
    )
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


@pytest.mark.slow
@pytest.mark.cases(1)
@pytest.mark.parametrize("same", [True, False])
def test_the_passes_of_a_step_have_the_same_dropout_on_request(bert, same):
    keras.utils.set_random_seed(0)
    training = AdversarialTraining(bert, FGM(0.0), same_dropout=same)
    training.compile(keras.optimizers.SGD(0.0), "mse")
    target = np.zeros([2, 7, 16], np.float32)
    target[..., 0] = 1.0
    logs = training.fit(BATCH, target, verbose=0).history
    assert (logs["clean_loss"] == logs["adversarial_loss"]) == same


SPECIAL = except_tokens([0, 2, 3])
BLOCK = "Transformer-0-FeedForward-Norm"
ORDINARY = [
    [False, True, True, True, False, False, False],
    [False, True, False, True, True, True, False],
]


def test_padding_of_another_id_is_told_from_the_end_of_a_text(tmp_path):
    bert = build_bert(write_config(tmp_path, pad_token_id=4))
    tokens, segments = BATCH
    inputs = [np.where(tokens == 0, 4, tokens), segments]
    cut = CutModel(bert, "Embedding-Norm")
    (mask,) = cut.perturbation_mask(inputs, 0, cut.front(inputs))
    assert mask.numpy().tolist() == ORDINARY


OF_THE_MASKED = [[True, True], [True, False]]


@pytest.mark.parametrize("given", [None, slow(SPECIAL)], ids=["default", "given"])
@pytest.mark.parametrize(
    ("at", "early", "expected"),
    [
        ("Embedding-Norm", False, [ORDINARY]),
        (BLOCK, False, [ORDINARY]),
        ("MLM-Norm", False, [OF_THE_MASKED]),
        (BLOCK, True, [OF_THE_MASKED]),
        (["MLM-Norm", "Embedding-Norm"], True, [ORDINARY, OF_THE_MASKED]),
    ],
)
def test_the_mask_follows_the_tokens_that_a_masked_language_model_gathers(
    at, early, expected, given, tmp_path
):
    bert = build_bert(write_config(tmp_path))
    model = masked_lm(bert, predictions=2, early_gather=early)
    cut = CutModel(model, at, perturbation_mask=given)
    inputs = dict(zip(names_of(model.inputs), [*BATCH, POSITIONS], strict=True))
    *_, found = cut.run(inputs, cut.front(inputs), None, lambda i, x: cut.behind[i](x))
    assert [mask.numpy().tolist() for mask in found] == expected


@pytest.mark.parametrize("given", [None, SPECIAL], ids=["default", "given"])
def test_a_pooled_text_is_perturbed_whole(given, tmp_path):
    model = classifier(build_bert(write_config(tmp_path)), 2)
    cut = CutModel(model, "Pooler-Dense", perturbation_mask=given)
    inputs = dict(zip(names_of(model.inputs), BATCH, strict=True))
    assert cut.perturbation_mask(inputs, 0, cut.front(inputs)) == [None]


OWN = ["bert", "albert", "nezha", "roformer_v2", "electra"]


@pytest.mark.skipif(IS_LEGACY, reason="about our own layers; bert4keras' are in others")
@pytest.mark.parametrize(
    ("kind", "at"),
    [
        ("bert", "Embedding-Norm"),
        slow("bert", BLOCK),
        *[slow(kind, "Embedding-Norm") for kind in OWN[1:]],
    ],
)
def test_a_step_of_fgm_is_that_of_the_formula(kind, at, tmp_path):
    """Epsilon times the gradient over its norm, by a delta that is an input."""
    config = write_config(tmp_path, num_hidden_layers=2)
    model = classifier(scramble(build_bert(config, model=kind)), 2, dropout=0)
    injected, labels = inject(model, at), tf.constant([0, 1])
    inputs = [tf.constant(x) for x in BATCH]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    delta = tf.Variable(tf.zeros_like(features(model, at)(inputs)))
    with tf.GradientTape() as tape:
        clean = loss(labels, injected([*inputs, delta]))
    gradient = tape.gradient(clean, delta).numpy() * np.array(ORDINARY)[:, :, None]
    norms = np.sqrt(np.sum(gradient**2, axis=(1, 2), keepdims=True))  # of a text
    delta.assign(0.3 * gradient / norms)
    with tf.GradientTape() as tape:
        adversarial = loss(labels, injected([*inputs, delta]))
        both = (adversarial + loss(labels, model(inputs))) / 2
    weights = [w.value for w in model.trainable_weights]
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(both, weights)]
    expected = [w - 0.1 * g for w, g in zip(weights, gradients, strict=True)]

    training = AdversarialTraining(model, FGM(0.3), at)
    training.compile(keras.optimizers.SGD(0.1), loss)
    logs = training.fit(BATCH, labels, verbose=0).history
    assert logs["clean_loss"][0] == pytest.approx(float(clean), rel=1e-5)
    assert logs["adversarial_loss"][0] == pytest.approx(float(adversarial), rel=1e-5)
    assert float(adversarial) > float(clean)
    for weight, value in zip(model.trainable_weights, expected, strict=True):
        np.testing.assert_allclose(weight, value, rtol=0, atol=1e-5)
