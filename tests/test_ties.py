"""The contract of a tie: whatever Keras does to a model, one table or an error."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from models import assert_same, register
from tensorflow import keras

from tiedbert import _keras, surgery
from tiedbert.errors import InputError
from tiedbert.layers import EmbeddingDense, check_tied

layers = keras.layers

VOCABULARY, WIDTH = 5, 3
TOKENS = tf.constant([[1, 2, 4], [3, 1, 0]])

needs_keras_3 = pytest.mark.skipif(IS_LEGACY, reason="Keras 2 has no such thing")
needs_keras_2 = pytest.mark.skipif(not IS_LEGACY, reason="Keras 3 has no such thing")


# --- three places for a table and its head


def tokens_input():
    return keras.Input((None,), dtype="int32", name="ids")


def parts():
    table = layers.Embedding(VOCABULARY, WIDTH, name="tokens")
    head = EmbeddingDense(table, activation="linear", name="head")
    return table, layers.Dense(WIDTH, name="dense"), head


def shaken(model):
    """Every weight away from its start."""
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
    return model


def side_by_side():
    """Table and head are layers of one model."""
    table, dense, head = parts()
    ids = tokens_input()
    return shaken(keras.Model(ids, head(dense(table(ids))), name="whole"))


def table_in_a_nested_model():
    """The table lies in a backbone, the head outside."""
    table, dense, head = parts()
    ids, again = tokens_input(), tokens_input()
    backbone = keras.Model(ids, dense(table(ids)), name="backbone")
    return shaken(keras.Model(again, head(backbone(again)), name="whole"))


def siblings():
    """The table lies in one nested model, the head in the other."""
    table, dense, head = parts()
    ids, again = tokens_input(), tokens_input()
    hidden = keras.Input((None, WIDTH), name="hidden")
    front = keras.Model(ids, dense(table(ids)), name="front")
    rest = keras.Model(hidden, head(hidden), name="rest")
    return shaken(keras.Model(again, rest(front(again)), name="whole"))


def siblings_deep_down():
    """The same, each of them in a model of its own."""
    table, dense, head = parts()
    ids, again, last = tokens_input(), tokens_input(), tokens_input()
    hidden = keras.Input((None, WIDTH), name="hidden")
    outer_hidden = keras.Input((None, WIDTH), name="outer_hidden")
    front = keras.Model(ids, dense(table(ids)), name="front")
    rest = keras.Model(hidden, head(hidden), name="rest")
    fronts = keras.Model(again, front(again), name="fronts")
    rests = keras.Model(outer_hidden, rest(outer_hidden), name="rests")
    return shaken(keras.Model(last, rests(fronts(last)), name="whole"))


def sequential_siblings():
    table, dense, head = parts()
    front = keras.Sequential([tokens_input(), table, dense], name="front")
    hidden = keras.Input((None, WIDTH), name="hidden")
    rest = keras.Sequential([hidden, head], name="rest")
    whole = keras.Sequential([tokens_input(), front, rest], name="whole")
    return shaken(whole)


MODELS = [
    side_by_side,
    table_in_a_nested_model,
    siblings,
    siblings_deep_down,
    sequential_siblings,
]


# --- what may be done to a model; each gives a model with the same values


def keras_file(model, build, path):
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


def weights_file(model, build, path):
    model.save_weights(path / "model.weights.h5")
    other = zeroed(build())
    other.load_weights(path / "model.weights.h5")
    return other


def checkpoint(model, build, path):
    prefix = tf.train.Checkpoint(model=model).save(str(path / "checkpoint"))
    shapes = [tuple(shape) for _, shape in tf.train.list_variables(prefix)]
    assert shapes.count((VOCABULARY, WIDTH)) == 1
    other = zeroed(build())
    tf.train.Checkpoint(model=other).restore(prefix).assert_consumed()
    return other


def weights_set(model, build, path):
    other = zeroed(build())
    other.set_weights(model.get_weights())
    return other


def clone_model(model, build, path):
    return same_values(keras.models.clone_model(model), model)


def from_config(model, build, path):
    return same_values(type(model).from_config(model.get_config()), model)


def from_config_under_a_mixed_policy(model, build, path):
    """Layers that name no policy of their own would take today's."""
    with global_policy("mixed_bfloat16"):
        return from_config(model, build, path)


def surgery_clone(model, build, path):
    return surgery.clone(model)


def nested(model, build, path):
    ids = tokens_input()
    return keras.Model(ids, model(ids), name="around")


def pickled(model, build, path):
    return pickle.loads(pickle.dumps(model))


def deep_copied(model, build, path):
    return copy.deepcopy(model)


def h5_file(model, build, path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are saving your model as an HDF5 file")
        model.save(str(path / "model.h5"))
    # Keras 2 forgets in a nested Sequential what is registered.
    known = {"EmbeddingDense": EmbeddingDense}
    return keras.models.load_model(str(path / "model.h5"), known, compile=False)


def saved_model_for_keras(model, build, path):
    """What Keras 2 makes of a SavedModel is a Keras model again."""
    model.save(str(path / "saved_model"), save_format="tf")
    return keras.models.load_model(str(path / "saved_model"))


def cut_and_joined(model, build, path):
    front, rest = surgery.split(model, path_of(model, "dense"))
    ids = tokens_input()
    return keras.Model(ids, rest(front(ids)), name="joined")


def zeroed(model):
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    return model


def same_values(other, model):
    other.set_weights(model.get_weights())
    return other


class global_policy:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        set_policy(self.name)

    def __exit__(self, *_):
        set_policy("float32")


def set_policy(name):
    if IS_LEGACY:
        keras.mixed_precision.set_global_policy(name)
    else:
        keras.config.set_dtype_policy(name)


WAYS = [
    keras_file,
    weights_file,
    checkpoint,
    weights_set,
    clone_model,
    from_config,
    from_config_under_a_mixed_policy,
    surgery_clone,
    nested,
    pickled,
    deep_copied,
    h5_file,
    cut_and_joined,
    *([saved_model_for_keras] if IS_LEGACY else []),
]


# --- what is asked of the result


def layers_named(model, name):
    """The distinct layers of this name in a model's graph and in nested ones."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= {id(part): part for part in layers_named(layer, name)}
        elif layer.name == name:
            found[id(layer)] = layer
    return list(found.values())


def named(model, name):
    (layer,) = layers_named(model, name)
    return layer


def path_of(model, name):
    """The cut point of a layer, in nested models too; None when it is not there."""
    for layer in model.layers:
        if layer.name == name:
            return name
        inside = path_of(layer, name) if isinstance(layer, keras.Model) else None
        if inside:
            return f"{layer.name}/{inside}"
    return None


def numbers(value):
    return np.array(tf.cast(tf.convert_to_tensor(value), tf.float32))


def by_hand(model):
    """The logits of TOKENS, from the table that the embedding layer looks up."""
    table = numbers(named(model, "tokens").embeddings)
    dense, head = named(model, "dense"), named(model, "head")
    hidden = table[TOKENS] @ numbers(dense.kernel) + numbers(dense.bias)
    return hidden @ table.T + numbers(head.bias)


def assert_agrees(model):
    np.testing.assert_allclose(model(TOKENS), by_hand(model), rtol=1e-5, atol=1e-5)


def train_a_step(model):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.cast(model(TOKENS), tf.float32) ** 2)
    gradients = tape.gradient(loss, model.trainable_weights)
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))


def assert_tied(model):
    """By identity, by values after steps, and by what check_tied says."""
    table, head = named(model, "tokens"), named(model, "head")
    assert head.embedding_layer is table
    shapes = [tuple(weight.shape) for weight in model.weights]
    assert shapes.count((VOCABULARY, WIDTH)) == 1
    assert any(weight is table.weights[0] for weight in model.weights)
    assert_agrees(model)
    start = numbers(table.embeddings)
    for _ in range(2):
        train_a_step(model)
    assert np.all(np.any(numbers(table.embeddings) != start, axis=1))
    assert_agrees(model)
    assert check_tied(model) == [(head, table, table.weights[0], True)]


# Keras rebuilds a nested model without what lies around it, and these ways do not
# tell what was one layer.
SIBLINGS = {siblings, siblings_deep_down, sequential_siblings}
IMPOSSIBLE = {
    clone_model,
    from_config,
    from_config_under_a_mixed_policy,
    h5_file,
    saved_model_for_keras,
}


# What makes models again from configs sees how they are nested; values do not.
REBUILD = [keras_file, clone_model, surgery_clone]
CASES = [
    (way, build)
    for way in WAYS
    for build in (MODELS if way in REBUILD else [side_by_side, siblings])
]


@pytest.mark.cases(15)
@pytest.mark.both_kerases
@pytest.mark.parametrize(
    ("way", "build"), CASES, ids=lambda function: function.__name__
)
def test_a_tie_is_kept_or_an_error_tells_that_it_cannot_be(way, build, tmp_path):
    model = build()
    expected = model(TOKENS)
    if way in IMPOSSIBLE and build in SIBLINGS:
        with pytest.raises(InputError, match="use tiedbert.surgery.clone"):
            way(model, build, tmp_path)
        assert_tied(model)  # nothing happened to it
        return
    other = way(model, build, tmp_path)
    assert_same(other(TOKENS), expected)
    assert_tied(other)


def test_the_rest_of_a_cut_trains_the_table_of_the_front():
    front, rest = surgery.split(side_by_side(), "dense")
    table = named(front, "tokens")
    (tie,) = check_tied(rest)
    assert tie == (named(rest, "head"), table, table.weights[0], False)
    before = numbers(front(TOKENS)[0])
    train_on = tf.ones([1, 2, WIDTH])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(rest(train_on) ** 2)
    gradient = tape.gradient(loss, rest.trainable_weights)
    keras.optimizers.SGD(0.1).apply_gradients(
        zip(gradient, rest.trainable_weights, strict=True)
    )
    assert np.all(numbers(front(TOKENS)[0]) != before)


# --- a head that stands alone


def rest_with_two_heads():
    table, dense, head = parts()
    second = EmbeddingDense(table, use_bias=False, name="second")
    ids = tokens_input()
    hidden = dense(table(ids))
    whole = shaken(keras.Model(ids, [head(hidden), second(hidden)]))
    return surgery.split(whole, "dense")[1]


@pytest.mark.parametrize("way", [keras_file, pickled, deep_copied, surgery_clone])
def test_heads_that_stand_alone_share_the_table_they_own(way, tmp_path):
    rest = rest_with_two_heads()
    other = way(rest, None, tmp_path)
    hidden = tf.ones([1, 2, WIDTH])
    assert_same(other(hidden), rest(hidden))
    first, second = check_tied(other)
    assert first.embedding is second.embedding
    assert first.table is second.table
    assert not first.looked_up
    assert first.table is not check_tied(rest)[0].table
    assert len(other.weights) == 2  # a table, a bias


@pytest.mark.parametrize("way", [clone_model, from_config])
def test_keras_cannot_copy_a_head_that_stands_alone(way, tmp_path):
    """It may be half of a model: its table would be in the other half."""
    with pytest.raises(InputError, match="'tokens', which nothing before it"):
        way(rest_with_two_heads(), None, tmp_path)


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Then it fails.
def test_a_table_behind_its_head_is_never_untied_in_silence(tmp_path):
    """Keras writes the head's model first, and of the table only that it is shared."""
    table, _, head = parts()
    ids, again = tokens_input(), tokens_input()
    inner, hidden = (keras.Input((None, WIDTH), name=name) for name in ("inner", "h"))
    rest = keras.Model(inner, head(inner), name="rest")
    front = keras.Model(ids, table(ids), name="front")
    model = keras.Model([hidden, again], [rest(hidden), front(again)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="'tokens' expected 1 variables"):
        keras.models.load_model(tmp_path / "model.keras")


def siblings_of_two_towers():
    """Two tables of one name, each with its head in another model."""
    ids, outputs = tokens_input(), []
    for side in ["left", "right"]:
        table, dense, head = parts()
        inner, hidden = tokens_input(), keras.Input((None, WIDTH))
        front = keras.Model(inner, dense(table(inner)), name=f"{side}_front")
        rest = keras.Model(hidden, head(hidden), name=f"{side}_rest")
        outputs.append(rest(front(ids)))
    return shaken(keras.Model(ids, outputs))


def test_another_table_of_the_name_is_not_taken_for_that_of_heads_alone(tmp_path):
    """What two heads share is in the file by its number; this must not mislead."""
    other = layers.Embedding(VOCABULARY, WIDTH, name="tokens")
    ids, inner = tokens_input(), tokens_input()
    front = keras.Model(inner, other(inner), name="front")
    rest = rest_with_two_heads()
    model = keras.Model(ids, rest(front(ids)))
    loaded = keras_file(model, None, tmp_path)
    assert_same(loaded(TOKENS), model(TOKENS))
    (mine,) = [m for m in loaded.layers if m.name == rest.name]
    first, second = check_tied(mine)
    assert first.table is second.table
    assert len(loaded.weights) == len(model.weights) == 3


def test_two_tables_of_one_name_are_not_confused_in_a_file(tmp_path):
    model = siblings_of_two_towers()
    assert len(check_tied(model)) == 2
    model.save(tmp_path / "model.keras")
    with pytest.raises(InputError, match="'tokens', and its file has 2 of that name"):
        keras.models.load_model(tmp_path / "model.keras")


# --- a head that another layer or model calls


@register
class Around(layers.Layer):
    """A layer that holds another one and calls it."""

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def call(self, inputs):
        return self.layer(inputs)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], VOCABULARY)

    def get_config(self):
        layer = keras.utils.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer}

    @classmethod
    def from_config(cls, config):
        layer = keras.utils.deserialize_keras_object(config.pop("layer"))
        return cls(layer, **config)


# Keras 2 does not find registered classes in its own wrappers.
WRAPPERS = [Around] if IS_LEGACY else [Around, layers.TimeDistributed]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_head_in_a_wrapper_is_never_untied_in_silence(wrapper, tmp_path):
    table, dense, head = parts()
    ids = keras.Input((3,), dtype="int32", name="ids")
    wrapped = wrapper(head, name="around")
    model = shaken(keras.Model(ids, wrapped(dense(table(ids)))))
    expected = model(TOKENS)
    (tie,) = check_tied(model)
    assert (tie.head, tie.embedding, tie.looked_up) == (head, table, True)
    # It may be told in the first call; AutoGraph makes an exception of its own of it.
    with pytest.raises(Exception, match="use tiedbert.surgery.clone"):
        keras.models.clone_model(model)(TOKENS)
    for way in [keras_file, surgery_clone]:
        other = way(model, None, tmp_path)
        assert_same(other(TOKENS), expected)
        (tie,) = check_tied(other)
        assert tie.looked_up
        assert tie.embedding is other.get_layer("tokens")


@register
class Subclassed(keras.Model):
    """A model without a graph, whose config makes its layers one by one."""

    def __init__(self, table, dense, head, **kwargs):
        super().__init__(**kwargs)
        self.table, self.dense, self.head = table, dense, head

    def call(self, ids):
        return self.head(self.dense(self.table(ids)))

    def get_config(self):
        parts = {"table": self.table, "dense": self.dense, "head": self.head}
        return {
            name: keras.utils.serialize_keras_object(part)
            for name, part in parts.items()
        }

    @classmethod
    def from_config(cls, config):
        return cls(
            *(
                keras.utils.deserialize_keras_object(config[name])
                for name in ("table", "dense", "head")
            )
        )


def test_a_model_without_a_graph_is_never_untied_in_silence(tmp_path):
    model = Subclassed(*parts())
    expected = model(TOKENS)
    assert check_tied(model) == [
        (model.head, model.table, model.table.weights[0], True)
    ]
    rebuilt = Subclassed.from_config(model.get_config())
    with pytest.raises(InputError, match="use tiedbert.surgery.clone"):
        rebuilt(TOKENS)
    loaded = keras_file(model, None, tmp_path)
    assert_same(loaded(TOKENS), expected)
    assert loaded.head.embedding_layer is loaded.table


# --- what is saved to be served


def export(model, path):
    model.export(path)


def saved(model, path):
    tf.saved_model.save(model, path)


@pytest.mark.cases(2)
@pytest.mark.parametrize("build", [side_by_side, siblings])
@pytest.mark.parametrize("write", [export, saved])
def test_a_saved_model_has_one_variable_for_both_uses(write, build, tmp_path, capfd):
    model = build()
    expected = model(TOKENS)
    write(model, str(tmp_path / "served"))
    served = tf.saved_model.load(str(tmp_path / "served"))
    call = served.signatures["serving_default"]

    def logits():
        return tf.nest.flatten(call(TOKENS))[0]

    np.testing.assert_allclose(logits(), expected, rtol=1e-6)
    used = {id(variable): variable for variable in call.variables}.values()
    (table,) = [v for v in used if tuple(v.shape) == (VOCABULARY, WIDTH)]
    assert stored(tmp_path, [VOCABULARY, WIDTH]) == stored(tmp_path, [VOCABULARY])
    for variable in [named(model, "tokens").embeddings, table]:
        variable.assign(variable + 1.0)
    np.testing.assert_allclose(logits(), by_hand(model), rtol=1e-5, atol=1e-5)


def stored(path, shape):
    """How many variables have this shape; `export` of Keras 3 writes each one twice."""
    variables = str(path / "served" / "variables" / "variables")
    return [s for _, s in tf.train.list_variables(variables)].count(shape)


# --- training elsewhere, other policies, frozen tables


@pytest.mark.cases(1)
@pytest.mark.parametrize("build", [side_by_side, siblings])
def test_a_table_is_one_on_two_devices(build, mirrored):
    with mirrored.scope():
        model = build()
        model.compile(keras.optimizers.SGD(0.5), "mse")
    table = named(model, "tokens").embeddings
    variable = table if isinstance(table, tf.Variable) else table.value
    start = variable.numpy()
    tokens = np.array([[1, 2, 4], [3, 1, 0], [0, 2, 2], [4, 4, 1]])
    target = np.ones([4, 3, VOCABULARY], "float32")
    model.fit(tokens, target, batch_size=4, epochs=2, verbose=0)
    assert len(check_tied(model)) == 1
    assert_agrees(model)
    replicas = [v.numpy() for v in mirrored.experimental_local_results(variable)]
    assert len(replicas) == 2
    assert np.all(replicas[0] == replicas[1])
    assert np.any(replicas[0] != start)


def mixed():
    """A model of mixed precision whose head gives logits in float32."""
    table = layers.Embedding(VOCABULARY, WIDTH, name="tokens", dtype="mixed_bfloat16")
    dense = layers.Dense(WIDTH, name="dense", dtype="mixed_bfloat16")
    head = EmbeddingDense(table, activation="linear", name="head", dtype="float32")
    ids = tokens_input()
    return shaken(keras.Model(ids, head(dense(table(ids))), name="whole"))


@pytest.mark.parametrize("way", [keras_file, clone_model, from_config, surgery_clone])
def test_precision_goes_with_the_head(way, tmp_path):
    model = mixed()
    other = way(model, mixed, tmp_path)
    assert_same(other(TOKENS), model(TOKENS))
    assert other(TOKENS).dtype == tf.float32
    hidden = named(other, "dense")(named(other, "tokens")(TOKENS))
    assert hidden.dtype == tf.bfloat16
    table = named(other, "tokens").weights[0]
    assert tf.as_dtype(table.dtype) == tf.float32
    # No rounding but that of the hidden states.
    np.testing.assert_allclose(
        other(TOKENS),
        numbers(hidden) @ numbers(table).T + numbers(named(other, "head").bias),
        rtol=1e-6,
    )
    assert check_tied(other)[0].embedding is named(other, "tokens")


@needs_keras_3
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float32"])
def test_another_policy_for_the_layers_of_a_model(policy):
    model = side_by_side()
    for name in ["tokens", "dense", "head"]:
        named(model, name).dtype_policy = policy
    logits = keras.Model(model.inputs, model.outputs)(TOKENS)
    table = named(model, "tokens").embeddings
    assert table.dtype == "float32"
    tolerance = {"float32": 1e-5, "mixed_float16": 0.02, "mixed_bfloat16": 0.2}[policy]
    np.testing.assert_allclose(numbers(logits), by_hand(model), atol=tolerance)
    before = numbers(logits)
    table.assign(table + 1.0)
    np.testing.assert_allclose(
        numbers(model(TOKENS)), by_hand(model), atol=4 * tolerance
    )
    assert np.all(numbers(model(TOKENS)) != before)


@pytest.mark.parametrize("build", [side_by_side, siblings])
def test_a_frozen_table_moves_from_neither_side(build):
    model = build()
    table, head = named(model, "tokens"), named(model, "head")
    table.trainable = False
    start, bias = numbers(table.embeddings), numbers(head.bias)
    assert [w is head.bias for w in head.trainable_weights] == [True]
    assert len(head.weights) == 2
    assert not any(w is table.weights[0] for w in model.trainable_weights)
    assert any(w is table.weights[0] for w in model.non_trainable_weights)
    assert len(model.trainable_weights) == 3  # the bias and the dense layer
    train_a_step(model)
    np.testing.assert_array_equal(numbers(table.embeddings), start)
    assert np.all(numbers(head.bias) != bias)
    table.trainable = True
    assert any(w is table.weights[0] for w in head.trainable_weights)
    assert_tied(model)


def test_a_frozen_head_holds_its_table_too():
    """As every layer holds what is in it: the table is one, and it stays."""
    model = side_by_side()
    table, head = named(model, "tokens"), named(model, "head")
    head.trainable = False
    assert head.trainable_weights == []
    assert len(model.trainable_weights) == 2  # those of the dense layer
    start = numbers(table.embeddings)
    train_a_step(model)
    np.testing.assert_array_equal(numbers(table.embeddings), start)


@pytest.mark.parametrize("way", [keras_file, clone_model, from_config, surgery_clone])
@pytest.mark.parametrize("name", ["tokens", "head"])
def test_what_is_frozen_stays_so_in_a_copy(way, name, tmp_path):
    model = side_by_side()
    named(model, name).trainable = False
    other = way(model, side_by_side, tmp_path)
    assert [w.name for w in other.trainable_weights] == [
        w.name for w in model.trainable_weights
    ]
    start = numbers(named(other, "tokens").embeddings)
    train_a_step(other)
    np.testing.assert_array_equal(numbers(named(other, "tokens").embeddings), start)


# --- what check_tied tells


def test_a_tie_reads_well():
    front, rest = surgery.split(side_by_side(), "dense")
    assert repr(check_tied(side_by_side())) == "[<'head' tied to 'tokens' (5, 3)>]"
    assert str(check_tied(rest)[0]) == (
        "<'head' tied to 'tokens' (5, 3), no lookup in the model>"
    )
    assert check_tied(front) == []
    assert check_tied(keras.Sequential([layers.Dense(2)])) == []


def untie(model):
    other = layers.Embedding(VOCABULARY, WIDTH, name="tokens")
    other.build((None, None))
    _keras.set_sublayers(named(model, "head"), "embedding_layer", other)


@pytest.mark.parametrize("build", MODELS)
def test_a_head_with_another_table_is_told(build):
    model = build()
    untie(model)
    with pytest.raises(InputError, match=r"'head' in '.*' has .* 'tokens' \(5, 3\) of"):
        check_tied(model)


def test_the_places_of_what_came_apart_are_told():
    model = siblings_deep_down()
    untie(model)
    with pytest.raises(InputError, match="in 'whole/rests/rest' .* 'whole/fronts/f"):
        check_tied(model)


@register
class HoldsTable(layers.Layer):
    """A head like that of keras-hub: what it holds has a config, and no tie."""

    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def call(self, hidden):
        return tf.einsum(
            "btw,vw->btv", hidden, tf.convert_to_tensor(self.table.embeddings)
        )

    def get_config(self):
        table = keras.utils.serialize_keras_object(self.table)
        return {**super().get_config(), "table": table}

    @classmethod
    def from_config(cls, config):
        table = keras.utils.deserialize_keras_object(config.pop("table"))
        return cls(table, **config)

    def build(self, input_shape):
        if not self.table.built:
            self.table.build((None, None))
        self.built = True


def test_any_layer_that_holds_a_table_is_a_head_when_it_takes_hidden_states():
    table, dense, _ = parts()
    ids = tokens_input()
    holder = HoldsTable(table, name="holder")
    model = keras.Model(ids, holder(dense(table(ids))), name="whole")
    assert check_tied(model) == [(holder, table, table.weights[0], True)]
    assert check_tied(surgery.clone(model))[0].looked_up
    with pytest.raises(InputError, match="'holder' in 'whole' has a table 'tokens'"):
        check_tied(keras.models.clone_model(model))


@register
class LooksUp(layers.Layer):
    """A layer around an embedding, like keras-hub's TokenAndPositionEmbedding."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.token_embedding = layers.Embedding(VOCABULARY, WIDTH, name="tokens")

    def build(self, input_shape):
        self.token_embedding.build(input_shape)
        self.built = True

    def call(self, ids):
        return self.token_embedding(ids)


class TwoTables(keras.Model):
    """Without a graph nobody knows which of them is looked up."""

    def __init__(self, names):
        super().__init__()
        self.table, self.other = (
            layers.Embedding(VOCABULARY, WIDTH, name=name) for name in names
        )
        self.head = EmbeddingDense(self.other, name="head")

    def call(self, ids):
        return self.head(self.table(ids))


def test_two_tables_of_one_name_without_a_graph_are_told():
    model = TwoTables(["tokens", "tokens"])
    model(TOKENS)
    with pytest.raises(InputError, match="head 'head' .* the tie came apart"):
        check_tied(model)
    model = TwoTables(["tokens", "others"])
    model(TOKENS)
    assert len(check_tied(model)) == 1


@register
class Widen(layers.Layer):
    """A layer with a vocabulary's attributes and no vocabulary."""

    input_dim, output_dim = VOCABULARY, WIDTH

    def call(self, hidden):
        return hidden + 1.0


@register
class AddsPositions(layers.Layer):
    """A table of positions as layers of many libraries have it: its own, or held."""

    def __init__(self, positions, width, **kwargs):
        super().__init__(**kwargs)
        self.input_dim, self.output_dim = positions, width

    def build(self, input_shape):
        shape = self.input_dim, self.output_dim
        self.embeddings = self.add_weight(name="embeddings", shape=shape)
        self.built = True

    def call(self, hidden):
        table = tf.convert_to_tensor(self.embeddings)
        return hidden + table[: tf.shape(hidden)[1]]


@register
class HoldsPositions(layers.Layer):
    """Adds the rows of an Embedding that it holds."""

    def __init__(self, positions, width, **kwargs):
        super().__init__(**kwargs)
        self.positions = layers.Embedding(positions, width, name="positions")

    def build(self, input_shape):
        self.positions.build((None,))
        self.built = True

    def call(self, hidden):
        return hidden + self.positions(tf.range(tf.shape(hidden)[1]))


def widened(positions, width):
    return Widen()


@pytest.mark.parametrize("rows", [VOCABULARY, WIDTH])  # of another size, or square
@pytest.mark.parametrize("layer", [widened, AddsPositions, HoldsPositions])
def test_what_makes_no_logits_is_no_head(layer, rows):
    ids, again = tokens_input(), tokens_input()
    table = layers.Embedding(VOCABULARY, WIDTH, name="tokens")
    added = layer(rows, WIDTH)
    backbone = keras.Model(ids, added(table(ids)))
    assert check_tied(backbone) == []
    head = EmbeddingDense(table, name="head")
    tied = [(head, table, table.weights[0], True)]
    assert check_tied(keras.Model(ids, head(added(table(ids))))) == tied
    assert check_tied(keras.Model(again, head(backbone(again)))) == tied


def test_a_square_table_is_that_of_a_head_where_it_is_looked_up():
    ids = tokens_input()
    table = layers.Embedding(WIDTH, WIDTH, name="tokens")
    holder = HoldsTable(table, name="holder")
    model = keras.Model(ids, holder(table(ids)), name="whole")
    assert check_tied(model) == [(holder, table, table.weights[0], True)]
    with pytest.raises(InputError, match="'holder' in 'whole' has a table 'tokens'"):
        check_tied(keras.models.clone_model(model))


@pytest.mark.parametrize("given", ["model", layers.Dense(2), None])
def test_what_is_no_model_is_refused(given):
    with pytest.raises(InputError, match="check_tied: expected a model, received"):
        check_tied(given)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_a_lookup_inside_of_a_layer_is_one(dtype):
    ids = keras.Input((WIDTH,), dtype=dtype)
    looks_up = LooksUp()
    head = EmbeddingDense(looks_up.token_embedding, name="head")
    (tie,) = check_tied(keras.Model(ids, head(looks_up(ids))))
    assert tie.looked_up
    assert tie.embedding is looks_up.token_embedding


def test_two_tables_of_different_names_do_not_belong_together():
    """A head that stands alone, beside another lookup."""
    ids, hidden = tokens_input(), keras.Input((None, WIDTH))
    other = layers.Embedding(VOCABULARY, WIDTH, name="segments")
    _, _, head = parts()
    (tie,) = check_tied(keras.Model([ids, hidden], [other(ids), head(hidden)]))
    assert not tie.looked_up
