"""The ties of a model, found by looking: which table each head multiplies by."""

from typing import Any, NamedTuple

from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap, IdentitySet
from tiedbert.errors import InputError
from tiedbert.layers.embedding_dense import EmbeddingDense


class Tie(NamedTuple):
    """A head, the embedding layer with its table, and the table.

    `looked_up` is False if no layer of the model looks tokens up in the table, as in
    the rest of a cut. `table` is None until it is built.
    """

    head: keras.layers.Layer
    embedding: keras.layers.Layer
    table: Any
    looked_up: bool

    def __repr__(self) -> str:
        alone = "" if self.looked_up else ", no lookup in the model"
        return (
            f"<{self.head.name!r} tied to {self.embedding.name!r} "
            f"{_shape(self.embedding)}{alone}>"
        )


def check_tied(model: keras.Model) -> list[Tie]:
    """List every tie of a model; raise an error if a head was untied.

    A tie is lost when something copies a model layer by layer, and outputs differ only
    after training. This function looks at the layers, in nested models at any depth.

    A head is an :class:`EmbeddingDense`, or another layer that is (or holds) an
    embedding layer and is called on hidden states as wide as its table: MaskedLMHead of
    keras-hub, a ReversibleEmbedding in reverse, the shared Embedding of a bert4keras
    model ``with_mlm``. A layer that only adds its table to hidden states, such as a
    position embedding, is no head. If its table is square, it cannot be told from a
    head of the second kind that stands alone. In models without a graph of calls only
    EmbeddingDense is recognized, and a table counts as looked up when the model holds
    it.

    Args:
        model: any `keras.Model`; it is not changed.

    Returns:
        A list of :class:`Tie`, one for each head and table: the head layer, the
        embedding layer, its table (a variable, float ``[vocab, width]``) and whether
        the model looks tokens up in it.

    Raises:
        InputError: nothing looks tokens up in the table of a head, while the model
            looks them up in another table of the same name and shape (a model without
            a graph: holds one). The message names both and their models. Also raised
            if `model` is no model.

    Example:
        >>> from tensorflow import keras
        >>> from tiedbert.layers import EmbeddingDense
        >>> ids = keras.Input((None,), dtype="int32")
        >>> table = keras.layers.Embedding(5, 3, name="tokens")
        >>> model = keras.Model(ids, EmbeddingDense(table, name="head")(table(ids)))
        >>> check_tied(model)
        [<'head' tied to 'tokens' (5, 3)>]
    """
    if not isinstance(model, keras.Model):
        raise InputError(f"check_tied: expected a model, received {model!r}")
    uses = list(_of_model(model, (model,)))
    lookups = [use for use in uses if not use.projects]
    heads = IdentityMap()  # layer -> map, embedding layer -> its last use by the layer
    for use in uses:
        if use.projects and (_surely_projects(use) or _is_sought(use, lookups)):
            heads.setdefault(use.layer, IdentityMap())[use.embedding] = use
    return [
        _tie(head, lookups) for of_layer in heads.values() for head in of_layer.values()
    ]


class _Use(NamedTuple):
    """A table in use: by a layer in the last of some models, each inside the other."""

    layer: Any
    embedding: Any
    models: tuple
    projects: bool

    @property
    def where(self):
        return "/".join(model.name for model in self.models)


def _surely_projects(use) -> bool:
    """Whether the shapes of a call leave no doubt that it makes logits.

    A layer that adds its table to hidden states (positions) keeps their shape, and so
    does a head whose table is square. An `Embedding` looks up, or makes logits.
    """
    rows, width = _shape(use.embedding)
    of_embeddings = (EmbeddingDense, keras.layers.Embedding)
    return rows != width or isinstance(use.layer, of_embeddings)


def _is_sought(use, lookups) -> bool:
    """Whether the model looks tokens up in this table, or in another like it."""
    return any(
        _table_or_layer(other.embedding) is _table_or_layer(use.embedding)
        or _alike(other.embedding, use.embedding)
        for other in lookups
    )


def _tie(head, lookups):
    table = _table_or_layer(head.embedding)
    looked_up = any(_table_or_layer(use.embedding) is table for use in lookups)
    # Without a graph, a table that is held may as well never be looked up.
    if not (looked_up and _keras.has_graph(head.models[0])):
        others = [use for use in lookups if _table_or_layer(use.embedding) is not table]
        _check_alone(head, others)
    return Tie(head.layer, head.embedding, _keras.table_of(head.embedding), looked_up)


def _check_alone(head, lookups):
    table = head.embedding
    for use in lookups:
        other = use.embedding
        if _alike(other, table):
            raise InputError(
                f"head {head.layer.name!r} in {head.where!r} has a table {table.name!r}"
                f" {_shape(table)} of its own, but the model looks tokens up in another"
                f" {other.name!r}, in {use.where!r}: the tie came apart (copy models "
                "with tiedbert.surgery.clone; two tables that are meant need two names)"
            )


def _table_or_layer(embedding):
    """The table of an embedding layer, or the layer itself until it is built."""
    table = _keras.table_of(embedding)
    return embedding if table is None else table


def _alike(first, second) -> bool:
    return (first.name, _shape(first)) == (second.name, _shape(second))


def _shape(embedding) -> tuple:
    table = _keras.table_of(embedding)
    if table is None:
        return embedding.input_dim, embedding.output_dim
    return tuple(table.shape)


def _of_model(model, models):
    """Uses of tables in a model: in its calls, or in what it holds."""
    if not _keras.has_graph(model):
        for layer in model.layers:
            yield from _of_layer(layer, models, None)
        return
    for call in _keras.calls(_keras.functional(model)):
        yield from _of_layer(call.layer, models, call)


def _of_layer(layer, models, call):
    """Uses of tables by a layer and what it holds; `call` is how the graph uses it."""
    if isinstance(layer, keras.Model):
        yield from _of_model(layer, (*models, layer))
    elif isinstance(layer, EmbeddingDense):
        if hasattr(layer, "embedding_layer"):
            yield _Use(layer, layer.embedding_layer, models, True)
    elif _has_table(layer):
        yield _Use(layer, layer, models, _projects(call, layer))
    elif isinstance(layer, keras.layers.Layer):
        held = _keras.leaves(list(_keras.sublayers(layer).values()))
        for part in IdentitySet(held):
            if _has_table(part):
                yield _Use(layer, part, models, _projects(call, part))
            else:
                yield from _of_layer(part, models, call)


def _has_table(layer) -> bool:
    return hasattr(layer, "input_dim") and hasattr(layer, "output_dim")


def _projects(call, embedding) -> bool:
    """Whether a call makes logits, one a token, of hidden states as wide as a table."""
    if call is None or not call.inputs:
        return False
    first, made = call.inputs[0], call.outputs[0]
    return (
        "float" in _keras.dtype_name(first)
        and len(made.shape) <= len(first.shape)  # a lookup adds an axis
        and (made.shape[-1], first.shape[-1]) == _shape(embedding)
    )
