"""Edits of functional models: new models that share the weights of the old one."""

from tiedbert.surgery.clone import clone
from tiedbert.surgery.cut import Front
from tiedbert.surgery.cut_nested import cut_at
from tiedbert.surgery.dot import draw
from tiedbert.surgery.features import features
from tiedbert.surgery.inject import AddDelta, inject
from tiedbert.surgery.insert import insert
from tiedbert.surgery.points import cut_points
from tiedbert.surgery.replace import remove, replace
from tiedbert.surgery.split import get_outputs_of, split

__all__ = [
    "AddDelta",
    "Front",
    "clone",
    "cut_at",
    "cut_points",
    "draw",
    "features",
    "get_outputs_of",
    "inject",
    "insert",
    "remove",
    "replace",
    "split",
]
