"""Which Keras this test process runs, and what of tiedbert it can import."""

from tensorflow import keras

# `tf.keras.__version__` does not exist in both generations; this does.
IS_LEGACY = keras.Model.__module__.startswith("tf_keras")
NAME = "Keras 2 (tf_keras)" if IS_LEGACY else "Keras 3"

# These modules, and the test files that import them, need bert4keras.
LEGACY_MODULES = ("tiedbert.bert", "tiedbert.pretraining")
LEGACY_TEST_FILES = ["test_bert*.py", "test_pretraining*.py"]


def importable(module):
    """Can this process import the tiedbert module of this name?"""
    if IS_LEGACY:
        return True
    return not any(f"{module}.".startswith(f"{name}.") for name in LEGACY_MODULES)
