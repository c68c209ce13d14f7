"""A copy of a functional model with weights of its own, and every tie kept."""

import dataclasses
import warnings

from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError, reason
from tiedbert.layers import EmbeddingDense
from tiedbert.surgery.clone_checks import (
    check_arguments,
    check_state,
    copy_learned,
    finalize_state,
    layers_used,
    paired_variables,
    untied,
)
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.replay import replay


def clone(model):
    """Copy a functional model: weights of its own, the same values, the same ties.

    What is one layer or one variable in `model` is one in the copy, in nested models
    too. `keras.models.clone_model` draws new values and makes two of a layer that
    others hold (a tied head, a layer inside and outside of a nested model).

    Args:
        model: a functional `keras.Model` or a built Sequential; left as it is. Models
            nested in it may be subclasses with a config of their own (keras-hub's
            backbones and tasks): their `from_config` makes the copy.

    Returns:
        A model of the same class and structure, names and nested models included: the
        values of all weights, normalization statistics and random generators, what
        `adapt` has learned (vocabularies, bins), what is trainable, dtype policies,
        regularizers and the losses of `add_loss` are those of `model`. Not compiled,
        like the copies of `clone_model`, unless its constructor compiles (keras-hub's
        tasks). Functions of Lambda layers, and what has no weights and no config (an
        attribute that a user set), are shared or left out.

    Raises:
        InputError: a model without a graph; a layer that its config does not make
            again; a tie, a loss or a state that the copy would lose. It names the
            layers. One tie is not seen: a Lambda whose function reaches a layer by an
            attribute of some other object goes on using that of `model`.

    Example:
        >>> import tensorflow as tf
        >>> from tensorflow import keras
        >>> from tiedbert.layers import EmbeddingDense
        >>> ids = keras.Input((None,), dtype="int32")
        >>> table = keras.layers.Embedding(5, 3)
        >>> model = keras.Model(ids, EmbeddingDense(table)(table(ids)))
        >>> copy = clone(model)
        >>> batch = tf.constant([[1, 2]])
        >>> bool(tf.reduce_all(copy(batch) == model(batch)))
        True
        >>> len(copy.weights), copy.weights[0] is model.weights[0]  # a table, a bias
        (2, False)
    """
    _keras.functional(model)
    with warnings.catch_warnings():
        # What the initializers of the copies draw is overwritten.
        warnings.filterwarnings("ignore", "The initializer .* is unseeded")
        copies = _Copies(model)
        copy = copies.of(model)
    copies.finish()
    return copy


class _Copies:
    """The one copy of each layer of `model`, at whatever depth it is first met."""

    def __init__(self, model):
        self._model = model
        self._pairs = []  # (source, copy), in the order in which they were met
        self._known = {}  # id of a source -> its copy
        within = _keras.layers_within(model)
        graphs = [layer for layer in within if _keras.has_graph(layer)]
        self._in_graphs = {id(layer) for graph in graphs for layer in graph.layers}
        # Their constructors make the layers inside: the others take what is made. A
        # model comes before those that it is made of.
        for graph in sorted(graphs, key=lambda g: -len(_keras.layers_within(g))):
            if not _keras.takes_inputs_and_outputs(graph):
                self.of(graph)

    def of(self, source):
        """The copy of a layer, a model or an operation; made when first asked for."""
        if id(source) not in self._known:
            self._learn(source, self._make(source))
        return self._known[id(source)]

    def _make(self, source):
        if isinstance(source, keras.Sequential) and _keras.takes_inputs_and_outputs(
            source
        ):
            return self._sequential(source)
        if _keras.has_graph(source) and _keras.takes_inputs_and_outputs(source):
            return self._graph(source)
        if not isinstance(source, keras.layers.Layer):
            return _keras.copy_operation(source)
        try:
            return self._from_config(source)
        except InputError:
            raise
        except Exception as error:
            # Keras goes on with the whole config.
            why = reason(error).partition(". ")[0]
            raise InputError(
                f"clone cannot make layer {source.name!r} ({type(source).__name__}) "
                f"again from its config: {why}; give the class a get_config and a "
                "from_config that fit its constructor"
            ) from error

    def _from_config(self, source):
        if type(source) is keras.layers.Lambda:
            return _lambda(source)
        config = _unbuilt(source.get_config())
        if isinstance(source, EmbeddingDense):
            table = self.of(source.embedding_layer)
            return type(source)(**{**config, "embedding_layer": table})
        # Classes that nobody registered are known all the same: from the model.
        kinds = {type(layer) for layer in _keras.layers_within(source)}
        known = keras.utils.custom_object_scope({kind.__name__: kind for kind in kinds})
        with known, _keras.unsafe_deserialization():
            return type(source).from_config(config)

    def _sequential(self, source):
        graph = Graph(source)
        if graph.side_effects:
            raise InputError(
                f"clone does not keep a symbolic add_loss or add_metric of Sequential "
                f"model {source.name!r}: make it a keras.Model(inputs, outputs)"
            )
        first = _keras.maker(graph.input_tensors[0])
        copies = [self.of(layer) for layer in [first, *source.layers]]
        return type(source)(copies, name=source.name)

    def _graph(self, source):
        graph = Graph(source)
        # All copies before the first call: a layer must not be built before it holds
        # the layers that it shares with others.
        inputs = [self.of(_keras.maker(tensor)) for tensor in graph.input_tensors]
        effects = graph.side_effects
        effects.sort(key=lambda call: source.layers.index(call.layer))
        calls = [call for call in graph.calls if call not in effects]
        check_arguments(calls)
        calls = [dataclasses.replace(c, layer=self.of(c.layer)) for c in calls]
        old = graph.input_tensors
        new = {id(t): layer.output for t, layer in zip(old, inputs, strict=True)}
        replay(calls, new, recorded_masks=True)
        inputs, outputs = (
            _keras.map_structure(lambda tensor: new[id(tensor)], structure)
            for structure in (graph.inputs, graph.outputs)
        )
        copy = type(source)(inputs, outputs, name=source.name)
        _keras.repeat_side_effects(copy, effects, new)
        return copy

    def _learn(self, source, copy):
        """Remember a pair and, by attribute, the pairs of layers inside of it."""
        if type(source) is not type(copy):
            raise InputError(
                f"clone expected the config of {source.name!r} to give a "
                f"{type(source).__name__}, received a {type(copy).__name__}"
            )
        self._known[id(source)] = copy
        self._pairs.append((source, copy))
        copy_learned(source, copy)
        if not isinstance(source, keras.layers.Layer):
            return
        if not _keras.has_graph(source):
            self._join(source, copy)
        elif not _keras.takes_inputs_and_outputs(source):
            self._learn_layers(source, copy)

    def _learn_layers(self, source, copy):
        """Pair the layers of two models that `from_config` made alike."""
        kinds, made = ([type(layer) for layer in m.layers] for m in (source, copy))
        if kinds != made:
            raise InputError(
                f"clone expected the config of model {source.name!r} to give its "
                f"{len(kinds)} layers, received {len(made)} or other ones: clone what "
                "it is nested in, or build it from inputs and outputs"
            )
        for old, new in zip(source.layers, copy.layers, strict=True):
            if id(old) not in self._known:
                self._learn(old, new)
            elif self._known[id(old)] is not new:
                raise InputError(untied([old.name], f"model {source.name!r}"))

    def _join(self, source, copy):
        """Let `copy` hold the one copy of each layer that `source` holds."""
        for name, value in _keras.sublayers(source).items():
            old = vars(copy).get(name)
            new = self._held(value, old)
            olds = {id(leaf) for leaf in _keras.leaves(old)}
            layers = [
                held
                for wanted, held in zip(
                    _keras.leaves(value), _keras.leaves(new), strict=True
                )
                if isinstance(wanted, keras.layers.Layer)
            ]
            # None: the layer makes this one when it is built.
            if None not in layers and any(id(layer) not in olds for layer in layers):
                _keras.set_sublayers(copy, name, new)

    def _held(self, value, other):
        """What a copy holds where its source holds `value`; `other` is there now."""
        if isinstance(value, keras.layers.Layer):
            return self._held_layer(value, other)
        if isinstance(value, dict):
            others = other if isinstance(other, dict) else {}
            return {name: self._held(value[name], others.get(name)) for name in value}
        if isinstance(value, list | tuple):
            known = isinstance(other, list | tuple) and len(other) == len(value)
            others = other if known else [None] * len(value)
            held = list(map(self._held, value, others))
            if hasattr(value, "_make"):
                return value._make(held)  # a named tuple
            return tuple(held) if isinstance(value, tuple) else held
        return other if type(other) is type(value) else value

    def _held_layer(self, source, other):
        own = type(other) is type(source) and other is not source
        # Graphs, functions and ties are not copied by the config of their holder.
        simple = not _keras.has_graph(source) and not isinstance(
            source, keras.layers.Lambda | EmbeddingDense
        )
        if id(source) not in self._known:
            if own and simple:
                _keras.rename(other, source.name)
                self._learn(source, other)
            elif own or other is source or id(source) in self._in_graphs:
                return self.of(source)
        return self._known.get(id(source))

    def _hold_beside(self, source, copy):
        """Let a model hold by name what `source` does, what has no weights as it is.

        A preprocessor may have learned more than its config says, and it may be big.
        """
        for name, value in _keras.sublayers(source).items():
            if isinstance(value, keras.layers.Layer) and not _keras.has_graph(value):
                within = _keras.layers_within(value)
                weightless = not any(map(_keras.own_variables, within))
                new = self._known.get(id(value), value if weightless else None)
                if new is not None and vars(copy).get(name) is not new:
                    _keras.set_sublayers(copy, name, new)

    def finish(self):
        """Copy every value and flag, once it is sure that no tie is lost."""
        for source, copy in self._pairs:  # it grows: built layers have new sublayers
            if _keras.has_graph(source):
                self._hold_beside(source, copy)
            elif isinstance(source, keras.layers.Layer):
                self._join(source, copy)
        pairs = [p for p in self._pairs if isinstance(p[0], keras.layers.Layer)]
        variables = paired_variables(pairs)
        self._check_complete(variables)
        for source, copy in variables.values():
            _keras.copy_variable(source, copy)
        for source, copy in pairs:
            _keras.copy_flags(source, copy)
            finalize_state(copy)
        for source, copy in pairs:
            check_state(source, copy)

    def _check_complete(self, variables):
        for layer in _keras.layers_within(self._model):
            owned = _keras.own_variables(layer)
            if any(id(variable) not in variables for variable in owned):
                raise InputError(
                    f"clone does not reach layer {layer.name!r} "
                    f"({type(layer).__name__}) of model {self._model.name!r}: no call "
                    "of the graph uses it, or the layer that holds it does not make "
                    "it again; hold it as an attribute that get_config tells of"
                )


def _unbuilt(config):
    """A config whose layers are built when they are called, as those of the source."""
    if isinstance(config, dict):
        return {k: _unbuilt(config[k]) for k in config if k != "build_config"}
    if type(config) in (list, tuple):
        return type(config)(map(_unbuilt, config))
    return config


def _lambda(source):
    """A Lambda layer with the same function, which no config could hold exactly."""
    used = layers_used(source.function, source.arguments)
    if used:
        raise InputError(
            f"clone cannot keep what the function of Lambda layer {source.name!r} "
            f"uses from outside: {', '.join(used)}; write a layer that holds it as an "
            "attribute (EmbeddingDense holds the table of an Embedding)"
        )
    return keras.layers.Lambda(
        source.function,
        mask=source.mask,
        arguments=dict(source.arguments),
        output_shape=_keras.given_output_shape(source),
        **keras.layers.Layer.get_config(source),
    )
