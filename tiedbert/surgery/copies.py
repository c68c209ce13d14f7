"""One copy of each layer of a model, which hold each other as their sources do.

Two passes:

1. :meth:`Copies.of` makes the copy of a layer and remembers the pair, then those of the
   layers in its attributes, at any depth. A config has often made these already, with
   the layer that holds them.
2. `_bind` lets each copy hold, by attribute, the copies of what its source holds.

The copies of a graph are bound before they are called: a layer must not be built before
it holds the layers that it shares with others. What layers make when they are built is
paired and bound at the end, by :meth:`Copies.finish`.
"""

import dataclasses
from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap, IdentitySet
from tiedbert.errors import InputError, reason
from tiedbert.layers import EmbeddingDense
from tiedbert.surgery.clone_checks import check_arguments, tie_error
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.learned_state import copy_learned
from tiedbert.surgery.replay import Substitution, replay


class Copies:
    """The copies of the layers of `model`.

    Attributes:
        pairs: list of ``(source, copy)``, models and operations among them.
    """

    def __init__(self, model: keras.Model) -> None:
        self.pairs = []
        self._copies = IdentityMap()  # source -> copy
        self._bound = 0  # number of pairs whose copy is bound
        within = _keras.layers_within(model)
        graphs = [layer for layer in within if _keras.has_graph(layer)]
        self._in_graphs = IdentitySet(part for graph in graphs for part in graph.layers)
        # The constructors of these models make the layers inside, which other models
        # share; a model comes before those inside it.
        for graph in sorted(graphs, key=lambda g: -len(_keras.layers_within(g))):
            if not _keras.takes_inputs_and_outputs(graph):
                self.of(graph)

    def of(self, source: Any) -> Any:
        """The copy of a layer, a model or an operation; made when first asked for."""
        if source not in self._copies:
            self._pair(source, self._make(source))
        return self._copies[source]

    def finish(self) -> None:
        """Pair and bind the layers that others have made when they were built."""
        for source, copy in self.pairs:  # it grows
            if _keras.has_graph(source):
                self._bind_beside_graph(source, copy)
            elif isinstance(source, keras.layers.Layer):
                self._pair_attributes(source, copy)
                self._bind(source, copy)

    # --- how a copy is made

    def _make(self, source):
        if not isinstance(source, keras.layers.Layer):
            return _keras.copy_operation(source)
        if _keras.has_graph(source) and _keras.takes_inputs_and_outputs(source):
            is_sequential = isinstance(source, keras.Sequential)
            return self._sequential(source) if is_sequential else self._graph(source)
        try:
            return self._from_config(source)
        except InputError:
            raise
        except Exception as error:
            # Keras lists the whole config in the sentences that follow.
            why = reason(error).partition(". ")[0]
            raise InputError(
                f"clone cannot make layer {source.name!r} ({type(source).__name__}) "
                f"again from its config: {why}; give the class a get_config and a "
                "from_config that fit its constructor"
            ) from error

    def _from_config(self, source):
        if type(source) is keras.layers.Lambda:
            return _lambda(source)
        config = _without_build(source.get_config())
        if isinstance(source, EmbeddingDense):
            table = self.of(source.embedding_layer)
            return type(source)(**{**config, "embedding_layer": table})
        # Classes that are not registered are those of the source.
        classes = {type(layer) for layer in _keras.layers_within(source)}
        known = keras.utils.custom_object_scope(
            {each.__name__: each for each in classes}
        )
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
        self._bind_new()
        return type(source)(copies, name=source.name)

    def _graph(self, source):
        graph = Graph(source)
        inputs = [self.of(_keras.maker(tensor)) for tensor in graph.input_tensors]
        effects = sorted(
            graph.side_effects, key=lambda call: source.layers.index(call.layer)
        )
        calls = [call for call in graph.calls if call not in effects]
        check_arguments(calls)
        calls = [dataclasses.replace(c, layer=self.of(c.layer)) for c in calls]
        self._bind_new()
        old = graph.input_tensors
        made = [layer.output for layer in inputs]
        substitution = Substitution(zip(old, made, strict=True))
        replay(calls, substitution, recorded_masks=True)
        new = substitution.new
        inputs, outputs = (
            _keras.map_structure(lambda tensor: new[tensor], structure)
            for structure in (graph.inputs, graph.outputs)
        )
        copy = type(source)(inputs, outputs, name=source.name)
        _keras.repeat_side_effects(copy, effects, new)
        return copy

    # --- pass 1: source -> copy

    def _pair(self, source, copy):
        if type(source) is not type(copy):
            raise InputError(
                f"clone expected the config of {source.name!r} to give a "
                f"{type(source).__name__}, received a {type(copy).__name__}"
            )
        self._copies[source] = copy
        self.pairs.append((source, copy))
        copy_learned(source, copy)
        if not _keras.has_graph(source):
            self._pair_attributes(source, copy)
        elif not _keras.takes_inputs_and_outputs(source):
            self._pair_layers(source, copy)

    def _pair_attributes(self, source, copy):
        """Pair the layers that a layer holds with those that its copy holds now."""
        for name, value in _keras.sublayers(source).items():
            held, made = _keras.leaves(value), _keras.leaves(vars(copy).get(name))
            if len(made) != len(held):
                made = [None] * len(held)
            for layer, other in zip(held, made, strict=True):
                if isinstance(layer, keras.layers.Layer) and layer not in self._copies:
                    self._pair_held(layer, other)

    def _pair_held(self, source, made):
        """Pair a layer; `made` is what the config of its holder made in its place."""
        alike = type(made) is type(source) and made is not source
        if alike and _is_copied_with_holder(source):
            _keras.rename(made, source.name)
            self._pair(source, made)
        elif alike or made is source or source in self._in_graphs:
            self.of(source)
        # Else the copy makes it when it is built.

    def _pair_layers(self, source, copy):
        """Pair the layers of two models of which `from_config` made the second."""
        classes, made = ([type(layer) for layer in m.layers] for m in (source, copy))
        if classes != made:
            raise InputError(
                f"clone expected the config of model {source.name!r} to give its "
                f"{len(classes)} layers, received {len(made)} or other ones: clone "
                "what it is nested in, or build it from inputs and outputs"
            )
        for old, new in zip(source.layers, copy.layers, strict=True):
            if old not in self._copies:
                self._pair(old, new)
            elif self._copies[old] is not new:
                raise tie_error([old.name], f"model {source.name!r}")

    # --- pass 2: attributes

    def _bind_new(self):
        new = self.pairs[self._bound :]
        self._bound = len(self.pairs)
        for source, copy in new:
            if not _keras.has_graph(source):
                self._bind(source, copy)

    def _bind(self, source, copy):
        """Let `copy` hold the copy of each layer that `source` holds."""
        for name, value in _keras.sublayers(source).items():
            old = vars(copy).get(name)
            new = self._mapped(value, old)
            pairs = zip(_keras.leaves(value), _keras.leaves(new), strict=True)
            layers = [to for of, to in pairs if isinstance(of, keras.layers.Layer)]
            held = IdentitySet(_keras.leaves(old))
            # None: the copy makes this layer when it is built.
            if None not in layers and any(layer not in held for layer in layers):
                _keras.set_sublayers(copy, name, new)

    def _mapped(self, value, old):
        """`value` with copies for layers; `old` is what the copy holds there now."""
        if isinstance(value, keras.layers.Layer):
            return self._copies.get(value)
        if isinstance(value, dict):
            olds = old if isinstance(old, dict) else {}
            return {name: self._mapped(value[name], olds.get(name)) for name in value}
        if isinstance(value, list | tuple):
            fits = isinstance(old, list | tuple) and len(old) == len(value)
            new = list(map(self._mapped, value, old if fits else [None] * len(value)))
            if hasattr(value, "_make"):
                return value._make(new)  # a named tuple
            return tuple(new) if isinstance(value, tuple) else new
        return old if type(old) is type(value) else value

    def _bind_beside_graph(self, source, copy):
        """Let the copy of a model hold, by attribute, the layers beside its graph.

        A layer without weights that no graph uses, such as a preprocessor, is shared:
        it may have learned more than its config says, and may be big.
        """
        for name, value in _keras.sublayers(source).items():
            if isinstance(value, keras.layers.Layer) and not _keras.has_graph(value):
                within = _keras.layers_within(value)
                has_weights = any(map(_keras.own_variables, within))
                new = self._copies.get(value, None if has_weights else value)
                if new is not None and vars(copy).get(name) is not new:
                    _keras.set_sublayers(copy, name, new)


def _is_copied_with_holder(layer) -> bool:
    """Whether the config of what holds a layer copies it: no graph, function or tie."""
    return not _keras.has_graph(layer) and not isinstance(
        layer, keras.layers.Lambda | EmbeddingDense
    )


def _without_build(config):
    """A config whose layers are built when they are called, as those of the source."""
    if isinstance(config, dict):
        return {k: _without_build(config[k]) for k in config if k != "build_config"}
    if type(config) in (list, tuple):
        return type(config)(map(_without_build, config))
    return config


def _lambda(source):
    """A Lambda layer with the same function, which no config could hold exactly."""
    return keras.layers.Lambda(
        source.function,
        mask=source.mask,
        arguments=dict(source.arguments),
        output_shape=_keras.given_output_shape(source),
        **keras.layers.Layer.get_config(source),
    )
