"""List the cut points of a saved model, cut it, or draw it.

    tiedbert surgery model.keras --list
    tiedbert surgery model.keras --cut encoder/norm --output parts
    tiedbert surgery model.keras --cut encoder/norm --draw cut.svg

--list prints each cut point with the number of tensors that cross a cut there. --cut
writes front.keras and rest.keras; both are run on made-up inputs first, and nothing is
written unless they give what the model gives (a note says where that cannot be
compared). Import tiedbert.surgery before you load them. A weight that both use is in
both. The Keras that saved the file must load it (for Keras 2 set TF_USE_LEGACY_KERAS=1
TF_KERAS=1). Code in the file does not run without --trust. `python -m tiedbert.surgery`
is the same command.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tensorflow import keras

from tiedbert.command import parser
from tiedbert.surgery import model_files
from tiedbert.surgery.composition import check_composes
from tiedbert.surgery.cut_nested import cut_at
from tiedbert.surgery.dot import check_can_draw, printable, write
from tiedbert.surgery.drawing import Drawing, drawing_of, drawing_of_cut
from tiedbert.surgery.points import cut_points


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command; a wrong command line ends the process."""
    command = parser(__doc__)
    add = command.add_argument
    add("model", type=Path, help=".keras file")
    add("--list", action="store_true", help="print the cut points, one a line")
    add("--cut", action="append", metavar="NAME",
        help="cut point; repeat it for several, none behind another")  # fmt: skip
    add("--output", type=Path, metavar="DIR", help="folder for the two parts of --cut")
    add("--draw", type=Path, metavar="FILE",
        help="picture (.svg, .png or .dot) of the model, or of --cut")  # fmt: skip
    add("--overwrite", action="store_true", help="replace the models in --output")
    add("--import", action="append", default=[], dest="modules", metavar="MODULE",
        help="import a module that registers layers")  # fmt: skip
    add("--trust", action="store_true",
        help="run code in the file, such as that of Lambda layers")  # fmt: skip
    args = command.parse_args(argv)
    if not (args.list or args.cut or args.draw):
        command.error("nothing to do: give --list, --cut or --draw")
    if args.cut and not (args.output or args.draw):
        command.error("--cut needs --output DIR or --draw FILE")
    if args.output and not args.cut:
        command.error("--output needs --cut NAME")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Check the options, load the model, then list, cut and draw.

    Args:
        argv: the arguments; None for those of the process.

    Raises:
        InputError: a file, a cut point or a folder that does not fit.
    """
    args = options(argv)
    if args.output:
        model_files.check_free(args.output, args.overwrite)
    if args.draw:
        check_can_draw(args.draw)
    model = model_files.load(args.model, args.trust, args.modules)
    if args.list:
        _print_table(
            ["cut point", "layer", "tensor", "crossing"],
            [_row(point) for point in cut_points(model)],
        )
    if args.cut:
        drawing = _cut(model, args)
    elif args.draw:
        drawing = drawing_of(model)
    if args.draw:
        write(drawing, args.draw)
        print(args.draw)


def _row(point) -> list:
    crossing = point.why_not if point.crossing is None else str(point.crossing)
    return [point.at, point.layer_class, point.tensor, crossing]


def _cut(model: keras.Model, args: argparse.Namespace) -> Drawing:
    """Cut, print what crosses, write the parts; returns a drawing of the cut."""
    cut = cut_at(model, args.cut)
    parts = {"front": cut.front(), "rest": cut.rest()}
    drawing = drawing_of_cut(model, cut, **parts)
    rows = [
        [node.name, node.side, maker, node.shape] for node, maker in drawing.crossing
    ]
    _print_table(["crossing", "", "made by", "tensor"], rows)
    if args.output:
        model_files.save(parts, args.output, args.trust, partial(_check, model))
        for name in parts:
            print(f"{args.output / name}.keras")
    return drawing


def _check(model: keras.Model, front: keras.Model, rest: keras.Model) -> None:
    """InputError if the parts that were written do not give what the model gives."""
    if why := check_composes(model, front, rest):
        print(f"the parts were not compared with the model: {why}", file=sys.stderr)


def _print_table(head: list, rows: list) -> None:
    """Print rows of text under a head, the columns aligned."""
    rows = [[printable(cell) for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
