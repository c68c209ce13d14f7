"""A copy of a functional model with weights of its own, and every tie kept."""

import warnings

from tensorflow import keras

from tiedbert import _keras
from tiedbert.surgery.clone_checks import (
    check_complete,
    check_functions,
    check_state,
    paired_variables,
)
from tiedbert.surgery.copies import Copies
from tiedbert.surgery.learned_state import finalize_state


def clone(model: keras.Model) -> keras.Model:
    """Copy a functional model: weights of its own, the same values, the same ties.

    What is one layer or one variable in `model` is one in the copy, in nested models
    too. `keras.models.clone_model` draws new values and makes two of a layer that
    others hold (a tied head, a layer inside and outside of a nested model).

    Args:
        model: a functional `keras.Model` or a built Sequential; left as it is. Models
            nested in it may be subclasses with a config of their own (keras-hub's
            backbones and tasks): their `from_config` makes the copy.

    Returns:
        A model of the same class and structure, names and nested models included: the
        values of all weights, normalization statistics and random generators, what
        `adapt` has learned (vocabularies, bins), what is trainable, dtype policies,
        regularizers and the losses of `add_loss` are those of `model`. Not compiled,
        like the copies of `clone_model`, unless its constructor compiles (keras-hub's
        tasks). Functions of Lambda layers, and what has no weights and no config (an
        attribute that a user set), are shared or left out.

    Raises:
        InputError: a model without a graph; a layer that its config does not make
            again; a tie, a loss or a state that the copy would lose; a Lambda layer
            whose function cannot be traced on placeholders. It names the layers.

    Not detected: a layer class of your own that uses a layer which it does not hold as
    an attribute (a global, a closure); a Lambda whose function does so under a
    condition that is not met when it is traced; a Lambda that reads a lookup table, or
    a variable of integers, bools or strings that no layer of the model holds. Their
    copies use the original layer, table or variable.

    Example:
        >>> import tensorflow as tf
        >>> from tensorflow import keras
        >>> from tiedbert.layers import EmbeddingDense
        >>> ids = keras.Input((None,), dtype="int32")
        >>> table = keras.layers.Embedding(5, 3)
        >>> model = keras.Model(ids, EmbeddingDense(table)(table(ids)))
        >>> copy = clone(model)
        >>> batch = tf.constant([[1, 2]])
        >>> bool(tf.reduce_all(copy(batch) == model(batch)))
        True
        >>> len(copy.weights), copy.weights[0] is model.weights[0]  # a table, a bias
        (2, False)
    """
    _keras.functional(model)
    with warnings.catch_warnings():
        # The values that the initializers of the copies draw are overwritten.
        warnings.filterwarnings("ignore", "The initializer .* is unseeded")
        copies = Copies(model)
        copy = copies.of(model)
    copies.finish()
    pairs = [pair for pair in copies.pairs if isinstance(pair[0], keras.layers.Layer)]
    variables = paired_variables(pairs)
    check_complete(model, variables)
    check_functions(model, copy)
    _copy_state(variables, pairs)
    return copy


def _copy_state(variables, pairs):
    """Copy the values of variables, and what layers keep beside them."""
    for source, copy in variables.items():
        _keras.copy_variable(source, copy)
    for source, copy in pairs:
        _keras.copy_flags(source, copy)
        finalize_state(copy)
    for source, copy in pairs:
        check_state(source, copy)
