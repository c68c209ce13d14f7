"""The one choice between the two generations of Keras.

TensorFlow decides which one a program gets: ``tf.keras`` is Keras 3, or Keras 2
(``tf_keras``) when ``TF_USE_LEGACY_KERAS=1``. Both modules have the same public names
with the same signatures. To end the support of Keras 2, delete ``_keras2.py`` and
import ``_keras3`` here.
"""

from tiedbert._keras.internals import PACKAGE

if PACKAGE == "tf_keras":
    from tiedbert._keras import _keras2 as generation
else:
    from tiedbert._keras import _keras3 as generation  # type: ignore[no-redef]

__all__ = ["generation"]
