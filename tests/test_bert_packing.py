"""Several texts in one row: each has the outputs that it has alone."""

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import scramble, write_config
from generation import IS_LEGACY
from variants import others_slow

from tiedbert.bert import build_bert, classifier, masked_lm
from tiedbert.errors import InputError

needs_keras_3 = pytest.mark.skipif(IS_LEGACY, reason="bert4keras has no packing")

# Three texts in a row, then padding; and a row of one text.
LENGTHS = [[4, 5, 2], [9]]
TIME = 13
KINDS = ["bert", "albert", "nezha", "roformer", "roformer_v2", "electra"]
CASES = [
    f"{kind}-{application}"
    for kind in KINDS
    for application in ("encoder", "lm", "unilm")
    if (kind, application) not in (("electra", "lm"), ("electra", "unilm"))
]


def rows():
    """Token, segment and pack ids; a text's second half is segment 1."""
    draw = np.random.default_rng(0)
    tokens, segments, pack = np.zeros((3, len(LENGTHS), TIME), np.int32)
    for row, start, length, number in texts():
        part = slice(start, start + length)
        tokens[row, part] = draw.integers(1, 30, length)
        segments[row, part] = np.arange(length) >= length // 2
        pack[row, part] = number
    return tokens, segments, pack


def texts():
    """(row, start, length, number in its row) of each text."""
    for row, lengths in enumerate(LENGTHS):
        start = 0
        for number, length in enumerate(lengths, 1):
            yield row, start, length, number
            start += length


def tensors(*arrays):
    return [tf.constant(array) for array in arrays]


@needs_keras_3
@pytest.mark.parametrize(
    "case", others_slow(["bert-encoder", "roformer-unilm", "nezha-lm"], CASES)
)
def test_each_text_is_as_it_is_alone(case, tmp_path):
    kind, application = case.split("-")
    config = write_config(tmp_path, num_hidden_layers=2)
    options = {"model": kind, "application": application}
    alone = scramble(build_bert(config, **options))
    packed = build_bert(config, with_pack=True, **options)
    assert [x.name for x in packed.inputs] == [
        *("Input-Token", "Input-Segment", "Input-Pack")
    ]
    packed.set_weights(alone.get_weights())
    tokens, segments, pack = rows()
    found = packed(tensors(tokens, segments, pack)).numpy()
    assert np.isfinite(found).all()
    for row, start, length, _ in texts():
        part = slice(start, start + length)
        expected = alone(
            tensors(tokens[row : row + 1, part], segments[row : row + 1, part])
        )
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            found[row : row + 1, part], expected, rtol=0, atol=1e-5 * scale
        )


@needs_keras_3
@pytest.mark.parametrize("early", [False, True])
def test_the_head_reads_packed_texts(early, tmp_path):
    bert = scramble(build_bert(write_config(tmp_path), with_pack=True))
    everywhere = np.broadcast_to(np.arange(TIME, dtype=np.int32), (2, TIME))
    whole = masked_lm(bert)
    at_all = whole(tensors(*rows(), everywhere)).numpy()
    model = masked_lm(bert, predictions=3, early_gather=early)
    for layer in ("MLM-Dense", "MLM-Norm", "MLM-Bias"):
        model.get_layer(layer).set_weights(whole.get_layer(layer).get_weights())
    positions = np.array([[1, 5, 10], [0, 8, 8]], np.int32)
    found = model(tensors(*rows(), positions))
    expected = np.take_along_axis(at_all, positions[:, :, None], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@needs_keras_3
def test_a_row_may_be_longer_than_the_positions_and_a_text_may_not(tmp_path):
    config = write_config(tmp_path, max_position_embeddings=9)
    packed = build_bert(config, with_pack=True)
    tokens, segments, pack = rows()
    packed(tensors(tokens, segments, pack))
    with pytest.raises(tf.errors.InvalidArgumentError, match="from 0 to 8 expected"):
        packed(tensors(tokens, segments, np.ones_like(pack)))


@needs_keras_3
@pytest.mark.parametrize("option", ["with_pool", "with_nsp", "custom_position_ids"])
def test_options_for_one_text_a_row_are_refused(option, tmp_path):
    with pytest.raises(InputError, match=f"with_pack and {option}: a row has several"):
        build_bert(write_config(tmp_path), with_pack=True, **{option: True})


@needs_keras_3
def test_a_classifier_has_one_text_a_row(tmp_path):
    bert = build_bert(write_config(tmp_path), with_pack=True)
    with pytest.raises(InputError, match="classifier expected one text a row"):
        classifier(bert, 2)


def test_under_keras_2_it_is_refused(tmp_path):
    if not IS_LEGACY:
        pytest.skip("is about Keras 2")
    with pytest.raises(InputError, match=r"with_pack: an option of our own .*Keras 3"):
        build_bert(write_config(tmp_path), with_pack=True)
