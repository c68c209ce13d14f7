"""A model cut for perturbation: its two halves, and where it may be perturbed."""

from tiedbert import _keras
from tiedbert.adversarial.positions import ID_INPUTS, ordinary_tokens, token_ids_of
from tiedbert.errors import InputError
from tiedbert.surgery import cut_at


class CutModel:
    """Front and rest of `model` at one cut point.

    Args:
        model: a functional `keras.Model`.
        at: one cut point, of float activations ``[batch, ...]``.
        positions: function of the model's inputs -> bool ``[batch, time]``, where a
            perturbation may be. None: the ordinary tokens of a bert4keras model,
            else what the Keras mask of the cut tensor leaves, else everywhere.
    """

    def __init__(self, model, at, positions=None):
        cut = cut_at(model, at)
        if cut.width != 1 or "float" not in str(cut.tensors[0].dtype):
            dtypes = ", ".join(str(t.dtype) for t in cut.tensors[: cut.width])
            raise InputError(
                f"a perturbation needs one cut point of float activations, received "
                f"{at!r} ({dtypes})"
            )
        if _keras.maker(cut.tensors[0]).name in ID_INPUTS:
            raise InputError(
                f"a perturbation needs float activations, and {at!r} holds ids: cut "
                'after an embedding, e.g. at "Embedding-Norm"'
            )
        self._model = model
        self.front, self.rest = cut.front(), cut.rest()
        self._mask_index = cut.mask_index[0]
        self._positions = positions

    def positions(self, inputs, crossing):
        """Where the hidden state may be perturbed, bool or None for everywhere."""
        if self._positions is not None:
            return self._positions(inputs)
        token_ids = token_ids_of(self._model, inputs)
        if token_ids is not None:
            return ordinary_tokens(token_ids)
        return None if self._mask_index is None else crossing[self._mask_index]

    def outputs(self, crossing, delta=None, training=False):
        """The model's outputs, `delta` added to the hidden state."""
        hidden, *context = crossing
        if delta is not None:
            hidden = hidden + delta
        return self.rest([hidden, *context], training=training)
