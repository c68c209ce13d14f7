"""Less memory for more time: the activations of blocks are computed twice."""

import itertools
import re

from tensorflow import keras

from tiedbert import _keras
from tiedbert.bert import backend
from tiedbert.bert.early_gather import attentions_of
from tiedbert.errors import InputError
from tiedbert.surgery.cut_nested import cut_at
from tiedbert.surgery.graph import Graph

# The last layer of a block, whose norms come after its parts or before them.
_POST_NORM = re.compile(r"(.*-)?Transformer-(\d+-)?FeedForward-Norm$")
_PRE_NORM = re.compile(r"(.*-)?Transformer-(\d+-)?FeedForward-Add$")


def recompute_activations(model: keras.Model) -> keras.Model:
    """The same model, which keeps no activations within its blocks in training.

    Between the forward and the backward pass it holds the output of each Transformer
    block alone; the backward pass computes a block again, with the same dropout. A step
    takes about a fifth longer, and gradients are those of `model`. Outside of training
    nothing is different.

    Compile and fit the new model, and save the old one: they share all weights, and the
    layers of the new one are its parts, under other names.

    Args:
        model: a model of :func:`tiedbert.bert.build_bert`, or one built on it, such as
            :func:`tiedbert.bert.masked_lm`. Keras 3 only.

    Returns:
        A functional `keras.Model` with the inputs and outputs of `model`.

    Raises:
        InputError: the model has no blocks, or the program runs Keras 2.

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016.

    Example:
        >>> import json, tempfile, os
        >>> from tiedbert.bert import build_bert
        >>> config = dict(vocab_size=30, hidden_size=8, num_hidden_layers=2,
        ...     num_attention_heads=2, intermediate_size=16, hidden_act="gelu",
        ...     max_position_embeddings=16, type_vocab_size=2)
        >>> path = os.path.join(tempfile.mkdtemp(), "bert_config.json")
        >>> with open(path, "w") as file:
        ...     json.dump(config, file)
        >>> [layer.name for layer in recompute_activations(build_bert(path)).layers][2:]
        ['front', 'block_0', 'block_1', 'rest']
    """
    if backend.Recomputed is None:
        raise InputError(f"recompute_activations is a function for {backend.ELSEWHERE}")
    attentions = attentions_of(Graph(model))
    if not attentions:
        raise InputError(
            "recompute_activations expected a model of build_bert, received model "
            f"{model.name!r} without a Transformer block"
        )
    ends = _PRE_NORM if _has_norms_before(model) else _POST_NORM
    inputs, _ = _keras.structures(model)
    cut = cut_at(model, attentions[0].inputs[0])
    tensors, rest = cut.front("front")(inputs), cut.rest("rest")
    for number in itertools.count():
        end = _first_end(rest, ends)
        if end is None:
            return keras.Model(inputs, rest(tensors), name=model.name)
        cut = cut_at(rest, end)
        block, rest = cut.front(f"block_{number}_again"), cut.rest("rest")
        tensors = backend.Recomputed(block, name=f"block_{number}")(tensors)


def _has_norms_before(model):
    """Whether the norm of a feed-forward layer makes its input (ModernBERT)."""
    graph = Graph(model)
    calls = (c for c in graph.calls if isinstance(c.layer, backend.FeedForward))
    first = next(calls, None)
    maker = first and graph.producers.get(first.inputs[0])
    return bool(maker) and maker.layer.name == f"{first.layer.name}-Norm"


def _first_end(model, ends):
    """The output of the first block of a model, or None."""
    calls = Graph(model).calls
    found = (call for call in calls if ends.fullmatch(call.layer.name))
    return next((call.outputs[0] for call in found), None)
