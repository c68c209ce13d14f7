import ast
import importlib
from pathlib import Path

import pytest

from tiedbert import text
from tiedbert.errors import InputError
from tiedbert.text.documents import read_documents


def written(folder, content):
    path = folder / "texts.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"\n \t\none\n\r\n\n", ["one"]),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo", ["one", "\ufefftwo"]),
        (
            "一\u2028二\u0085三\x0b四\x1c五\n".encode(),
            ["一\u2028二\u0085三\x0b四\x1c五"],
        ),
        (b"left\rright\n", ["left\rright"]),
        (b" kept \n", [" kept "]),
    ],
    ids=["lf", "no last lf", "crlf", "blank", "bom", "separators", "cr", "spaces"],
)
def test_one_document_a_line(content, expected, tmp_path):
    assert list(read_documents(written(tmp_path, content))) == expected


BAD = b"good\n\nbad \xff here\n\xe4\xb8\n"


def test_text_that_is_not_utf8_names_the_line_and_the_choices(tmp_path):
    reader = read_documents(written(tmp_path, BAD))
    assert next(reader) == "good"
    with pytest.raises(InputError) as caught:
        next(reader)
    message = str(caught.value)
    assert f"{tmp_path / 'texts.txt'}, line 3:" in message
    assert "0xff at position 5" in message
    for choice in ("--errors replace", "--errors ignore", "--errors strict"):
        assert choice in message


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ("replace", ["good", "bad \ufffd here", "\ufffd"]),
        ("ignore", ["good", "bad  here"]),
    ],
)
def test_errors_may_be_passed_over(errors, expected, tmp_path):
    assert list(read_documents(written(tmp_path, BAD), errors)) == expected


def test_a_choice_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="'igonre': expected one of strict, replace"):
        list(read_documents(written(tmp_path, BAD), "igonre"))


@pytest.mark.parametrize("content", [b"", b"\n\r\n  \n", b"\xef\xbb\xbf"])
def test_a_file_without_text(content, tmp_path):
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=f"{path}: .* found no text"):
        list(read_documents(path))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="none.txt: .* found no such file"):
        list(read_documents(tmp_path / "none.txt"))
    with pytest.raises(InputError, match="found a directory"):
        list(read_documents(tmp_path))


def test_the_file_is_read_as_a_stream(tmp_path):
    """A mistake far down does not keep the first documents from coming."""
    reader = read_documents(written(tmp_path, b"line\n" * 100_000 + b"\xff\n"))
    assert next(reader) == "line"
    with pytest.raises(InputError, match="line 100001"):
        list(reader)


def test_the_package_has_its_public_names_and_tells_type_checkers_the_same():
    tree = ast.parse(Path(text.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    for_checkers = [alias.name for line in block.body for alias in line.names]
    assert sorted(for_checkers) == sorted(text.__all__)
    for line in block.body:
        module = importlib.import_module(line.module)
        for alias in line.names:
            assert getattr(text, alias.name) is getattr(module, alias.name)
