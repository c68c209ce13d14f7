"""The chunked loss against the plain formula, differentiated by TensorFlow."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from variants import others_slow, slow

from tiedbert.errors import InputError
from tiedbert.losses import tied_cross_entropy, tied_cross_entropy_by_position

VOCABULARY, WIDTH = 11, 4
OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 0.01},
    {"label_smoothing": 0.2, "z_loss": 0.1},
]
COMPILED = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": tf.function(jit_compile=True),
}
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)
every_mode = pytest.mark.parametrize("mode", COMPILED)


def plain(hidden, table, bias, labels, weights, label_smoothing=0.0, z_loss=0.0):
    """All logits at once."""
    logits = tf.matmul(hidden, table, transpose_b=True)
    logits = logits if bias is None else logits + bias
    one_hot = tf.one_hot(labels, table.shape[0], dtype=logits.dtype)
    targets = (1.0 - label_smoothing) * one_hot + label_smoothing / table.shape[0]
    each = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    each += z_loss * tf.reduce_logsumexp(logits, axis=-1) ** 2
    return tf.reduce_sum(weights * each) / tf.reduce_sum(weights)


def sample(count=10, leading=None, vocabulary=VOCABULARY, width=WIDTH, seed=0):
    """hidden, table, bias, labels, weights."""
    draw = np.random.default_rng(seed)
    leading = leading or (count,)
    return (
        tf.constant(draw.normal(size=(*leading, width)), tf.float32),
        tf.constant(draw.normal(size=(vocabulary, width)), tf.float32),
        tf.constant(draw.normal(size=vocabulary), tf.float32),
        tf.constant(draw.integers(0, vocabulary, leading), tf.int32),
        tf.constant(draw.random(leading), tf.float32),
    )


def with_gradients(loss, values, labels, weights, *args, **options):
    """The loss times three, so that the upstream gradient counts, and gradients."""
    with tf.GradientTape() as tape:
        tape.watch(values)
        value = 3.0 * loss(*values, labels, weights, *args, **options)
    return value, tape.gradient(value, values)


def assert_as_plain(found, expected, rtol=1e-5, atol=1e-6):
    value, gradients = found
    right, right_gradients = expected
    np.testing.assert_allclose(value, right, rtol=rtol)
    for gradient, good in zip(gradients, right_gradients, strict=True):
        np.testing.assert_allclose(gradient, good, rtol=rtol, atol=atol)


CASES = [("eager", options, size) for options in OPTIONS for size in (None, 1, 3)]
CASES += [("graph", options, 3) for options in OPTIONS]
CASES += [slow("graph", options, size) for options in OPTIONS for size in (None, 1)]
# Compiling takes a second: once without a loop and once with all that there is.
CASES += [("xla", OPTIONS[0], None), ("xla", OPTIONS[3], 3)]


@pytest.mark.cases(6)
@pytest.mark.parametrize(("mode", "options", "chunk_size"), CASES, ids=str)
def test_value_and_gradients_are_those_of_the_formula(mode, options, chunk_size):
    *values, labels, weights = sample()

    def ours():
        return with_gradients(
            tied_cross_entropy, values, labels, weights, chunk_size, **options
        )

    expected = with_gradients(plain, values, labels, weights, **options)
    assert_as_plain(COMPILED[mode](ours)(), expected)


@pytest.mark.cases(1)
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("count", [slow(1), slow(2), 7, 12])
def test_a_number_of_positions_known_only_later(count, jit_compile):
    specs = [
        tf.TensorSpec([None, WIDTH]),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None]),
    ]
    hidden, table, bias, labels, weights = sample(count)

    @tf.function(input_signature=specs, jit_compile=jit_compile)
    def ours(hidden, labels, weights):
        values = [hidden, table, bias]
        return with_gradients(tied_cross_entropy, values, labels, weights, 5)

    expected = with_gradients(plain, [hidden, table, bias], labels, weights)
    assert_as_plain(ours(hidden, labels, weights), expected)


@pytest.mark.cases(1)
@every_mode
@pytest.mark.parametrize("options", others_slow(OPTIONS[3:], OPTIONS))
def test_second_derivatives(mode, options):
    """Through every first derivative, whatever is made of it."""
    *values, labels, weights = sample()

    def second(loss, *args):
        with tf.GradientTape() as outer:
            outer.watch(values)
            with tf.GradientTape() as inner:
                inner.watch(values)
                value = loss(*values, labels, weights, *args, **options)
            first = inner.gradient(value, values)
            total = value + sum(tf.reduce_sum(tf.sin(part)) for part in first)
        return total, outer.gradient(total, values)

    found = COMPILED[mode](lambda: second(tied_cross_entropy, 3))()
    assert_as_plain(found, second(plain))


@every_option
def test_gradients_are_those_of_finite_differences(options):
    """An oracle without any automatic derivative; float64 is exact enough."""
    *values, labels, weights = sample(count=3, vocabulary=4, width=2)
    _, gradients = with_gradients(
        tied_cross_entropy, values, labels, weights, 2, **options
    )
    values = [value.numpy().astype(np.float64) for value in values]
    weights = tf.cast(weights, tf.float64)
    for value, gradient in zip(values, gradients, strict=True):
        for place in itertools.product(*map(range, value.shape)):
            sides = []
            for step in (1e-5, -1e-5):
                value[place] += step
                given = [tf.constant(part) for part in values]
                sides.append(3.0 * plain(*given, labels, weights, **options))
                value[place] -= step
            slope = (sides[0] - sides[1]) / 2e-5
            np.testing.assert_allclose(gradient[place], slope, rtol=1e-4, atol=1e-6)


def test_two_positions_by_hand():
    """Logits 1, 0, 5 and 0, -2, -6; labels 2 and 0; the second counts threefold."""
    table = tf.constant([[1.0, 0.0], [0.0, 2.0], [5.0, 6.0]])
    hidden = tf.constant([[1.0, 0.0], [0.0, -1.0]])
    result = tied_cross_entropy_by_position(hidden, table, None, [2, 0], [1.0, 3.0])
    first = np.log(np.exp([1, 0, 5]).sum()) - 5
    second = np.log(np.exp([0, -2, -6]).sum())
    np.testing.assert_allclose(result.cross_entropy, [first, second], rtol=1e-5)
    np.testing.assert_allclose(result.loss, (first + 3 * second) / 4, rtol=1e-5)
    assert result.correct.numpy().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("leading", [(6,), (2, 3), (2, 3, 1), (1, 1, 6)])
def test_any_number_of_leading_axes(leading):
    hidden, table, bias, labels, weights = sample(leading=leading)
    result = tied_cross_entropy_by_position(hidden, table, bias, labels, weights, 4)
    np.testing.assert_allclose(
        result.loss, plain(hidden, table, bias, labels, weights), rtol=1e-5
    )
    logits = tf.matmul(tf.reshape(hidden, [-1, WIDTH]), table, transpose_b=True) + bias
    logits = tf.reshape(logits, [*leading, VOCABULARY])
    np.testing.assert_allclose(
        result.cross_entropy,
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits),
        rtol=1e-5,
    )
    np.testing.assert_array_equal(result.correct, np.argmax(logits, -1) == labels)
    np.testing.assert_array_equal(result.weights, weights)


def test_no_bias_and_no_weights():
    hidden, table, _, labels, _ = sample()
    loss = tied_cross_entropy(hidden, table, None, labels, chunk_size=3)
    ones = tf.ones(labels.shape)
    expected = plain(hidden, table, None, labels, ones)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("ignore_index", [-100, -1, 0])
def test_ignored_positions_are_as_if_they_were_not_there(ignore_index):
    hidden, table, bias, labels, weights = sample()
    labels = tf.where(labels == ignore_index, 1, labels)
    ignored = np.arange(10) % 3 == 0
    with_ignored = tf.where(ignored, ignore_index, labels)
    values = [hidden, table, bias]
    value, gradients = with_gradients(
        tied_cross_entropy, values, with_ignored, weights, 4, ignore_index=ignore_index
    )
    kept = [tf.boolean_mask(part, ~ignored) for part in (hidden, labels, weights)]
    right, right_gradients = with_gradients(plain, [kept[0], table, bias], *kept[1:])
    assert np.all(gradients[0][ignored] == 0)
    shown = [tf.boolean_mask(gradients[0], ~ignored), *gradients[1:]]
    assert_as_plain((value, shown), (right, right_gradients))
    result = tied_cross_entropy_by_position(
        *values, with_ignored, weights, ignore_index=ignore_index
    )
    for rows in (result.cross_entropy, result.correct, result.weights):
        assert np.all(rows[ignored] == 0)


def test_nothing_that_counts_is_a_loss_of_zero():
    *values, labels, weights = sample()
    value, gradients = with_gradients(
        tied_cross_entropy, values, tf.fill(labels.shape, -100), weights, 4
    )
    assert value == 0
    assert all(np.all(gradient == 0) for gradient in gradients)


def test_no_positions_are_a_loss_of_zero():
    hidden, table, bias, labels, _ = sample()
    assert tied_cross_entropy(hidden[:0], table, bias, labels[:0]) == 0


def test_the_scale_of_the_weights_does_not_matter():
    *values, labels, weights = sample()
    for scale in (1e-6, 1e6):
        found = with_gradients(tied_cross_entropy, values, labels, scale * weights, 3)
        expected = with_gradients(plain, values, labels, weights)
        assert_as_plain(found, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@every_option
def test_half_precision_sums_in_float32(dtype, options):
    """The oracle gets the same rounded numbers, and computes in float32."""
    hidden, table, bias, labels, weights = sample(count=64, vocabulary=50, width=8)
    hidden = tf.cast(hidden, dtype)
    rounded = tf.cast(tf.cast(table, dtype), tf.float32)
    value, gradients = with_gradients(
        tied_cross_entropy, [hidden, table, bias], labels, weights, 5, **options
    )
    whole = [tf.cast(hidden, tf.float32), rounded, bias]
    right, right_gradients = with_gradients(plain, whole, labels, weights, **options)
    assert [value.dtype, *(g.dtype.name for g in gradients)] == [
        "float32",
        dtype,
        "float32",
        "float32",
    ]
    error = 1e-2 if dtype == "bfloat16" else 2e-3
    np.testing.assert_allclose(value, right, rtol=error)
    for gradient, good in zip(gradients, right_gradients, strict=True):
        largest = np.abs(good).max()
        np.testing.assert_allclose(
            tf.cast(gradient, tf.float32), good, rtol=0, atol=2 * error * largest
        )


@pytest.mark.parametrize("chunk_size", [None, 1000])
def test_float16_does_not_overflow_where_many_positions_have_one_label(chunk_size):
    """Each adds ten to a row of the table's gradient, and 65,504 is the largest."""
    count = 40_000
    hidden = tf.fill([count, 1], tf.constant(10.0, tf.float16))
    labels = tf.zeros([count], tf.int32)
    table = tf.zeros([10, 1])
    with tf.GradientTape() as tape:
        tape.watch(table)
        loss = tied_cross_entropy(hidden, table, None, labels, None, chunk_size)
    expected = [[-9.0]] + [[1.0]] * 9
    np.testing.assert_allclose(tape.gradient(loss, table), expected, rtol=1e-3)


def test_shapes_known_only_later_are_compared_then():
    specs = [tf.TensorSpec([None, None, WIDTH]), tf.TensorSpec([None, None], tf.int32)]
    _, table, bias, _, _ = sample()

    @tf.function(input_signature=specs)
    def loss(hidden, labels):
        return tied_cross_entropy(hidden, table, bias, labels)

    hidden = tf.ones([2, 6, WIDTH])
    assert loss(hidden, tf.ones([2, 6], tf.int32)) > 0
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels: expected the"):
        loss(hidden, tf.ones([6, 2], tf.int32))


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_weights_have_no_gradient(mode):
    *values, labels, weights = sample()

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = tied_cross_entropy(*values, labels, weights, 3)
        return tape.gradient(loss, weights)

    assert COMPILED[mode](gradient)() is None


def test_float16_keeps_the_gradients_of_rare_tokens():
    """Of rows that are no label: small probabilities, summed over many positions."""
    hidden, table, bias, labels, _ = sample(3000, vocabulary=2000, width=4)
    labels = tf.zeros_like(labels)
    half = tf.cast(hidden, tf.float16)
    ones = tf.ones(labels.shape)
    rounded = [
        tf.cast(half, tf.float32),
        tf.cast(tf.cast(table, half.dtype), "float32"),
    ]
    right = with_gradients(plain, [*rounded, bias], labels, ones)[1][1][1:]
    found = with_gradients(tied_cross_entropy, [half, table, bias], labels, ones)[1][1]
    error = tf.norm(found[1:] - right) / tf.norm(right)
    assert error < 2e-3


def test_float16_keeps_gradients_smaller_than_it_can_hold():
    """Ten thousand positions share the mean: each alone would vanish."""
    count = 10_000
    hidden = tf.ones([count, 1], tf.float16)
    table = tf.zeros([2, 1])
    labels = tf.zeros([count], tf.int32)
    with tf.GradientTape() as tape:
        tape.watch(table)
        loss = 1e-4 * tied_cross_entropy(hidden, table, None, labels, chunk_size=1000)
    gradient = tape.gradient(loss, table)
    np.testing.assert_allclose(gradient, [[-5e-5], [5e-5]], rtol=1e-3)


def test_a_variable_is_a_table():
    hidden, table, bias, labels, weights = sample()
    variable = tf.Variable(table)
    with tf.GradientTape() as tape:
        loss = tied_cross_entropy(hidden, variable, bias, labels, weights)
    expected = with_gradients(plain, [hidden, table, bias], labels, weights)[1][1]
    np.testing.assert_allclose(3.0 * tape.gradient(loss, variable), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_any_integers_are_labels(dtype):
    hidden, table, bias, labels, weights = sample()
    expected = plain(hidden, table, bias, labels, weights)
    loss = tied_cross_entropy(hidden, table, bias, tf.cast(labels, dtype), weights, 3)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_second_call_does_not_trace_again():
    traces = []

    @tf.function
    def loss(hidden, table, bias, labels, weights):
        traces.append(1)
        return tied_cross_entropy(hidden, table, bias, labels, weights, 3)

    for seed in range(3):
        loss(*sample(seed=seed))
    assert len(traces) == 1


def shapes_in(graph):
    """Shapes of all that a graph computes, in the loops too."""
    for operation in graph.get_operations():
        for output in operation.outputs:
            yield output.shape.as_list() if output.shape.rank is not None else []
    for name in graph._functions:
        function = graph._get_function(name)
        yield from shapes_in(getattr(function, "graph", tf.Graph()))


def test_logits_exist_a_chunk_at_a_time():
    *values, labels, weights = sample(count=12, width=2)

    def graph_of(chunk_size):
        def step(*values):
            return with_gradients(
                tied_cross_entropy, values, labels, weights, chunk_size
            )

        return tf.function(step).get_concrete_function(*values).graph

    def largest(chunk_size):
        shapes = list(shapes_in(graph_of(chunk_size)))
        return max(shape[0] for shape in shapes if shape[1:] == [VOCABULARY])

    assert largest(12) == 12
    assert largest(3) == 3


def test_chunks_run_one_after_another():
    *values, labels, weights = sample(count=12)
    step = tf.function(lambda *values: tied_cross_entropy(*values, labels, weights, 3))
    operations = step.get_concrete_function(*values).graph.get_operations()
    (loop,) = [op for op in operations if "While" in op.type]
    assert loop.get_attr("parallel_iterations") == 1


def test_the_gradient_makes_no_product_again():
    """Three products with the table in all, in the loop; none after it."""
    *values, labels, weights = sample(count=12)
    products = []
    for chunk_size in (12, 3):

        def step(*values, size=chunk_size):
            return with_gradients(tied_cross_entropy, values, labels, weights, size)

        graph = tf.function(step).get_concrete_function(*values).graph
        bodies = [graph] + [
            graph._get_function(name).graph for name in graph._functions
        ]
        products.append(
            sum(op.type == "MatMul" for body in bodies for op in body.get_operations())
        )
    # And one with a column for the bias.
    assert products == [4, 4]


@pytest.mark.parametrize(
    ("count", "vocabulary", "chunks"),
    [(4864, 30_522, 19), (320, 30_522, 1), (600, 30_522, 2), (4096, 1000, 1)],
)
def test_chunks_are_chosen_from_positions_and_vocabulary(count, vocabulary, chunks):
    """256 positions are the fewest worth a chunk; a small vocabulary has room for all.

    The loop counts to the number of chunks; without a loop there is one.
    """
    *values, labels, weights = sample(count, vocabulary=vocabulary, width=2)
    step = tf.function(lambda *values: tied_cross_entropy(*values, labels, weights))
    graph = step.get_concrete_function(*values).graph
    sizes = {shape[0] for shape in shapes_in(graph) if shape[1:] == [vocabulary]}
    loops = [op for op in graph.get_operations() if "While" in op.type]
    assert len(loops) == (chunks > 1)
    assert max(sizes - {None, vocabulary}) == -(-count // chunks)


def test_replicas_share_the_work(mirrored):
    """The mean over two replicas of means over halves of equal weight."""
    hidden, table, bias, labels, _ = sample(count=8)
    with mirrored.scope():
        variable = tf.Variable(table)
        optimizer = tf.keras.optimizers.SGD(1.0)
        optimizer.build([variable])
    halves = tf.data.Dataset.from_tensor_slices((hidden, labels)).batch(8)

    def step(hidden, labels):
        with tf.GradientTape() as tape:
            loss = tied_cross_entropy(hidden, variable, bias, labels, None, 3) / 2.0
        gradient = tape.gradient(loss, variable)
        optimizer.apply_gradients([(gradient, variable)])
        return loss

    @tf.function
    def train(batch):
        per_replica = mirrored.run(step, batch)
        return mirrored.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)

    loss = train(next(iter(mirrored.experimental_distribute_dataset(halves))))
    ones = tf.ones(labels.shape)
    right, gradients = with_gradients(plain, [hidden, table, bias], labels, ones)
    np.testing.assert_allclose(3.0 * loss, right, rtol=1e-5)
    expected = table - gradients[1] / 3.0
    for copy in mirrored.experimental_local_results(variable):
        np.testing.assert_allclose(copy, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hidden": tf.ones([10, 4], tf.int32)},
            "hidden: expected floats, received",
        ),
        ({"hidden": tf.ones([10, 5])}, r"hidden: expected shape \(4,\) at the end"),
        ({"table": tf.ones([11])}, r"table: expected \[vocab, width\], received \(11,"),
        ({"bias": tf.ones([10])}, r"bias: expected shape \(11,\) .* received \(10,\)"),
        ({"labels": tf.ones([9], tf.int32)}, r"labels: expected shape \(10,\) .* \(9,"),
        ({"labels": tf.ones([10])}, "labels: expected integers, received float32"),
        ({"weights": tf.ones([2, 5])}, r"weights: expected shape \(10,\) .*\(2, 5\)"),
        ({"chunk_size": 0}, "chunk_size: an integer of at least 1 was expected, .* 0$"),
        ({"chunk_size": 4.0}, r"chunk_size: an integer .* received 4\.0$"),
        ({"label_smoothing": 1.0}, "label_smoothing: at least 0 and below 1 was exp"),
        ({"z_loss": -1.0}, "z_loss: at least 0 was expected, received -1.0"),
        ({"weights": [1.0, 2.0]}, r"weights: expected shape \(10,\) .* \(2,\)"),
        ({"bias": [1.0, 2.0]}, r"bias: expected shape \(11,\) .* received \(2,\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_belong_together_is_told(change, message):
    names = ["hidden", "table", "bias", "labels", "weights"]
    with pytest.raises(InputError, match=message):
        tied_cross_entropy(**{**dict(zip(names, sample(), strict=True)), **change})
