"""A cut is exact at the tensors of the image models of keras.applications."""

import application_zoo
import pytest
from cuts import cut_at_all, cut_in_training, cut_points
from generation import IS_LEGACY

pytestmark = pytest.mark.slow
# Keras 2 takes much longer to make the two halves; there every fifth cut must do.
STEP = 5 if IS_LEGACY else 1


@pytest.mark.parametrize("name", application_zoo.SIZES)
def test_every_cut_is_exact(name):
    model = application_zoo.build(name)
    inputs = application_zoo.inputs_of(model)
    inexact, unused = cut_at_all(model, inputs, cut_points(model)[::STEP])
    assert inexact == {}
    assert unused == []


# ConvNeXt has nothing that is different in training.
@pytest.mark.parametrize("name", sorted({*application_zoo.SIZES} - {"ConvNeXtTiny"}))
def test_training_changes_what_it_changes_in_the_whole(name):
    """Dropout draws the same, and batch normalization moves by the same statistics."""
    model = application_zoo.build(name)
    inputs = application_zoo.inputs_of(model)
    assert cut_in_training(model, inputs, cut_points(model)[:: 10 * STEP]) == {}
