"""Clones of keras-hub models: ties that Keras' own copies lose, and their classes."""

import numpy as np
import pytest
from models import assert_same
from tensorflow import keras

from tiedbert.layers import EmbeddingDense
from tiedbert.surgery import clone

keras_hub = pytest.importorskip("keras_hub")

SIZES = {
    "vocabulary_size": 20,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": 12,
}
TOKENS = np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 0, 0, 0]])
INPUTS = {
    "token_ids": TOKENS,
    "padding_mask": (TOKENS > 0).astype("int32"),
    "segment_ids": np.zeros_like(TOKENS),
    "mask_positions": np.array([[1, 2], [0, 1]]),
}


def backbone():
    model = keras_hub.models.BertBackbone(**SIZES)
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(0.1, 0.3, w.shape) for w in model.get_weights()])
    return model


def masked_positions():
    return keras.Input((None,), dtype="int32", name="mask_positions")


def bert_task():
    return keras_hub.models.BertMaskedLM(backbone())


def roberta_task():
    return keras_hub.models.RobertaMaskedLM(keras_hub.models.RobertaBackbone(**SIZES))


def head_on_a_backbone():
    model = backbone()
    head = keras_hub.layers.MaskedLMHead(
        token_embedding=model.token_embedding, name="mlm_head"
    )
    positions = masked_positions()
    logits = head(model(model.input)["sequence_output"], positions)
    return keras.Model({**model.input, "mask_positions": positions}, logits)


def head_in_a_plain_model():
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    table = keras_hub.layers.ReversibleEmbedding(20, 8, name="tokens")
    head = keras_hub.layers.MaskedLMHead(token_embedding=table, name="mlm_head")
    positions = masked_positions()
    logits = head(keras.layers.Dense(8)(table(ids)), positions)
    return keras.Model({"token_ids": ids, "mask_positions": positions}, logits)


def head_on_the_table_of_another_layer():
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    embed = keras_hub.layers.TokenAndPositionEmbedding(20, 12, 8, name="embed")
    head = keras_hub.layers.MaskedLMHead(
        token_embedding=embed.token_embedding, name="mlm_head"
    )
    positions = masked_positions()
    logits = head(keras.layers.Dense(8)(embed(ids)), positions)
    return keras.Model({"token_ids": ids, "mask_positions": positions}, logits)


def inputs_of(model):
    return {name: INPUTS[name] for name in model.input}


def assert_cloned(source):
    outputs, values = source(inputs_of(source)), source.get_weights()
    copy = clone(source)
    assert type(copy) is type(source)
    assert_same(copy(inputs_of(source)), outputs)
    assert [w.path for w in copy.weights] == [w.path for w in source.weights]
    assert_same(copy.get_weights(), values)
    for weight in copy.weights:
        weight.assign(weight * 0.0)
    assert_same(source(inputs_of(source)), outputs)
    for weight, value in zip(copy.weights, values, strict=True):
        weight.assign(value)
    return copy


@pytest.mark.parametrize(
    "build",
    [
        bert_task,
        roberta_task,
        head_on_a_backbone,
        head_in_a_plain_model,
        head_on_the_table_of_another_layer,
    ],
)
def test_a_masked_lm_head_stays_tied(build):
    copy = assert_cloned(build())
    (table,) = [w for w in copy.weights if tuple(w.shape) == (20, 8)]
    inputs = inputs_of(copy)
    before = np.array(copy(inputs))
    row = np.zeros((20, 8), "float32")
    row[19] = range(8)  # a token that is in no text: the inputs do not change
    table.assign(table + row)
    change = np.abs(np.array(copy(inputs)) - before)
    assert change[..., 19].min() > 1e-3
    assert change[..., :19].max() == 0.0


def test_a_task_keeps_what_is_trainable():
    source = keras_hub.models.BertTextClassifier(backbone(), num_classes=3)
    source.backbone.trainable = False
    copy = assert_cloned(source)
    assert not copy.backbone.trainable
    assert [w.path for w in copy.trainable_weights] == [
        w.path for w in source.trainable_weights
    ]


def test_a_task_and_its_backbone_in_one_model():
    """Both configs would make a backbone; the clone has one."""
    task = bert_task()
    hidden = task.backbone(task.backbone.input)["sequence_output"]
    tied = EmbeddingDense(task.backbone.token_embedding, name="tied")(hidden)
    copy = assert_cloned(keras.Model(task.input, [task(task.input), tied]))
    table = copy.get_layer("tied").embedding_layer
    assert copy.get_layer(task.name).backbone.token_embedding is table


def test_a_preprocessor_is_shared_with_what_it_has_learned():
    """A tokenizer's config does not tell its vocabulary."""
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "to", "be"]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=words)
    preprocessor = keras_hub.models.BertMaskedLMPreprocessor(tokenizer)
    source = keras_hub.models.BertMaskedLM(backbone(), preprocessor=preprocessor)
    assert clone(source).preprocessor is preprocessor
