"""What `tiedbert compare` will train: each method, its cost and its epochs."""

import argparse
import math
from collections.abc import Sequence
from typing import Any

from tiedbert.errors import InputError
from tiedbert.jobs.method_options import method_of, pairs, settings_of

# Title of a method -> its options, cost and number of epochs.
Plan = dict[str, dict[str, Any]]


def plan_of(args: argparse.Namespace, names: Sequence[str]) -> Plan:
    """Check all methods; title -> options, cost and number of epochs."""
    from tiedbert.adversarial import AdversarialTraining, Passes
    from tiedbert.bert import build_bert, classifier, open_pretrained
    from tiedbert.jobs.max_length import check_max_length

    bert = build_bert(open_pretrained(args.pretrained).config)
    check_max_length(bert, args.max_length)
    model = classifier(bert, len(names))
    blocks = sum(layer.name.endswith("-FeedForward-Norm") for layer in bert.layers)
    plan = {}
    for title in args.methods:
        name, method = read_method(title, args.epsilon)
        work = Passes(1)
        if method is not None:
            AdversarialTraining(model, method, args.at)
            work = method.passes(first_block=1 / blocks)
        plan[title] = {
            "name": name,
            "options": {} if method is None else settings_of(method),
            "passes": round(work.count, 3),
            "cost": round(work.cost, 3),
            "epochs": max(1, math.floor(args.budget / work.cost + 1e-9)),
        }
    return plan


def read_method(title: str, epsilon: float) -> tuple[str, Any]:
    """The name and the method (None: plain) of a title ``name:option=value,...``."""
    name, colon, listed = title.partition(":")
    if colon and not listed:
        raise InputError(f"{title!r} names no option after the colon")
    values = pairs(listed.split(",") if listed else [])
    if name == "none":
        if values:
            raise InputError("none is plain training and has no options")
        return name, None
    method = method_of(name, values)
    if "epsilon" not in values and getattr(method, "norm", None) == "l2":
        method = method_of(name, {**values, "epsilon": epsilon})
    return name, method
