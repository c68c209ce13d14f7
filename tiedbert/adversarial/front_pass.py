"""One pass through the part of a model before the first cut point."""

from collections.abc import Callable

import tensorflow as tf


class FrontPass:
    """One forward pass of the front, recorded for the backward pass.

    Args:
        run: function without arguments -> the tensors that cross the first cut, and the
            losses that layers before it added.

    Attributes:
        crossing: list of the tensors that cross the first cut.
        losses: list of scalars.
        sources: list of the float tensors among both, through which gradients come back
            to the weights of the front: first the perturbed tensors.
    """

    def __init__(self, run: Callable[[], tuple[list, list]]):
        self._tape = tf.GradientTape()
        with self._tape:
            self.crossing, self.losses = run()
        floats = [tensor for tensor in self.crossing if tensor.dtype.is_floating]
        self.sources = floats + self.losses

    def weight_gradients(self, source_gradients: list, weights: list) -> list:
        """The gradients that reach `weights` through the front.

        Args:
            source_gradients: one per tensor of `sources`, or None.
            weights: variables.
        """
        pairs = zip(self.sources, source_gradients, strict=True)
        reached = [(tensor, g) for tensor, g in pairs if g is not None]
        tensors = [tensor for tensor, _ in reached]
        gradients = [g for _, g in reached]
        return self._tape.gradient(tensors, weights, output_gradients=gradients)
