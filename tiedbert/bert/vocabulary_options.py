"""bert4keras' options for a part of a vocabulary, checked.

bert4keras applies them, but without a check: it reads a negative id from the end of the
table, and weights whose sum is 0 give an error without a name.
"""

import numbers
from collections.abc import Sequence
from typing import Any

from tiedbert.errors import InputError


def check_tokens(
    keep_tokens: Sequence[int] | None,
    compound_tokens: Sequence[Any] | None,
    vocab_size: int | None = None,
    where: str = "",
) -> list | None:
    """Check both options against a vocabulary.

    Args:
        keep_tokens: ids of the vocabulary that the model has; None for all.
        compound_tokens: for each further token a list of ids, numbered as in
            `keep_tokens`, or a tuple of such a list and its weights; or None.
        vocab_size: number of tokens of the vocabulary; None if it is not known.
        where: what has this vocabulary, for messages.

    Returns:
        `compound_tokens` in the form that bert4keras takes: None if there are none.

    Raises:
        InputError: anything else, or an id beyond the vocabulary.
    """
    size, vocabulary = vocab_size, f"the {vocab_size} tokens in {where}"
    if keep_tokens is not None:
        _check_ids("keep_tokens", keep_tokens, size, vocabulary)
        size = len(keep_tokens)
        vocabulary = f"the {size} tokens that are kept"
    tokens = _as_list(() if compound_tokens is None else compound_tokens)
    if tokens is None:
        raise InputError(
            "compound_tokens: expected a list of lists of ids, received "
            f"{compound_tokens!r}"
        )
    for token in tokens:
        has_weights = isinstance(token, tuple) and len(token) == 2
        ids, weights = token if has_weights else (token, None)
        _check_ids("compound_tokens", ids, size, vocabulary)
        _check_weights(ids, weights)
    return [t if isinstance(t, tuple) else list(t) for t in tokens] or None


def _as_list(values):
    """The items of a list, a tuple or an array; None for anything else."""
    is_sequence = hasattr(values, "__len__") and not isinstance(values, (str, dict))
    return list(values) if is_sequence else None


def _check_ids(option, ids, size, vocabulary):
    found = _as_list(ids)
    if not found or not all(isinstance(each, numbers.Integral) for each in found):
        raise InputError(
            f"{option}: expected a list of token ids, received {ids!r:.80}"
        )
    wrong = [each for each in found if each < 0 or (size and each >= size)]
    if wrong:
        of = vocabulary if size else "a vocabulary, 0 or more"
        raise InputError(f"{option}: expected ids of {of}, received {wrong[0]}")


def _check_weights(ids, weights):
    if weights is None:
        return
    found = _as_list(weights) or []
    are_numbers = all(isinstance(each, numbers.Real) for each in found)
    if len(found) != len(ids) or not are_numbers or not sum(found):
        raise InputError(
            f"compound_tokens: expected as many weights as ids, of a sum that is not "
            f"0, received {weights!r:.60} for {ids!r:.60}"
        )
