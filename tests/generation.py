"""Which Keras this test process runs, and what of tiedbert it can import."""

import os

# As TensorFlow reads it: to ask `tf.keras` would import TensorFlow.
IS_LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True")
NAME = "Keras 2 (tf_keras)" if IS_LEGACY else "Keras 3"

# These test files are about bert4keras, or about what no Keras matters to.
LEGACY_TEST_FILES = [
    "test_bert_environment.py",
    "test_packaging.py",
]

# These files test code without Keras, or code that other tests run under both. Under
# Keras 2 their tests are slow, except those marked both_kerases.
ALIKE_TEST_FILES = [
    "test_adversarial_*.py",
    "test_architecture.py",
    "test_bert_adversarial.py",
    "test_bert_settings.py",
    "test_callbacks.py",
    "test_cli.py",
    "test_command.py",
    "test_comparison.py",
    "test_demo.py",
    "test_examples.py",
    "test_finetune.py",
    "test_losses.py",
    "test_methods.py",
    "test_mutations.py",
    "test_optimization.py",
    "test_plots.py",
    "test_prepare_corpus.py",
    "test_pretraining.py",
    "test_readme.py",
    "test_robustness.py",
    "test_runs.py",
    "test_saved_models.py",
    "test_scripts*.py",
    "test_significance.py",
    "test_surgery_command.py",
    "test_surgery_drawing.py",
    "test_surgery_zoo.py",
    "test_text_*.py",
    "test_tied_cross_entropy.py",
]


# The modules for the Keras that this process does not run.
OF_OTHER_GENERATION = (
    ("tiedbert._keras._keras3", "tiedbert.bert._keras3")
    if IS_LEGACY
    else ("tiedbert._keras._keras2", "tiedbert.bert._keras2")
)


# What these modules do, Keras 3 alone can.
OF_KERAS_3 = {"tiedbert.bert.recompute"}


def importable(module):
    """Can this process import the tiedbert module of this name?"""
    return not module.startswith(OF_OTHER_GENERATION)
