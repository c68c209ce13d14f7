"""A cut is exact at every tensor of every kind of model of bert4keras."""

import bert_zoo
import pytest
from cuts import cut_at_all, cut_in_training, cut_points, name_of

pytestmark = pytest.mark.slow
every_model = pytest.mark.parametrize("name", bert_zoo.HERE)


@every_model
def test_every_cut_is_exact(name, tmp_path):
    model = bert_zoo.build(name, tmp_path)
    inexact, unused = cut_at_all(model, bert_zoo.inputs_of(model), cut_points(model))
    assert inexact == {}
    assert unused == []


@every_model
def test_dropout_draws_what_the_whole_draws(name, tmp_path):
    model = bert_zoo.build(name, tmp_path)
    points = cut_points(model)[::4]
    if name in ("t5", "t5.1.1", "mt5.1.1"):
        # Keras 2 has one stream of random numbers for all layers, and a cut changes
        # the order in which the encoder and the decoder beside it run.
        points = [at for at in points if "CrossAttention" in name_of(at)]
    assert len(points) > 1
    assert cut_in_training(model, bert_zoo.inputs_of(model), points) == {}
