"""Names of the weights of a layer in a Google checkpoint."""

import re

from tiedbert.bert import backend
from tiedbert.bert.kind_of import kind_of
from tiedbert.bert.kinds import checked_kind
from tiedbert.bert.own_weights import own_weights
from tiedbert.errors import InputError

# Google's run_classifier.py stores the last layer under these names.
CLASSIFIER = {"Classifier": ["output_weights", "output_bias"]}
# bert4keras has this layer, but no name for it in checkpoints.
_UNNAMED = {"Output-Mapping": ["cls/predictions/output_mapping/kernel"]}
# Layers that a checkpoint must name; if it does not, `model_kind` is wrong.
_BODY = re.compile(r"Embedding-Token$|(\w+-)?Transformer-")


def namesake(model, model_kind, **options):
    """What has the names in checkpoints for the layers of `model`.

    Args:
        model: a `keras.Model` whose layers have bert4keras' names.
        model_kind: a key of :data:`tiedbert.bert.kinds.KINDS`; None for the kind that
            the model was built as.
        **options: of bert4keras, which it applies to the variables that it reads.
    """
    blocks = [re.search(r"Transformer-(\d+)-", layer.name) for layer in model.layers]
    count = max((int(match[1]) + 1 for match in blocks if match), default=0)
    kind = kind_of(model) if model_kind is None else checked_kind(model_kind)
    return backend.namesake(kind, count, **options)


def named_weights(transformer, layers) -> list:
    """(layer, [(name in the checkpoint, weight), ...]) for the layers of the format.

    Args:
        transformer: the bert4keras Transformer whose names to use.
        layers: dict, name -> layer.

    Raises:
        InputError: the layers are not of the Transformer's kind.
    """
    mapping = transformer.variable_mapping()
    named = {transformer.prefixed(name): stored for name, stored in mapping.items()}
    named.update(CLASSIFIER | _UNNAMED)
    _check_kind(transformer, named, layers)
    return [
        (layers[name], list(zip(stored, own_weights(layers[name]), strict=True)))
        for name, stored in named.items()
        if name in layers
    ]


def _check_kind(transformer, named, layers):
    kind_name = transformer.title
    if not any(name in layers for name in named):
        raise InputError(
            f"a checkpoint of {kind_name} has names for {', '.join(named)}; the model "
            f"has none of these layers: {', '.join(layers)}"
        )
    for name, layer in layers.items():
        expected, found = len(named.get(name, [])), len(own_weights(layer))
        belongs = name in named or _BODY.match(name)
        if belongs and expected != found:
            raise InputError(
                f'layer "{name}" has {found} weights, a checkpoint of {kind_name} '
                f"names for {expected}: say of which kind it is with model_kind"
            )
