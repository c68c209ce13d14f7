"""The one choice between the two generations of Keras.

TensorFlow decides which one a program gets: ``tf.keras`` is Keras 3, or Keras 2
(``tf_keras``) when ``TF_USE_LEGACY_KERAS=1``. Both modules have the same public names
with the same signatures. To end the support of Keras 2, delete ``_keras2.py``, import
``_keras3`` here, and delete the check of tf-keras below.
"""

import importlib.util
import os

from tiedbert.errors import SetupError

# TensorFlow's own error does not say which Keras it looked for.
if (
    os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True")
    and importlib.util.find_spec("tf_keras") is None
):
    raise SetupError(
        "TF_USE_LEGACY_KERAS asks for Keras 2, and tf-keras is not installed: pip "
        "install 'tf-keras>=2.21,<2.22' and, for BERTs, pip install --no-deps "
        "bert4keras==0.11.5; or start without TF_USE_LEGACY_KERAS, under Keras 3"
    )

from tiedbert._keras.internals import PACKAGE

if PACKAGE == "tf_keras":
    from tiedbert._keras import _keras2 as generation
else:
    from tiedbert._keras import _keras3 as generation  # type: ignore[no-redef]

__all__ = ["generation"]
