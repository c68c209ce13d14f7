"""Problems and methods for the tests of adversarial training, and a spy."""

import numpy as np
import tensorflow as tf
from generation import IS_LEGACY
from tensorflow import keras

from tiedbert.adversarial import (
    ALUM,
    FGM,
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
    norms,
)
from tiedbert.adversarial.method import Method
from tiedbert.layers import EmbeddingDense

layers = keras.layers

FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# A batch of at most this shape gets the same draw in every pass and every process.
NOISE = np.random.default_rng(3).uniform(-1.0, 1.0, (8, 8, 8)).astype("float32")


def methods(epsilon=0.5):
    """Every method by name, the cut point "hidden", YOPO's block ending at "block"."""
    listed = [
        FGM(epsilon),
        FGM(epsilon, clean=False, norm="linf"),
        PGD(epsilon),
        PGD(epsilon, random_start=True, clean=True, norm="l2_per_token"),
        RandomNoise(epsilon),
        RandomNoise(epsilon, clean=True, norm="linf"),
        FreeAT(epsilon),
        FreeLB(epsilon),
        FreeLB(epsilon, random_start=False, clean=True, norm="l2_per_token"),
        YOPO(epsilon, until="block"),
        YOPO(epsilon, outer=2, inner=2, random_start=False, until="block", norm="linf"),
        VAT(epsilon),
        VAT(epsilon, steps=2, norm="l2_per_token"),
        SMART(epsilon, proximal=1.0),
        ALUM(epsilon, steps=2, weight=1.0, norm="l2"),
        R3F(epsilon),
        R3F(epsilon, noise="normal"),
        RDrop(),
        GradientPenalty(),
    ]
    return {f"{type(m).__name__}-{i}": m for i, m in enumerate(listed)}


def attributes_of(method):
    """The attributes of a method without `train`, for one that wraps it."""
    names = [name for name in dir(method) if not name.startswith("__")]
    return {name: getattr(method, name) for name in names if name != "train"}


class Spy(Method):
    """A method that records the perturbation and the outputs of each of its passes.

    For one cut point, run eagerly. `seen` has a list per training step of
    ``(delta, outputs)``, numpy; a delta of None is zero.
    """

    def __init__(self, method):
        vars(self).update(attributes_of(method), method=method)
        self.seen = []

    def train(self, step):
        self.seen.append([])
        for name in ("run", "run_first", "run_rest"):
            setattr(step, name, self._recording(getattr(step, name)))
        return self.method.train(step)

    def _recording(self, run):
        def recording(*args):
            done = run(*args)
            if run.__name__ == "run_rest":
                self.seen[-1][-1][1] = done.outputs.numpy()
            else:
                delta = args[0] if args else None
                outputs = None
                if run.__name__ == "run":
                    outputs = tf.nest.map_structure(np.asarray, done.outputs)
                delta = None if delta is None else delta[0].numpy()
                self.seen[-1].append([delta, outputs])
            return done

        return recording

    @property
    def deltas(self):
        """The perturbations of all passes of all steps."""
        return [delta for step in self.seen for delta, _ in step if delta is not None]


def trained(model, method, x, y, at="hidden", learning_rate=0.0, **options):
    """The logs of one step of SGD on the whole batch, run eagerly."""
    sample_weight = options.pop("sample_weight", None)
    training = AdversarialTraining(model, method, at)
    optimizer = keras.optimizers.SGD(learning_rate)
    training.compile(optimizer, run_eagerly=True, **options)
    return training.train_on_batch(x, y, sample_weight, return_dict=True)


def fix_noise(monkeypatch):
    """Replace every draw of a perturbation by numbers of `NOISE`."""

    def draw(shape):
        rank = shape.shape[0]
        return tf.slice(NOISE if rank == 3 else NOISE[:, 0], [0] * rank, shape)

    monkeypatch.setattr(tf.random, "normal", draw)
    monkeypatch.setattr(norms, "_cube", lambda like: draw(tf.shape(like)))


def assert_close(found, expected, rtol=1e-5, atol=1e-6):
    """Weights one by one."""
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=rtol, atol=atol)


def set_policy(name):
    """Let new layers have this dtype policy, in either Keras."""
    policies = keras.mixed_precision if IS_LEGACY else keras.config
    setter = "set_global_policy" if IS_LEGACY else "set_dtype_policy"
    getattr(policies, setter)(name)


def scrambled(model, scale=1.0, seed=0):
    """Weights that no initializer made, the same in every process."""
    draw = np.random.default_rng(seed)
    model.set_weights([scale * draw.normal(size=w.shape) for w in model.get_weights()])
    return model


def linear():
    """``[batch, 2, 2]`` -> h -> the sum of w h: the problem with closed forms."""
    x = keras.Input((2, 2))
    h = layers.Activation("linear", name="hidden")(x)
    h = layers.Flatten(name="block")(h)
    model = keras.Model(x, layers.Dense(1, use_bias=False)(h))
    model.set_weights([W[:, None]])
    return model


# Its L2 norm is 13, its tokens' are 5 and 12.
W = np.array([3.0, -4.0, 12.0, 0.0], np.float32)
X = np.array([[1, 1, 0.5, 2], [2, 0, 1, 0], [0, 1, -1, 4]], np.float32)
X = X.reshape(3, 2, 2)


def network():
    """``[batch, 3]`` -> dense "hidden" -> tanh "block" -> logits."""
    x = keras.Input((3,))
    h = layers.Dense(4, use_bias=False, name="hidden")(x)
    h = layers.Dense(5, activation="tanh", name="block")(h)
    return scrambled(keras.Model(x, layers.Dense(3, name="last")(h)))


def tied():
    """Token ids -> table -> tanh -> logits of the same table."""
    ids = keras.Input((None,), dtype="int32")
    table = layers.Embedding(5, 3, name="hidden")
    h = layers.Dense(3, activation="tanh", name="block")(table(ids))
    head = EmbeddingDense(table, activation="linear", name="head")
    return scrambled(keras.Model(ids, head(h)))


def padded(per_token=False):
    """Token ids -> masked states -> logits of a text, or of each token."""
    ids = keras.Input((None,), dtype="int32")
    h = layers.Embedding(9, 4, mask_zero=True)(ids)
    h = layers.Dense(4, name="hidden")(h)
    h = layers.Dense(4, activation="tanh", name="block")(h)
    h = h if per_token else layers.GlobalAveragePooling1D()(h)
    return scrambled(keras.Model(ids, layers.Dense(3)(h)))


def bert_like(token_dtype="float32"):
    """A model with bert4keras' names, mask and float token ids."""
    tokens = keras.Input((None,), name="Input-Token", dtype=token_dtype)
    segments = keras.Input((None,), name="Input-Segment")
    table = layers.Embedding(9, 4, mask_zero=True, name="Embedding-Token")
    h = layers.Add()([table(tokens), layers.Embedding(2, 4)(segments)])
    h = layers.LayerNormalization(name="Embedding-Norm")(h)
    y = layers.Dense(3)(layers.GlobalAveragePooling1D()(h))
    return keras.Model([tokens, segments], y)


TOKEN_IDS = tf.constant([[2, 7, 5, 3], [2, 8, 3, 0]], tf.float32)
ORDINARY = [[False, True, True, False], [False, True, False, False]]
