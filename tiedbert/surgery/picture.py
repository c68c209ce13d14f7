"""A picture of a model and of a cut: what runs before, what behind, what crosses."""

import html
import importlib.util
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.surgery.edit import describe
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.masks.explicit import AttachMask, CopyMask, DropMask, ReadMask
from tiedbert.surgery.nested import cut_at

FORMATS = (".svg", ".png")

# Blue, yellow and vermilion are told apart by the colour-blind too; round and square
# corners, thin and bold lines say the same in black and white.
CROSSING = "#c24100"
_OUTLINED = {"style": "filled", "fillcolor": "#ffffff", "color": CROSSING}
STYLES = {
    "whole": {"style": "rounded,filled", "fillcolor": "#f2f2f2", "color": "#666666"},
    "front": {"style": "rounded,filled", "fillcolor": "#d3e8f7", "color": "#0072b2"},
    "rest": {"style": "filled", "fillcolor": "#fbeebf", "color": "#a67c00"},
    "cut": {**_OUTLINED, "fillcolor": CROSSING, "fontcolor": "#ffffff"},
    "context": {**_OUTLINED, "penwidth": "2"},
    "mask": {**_OUTLINED, "style": "filled,dashed", "penwidth": "2"},
}
LEGEND = {
    "front": "runs before the cut",
    "rest": "runs behind it",
    "cut": "cut tensor",
    "context": "context",
    "mask": "implicit mask",
}
CROSSING_SIDES = ("cut", "context", "mask")


def draw(model, at=None, path="model.svg"):
    """Draw a functional model; with cut points, what lies on which side of the cut.

    What runs before the cut is blue with round corners, what runs behind it is yellow
    with square ones, and who makes a cut tensor has a double border. Between them lie
    the crossing tensors, numbered as the `front` of :func:`split` gives them: the cut
    tensors filled, the context outlined, the implicit masks dashed. A nested model
    that is cut shows the calls in each of its two parts; any other is one box.

    Args:
        model: a functional model; left as it is.
        at: cut points as in :func:`split`, or None for the model alone.
        path: the file to write, ``.svg`` or ``.png``; an existing one is replaced.

    Raises:
        InputError: as :func:`split`; a file of another kind, or one that cannot be
            written; pydot or graphviz is not installed (it says how to).

    Example:
        >>> from tensorflow import keras
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dense(3, name="middle")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2)(h))
        >>> draw(model, "middle", "cut.svg")  # doctest: +SKIP
        >>> draw(model, "middle", "cut.jpg")
        Traceback (most recent call last):
            ...
        tiedbert.errors.InputError: a picture is .svg or .png, received 'cut.jpg'
    """
    check_can_draw(path)
    write(drawing_of(model, at), path)


def check_can_draw(path):
    """InputError unless `path` names a picture and what draws one is installed."""
    if Path(path).suffix.lower() not in FORMATS:
        kinds = " or ".join(FORMATS)
        raise InputError(f"a picture is {kinds}, received {str(path)!r}")
    if not Path(path).absolute().parent.is_dir():
        raise InputError(f"cannot write {path}: there is no such folder")
    if importlib.util.find_spec("pydot") is None:
        raise InputError("pictures need pydot: pip install pydot")
    if shutil.which("dot") is None:
        raise InputError(
            "pictures need the program dot of graphviz: apt-get install graphviz, or "
            "see graphviz.org/download"
        )


def write(drawing, path):
    """Let graphviz lay out a :class:`Drawing` and write it into a file."""
    path = Path(path)
    content = to_dot(drawing).create(format=path.suffix[1:].lower())
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def to_dot(drawing):
    """A :class:`Drawing` as a `pydot.Dot`; graphviz is not needed yet."""
    return _Looks(drawing).dot


def drawing_of(model, at=None):
    """What :func:`draw` shows, as plain nodes and edges."""
    if at is not None:
        cut = cut_at(model, at)
        return drawing_of_cut(model, cut, cut.front(), cut.rest())
    whole = Graph(model)
    drawing = Drawing(model, whole.name)
    drawing.add_inputs(whole, "whole")
    made = drawing.add_calls(whole, "whole", _numbers(whole))
    drawing.add_outputs(whole, "whole", made)
    return drawing


def drawing_of_cut(model, cut, front, rest):
    """The same for a `Cut` of `model` whose two sides are made already."""
    whole, front, rest = Graph(model), Graph(front), Graph(rest)
    numbers = _numbers_in_halves(whole, front, rest)
    drawing = Drawing(model, whole.name)
    drawing.add_inputs(front, "front")
    drawing.add_crossing(cut, rest, drawing.add_calls(front, "front", numbers))
    drawing.add_outputs(rest, "rest", drawing.add_calls(rest, "rest", numbers))
    return drawing


class Source(NamedTuple):
    """Where a tensor comes from: a node, and the node of its mask if that crosses.

    `is_mask` says that the tensor is itself the implicit mask of what the node makes;
    `end` is ``"#k"`` for the k-th of several tensors.
    """

    node: str
    mask: str | None = None
    is_mask: bool = False
    end: str = ""


class Node(NamedTuple):
    """A call, input, output or crossing tensor (side: cut, context, mask) in a box."""

    name: str
    kind: str
    shape: str
    side: str
    box: str | None = None


class Box(NamedTuple):
    """One of the two parts of a nested model that is cut; `box` is what holds it."""

    name: str
    side: str
    box: str | None


@dataclass
class Drawing:
    """The nodes and edges of a picture.

    Attributes:
        model: the model; a layer that it does not have was put in by the cut.
        title: its name.
        nodes: dict, id -> :class:`Node`.
        boxes: dict, id -> :class:`Box`.
        edges: dict with the keys ``(id from, id to, whether it is a mask)``: in order,
            each once.
        makers: the ids of the nodes that make a cut tensor.
        crossing_from: dict, id of a crossing node -> its :class:`Source`.
    """

    model: object
    title: str
    nodes: dict = field(default_factory=dict)
    boxes: dict = field(default_factory=dict)
    edges: dict = field(default_factory=dict)
    makers: set = field(default_factory=set)
    crossing_from: dict = field(default_factory=dict)

    def __post_init__(self):
        self._own = {id(layer) for layer in _keras.layers_within(self.model)}
        self._sources = {}  # id of a tensor -> Source

    def add_inputs(self, graph, side):
        """A node for each input of a model."""
        for tensor in graph.input_tensors:
            name = _keras.maker(tensor).name
            node = self._add(Node(name, "Input", _described([tensor]), side))
            self._sources[id(tensor)] = Source(node)

    def add_calls(self, graph, side, numbers=None, box=None) -> list:
        """A node for each call of a model; the sources of the model's outputs."""
        for call in graph.calls:
            sources = [self._sources[id(tensor)] for tensor in call.inputs]
            if id(call.layer) in self._own or not _put_in(call.layer):
                made = self._add_call(call, sources, side, numbers or {}, box)
            elif _keras.has_graph(call.layer):
                made = self._add_half(call.layer, sources, side, box)
            else:
                made = [_looked_through(call.layer, *sources)]
            self._learn(call.outputs, made)
        return [self._sources[id(tensor)] for tensor in graph.output_tensors]

    def add_crossing(self, cut, rest, sources):
        """A node for each tensor that the part before a cut hands to `rest`."""
        masks = _attached(rest)
        entries = zip(rest.input_tensors, sources, strict=True)
        for i, (tensor, source) in enumerate(entries):
            attached = i in cut.mask_index or id(tensor) in masks
            is_mask = source.is_mask or attached
            side = "cut" if i < cut.width else "mask" if is_mask else "context"
            node = self._add(Node(str(i), side, _described([tensor]), side))
            self._connect(source._replace(is_mask=is_mask), node)
            self._sources[id(tensor)] = Source(node, is_mask=is_mask)
            self.crossing_from[node] = source
            if i < cut.width:
                self.makers.add(source.node)

    def add_outputs(self, graph, side, sources):
        """A node for each output of a model."""
        names = _output_names(graph.outputs)
        tensors = graph.output_tensors
        for name, tensor, source in zip(names, tensors, sources, strict=True):
            node = self._add(Node(name, "", _described([tensor]), side))
            self._connect(source, node)

    def crossing(self) -> list:
        """``(crossing node, the path of what makes it)``, in order."""
        return [
            (self.nodes[name], self._path(self.nodes[source.node]) + source.end)
            for name, source in self.crossing_from.items()
        ]

    def _path(self, node) -> str:
        names, box = [node.name], node.box
        while box is not None:
            names.append(re.sub(r"_front(_\d+)?$", "", self.boxes[box].name))
            box = self.boxes[box].box
        return "/".join(reversed(names))

    def _add(self, node) -> str:
        name = f"node{len(self.nodes)}"
        self.nodes[name] = node
        return name

    def _add_call(self, call, sources, side, numbers, box) -> list:
        name = numbers.get(id(call), call.layer.name)
        kind = type(call.layer).__name__
        node = self._add(Node(name, kind, _described(call.outputs), side, box))
        masks = _recorded_masks(call)
        for tensor, source in zip(call.inputs, sources, strict=True):
            is_mask = source.is_mask or id(tensor) in masks
            self._connect(source._replace(is_mask=is_mask), node)
        if len(call.outputs) == 1:
            return [Source(node)]
        return [Source(node, end=f"#{k}") for k in range(len(call.outputs))]

    def _add_half(self, model, sources, side, box) -> list:
        graph = Graph(model)
        self._learn(graph.input_tensors, sources)
        name = f"box{len(self.boxes)}"
        self.boxes[name] = Box(model.name, side, box)
        return self.add_calls(graph, side, box=name)

    def _learn(self, tensors, sources):
        for tensor, source in zip(tensors, sources, strict=True):
            self._sources[id(tensor)] = source

    def _connect(self, source, node):
        self.edges[source.node, node, source.is_mask] = None
        # Other masks need no edge: Keras passes them with the tensor.
        if source.mask and self.nodes[source.mask].side in CROSSING_SIDES:
            self.edges[source.mask, node, True] = None


def _put_in(layer) -> bool:
    """Whether a layer that the model does not have is one that a cut puts in."""
    return _keras.has_graph(layer) or isinstance(
        layer, AttachMask | CopyMask | DropMask | ReadMask
    )


def _looked_through(layer, source, mask=None) -> Source:
    """The source of what a layer gives that only moves masks."""
    if isinstance(layer, ReadMask):
        return Source(source.mask or source.node, is_mask=True)
    if isinstance(layer, CopyMask):
        return source
    return source._replace(mask=mask and mask.node)


def _recorded_masks(call) -> set:
    """The ids of the implicit masks that Keras 3 made inputs of a call."""
    names = _keras.masks_filled_in(call)
    return {id(leaf) for name in names for leaf in _keras.flatten(call.kwargs[name])}


def _attached(graph) -> set:
    """The ids of the tensors that are attached as masks, in nested models too."""
    masks = set()
    for call in graph.calls:
        if isinstance(call.layer, AttachMask):
            masks.add(id(call.inputs[1]))
        elif _keras.has_graph(call.layer):
            inner = Graph(call.layer)
            attached = _attached(inner)
            pairs = zip(inner.input_tensors, call.inputs, strict=False)
            masks.update(id(outer) for own, outer in pairs if id(own) in attached)
    return masks


def _output_names(outputs) -> list:
    count = len(_keras.flatten(outputs))
    if isinstance(outputs, dict) and len(outputs) == count:
        return [f"output {name!r}" for name in sorted(outputs)]
    return ["output"] if count == 1 else [f"output {i}" for i in range(count)]


def _described(tensors) -> str:
    return ", ".join(map(describe, tensors))


def _numbers(graph) -> dict:
    """id of a call -> ``"name:k"``, for the layers that are called several times."""
    several = [call for call in graph.calls if call.index > 0]
    names = {call.layer.name for call in several}
    return {
        id(call): f"{call.layer.name}:{call.index}"
        for call in graph.calls
        if call.layer.name in names
    }


def _numbers_in_halves(whole, front, rest) -> dict:
    """The same for the calls of two halves: none of `rest` is a call of `whole`."""
    named = _numbers(whole)
    made = {id(call.outputs[0]): call for call in whole.calls}
    numbers = {}
    for call in front.calls:
        original = made.pop(id(call.outputs[0]), None)
        if id(original) in named:
            numbers[id(call)] = named[id(original)]
    # A cut calls the layers behind it again in topological order.
    waiting = {}
    for call in made.values():
        waiting.setdefault(id(call.layer), []).append(call)
    for layer, originals in waiting.items():
        again = [call for call in rest.calls if id(call.layer) == layer]
        if len(again) == len(originals) and id(originals[0]) in named:
            again.sort(key=lambda call: call.index)
            for call, original in zip(again, originals, strict=True):
                numbers[id(call)] = named[id(original)]
    return numbers


class _Looks:
    """A drawing as a `pydot.Dot`."""

    def __init__(self, drawing):
        import pydot

        self._pydot = pydot
        self._drawing = drawing
        self._crossing = {
            name for name, node in drawing.nodes.items() if node.side in CROSSING_SIDES
        }
        self.dot = pydot.Dot(
            rankdir="TB",
            nodesep="0.2",
            ranksep="0.28",
            fontname="Helvetica",
            label=_title(drawing.title, bool(self._crossing)),
            labelloc="t",
        )
        self.dot.set_node_defaults(
            shape="box", fontname="Helvetica", fontsize="11", margin="0.12,0.04",
            height="0.3",
        )  # fmt: skip
        self.dot.set_edge_defaults(color="#555555", arrowsize="0.6")
        self._places = {None: self.dot}
        self._add_boxes()
        self._add_nodes()
        for edge in drawing.edges:
            self._add_edge(*edge)

    def _add_boxes(self):
        for name, box in self._drawing.boxes.items():
            looks = {"style": "rounded", "penwidth": "1.5", "fontsize": "11"}
            looks["color"] = STYLES[box.side]["color"]
            label = f"<{_escaped(box.name)}>"
            place = self._pydot.Cluster(name, label=label, labeljust="l", **looks)
            self._places[name] = place
            self._places[box.box].add_subgraph(place)

    def _add_nodes(self):
        line = self._pydot.Subgraph("crossing", rank="same")
        for name, node in self._drawing.nodes.items():
            looks = dict(STYLES[node.side], label=_label(node))
            if name in self._drawing.makers:
                looks.update(peripheries="2", penwidth="1.5")
            place = line if name in self._crossing else self._places[node.box]
            place.add_node(self._pydot.Node(name, **looks))
        if self._crossing:
            self.dot.add_subgraph(line)

    def _add_edge(self, source, target, is_mask):
        looks = {"style": "dashed"} if is_mask else {}
        if self._crossing & {source, target}:
            looks.update(color=CROSSING, penwidth="2")
        self.dot.add_edge(self._pydot.Edge(source, target, **looks))


def _label(node) -> str:
    """HTML-like: a name from a file cannot end the label or add to the graph."""
    kind = f"  {_escaped(node.kind)}" if node.kind else ""
    gap = '<br/><font point-size="3"> <br/></font>'
    shape = f'<font point-size="9">{_escaped(node.shape)}</font>'
    return f"<<b>{_escaped(node.name)}</b>{kind}{gap}{shape}>"


def _title(name, with_legend) -> str:
    title = f'<tr><td colspan="{len(LEGEND)}" border="0">{_bold(name)}</td></tr>'
    cells = "".join(_legend_cell(side, text) for side, text in LEGEND.items())
    legend = f"<tr>{cells}</tr>" if with_legend else ""
    return (
        f'<<table border="0" cellspacing="4" cellpadding="4">{title}{legend}</table>>'
    )


def _legend_cell(side, text) -> str:
    look = STYLES[side]
    style = (
        "rounded" if "rounded" in look["style"] else "dashed" if side == "mask" else ""
    )
    color = look.get("fontcolor", "#000000")
    return (
        f'<td border="1" style="{style}" color="{look["color"]}" '
        f'bgcolor="{look["fillcolor"]}">'
        f'<font point-size="10" color="{color}">{text}</font></td>'
    )


def _bold(text) -> str:
    return f'<font point-size="13"><b>{_escaped(text)}</b></font>'


def printable(text) -> str:
    """Text from a file as it may be shown: what is no letter or sign is spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _escaped(text) -> str:
    """Text of a label, in ASCII: graphviz gets the file in whatever encoding."""
    return html.escape(printable(text)).encode("ascii", "xmlcharrefreplace").decode()
