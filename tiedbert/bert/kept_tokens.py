"""bert4keras' options for a part of a vocabulary, checked."""

import numbers

from tiedbert.errors import InputError


def tokens_checked(kept, compound, count=None, where=""):
    """bert4keras' options for a part of a vocabulary, checked.

    Args:
        kept: `keep_tokens`, ids of the vocabulary that stay, or None for all.
        compound: `compound_tokens`, for each further token a list of ids, in the
            numbering of those that stay, or a tuple of such a list and its weights; or
            None.
        count: the number of tokens of the vocabulary; None where it is not known.
        where: what has this vocabulary, for messages.

    Returns:
        `compound` as bert4keras reads it: None where there are none.

    Raises:
        InputError: something else, or an id beyond the vocabulary.
    """
    vocabulary = f"the {count} tokens in {where}"
    if kept is not None:
        _check_ids("keep_tokens", kept, count, vocabulary)
        count, vocabulary = len(kept), f"the {len(kept)} tokens that are kept"
    tokens = _as_list(() if compound is None else compound)
    if tokens is None:
        raise InputError(
            f"compound_tokens: expected a list of lists of ids, received {compound!r}"
        )
    for token in tokens:
        ids, weights = _parted(token)
        _check_ids("compound_tokens", ids, count, vocabulary)
        _check_weights(ids, weights)
    return [t if isinstance(t, tuple) else list(t) for t in tokens] or None


def _as_list(values):
    """A list of what a list, a tuple or an array holds; None of anything else."""
    is_sequence = hasattr(values, "__len__") and not isinstance(values, (str, dict))
    return list(values) if is_sequence else None


def _parted(token) -> tuple:
    """A list of ids, and its weights or None."""
    if isinstance(token, tuple) and len(token) == 2:
        return token
    return token, None


def _check_ids(name, ids, count, vocabulary):
    found = _as_list(ids)
    if not found or not all(isinstance(each, numbers.Integral) for each in found):
        raise InputError(f"{name}: expected a list of token ids, received {ids!r:.80}")
    wrong = [each for each in found if each < 0 or (count and each >= count)]
    if wrong:
        of = vocabulary if count else "a vocabulary, 0 or more"
        raise InputError(f"{name}: expected ids of {of}, received {wrong[0]}")


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
