"""Cuts of real models, a few of each: `make test-all` cuts them at every tensor."""

import application_zoo
import bert_zoo
import pytest
from cuts import cut_at_all, cut_points

# Some with heads; test_zoo_bert4keras.py has them all.
KINDS = ["bert-mlm-nsp", "hf_roberta-mlm", "albert", "nezha-unilm", "gpt2", "t5"]
KINDS = [name for name in KINDS if name in bert_zoo.HERE]


@pytest.mark.both_kerases
@pytest.mark.cases(2)
@pytest.mark.parametrize("name", KINDS)
def test_cuts_of_bert4keras_are_exact(name, tmp_path):
    model = bert_zoo.build(name, tmp_path)
    points = cut_points(model)
    points = [points[len(points) * quarter // 4] for quarter in (1, 2, 3)]
    assert cut_at_all(model, bert_zoo.inputs_of(model), points) == ({}, [])


@pytest.mark.slow
def test_a_cut_of_an_application_is_exact():
    """Inside of a block, so that another tensor crosses beside it."""
    model = application_zoo.build("ResNet50")
    inputs = application_zoo.inputs_of(model)
    assert cut_at_all(model, inputs, ["conv3_block2_2_relu"]) == ({}, [])
