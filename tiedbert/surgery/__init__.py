"""Edits of functional models: new models that share the weights of the old one."""

from tiedbert.surgery.cut import Cut, Front
from tiedbert.surgery.split import get_outputs_of, split

__all__ = ["Cut", "Front", "get_outputs_of", "split"]
