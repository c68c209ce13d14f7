import numpy as np
import pytest
import tensorflow as tf

from tiedbert.errors import InputError
from tiedbert.text.masking import mask_tokens

VOCAB_SIZE = 1000
MASK = 4
SPECIAL = (0, 2, 3, MASK)
ROWS, LENGTH, SLOTS = 256, 64, 10


def batch(rows=ROWS):
    """Rows `[CLS] ordinary ids, [UNK] among them [SEP] [PAD]...` of many lengths."""
    draw = np.random.default_rng(0)
    token_ids = draw.integers(5, VOCAB_SIZE, (rows, LENGTH)).astype(np.int32)
    token_ids[:, 0] = 2
    token_ids[::3, 5] = 1
    for row, length in zip(token_ids, draw.integers(3, LENGTH, rows), strict=True):
        row[length] = 3
        row[length + 1 :] = 0
    return token_ids


def masked(token_ids, seed=(1, 2), max_predictions=SLOTS, **options):
    result = mask_tokens(
        token_ids,
        seed,
        vocab_size=VOCAB_SIZE,
        mask_id=MASK,
        special_ids=SPECIAL,
        max_predictions=max_predictions,
        **options,
    )
    return {name: value.numpy() for name, value in result.items()}


def chosen(result):
    """`bool [B, T]`: the positions in use."""
    used = result["weights"] > 0
    places = np.zeros_like(result["token_ids"], bool)
    rows = np.nonzero(used)[0]
    places[rows, result["positions"][used]] = True
    return places


def test_shapes_and_types():
    result = masked(batch())
    found = {name: (value.shape, value.dtype) for name, value in result.items()}
    assert found == {
        "token_ids": ((ROWS, LENGTH), np.int32),
        "positions": ((ROWS, SLOTS), np.int32),
        "labels": ((ROWS, SLOTS), np.int32),
        "weights": ((ROWS, SLOTS), np.float32),
    }


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.5, 1.0])
@pytest.mark.parametrize("slots", [1, 10, LENGTH])
def test_number_of_positions(rate, slots):
    token_ids = batch()
    ordinary = (~np.isin(token_ids, SPECIAL)).sum(axis=1)
    expected = np.minimum(slots, np.maximum(1, np.round(rate * ordinary)))
    result = masked(token_ids, max_predictions=slots, rate=rate)
    np.testing.assert_array_equal(result["weights"].sum(axis=1), expected)


def test_positions_are_distinct_and_ordinary():
    token_ids = batch()
    result = masked(token_ids, rate=0.5, max_predictions=20)
    places = chosen(result)
    # Fewer places than slots in use would mean that one was drawn twice.
    assert places.sum() == result["weights"].sum() > ROWS
    assert not np.isin(token_ids[places], SPECIAL).any()
    assert (token_ids[places] == 1).any(), "[UNK] is a token like others"


def test_labels_are_the_ids_that_were_there():
    token_ids = batch()
    result = masked(token_ids)
    there = np.take_along_axis(token_ids, result["positions"], axis=1)
    used = result["weights"] > 0
    np.testing.assert_array_equal(result["labels"][used], there[used])


def test_unused_slots_are_zero():
    result = masked(batch())
    unused = result["weights"] == 0
    assert unused.any()
    assert not result["labels"][unused].any()
    assert not result["positions"][unused].any()


def test_nothing_else_changes():
    token_ids = batch()
    result = masked(token_ids)
    elsewhere = ~chosen(result)
    np.testing.assert_array_equal(result["token_ids"][elsewhere], token_ids[elsewhere])


def test_eighty_ten_ten():
    token_ids = batch(rows=2000)
    result = masked(token_ids, max_predictions=LENGTH, rate=0.5)
    places = chosen(result)
    before, after = token_ids[places], result["token_ids"][places]
    count = len(before)
    assert count > 20_000
    kept = (after == before).mean()
    hidden = (after == MASK).mean()
    # A random id is the old one in 1 of 995 cases.
    by_chance = 0.1 / (VOCAB_SIZE - 5)
    for share, expected in ((hidden, 0.8), (kept, 0.1 + by_chance)):
        four_sigma = 4 * np.sqrt(expected * (1 - expected) / count)
        assert abs(share - expected) < four_sigma


def test_random_ids_are_spread_over_the_ordinary_ones():
    token_ids = np.full((500, LENGTH), 7, np.int32)
    after = masked(token_ids, max_predictions=LENGTH, rate=1.0)["token_ids"]
    drawn = after[(after != 7) & (after != MASK)]
    assert drawn.min() == 5
    assert drawn.max() == VOCAB_SIZE - 1
    middle = (5 + VOCAB_SIZE - 1) / 2
    assert abs(drawn.mean() - middle) < 4 * 288 / np.sqrt(len(drawn))


def test_each_ordinary_position_is_as_likely():
    token_ids = np.full((4000, 22), 7, np.int32)
    token_ids[:, 0], token_ids[:, 21] = 2, 3
    hits = chosen(masked(token_ids, max_predictions=5, rate=0.25)).sum(axis=0)
    assert hits[0] == hits[21] == 0
    expected = 4000 * 5 / 20
    assert (abs(hits[1:21] - expected) < 4.5 * np.sqrt(expected * 0.75)).all()


def test_the_seed_decides():
    token_ids = batch()
    one, same, other = masked(token_ids), masked(token_ids), masked(token_ids, (1, 3))
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
    assert (chosen(one) != chosen(other)).sum() > 0.5 * chosen(one).sum()


def test_rows_without_an_ordinary_token():
    token_ids = np.array([[2, 3, 0, 0], [0, 0, 0, 0], [2, 9, 3, 0]], np.int32)
    result = masked(token_ids, max_predictions=2)
    assert result["weights"].tolist() == [[0, 0], [0, 0], [1, 0]]
    assert result["positions"].tolist() == [[0, 0], [0, 0], [1, 0]]
    assert result["labels"].tolist() == [[0, 0], [0, 0], [9, 0]]
    np.testing.assert_array_equal(result["token_ids"][:2], token_ids[:2])


@pytest.mark.cases(1)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_same_in_a_graph_and_compiled(jit_compile):
    token_ids = tf.constant(batch(32))
    eager = masked(token_ids)

    @tf.function(jit_compile=jit_compile)
    def in_graph(token_ids, seed):
        result = mask_tokens(
            token_ids,
            seed,
            vocab_size=VOCAB_SIZE,
            mask_id=MASK,
            special_ids=SPECIAL,
            max_predictions=SLOTS,
        )
        assert result["token_ids"].shape == (32, LENGTH)
        assert result["labels"].shape == (32, SLOTS)
        return result

    for _ in range(2):
        result = in_graph(token_ids, tf.constant([1, 2]))
    assert in_graph.experimental_get_tracing_count() == 1
    for name, expected in eager.items():
        np.testing.assert_array_equal(result[name], expected)


def test_in_a_dataset_every_batch_is_masked_anew():
    token_ids = np.full((8, LENGTH), 7, np.int32)
    seeds = tf.data.Dataset.random(seed=0).batch(2, drop_remainder=True)
    same = tf.data.Dataset.from_tensors(token_ids).repeat()
    batches = tf.data.Dataset.zip((same, seeds)).map(
        lambda ids, seed: mask_tokens(
            ids,
            seed,
            vocab_size=VOCAB_SIZE,
            mask_id=MASK,
            special_ids=SPECIAL,
            max_predictions=SLOTS,
        )
    )
    one, two = batches.take(2).as_numpy_iterator()
    assert (one["positions"] != two["positions"]).mean() > 0.5


@pytest.mark.parametrize("slots", [0, LENGTH + 1])
def test_more_slots_than_positions(slots):
    with pytest.raises(InputError, match=f"max_predictions is {slots}: expected 1 to"):
        masked(batch(2), max_predictions=slots)
