"""Cuts of real models, a few of each: `make test-all` cuts them at every tensor."""

import application_zoo
import bert_zoo
import pytest
from cuts import cut_at_all, cut_points
from generation import IS_LEGACY

# One model of each kind (the halves of T5 are in the whole), and some with heads.
KINDS = [*bert_zoo.BERT_LIKE, *bert_zoo.OTHERS, "roformer_v2", "t5", "t5.1.1"]
HEADS = ["bert-mlm-nsp", "albert-lm", "nezha-unilm", "bert-residual_scores"]


@pytest.mark.legacy_keras
@pytest.mark.parametrize("name", KINDS + HEADS)
def test_cuts_of_bert4keras_are_exact(name, tmp_path):
    model = bert_zoo.build(name, tmp_path)
    points = cut_points(model)
    points = [points[len(points) * quarter // 4] for quarter in (1, 2, 3)]
    assert cut_at_all(model, bert_zoo.inputs_of(model), points) == ({}, [])


# Each lies inside of a block, so that another tensor crosses beside it.
INSIDE = {
    "ResNet50": "conv3_block2_2_relu",
    "DenseNet121": "conv3_block4_1_conv",
    "MobileNetV2": "block_4_depthwise",
    "InceptionV3": "mixed5",
    "EfficientNetB0": "block3b_se_reduce",
    "ConvNeXtTiny": "convnext_tiny_stage_1_block_1_depthwise_conv",
}


# Keras 2 has the same graphs, and `make test-all` cuts them there too.
@pytest.mark.parametrize("name", ["ResNet50"] if IS_LEGACY else INSIDE)
def test_a_cut_of_an_application_is_exact(name):
    model = application_zoo.build(name)
    inputs = application_zoo.inputs_of(model)
    assert cut_at_all(model, inputs, [INSIDE[name]]) == ({}, [])
