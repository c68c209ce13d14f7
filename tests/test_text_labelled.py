import csv

import numpy as np
import pytest
import tensorflow as tf
from text_samples import documents, tokenizer

from tiedbert.errors import InputError
from tiedbert.text.labelled import (
    check_same_labels,
    classification_dataset,
    label_ids,
    label_names,
    read_labelled,
)


def written(folder, content, name="reviews.tsv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "label\ttext\npos\t好看\nneg\t太差\n"),
        ("a.tsv", "text\tlabel\r\n好看\tpos\r\n\r\n太差\tneg"),
        ("a.TSV", "\ufefflabel \t text\n pos\t 好看 \nneg\t太差\n"),
        ("a.csv", "label,text\npos,好看\nneg,太差\n"),
        ("a.csv", '"text","label"\n"好看","pos"\n\n太差,neg\n'),
    ],
)
def test_tables(name, content, tmp_path):
    path = written(tmp_path, content, name)
    assert read_labelled(path) == (["好看", "太差"], ["pos", "neg"])


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.tsv", "text\tid\tlabel\r\n好看\t1\tpos\r\n\r\n太差\t2\tneg", "'id'"),
        ("a.csv", "label,text,note\npos,好看\nneg,太差,x\n", "'note'"),
        ("a.csv", ",label,text,id\n0,pos,好看,\n1,neg,太差,x\n", "'', 'id'"),
    ],
)
def test_columns_that_are_not_read_are_named(name, content, columns, tmp_path):
    path = written(tmp_path, content, name)
    message = f"line 1: columns that are not read: {columns}$"
    with pytest.warns(UserWarning, match=message):
        assert read_labelled(path) == (["好看", "太差"], ["pos", "neg"])


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("text_b", "a second text"),
        ("Text2", "a second text"),
        ("sentence 2", "a second text"),
        ("text-pair", "a second text"),
        ("hypothesis", "a second text"),
        ("question", "a second text"),
        ("labels", "further labels"),
        ("label_2", "further labels"),
        ("ner_tags", "further labels"),
        ("weight", "a weight"),
        ("sample_weight", "a weight"),
        ("class_weight", "a weight"),
        ("tags", "further labels"),
        ("soft_label", "further labels"),
        ("label_1", "further labels"),
        ("label_a", "further labels"),
        ("choice1", "a second text"),
        ("ending0", "a second text"),
        ("hypo", "a second text"),
        ("text_a", "a second text"),
        ("options", "a second text"),
    ],
)
def test_columns_of_another_task_are_refused(column, what, tmp_path):
    path = written(tmp_path, f"label\ttext\t{column}\npos\ta\tb\n")
    with pytest.raises(InputError, match=f"line 1: the column .* looks like {what}"):
        read_labelled(path)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([("0.5", "a"), ("1.5", "b")], r"numbers with a fraction as labels \('0.5'\)"),
        ([("3", "a"), ("4.2", "b")], "numbers with a fraction"),
        ([("-1e-3", "a"), ("2", "b")], "numbers with a fraction"),
        ([("0,5", "a"), ("1,0", "b")], "numbers with a fraction"),
        ([("0.5", "a"), ("N/A", "b")], r"numbers with a fraction as labels \('0.5'\)"),
        ([("0.5", "a"), ("nan", "b")], r"numbers with a fraction as labels \('0.5'\)"),
        ([("[0, 1]", "a b"), ("[1, 1]", "b c")], r"a list as a label \('\[0, 1\]'\)"),
        ([('["x"]', "a")], "a list as a label"),
        ([("O B-PER", "to Ann"), ("O", "go")], r"a tag for each token \('O B-PER'\)"),
        ([("B I O O", "New York is big now")], "a tag for each token"),
        ([("DT NN VB", "the cat sat"), ("NN", "cat")], "a tag for each token"),
        ([("r v ns ns", "我爱北京"), ("n", "猫")], "a tag for each token"),
        ([("DT,NN", "the cat"), ("NN", "cat")], "a tag for each token"),
        ([("a", "x"), ("b", "y"), ("a, b", "z z z")], "several classes as a label"),
        ([("a", "x"), ("b", "y"), ("b|a", "z z z")], r"several classes .*'b\|a'"),
        (
            [("a,b", "x"), ("b,c", "y"), ("a,c", "z")],
            "several classes as a label .'a,b'",
        ),
        ([("甲、乙", "x"), ("乙", "y"), ("甲", "z")], "several classes as a label"),
    ],
)
def test_labels_of_another_task_are_refused(rows, what, tmp_path):
    body = "".join(f"{label}\t{text}\n" for label, text in rows)
    path = written(tmp_path, f"label\ttext\n{body}")
    with pytest.raises(InputError, match=f"expected the name of one class .*{what}"):
        read_labelled(path)


@pytest.mark.parametrize(
    "labels",
    [
        ["0", "1"],
        ["1.0", "0.0"],
        ["-1", "1"],
        ["very good", "bad"],
        ["New York, NY", "Boston, MA"],
        ["0.5 stars", "1"],
        ["O", "B"],
        ["nan", "0"],
        ["inf", "-1"],
        ["food, drink", "travel"],
    ],
)
def test_names_of_classes_may_be_numbers_and_phrases(labels, tmp_path):
    texts = ["not one word", "two are not here"]
    rows = zip(labels, texts, strict=True)
    path = written(tmp_path, "label\ttext\n" + "".join(f"{x}\t{y}\n" for x, y in rows))
    assert read_labelled(path) == (texts, labels)


def test_labels_that_share_a_part_are_read_with_a_warning(tmp_path):
    rows = "Los Angeles, CA\tx\nSan Diego, CA\ty\n"
    path = written(tmp_path, f"label\ttext\n{rows}")
    with pytest.warns(UserWarning, match="'Los A.*' and 'San D.*' share 'CA': each"):
        labels = read_labelled(path)[1]
    assert labels == ["Los Angeles, CA", "San Diego, CA"]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_text_may_be_longer_than_csv_allows(name, tmp_path):
    limit = csv.field_size_limit()
    long = "x" * (limit + 9)
    separator = "\t" if name == "a.tsv" else ","
    path = written(tmp_path, f"label{separator}text\npos{separator}{long}\n", name)
    assert read_labelled(path) == ([long], ["pos"])
    assert csv.field_size_limit() == limit
    with path.open("a") as file:
        file.write("a row without a text")
    with pytest.raises(InputError, match="expected a text, found none"):
        read_labelled(path)
    assert csv.field_size_limit() == limit


def test_quotes_are_ordinary_in_tsv(tmp_path):
    path = written(tmp_path, 'label\ttext\npos\t"said, "so"\n')
    assert read_labelled(path) == (['"said, "so"'], ["pos"])


def test_quotes_enclose_in_csv(tmp_path):
    path = written(tmp_path, 'label,text\npos,"one, ""two""\nthree"\n', "a.csv")
    assert read_labelled(path) == (['one, "two"\nthree'], ["pos"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.tsv",
            "label\ttext\npos\t好\n\t坏\n",
            "line 3: expected a label, found none",
        ),
        ("a.tsv", "label\ttext\n \t坏\n", "line 2: expected a label, found none"),
        ("a.tsv", "text\tlabel\n坏\n", "line 2: expected a label, found none"),
        ("a.tsv", "label\ttext\n\nneg\t\n", "line 3: expected a text, found none"),
        ("a.tsv", "label\ttext\nneg\n", "line 2: expected a text, found none"),
        ("a.csv", "label,text\npos,a, b\n", "line 2: expected 2 fields .* found 3"),
        ("a.csv", 'label,text\npos,"a\nb\n', "line 3: expected a row .* end of data"),
        ("a.csv", 'label,text\npos,"a"b\n', "line 2: expected a row of a table"),
        ("a.tsv", "pos\t好\n", "line 1: expected a header .* found 'pos', '好'"),
        ("a.tsv", "label,text\npos,好\n", "line 1: expected a header .*'label,text'"),
        ("a.csv", "label,Text\npos,好\n", "line 1: expected a header"),
        ("a.csv", "label,text,text\npos,a,b\n", "line 1: expected a header"),
        ("a.tsv", "", "line 1: expected a header .* found nothing"),
        ("a.tsv", "\n\n", "line 1: expected a header .* found nothing"),
        ("a.tsv", "label\ttext\n\n", "expected rows of label and text, found none"),
        (
            "a.txt",
            "label\ttext\npos\t好\n",
            "expected a name that ends in .tsv or .csv",
        ),
        ("a.tsv", b"label\ttext\npos\t\xff\n", "line 2: .* UTF-8, .*--errors replace"),
        ("a.tsv", "label\ttext\n".encode("utf-16"), "line 1: expected UTF-8"),
    ],
)
def test_bad_tables(name, content, message, tmp_path):
    path = written(tmp_path, content, name)
    with pytest.raises(InputError, match=message) as caught:
        read_labelled(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="found no such file"):
        read_labelled(tmp_path / "a.tsv")


def test_bytes_that_are_not_utf8_may_be_passed_over(tmp_path):
    path = written(tmp_path, b"label\ttext\npos\ta\xffb\n")
    assert read_labelled(path, "replace") == (["a\ufffdb"], ["pos"])
    assert read_labelled(path, "ignore") == (["ab"], ["pos"])


def test_label_ids_follow_the_names():
    names = label_names(["good", "bad", "good", "so-so"])
    assert names == ["bad", "good", "so-so"]
    ids = label_ids(["so-so", "bad"], names)
    assert ids.dtype == np.int32
    assert ids.tolist() == [2, 0]


def test_numbers_with_a_fraction_are_no_names():
    with pytest.raises(InputError, match="names of classes, received 0.5: to predict"):
        label_names([0.5, 0.5])
    assert label_names(np.array([1, 0, 1])) == [0, 1]


def test_an_unknown_label():
    with pytest.raises(InputError, match="'x', 'y' is not .* one of 'neg', 'pos'"):
        label_ids(["y", "pos", "x"], ["pos", "neg"])


def test_a_label_set_that_changes_between_files():
    with pytest.raises(InputError) as caught:
        check_same_labels(
            {
                "train.tsv": ["pos", "neg"],
                "valid.tsv": ["neg", "pos"],
                "test.tsv": ["positive", "neg"],
            }
        )
    message = str(caught.value)
    assert "the labels of train.tsv and test.tsv differ" in message
    assert "only train.tsv has 'pos'" in message
    assert "only test.tsv has 'positive'" in message
    assert "valid.tsv" not in message


def test_a_file_that_lacks_a_label():
    with pytest.raises(InputError, match="differ: only a has 'pos'; give"):
        check_same_labels({"a": ["pos", "neg"], "b": ["neg"]})


TEXTS = list(documents())
LABELS = np.arange(len(TEXTS), dtype=np.int32)
"""Each text its own label, so that a batch says which texts it holds."""


def batches(**options):
    arguments = {"batch_size": 4, "max_length": 40, **options}
    return classification_dataset(TEXTS, LABELS, tokenizer(), **arguments)


def epoch(data):
    """The labels of an epoch, in order."""
    return np.concatenate([labels for _, labels in data.as_numpy_iterator()]).tolist()


@pytest.mark.parametrize("seed", [None, 0])
def test_each_text_comes_once_with_its_label(seed):
    rows = tokenizer().encode_rows(TEXTS, 40)
    seen = []
    for inputs, labels in batches(shuffle_seed=seed).as_numpy_iterator():
        assert set(inputs) == {"Input-Token", "Input-Segment"}
        token_ids = inputs["Input-Token"]
        assert token_ids.dtype == labels.dtype == np.int32
        for row, label in zip(token_ids, labels, strict=True):
            ids = rows[label]
            assert row.tolist() == ids + [0] * (len(row) - len(ids))
        seen += labels.tolist()
    assert sorted(seen) == LABELS.tolist()


@pytest.mark.parametrize("seed", [None, 0])
def test_length_is_that_of_the_longest_rounded_up(seed):
    rows = tokenizer().encode_rows(TEXTS, 40)
    widths = set()
    for inputs, labels in batches(shuffle_seed=seed).as_numpy_iterator():
        longest = max(len(rows[label]) for label in labels)
        width = inputs["Input-Token"].shape[1]
        assert width == min(40, -(-longest // 16) * 16)
        assert inputs["Input-Segment"].shape == inputs["Input-Token"].shape
        assert inputs["Input-Segment"].dtype == np.int32
        assert not inputs["Input-Segment"].any()
        widths.add(width)
    assert len(widths) > 1


def test_without_a_seed_the_order_is_kept():
    data = batches()
    assert epoch(data) == epoch(data) == LABELS.tolist()


def test_a_seed_shuffles_each_epoch_anew_and_repeats():
    data, same, other = (batches(shuffle_seed=seed) for seed in (5, 5, 6))
    first, second = epoch(data), epoch(data)
    assert first != second
    assert LABELS.tolist() not in (first, second)
    assert [epoch(same), epoch(same)] == [first, second]
    assert epoch(other) != first


def test_batches_are_made_of_other_texts_in_each_epoch():
    data = batches(shuffle_seed=0)
    first, second = (
        {frozenset(labels.tolist()) for _, labels in data.as_numpy_iterator()}
        for _ in range(2)
    )
    assert first.isdisjoint(second)


def padding(data):
    return sum(np.sum(x["Input-Token"] == 0) for x, _ in data.as_numpy_iterator())


def test_short_texts_do_not_pay_for_long_ones():
    assert padding(batches(shuffle_seed=0)) < padding(batches()) / 2


def test_lengths_are_mixed_within_an_epoch():
    """Batches do not come from short to long, which would be bad for training."""
    widths = [
        inputs["Input-Token"].shape[1]
        for inputs, _ in batches(shuffle_seed=0).as_numpy_iterator()
    ]
    assert widths not in (sorted(widths), sorted(widths, reverse=True))


@pytest.mark.cases(4)
@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("size", [1, 7, 300, 1000])
def test_the_number_of_batches_is_known(seed, size):
    data = batches(shuffle_seed=seed, batch_size=size)
    assert data.cardinality() == -(-len(TEXTS) // size) == len(list(data))


def test_element_spec():
    ids = tf.TensorSpec([None, None], tf.int32)
    inputs = {"Input-Token": ids, "Input-Segment": ids}
    assert batches().element_spec == (inputs, tf.TensorSpec([None], tf.int32))


def test_as_many_labels_as_texts():
    with pytest.raises(InputError, match="as many labels, found 2 and 1"):
        classification_dataset(["a", "b"], [0], tokenizer(), 8, 16)
    with pytest.raises(InputError, match="found 0 and 0"):
        classification_dataset([], [], tokenizer(), 8, 16)


@pytest.mark.parametrize(
    "labels",
    [[0.5, 1.0], ["0", "1"], [[0, 1], [1, 0]], [[0], [1, 0]], [0, -100], [True, False]],
)
def test_labels_are_ids_of_classes(labels):
    with pytest.raises(InputError, match="labels: expected one whole number a text"):
        classification_dataset(["a", "b"], labels, tokenizer(), 8, 16)
