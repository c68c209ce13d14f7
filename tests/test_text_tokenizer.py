import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from text_samples import VOCAB_SIZE, documents, tokenizer

from tiedbert.errors import InputError
from tiedbert.text import files
from tiedbert.text import tokenizer as module
from tiedbert.text.documents import read_documents
from tiedbert.text.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer


def test_special_tokens_have_their_ids(tmp_path):
    tokenizer().save(tmp_path / "copy.model")
    pieces = sentencepiece.SentencePieceProcessor(str(tmp_path / "copy.model"))
    assert tuple(pieces.id_to_piece(i) for i in range(5)) == SPECIAL_TOKENS
    ids = tokenizer()
    assert (ids.pad_id, ids.unk_id, ids.cls_id, ids.sep_id, ids.mask_id) == (*range(5),)
    assert ids.special_ids == (0, 2, 3, 4)
    assert ids.vocab_size == VOCAB_SIZE


def test_text_never_yields_a_structural_token():
    text = "".join(SPECIAL_TOKENS) + " [CLS] 好看[SEP] <pad> </s> \0\u2581"
    ids = tokenizer().encode([text])[0]
    assert set(ids).isdisjoint(tokenizer().special_ids)
    assert ids


def test_what_is_encoded_is_decoded():
    half_width = [text.replace("，", ",") for text in documents()]
    ids = tokenizer().encode(documents())
    assert [tokenizer().decode(row) for row in ids] == half_width
    assert tokenizer().decode([2, *np.array(ids[0]), 3, 0]) == half_width[0]


def test_full_width_forms_become_half_width():
    assert tokenizer().encode(["，"]) == tokenizer().encode([","])


def test_no_space_is_put_before_a_text():
    book, good = tokenizer().encode(["书", "好看"])
    assert tokenizer().encode(["书好看"]) == [book + good]
    assert tokenizer().encode(["", " ", "\u200b"]) == [[], [], []]


def test_threads_do_not_change_the_ids():
    assert tokenizer().encode(documents(), 1) == tokenizer().encode(documents(), 3)


def test_batch_has_cls_and_sep_and_padding():
    long, short = "这本书很好看我喜欢", "书"
    ids, (book,) = tokenizer().encode([long, short])
    batch = tokenizer().encode_batch([long, short], max_length=5)
    assert batch.dtype == np.int32
    assert batch.tolist() == [[2, *ids[:3], 3], [2, book, 3, 0, 0]]
    assert tokenizer().encode_batch([short], max_length=64).tolist() == [[2, book, 3]]


def test_training_repeats_byte_for_byte(tmp_path):
    again = train_tokenizer(iter(documents()), tmp_path / "deep/new.model", VOCAB_SIZE)
    assert again.fingerprint == tokenizer().fingerprint
    assert again.model_file == tmp_path / "deep/new.model"
    again.save(tmp_path / "copy.model")
    assert Tokenizer(tmp_path / "copy.model").fingerprint == again.fingerprint


def test_a_sample_of_a_large_corpus_repeats_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SAMPLE_SIZE", 150)
    one, two = (
        train_tokenizer(documents(), tmp_path / name, 90).fingerprint
        for name in ("one", "two")
    )
    monkeypatch.undo()
    whole = train_tokenizer(documents(), tmp_path / "whole", 90).fingerprint
    assert one == two != whole


def test_a_long_document_is_not_dropped(tmp_path):
    """sentencepiece itself ignores lines of more than 4,192 bytes."""
    long = "鼎" + "".join(documents())
    assert len(long.encode()) > 20_000
    trained = train_tokenizer([long], tmp_path / "t.model", VOCAB_SIZE, 1.0)
    assert trained.unk_id not in trained.encode([long])[0]


@pytest.mark.parametrize("character", ["\u2585", "\0"])
def test_a_document_is_not_dropped_for_a_character(character, tmp_path):
    texts = [*documents(), f"鼎{character}"]
    trained = train_tokenizer(texts, tmp_path / "t.model", VOCAB_SIZE, 1.0)
    assert trained.unk_id not in trained.encode(["鼎"])[0]


def test_training_says_nothing(tmp_path, capfd):
    train_tokenizer(documents(), tmp_path / "t.model", VOCAB_SIZE)
    with pytest.raises(InputError):
        train_tokenizer([], tmp_path / "t.model", VOCAB_SIZE)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("texts", [[], ["", "  "], ["\0"]])
def test_empty_corpus(texts, tmp_path):
    with pytest.raises(InputError, match="the corpus is empty"):
        train_tokenizer(iter(texts), tmp_path / "t.model")
    assert list(tmp_path.iterdir()) == []


def test_vocabulary_too_large_for_the_text_says_what_fits(tmp_path):
    with pytest.raises(InputError, match="vocab_size is 8000, .*choose") as caught:
        train_tokenizer(documents(), tmp_path / "t.model")
    fitting = int(re.search(r"choose (\d+)", str(caught.value))[1])
    trained = train_tokenizer(documents(), tmp_path / "t.model", fitting)
    assert trained.vocab_size == fitting


def test_vocabulary_too_small_for_the_characters(tmp_path):
    with pytest.raises(InputError, match="vocab_size is 9, .*more than") as caught:
        train_tokenizer(documents(), tmp_path / "t.model", 9)
    too_small = int(re.search(r"more than (\d+)", str(caught.value))[1])
    trained = train_tokenizer(documents(), tmp_path / "t.model", too_small + 1)
    assert trained.vocab_size == too_small + 1


@pytest.mark.parametrize(("size", "coverage"), [(-1, 0.9995), (VOCAB_SIZE, 2.0)])
def test_numbers_out_of_range(size, coverage, tmp_path):
    with pytest.raises(
        InputError, match=f"vocab_size {size} and .*{coverage}"
    ) as caught:
        train_tokenizer(documents(), tmp_path / "t.model", size, coverage)
    assert "\n" not in str(caught.value)


def test_a_failed_training_leaves_the_old_model(tmp_path):
    old = tmp_path / "t.model"
    old.write_bytes(b"old")
    with pytest.raises(InputError):
        train_tokenizer(documents(), old, vocab_size=8000)
    assert old.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [old]


def test_the_error_of_a_reader_arrives_as_it_was(tmp_path):
    text = tmp_path / "texts.txt"
    text.write_bytes("好\n".encode() + b"\xff\n")
    with pytest.raises(InputError, match=r"texts.txt, line 2: expected UTF-8"):
        train_tokenizer(read_documents(text), tmp_path / "t.model")


def interrupted():
    yield "好"
    raise KeyboardInterrupt


def test_an_interrupted_training_is_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(interrupted(), tmp_path / "t.model")


def test_a_failed_write_leaves_nothing_new(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        tokenizer().save(tmp_path / "t.model")
    assert list(tmp_path.iterdir()) == []


def plain_model():
    """A good sentencepiece model with the library's own special tokens."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents()),
        model_writer=model,
        vocab_size=VOCAB_SIZE,
        minloglevel=3,
    )
    return model.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "a file of 0 bytes that is none"),
        (b"not a model at all", "a file of 18 bytes that is none; train one"),
        (b"version https://git-lfs.github.com/spec/v1", "none; it is a pointer of git"),
        (tokenizer()._model[:500], "a file of 500 bytes that is none"),
        (plain_model(), "<unk> <s> </s>"),
    ],
    ids=["empty", "text", "pointer", "truncated", "other special tokens"],
)
def test_a_file_that_is_no_tokenizer_of_ours(content, found, tmp_path):
    path = tmp_path / "t.model"
    path.write_bytes(content)
    with pytest.raises(InputError, match=found) as caught:
        Tokenizer(path)
    assert str(path) in str(caught.value)


def test_a_tokenizer_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="found nothing there"):
        Tokenizer(tmp_path / "t.model")
    with pytest.raises(InputError, match="found a directory"):
        Tokenizer(tmp_path)


def test_one_text_is_not_a_list_of_texts():
    with pytest.raises(InputError, match="expected a list of texts"):
        tokenizer().encode("好看")


def test_a_row_has_room_for_a_token():
    with pytest.raises(InputError, match="max_length is 2: expected at least 3"):
        tokenizer().encode_batch(["好看"], 2)


def test_readers_and_tokenizer_do_not_wait_for_tensorflow():
    code = (
        "import sys, tiedbert.text.tokenizer, tiedbert.text.documents\n"
        "import tiedbert.text.labelled, tiedbert.text.manifest\n"
        "from tiedbert.text import Tokenizer, read_documents, read_labelled\n"
        "assert not {'tensorflow', 'keras', 'tf_keras'} & set(sys.modules)"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, check=True)
