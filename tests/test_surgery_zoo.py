"""Cuts of real models, a few of each: `make test-all` cuts them at every tensor."""

import application_zoo
import bert_zoo
import pytest
from cuts import cut_at_all, cut_points
from variants import first_of

# One model of each kind (the halves of T5 are in the whole), and some with heads.
KINDS = [*bert_zoo.BERT_LIKE, *bert_zoo.OTHERS, "roformer_v2", "t5", "t5.1.1"]
HEADS = ["bert-mlm-nsp", "albert-lm", "nezha-unilm", "bert-residual_scores"]
UNLIKE = ["bert-mlm-nsp", "albert", "nezha-unilm", "roformer", "gpt2", "t5"]


@pytest.mark.legacy_keras
@pytest.mark.parametrize("name", first_of(UNLIKE, KINDS + HEADS))
def test_cuts_of_bert4keras_are_exact(name, tmp_path):
    model = bert_zoo.build(name, tmp_path)
    points = cut_points(model)
    points = [points[len(points) * quarter // 4] for quarter in (1, 2, 3)]
    assert cut_at_all(model, bert_zoo.inputs_of(model), points) == ({}, [])


def test_a_cut_of_an_application_is_exact():
    """Inside of a block, so that another tensor crosses beside it."""
    model = application_zoo.build("ResNet50")
    inputs = application_zoo.inputs_of(model)
    assert cut_at_all(model, inputs, ["conv3_block2_2_relu"]) == ({}, [])
