import pytest
from generation import IS_LEGACY

if IS_LEGACY:
    raise pytest.UsageError("keras-hub runs on Keras 3: unset TF_USE_LEGACY_KERAS")
