"""What a picture of a cut shows: sides, crossing tensors, masks, nested models.

docs/images/cut.svg is the picture of `encoder` below, drawn under Keras 2 by

    cd tests && TF_USE_LEGACY_KERAS=1 python test_surgery_drawing.py
"""

import re
import shutil
from pathlib import Path

import models
import pytest
from generation import IS_LEGACY
from models import MODELS
from tensorflow import keras

from tiedbert.errors import InputError
from tiedbert.surgery import cut_at, draw, split
from tiedbert.surgery.dot import STYLES, to_dot
from tiedbert.surgery.drawing import drawing_of
from tiedbert.surgery.graph import Graph

layers = keras.layers
IMAGE = Path(__file__).parents[1] / "docs/images/cut.svg"
CUT = "attention_2"
needs_dot = pytest.mark.skipif(
    shutil.which("dot") is None, reason="needs the program dot of graphviz"
)


def encoder():
    """Two layers with residual connections, steered by the mask of the padding."""
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    h = layers.Embedding(30522, 128, mask_zero=True, name="embedding")(token_ids)
    for i in (1, 2):
        attention = layers.MultiHeadAttention(2, 64, name=f"attention_{i}")(h, h)
        h = layers.Add(name=f"attention_add_{i}")([h, attention])
        h = layers.LayerNormalization(name=f"attention_norm_{i}")(h)
        inner = layers.Dense(512, activation="relu", name=f"feed_forward_{i}")(h)
        inner = layers.Dense(128, name=f"feed_forward_down_{i}")(inner)
        h = layers.Add(name=f"feed_forward_add_{i}")([h, inner])
        h = layers.LayerNormalization(name=f"feed_forward_norm_{i}")(h)
    return keras.Model(token_ids, h, name="encoder")


def classifier():
    token_ids = keras.Input((None,), dtype="int32", name="ids")
    pooled = layers.GlobalAveragePooling1D(name="pool")(encoder()(token_ids))
    return keras.Model(token_ids, layers.Dense(2, name="label")(pooled))


def dot_of(model, at=None):
    return to_dot(drawing_of(model, at))


def names(drawing, side):
    return [node.name for node in drawing.nodes.values() if node.side == side]


def crossing(drawing):
    """(number, side, shape) of the crossing tensors, in order."""
    return [(node.name, node.side, node.shape) for node, _ in drawing.crossing]


def edges(drawing):
    """``"from -> to"``, or ``"from => to"`` for an implicit mask."""
    name = {key: node.name for key, node in drawing.nodes.items()}
    return {
        f"{name[a]} {'=>' if mask else '->'} {name[b]}" for a, b, mask in drawing.edges
    }


def test_a_chain_is_cut_in_two_sides_and_one_tensor():
    drawing = drawing_of(models.chain(), "middle")
    assert names(drawing, "front") == ["x", "first", "middle"]
    assert names(drawing, "rest") == ["last", "output"]
    assert crossing(drawing) == [("0", "cut", "(?, 5) float32")]
    assert edges(drawing) == {
        "x -> first", "first -> middle", "middle -> 0", "0 -> last", "last -> output",
    }  # fmt: skip
    assert [drawing.nodes[maker].name for maker in drawing.makers] == ["middle"]


def test_nodes_tell_the_class_and_the_shape():
    drawing = drawing_of(models.chain())
    first = next(node for node in drawing.nodes.values() if node.name == "first")
    assert first == ("first", "Dense", "(?, 3) float32", "whole")


def test_without_a_cut_all_is_of_one_side():
    drawing = drawing_of(models.residual())
    assert {node.side for node in drawing.nodes.values()} == {"whole"}
    assert {"image -> a_sum", "a_sum -> b_sum"} <= edges(drawing)


def test_a_skip_connection_crosses_behind_the_cut_tensor():
    drawing = drawing_of(models.residual(), "a_norm")
    shape = "(?, 4, 4, 2) float32"
    assert crossing(drawing) == [("0", "cut", shape), ("1", "context", shape)]
    assert {"image -> 1", "1 -> a_sum", "a_norm -> 0"} <= edges(drawing)


@pytest.mark.both_kerases
def test_an_implicit_mask_crosses_dashed():
    drawing = drawing_of(models.recurrent(), "dense")
    assert crossing(drawing) == [
        ("0", "cut", "(?, ?, 4) float32"),
        ("1", "mask", "(?, ?) bool"),
    ]
    found = {re.sub(r"not_equal_\d+", "not_equal", edge) for edge in edges(drawing)}
    source = "dense" if IS_LEGACY else "not_equal"
    assert {f"{source} => 1", "1 => states", "0 -> states"} <= found


def test_an_output_that_does_not_depend_on_the_cut_crosses_to_it():
    drawing = drawing_of(models.dictionaries(), "summary")
    assert {"embedding -> 3", "3 -> output 'states'"} <= edges(drawing)


def test_several_cut_points_come_in_their_order():
    drawing = drawing_of(models.dictionaries(), ["summary", "side"])
    assert [side for _, side, _ in crossing(drawing)] == [
        "cut",
        "cut",
        "context",
        "mask",
    ]
    assert {"summary -> 0", "side -> 1"} <= edges(drawing)
    assert len(drawing.makers) == 2


def test_an_input_is_a_cut_point():
    drawing = drawing_of(models.dictionaries(), "tokens")
    assert [drawing.nodes[maker].name for maker in drawing.makers] == ["tokens"]


@pytest.mark.both_kerases
@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (None, {"dense:0 -> dense:1", "dense:1 -> sum", "dense:2 -> sum"}),
        ("dense:0", {"dense:0 -> 0", "0 -> dense:1", "dense:2 -> 1"}),
        ("dense:1", {"dense:0 -> dense:1", "dense:1 -> 0", "dense:2 -> 1"}),
        ("dense:2", {"dense:0 -> dense:1", "dense:1 -> 1", "dense:2 -> 0"}),
        ("left", {"0 -> dense:0", "dense:0 -> dense:1", "dense:2 -> 1"}),
    ],
)
def test_calls_of_a_shared_layer_have_the_names_of_cut_points(at, expected):
    assert expected <= edges(drawing_of(models.shared(), at))


def test_a_nested_model_is_one_node_unless_it_is_cut():
    drawing = drawing_of(classifier(), "pool")
    assert names(drawing, "front") == ["ids", "encoder", "pool"]
    assert names(drawing, "rest") == ["label", "output"]


@pytest.mark.both_kerases
def test_calls_in_a_nested_model_that_is_cut_have_the_names_of_cut_points():
    drawing = drawing_of(classifier(), "encoder/attention_norm_1")
    norm = "encoder/attention_norm_1"
    front, rest = names(drawing, "front"), names(drawing, "rest")
    assert front[:2] == ["ids", "encoder/embedding"]
    assert norm in front
    assert rest[:2] == ["encoder/feed_forward_1", "encoder/feed_forward_down_1"]
    assert rest[-3:] == ["pool", "label", "output"]
    assert [side for _, side, _ in crossing(drawing)] == ["cut", "mask"]
    assert {f"{norm} -> 0", "0 -> encoder/feed_forward_add_1"} <= edges(drawing)
    # In Keras 3 attention takes the mask off the tensor that runs on.
    readers = ["encoder/feed_forward_1", "encoder/feed_forward_add_1"]
    masks = {f"{norm} => 1", *(f"1 => {reader}" for reader in readers)}
    assert (masks <= edges(drawing)) == IS_LEGACY


def test_names_in_nested_models_are_whole_paths():
    x = keras.Input((3,), name="x")
    inner = models.chain_of(3, "inner")
    outer = keras.Model(x, inner(x), name="outer")
    y = keras.Input((3,), name="y")
    model = keras.Model(y, layers.Dense(2, name="last")(outer(y)))
    first, second = (f"outer/inner/{layer.name}" for layer in inner.layers[1:])
    drawing = drawing_of(model, first)
    assert names(drawing, "front") == ["y", first]
    assert names(drawing, "rest") == [second, "last", "output"]
    assert [made_by for _, made_by in drawing.crossing] == [first]


@pytest.mark.cases(5)
@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_every_cut_shows_each_call_once_and_what_split_hands_over(build):
    model = build()
    graph = Graph(model)
    whole = sorted(names(drawing_of(model), "whole"))
    points = [
        t for call in graph.calls for t in call.outputs if "bool" not in str(t.dtype)
    ]
    for at in points:
        drawing = drawing_of(model, at)
        assert sorted(names(drawing, "front") + names(drawing, "rest")) == whole
        assert len(crossing(drawing)) == len(cut_at(model, at).tensors)
        side = {key: node.side for key, node in drawing.nodes.items()}
        assert ("front", "rest") not in {
            (side[a], side[b]) for a, b, _ in drawing.edges
        }


def test_the_model_computes_what_it_did():
    model = models.residual()
    before = Graph(model).calls
    drawing_of(model, "a_norm")
    assert [call.layer for call in Graph(model).calls] == [c.layer for c in before]


def test_colours_and_lines_tell_the_sides():
    drawing = drawing_of(models.recurrent(), "dense")
    lines = to_dot(drawing).splitlines()
    for key, node in drawing.nodes.items():
        (line,) = [line for line in lines if line.startswith(f"{key} [")]
        assert f'"{node.name}  {node.layer_class}'.rstrip() in line
        assert f'{node.shape}" {STYLES[node.side]}' in line
        assert ("peripheries=2" in line) == (node.name == "dense")
    assert len({STYLES[node.side] for node in drawing.nodes.values()}) == 4
    drawn = [line.split(" [") for line in lines if " -> " in line]
    for (arrow, look), (a, b, is_mask) in zip(drawn, drawing.edges, strict=True):
        sides = {drawing.nodes[key].side for key in (a, b)}
        assert arrow == f"{a} -> {b}"
        assert ("style=dashed" in look) == is_mask
        assert ('color="#c24100"' in look) == bool(sides & {"cut", "mask"})


def test_only_a_cut_has_a_legend():
    assert "implicit mask" in dot_of(models.chain(), "middle")
    assert "implicit mask" not in dot_of(models.chain())


# Characters with a meaning in DOT or in HTML. Keras 2 wants tamer names of layers.
STRANGE = "x>\\N\\" if IS_LEGACY else '"];<b>&amp;層\n\x1b\\N\\'


def strange():
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(3, name=STRANGE)(x), name="<hr>")


@pytest.mark.both_kerases
def test_names_are_text():
    source = dot_of(strange(), "x")
    assert source.isascii()
    assert 'label="&lt;hr&gt;\\n' in source
    shown = "x&gt;" if IS_LEGACY else "&quot;];&lt;b&gt;&amp;amp;&#23652;\\\\n\\\\x1b"
    assert f'[label="{shown}\\\\N\\\\  Dense\\n(?, 3) float32"' in source


def test_a_dot_file_needs_no_graphviz(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    model = models.chain()
    draw(model, "middle", tmp_path / "a.dot")
    assert (tmp_path / "a.dot").read_text() == dot_of(model, "middle")


@pytest.mark.cases(2)
@needs_dot
@pytest.mark.parametrize("build", [strange, encoder, classifier, models.dictionaries])
def test_dot_draws_svg_with_every_name(build, tmp_path):
    model = build()
    at = Graph(model).calls[0].outputs[0]
    draw(model, at, tmp_path / "a.svg")
    text = re.sub(r"&#160;|\s+", " ", (tmp_path / "a.svg").read_text(encoding="utf-8"))
    shown = re.findall(r"<text [^>]*>([^<]*)</text>", text)
    for node in drawing_of(model, at).nodes.values():
        if node.name.isidentifier():
            assert node.name in " ".join(shown)


@needs_dot
def test_dot_draws_png(tmp_path):
    draw(models.chain(), path=str(tmp_path / "a.PNG"))
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match="none/a.dot: there is no such folder"):
        draw(models.chain(), path=tmp_path / "none" / "a.dot")


@pytest.mark.parametrize("path", ["cut.jpg", "cut", "svg", ".svg"])
def test_other_kinds_of_files_are_refused(path):
    with pytest.raises(InputError, match=r"\.svg or \.png, received '"):
        draw(models.chain(), "middle", path)


def test_without_graphviz_the_command_that_installs_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get install graphviz"):
        draw(models.chain(), "middle", tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_cut_point_is_told_as_split_tells_it(tmp_path):
    with pytest.raises(InputError) as expected:
        split(models.chain(), "midle")
    with pytest.raises(InputError) as caught:
        draw(models.chain(), "midle", tmp_path / "a.dot")
    assert str(caught.value) == str(expected.value)


@pytest.mark.skipif(not IS_LEGACY, reason="the picture in docs is drawn under Keras 2")
def test_the_picture_in_docs_is_that_of_today():
    shown = " ".join(re.findall(r"<text [^>]*>([^<]*)</text>", IMAGE.read_text()))
    for node in drawing_of(encoder(), CUT).nodes.values():
        assert node.name in shown
        assert node.shape in shown


if __name__ == "__main__":
    draw(encoder(), CUT, IMAGE)
