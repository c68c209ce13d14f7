"""Pictures of a model and of a cut of it, as text in the DOT language of graphviz."""

import html
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tensorflow import keras

from tiedbert.errors import InputError
from tiedbert.surgery.drawing import CROSSING_SIDES, Drawing, Node, drawing_of

FORMATS = (".dot", ".svg", ".png")

# Blue, yellow and vermilion: the colour-blind can tell them apart. Round and square
# corners, thin and bold lines say the same in black and white.
_CROSSING = "#c24100"
STYLES = {
    "whole": 'style="rounded,filled" fillcolor="#f2f2f2"',
    "front": 'style="rounded,filled" fillcolor="#d3e8f7" color="#0072b2"',
    "rest": 'style="filled" fillcolor="#fbeebf" color="#a67c00"',
    "cut": f'style="filled" fillcolor="{_CROSSING}" fontcolor="#ffffff"',
    "context": f'style="filled" fillcolor="#ffffff" color="{_CROSSING}"',
    "mask": f'style="filled,dashed" fillcolor="#ffffff" color="{_CROSSING}"',
}
_LEGEND = (
    "blue: before the cut, yellow: behind it, red: crosses it\\n"
    "filled: cut tensor, outlined: context, dashed: implicit mask"
)


def draw(model: keras.Model, at: Any = None, path: str | Path = "model.svg") -> None:
    """Draw a functional model; with cut points, what lies on which side of the cut.

    What runs before the cut is blue with round corners, what runs behind it is yellow
    with square ones, and what makes a cut tensor has a double border. Between them lie
    the crossing tensors, numbered as the `front` of :func:`split` gives them: the cut
    tensors filled, the context outlined, the implicit masks dashed. The calls in a
    nested model that is cut have its name before theirs; any other is one node.

    Args:
        model: a functional model; left as it is.
        at: cut points as in :func:`split`, or None for the model alone.
        path: the file to write, an existing one is replaced: ``.dot`` is the text for
            graphviz, ``.svg`` and ``.png`` are drawn by its program ``dot``.

    Raises:
        InputError: as :func:`split`; a file of another kind, or one that cannot be
            written; graphviz is not installed (the message says how to install it).

    Example:
        >>> from tensorflow import keras
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dense(3, name="middle")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2)(h))
        >>> draw(model, "middle", "cut.svg")  # doctest: +SKIP
        >>> draw(model, "middle", "cut.jpg")
        Traceback (most recent call last):
            ...
        tiedbert.errors.InputError: a picture is .dot, .svg or .png, received 'cut.jpg'
    """
    check_can_draw(path)
    write(drawing_of(model, at), path)


def check_can_draw(path: str | Path) -> None:
    """InputError unless :func:`write` can write a picture into the file `path`."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        suffixes = "{}, {} or {}".format(*FORMATS)
        raise InputError(f"a picture is {suffixes}, received {str(path)!r}")
    if not Path(path).absolute().parent.is_dir():
        raise InputError(f"cannot write {path}: there is no such folder")
    if suffix != ".dot" and shutil.which("dot") is None:
        raise InputError(
            f"a picture in {suffix} needs the program dot of graphviz: apt-get install "
            "graphviz, see graphviz.org/download, or write a .dot file"
        )


def write(drawing: Drawing, path: str | Path) -> None:
    """Write a :class:`Drawing` into a file of one of :data:`FORMATS`."""
    path, content = Path(path), to_dot(drawing).encode()
    suffix = path.suffix.lower()
    if suffix != ".dot":
        done = subprocess.run(
            ["dot", f"-T{suffix[1:]}"], input=content, capture_output=True
        )
        if done.returncode != 0:
            why = done.stderr.decode(errors="replace").strip()
            raise InputError(f"graphviz cannot draw {path}: {why}")
        content = done.stdout
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def to_dot(drawing: Drawing) -> str:
    """A :class:`Drawing` as text in the DOT language; ASCII."""
    nodes = drawing.nodes.items()
    crossing = {name for name, node in nodes if node.side in CROSSING_SIDES}
    title = _escaped(drawing.model.name) + (f"\\n{_LEGEND}" if crossing else "")
    lines = [
        f'label="{title}" labelloc=t nodesep=0.2 ranksep=0.28',
        "graph [fontname=Helvetica fontsize=11]",
        "node [shape=box fontname=Helvetica fontsize=11 height=0.3]",
        "edge [arrowsize=0.6]",
    ]
    lines += [_node(name, node, name in drawing.makers) for name, node in nodes]
    for source, target, is_mask in drawing.edges:
        style = "style=dashed" if is_mask else "style=solid"
        if {source, target} & crossing:
            style += f' color="{_CROSSING}" penwidth=2'
        lines.append(f"{source} -> {target} [{style}]")
    return "digraph {\n" + "\n".join(lines) + "\n}\n"


def _node(name: str, node: Node, makes_cut_tensor: bool) -> str:
    label = _escaped(f"{node.name}  {node.layer_class}".rstrip()) + "\\n"
    border = " peripheries=2" if makes_cut_tensor else ""
    return f'{name} [label="{label}{_escaped(node.shape)}" {STYLES[node.side]}{border}]'


def printable(text: str) -> str:
    """Text from a file, with control characters spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _escaped(text: str) -> str:
    """Text in a quoted label, which it can neither end nor format."""
    entities = html.escape(printable(text)).encode("ascii", "xmlcharrefreplace")
    return entities.decode().replace("\\", "\\\\")
