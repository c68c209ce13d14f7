"""The list of cut points tells for each what a cut there would find."""

import models
import pytest
from models import MODELS
from tensorflow import keras
from test_surgery_drawing import classifier, encoder
from variants import others_slow

from tiedbert.errors import InputError
from tiedbert.surgery import cut_at, cut_points

layers = keras.layers
# Keras 3 says so of any model that a mask enters, and is wrong.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Layer 'inner'.* was passed an input with a mask:UserWarning"
)


def masked_backbone():
    """A nested model that a mask enters from outside, and what passes beside it."""
    token_ids = keras.Input((None,), dtype="int32", name="ids")
    e = layers.Embedding(9, 4, mask_zero=True, name="table")(token_ids)
    x = keras.Input((None, 4), name="hidden")
    h = layers.Dense(4, name="dense")(x)
    h = layers.Add(name="sum")([x, layers.SimpleRNN(4, return_sequences=True)(h)])
    h = keras.Model(x, h, name="inner")(e)
    h = layers.SimpleRNN(4, return_sequences=True, name="last")(h)
    return keras.Model(token_ids, layers.Add(name="both")([e, h]))


def deep():
    """Models in models, one of them called twice."""
    x = keras.Input((3,), name="x")
    inner = models.chain_of(3, "inner")
    h = layers.Add(name="add")([x, inner(x)])
    outer = keras.Model(x, layers.Dense(3, name="end")(h), name="outer")
    y = keras.Input((3,), name="y")
    both = layers.Add(name="both")([outer(y), outer(layers.ReLU(name="relu")(y)), y])
    return keras.Model(y, both)


NESTED = [masked_backbone, deep]
BUILDS = [*MODELS, encoder, classifier, *NESTED]


@pytest.mark.parametrize(
    "build", others_slow([deep], BUILDS), ids=lambda build: build.__name__
)
def test_every_point_is_told_what_a_cut_there_finds(build):
    model = build()
    points = cut_points(model)
    assert len({point.at for point in points}) == len(points)
    for point in points:
        if point.crossing is None:
            with pytest.raises(InputError):
                cut_at(model, point.at)
        else:
            assert point.crossing == len(cut_at(model, point.at).tensors), point.at


def told(model):
    return [
        (point.at, point.layer_class, point.crossing) for point in cut_points(model)
    ]


def test_inputs_come_first_and_calls_as_they_run():
    assert told(models.chain()) == [
        ("x", "Input", 1),
        ("first", "Dense", 1),
        ("middle", "Dense", 1),
        ("last", "Dense", 1),
    ]


def test_skip_connections_and_masks_are_counted():
    crossing = {at: count for at, _, count in told(models.residual())}
    assert (crossing["a_norm"], crossing["a_sum"], crossing["b_norm"]) == (2, 1, 2)
    crossing = {at: count for at, _, count in told(models.recurrent())}
    assert (crossing["dense"], crossing["summary"]) == (2, 4)


def test_calls_of_a_shared_layer_are_points():
    names = [at for at, _, _ in told(models.shared())]
    assert sorted(names) == [
        "dense:0", "dense:1", "dense:2", "last", "left", "right", "sum",
    ]  # fmt: skip


def test_a_nested_model_comes_before_what_is_in_it():
    model = classifier()
    names = [at for at, _, _ in told(model)]
    i = names.index("encoder")
    assert names[i + 1] == "encoder/embedding"
    assert names[-2:] == ["pool", "label"]


def test_each_output_of_a_layer_is_a_point():
    points = {point.at: point for point in cut_points(models.states())}
    assert points["states#0"].tensor == "(?, 4, 3) float32"
    assert points["states#1"].tensor == "(?, 3) float32"
    assert (points["states#0"].crossing, points["states#1"].crossing) == (2, 2)


def test_an_output_that_nothing_needs_is_listed_with_the_reason():
    x = keras.Input((4, 3))
    h, _ = layers.MultiHeadAttention(2, 2, name="heads")(
        x, x, return_attention_scores=True
    )
    points = {point.at: point for point in cut_points(keras.Model(x, h))}
    assert points["heads#1"].why_not == "no output depends on it"
    assert points["heads#0"].crossing == 1


def test_a_model_without_a_graph_is_refused():
    with pytest.raises(InputError, match="expected a functional model"):
        cut_points(keras.Sequential([layers.Dense(2)]))
