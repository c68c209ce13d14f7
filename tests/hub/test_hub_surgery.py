"""A cut is exact at every tensor of keras-hub's models, nested backbones included."""

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from cuts import cut_at_all, cut_in_training, cut_points
from tensorflow import keras

from tiedbert.surgery.graph import Graph

SIZE = {
    "vocabulary_size": 30,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "max_sequence_length": 8,
    "dropout": 0.1,
}
# What a backbone needs beside its size. ALBERT calls each of its layers twice.
BACKBONES = {
    "Bert": {},
    "Roberta": {},
    "Albert": {"embedding_dim": 4, "num_inner_repetitions": 2},
    "DebertaV3": {"bucket_size": 4},
    "GPT2": {},
}
TASKS = [
    *(f"{family}TextClassifier" for family in BACKBONES if family != "GPT2"),
    *(f"{family}MaskedLM" for family in BACKBONES if family != "GPT2"),
    "GPT2CausalLM",
]
every_backbone = pytest.mark.parametrize("family", BACKBONES)
every_task = pytest.mark.parametrize("name", TASKS)

TOKENS = np.array([[2, 7, 8, 9, 3, 0, 0], [2, 5, 3, 11, 12, 13, 3]])
INPUTS = {
    "token_ids": TOKENS,
    "segment_ids": np.array([[0] * 7, [0, 0, 0, 1, 1, 1, 1]]),
    "padding_mask": TOKENS != 0,
    "mask_positions": np.array([[1, 3], [5, 0]]),
}


def backbone_of(family):
    return getattr(keras_hub.models, f"{family}Backbone")(**SIZE, **BACKBONES[family])


def task_of(name):
    family = next(family for family in BACKBONES if name.startswith(family))
    classes = {"num_classes": 3} if name.endswith("Classifier") else {}
    make = getattr(keras_hub.models, name)
    return scramble(make(backbone=backbone_of(family), preprocessor=None, **classes))


def scramble(model):
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(0.1, 0.3, w.shape) for w in model.get_weights()])
    return model


def inputs_of(model):
    return {name: tf.constant(INPUTS[name], tf.int32) for name in Graph(model).inputs}


def inner_points(model):
    """The paths of every tensor inside the models that `model` nests."""
    graph = Graph(model)
    used = {id(tensor) for call in graph.calls for tensor in call.inputs}
    paths = []
    for call in graph.calls:
        if isinstance(call.layer, keras.Model):
            # A masked language model does not use the pooled output of its backbone.
            pairs = zip(call.outputs, Graph(call.layer).output_tensors, strict=True)
            outputs = [inner for outer, inner in pairs if id(outer) in used]
            calls = Graph(keras.Model(call.layer.inputs, outputs)).calls
            paths += [f"{call.layer.name}/{name}" for name in _names(calls)]
    return paths


def _names(calls):
    """The name of each call as a cut point: ``"name:k"`` if the layer has several."""
    names = [call.layer.name for call in calls]
    return [
        name if names.count(name) == 1 else f"{name}:{call.index}"
        for name, call in zip(names, calls, strict=True)
    ]


@every_backbone
def test_every_cut_of_a_backbone_is_exact(family):
    model = scramble(backbone_of(family))
    inexact, unused = cut_at_all(model, inputs_of(model), cut_points(model))
    assert inexact == {}
    assert unused == []


@every_task
def test_every_cut_of_a_task_is_exact(name):
    model = task_of(name)
    inexact, unused = cut_at_all(model, inputs_of(model), cut_points(model))
    assert inexact == {}
    assert unused == []


@every_task
def test_every_cut_inside_the_backbone_of_a_task_is_exact(name):
    model = task_of(name)
    points = inner_points(model)
    assert len(points) >= 5
    inexact, unused = cut_at_all(model, inputs_of(model), points)
    assert inexact == {}
    assert unused == []


@every_backbone
def test_dropout_of_a_backbone_draws_what_the_whole_draws(family):
    model = scramble(backbone_of(family))
    assert cut_in_training(model, inputs_of(model), cut_points(model)) == {}


@every_task
def test_dropout_of_a_task_draws_what_the_whole_draws(name):
    model = task_of(name)
    points = cut_points(model) + inner_points(model)
    assert cut_in_training(model, inputs_of(model), points) == {}
