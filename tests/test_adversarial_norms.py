"""Norms, projections, draws, and the balls that perturbations stay in."""

import numpy as np
import pytest
import tensorflow as tf

from tiedbert.adversarial import WarmUp
from tiedbert.adversarial.norms import NORMS, restrict, rms
from tiedbert.adversarial.perturbation_ball import Ball
from tiedbert.adversarial.schedules import value_at
from tiedbert.errors import InputError

L2, LINF, PER_TOKEN = NORMS["l2"], NORMS["linf"], NORMS["l2_per_token"]
every_norm = pytest.mark.parametrize("name", list(NORMS))


def oracle(name, delta):
    """The norm of each example, float64 in NumPy."""
    delta = np.asarray(tf.cast(delta, tf.float64))
    if name == "l2_per_token":
        return np.sqrt(np.square(delta).sum(-1)).reshape(len(delta), -1).max(1)
    flat = delta.reshape(len(delta), -1)
    return np.linalg.norm(flat, 2 if name == "l2" else np.inf, axis=1)


def ball(name, epsilon, hidden, mask=None, relative=False, chosen=None):
    return Ball(name, epsilon, relative, [hidden], [mask], chosen)


# Norms


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float32", 1e-30),
        ("float32", 1e30),
        ("float16", 6e-8),  # the smallest number that float16 has
        ("float16", 6e4),
        ("bfloat16", 1e-30),
        ("bfloat16", 1e30),
    ],
)
def test_norms_neither_overflow_nor_underflow(dtype, size):
    delta = tf.cast([[size, 0.0, -size], [0.0, size, 0.0]], dtype)
    exact = float(delta[1, 1])  # `size`, rounded
    half = np.sqrt(0.5)
    unit = [[half, 0.0, -half], [0.0, 1.0, 0.0]]
    for norm in (L2, PER_TOKEN):
        found = norm.size(delta)
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, [exact * np.sqrt(2), exact], rtol=1e-6)
        np.testing.assert_allclose(norm.direction(delta), unit, rtol=1e-6)
    np.testing.assert_allclose(LINF.size(delta), [exact, exact], rtol=1e-6)
    signs = [[1, 0, -1], [0, 1, 0]]
    np.testing.assert_array_equal(LINF.direction(delta), signs)
    np.testing.assert_allclose(NORMS["linf_scaled"].direction(delta), signs, rtol=1e-6)


def test_the_largest_numbers_have_a_direction_and_a_nearest_point():
    """Their norm is no float32 any more."""
    largest = tf.constant([[3e38, 3e38]])
    for norm in (L2, PER_TOKEN):
        direction = norm.direction(largest)
        np.testing.assert_allclose(direction, [[np.sqrt(0.5)] * 2], rtol=1e-6)
        nearest = norm.project(largest, tf.constant([2.0]))
        np.testing.assert_allclose(nearest, [[np.sqrt(2.0)] * 2], rtol=1e-6)


@every_norm
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_a_norm_is_that_of_each_example_over_all_other_axes(name, shape):
    delta = tf.random.normal(shape)
    found = NORMS[name].size(delta)
    np.testing.assert_allclose(found, oracle(name, delta), rtol=1e-6)


@every_norm
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_no_step_of_size_one_climbs_higher_than_the_direction(name, shape):
    """Its product with the gradient is the dual norm of that, where it is a norm's."""
    gradient = tf.random.normal(shape)
    norm = NORMS[name]
    direction = norm.direction(gradient)
    np.testing.assert_allclose(norm.size(direction), [1.0, 1.0], rtol=1e-6)
    climbed = tf.reduce_sum(direction * gradient, list(range(1, len(shape)))).numpy()
    g = np.asarray(gradient, np.float64)
    tokens = np.sqrt(np.square(g).sum(-1)).reshape(2, -1).sum(1)
    total, largest = np.abs(g).reshape(2, -1).sum(1), oracle("linf", g)
    squares = np.square(g).reshape(2, -1).sum(1)
    dual = {
        "l2": np.sqrt(squares),
        "linf": total,
        "linf_scaled": squares / largest,
        "l2_per_token": tokens,
    }
    np.testing.assert_allclose(climbed, dual[name], rtol=1e-5)


@every_norm
def test_a_gradient_of_zero_has_the_direction_zero(name):
    direction = NORMS[name].direction(tf.constant([[0.0, 0.0], [0.0, 2.0]]))
    assert direction.numpy().tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_tokens_have_a_direction_each():
    gradient = tf.constant([[[3.0, 4.0], [0.0, 0.0], [0.0, 1e-20]]])
    direction = PER_TOKEN.direction(gradient)
    np.testing.assert_allclose(direction, [[[0.6, 0.8], [0, 0], [0, 1]]], rtol=1e-6)


# Projections


@every_norm
def test_what_is_inside_is_not_touched_by_projection(name):
    delta = tf.random.uniform([5, 3, 4], -1.0, 1.0)
    radius = NORMS[name].size(delta)
    np.testing.assert_array_equal(NORMS[name].project(delta, radius), delta)


NEAREST = {
    "l2": [[3 / np.sqrt(17), 0], [2 / np.sqrt(17), 2 / np.sqrt(17)]],
    "linf": [[1, 0], [1, 1]],
    "linf_scaled": [[1, 0], [1, 1]],
    "l2_per_token": [[1, 0], [np.sqrt(0.5), np.sqrt(0.5)]],
}


@every_norm
def test_projection_gives_the_nearest_point(name):
    delta = tf.constant([[[3.0, 0.0], [2.0, 2.0]], [[0.1, 0.2], [0.3, 0.4]]])
    found = NORMS[name].project(delta, tf.constant([1.0, 1.0]))
    np.testing.assert_allclose(found[0], NEAREST[name], rtol=1e-6)
    np.testing.assert_array_equal(found[1], delta[1])


@every_norm
def test_the_ball_of_radius_zero_is_its_middle(name):
    found = NORMS[name].project(tf.ones([2, 3, 4]), tf.zeros([2]))
    assert not np.any(found)


# Draws


@every_norm
@pytest.mark.parametrize("shape", [(200, 6), (200, 3, 2), (200, 3, 2, 2)])
def test_a_draw_is_in_the_ball_and_uses_it(name, shape):
    mask = tf.constant([[True, True, False]] * 200) if len(shape) > 2 else None
    hidden = tf.zeros(shape)
    found = ball(name, 2.0, hidden, mask).random()[0]
    sizes = oracle(name, found)
    assert np.all(sizes <= 2.0 + 1e-6)
    if mask is not None:
        assert not np.any(found[:, 2])
    # The corners of the cube are on the sphere of the numbers that may be perturbed.
    moving = np.asarray(found if mask is None else found[:, :2])
    count = moving[0].size if name == "l2" else moving.shape[-1]
    side = 2.0 / (np.sqrt(count) if name.startswith("l2") else 1.0)
    assert 0.99 * side < np.abs(moving).max() <= side + 1e-6
    assert abs(moving.mean()) < 0.1 * side
    assert moving.std() == pytest.approx(side / np.sqrt(3.0), rel=0.05)


def test_a_normal_draw_has_the_standard_deviation_epsilon():
    hidden = tf.ones([3, 5000]) * [[1.0], [2.0], [0.0]]
    absolute = ball("l2", 0.5, hidden).normal()[0]
    np.testing.assert_allclose(np.std(absolute, axis=1), 0.5, rtol=0.05)
    relative = ball("l2", 0.5, hidden, relative=True).normal()[0]
    np.testing.assert_allclose(np.std(relative, axis=1), [0.5, 1.0, 0.0], rtol=0.05)


# Positions and units


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 2), (1, 3, 2, 2)])
def test_a_mask_applies_to_all_axes_after_time(shape):
    wild = tf.fill(shape, np.nan)
    restricted = restrict(wild, tf.constant([[True, False, True]]))
    assert np.all(np.isnan(restricted[:, ::2]))
    assert np.all(restricted[:, 1] == 0)


def test_a_mask_may_have_several_axes():
    mask = tf.constant([[[True, False], [False, False], [True, True]]])
    hidden = tf.fill([1, 3, 2, 4], 2.0)
    restricted = restrict(hidden, mask)
    np.testing.assert_array_equal(np.any(restricted, axis=-1), mask)
    np.testing.assert_allclose(rms(hidden, mask), [2.0], rtol=1e-6)


def test_the_root_mean_square_counts_only_what_the_mask_allows():
    hidden = tf.constant([[[3.0, 4.0], [100.0, 0.0]], [[1.0, 1.0], [5.0, 5.0]]])
    mask = tf.constant([[True, False], [False, False]])
    np.testing.assert_allclose(rms(hidden, mask), [np.sqrt(12.5), 0.0], rtol=1e-6)
    everywhere = [np.sqrt(10025 / 4), np.sqrt(13.0)]
    np.testing.assert_allclose(rms(hidden), everywhere, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "size"), [("float16", 6e4), ("bfloat16", 1e30)])
def test_the_root_mean_square_does_not_overflow(dtype, size):
    hidden = tf.cast([[size, -size]], dtype)
    exact = abs(float(hidden[0, 0]))
    np.testing.assert_allclose(rms(hidden), [exact], rtol=1e-6)


# Steps


@every_norm
@pytest.mark.parametrize("relative", [False, True])
def test_the_first_step_is_of_the_radius_and_size_gives_it_back(name, relative):
    hidden = tf.random.normal([3, 4, 2]) * 5
    epsilon = 1.5
    inside = ball(name, epsilon, hidden, relative=relative)
    delta = inside.step(None, [tf.random.normal([3, 4, 2])]).delta
    np.testing.assert_allclose(inside.size(delta), [epsilon] * 3, rtol=1e-6)
    unit = np.sqrt(np.square(hidden).mean((1, 2))) if relative else np.ones(3)
    np.testing.assert_allclose(oracle(name, delta[0]), epsilon * unit, rtol=1e-5)


@every_norm
def test_the_step_and_the_radius_are_separate(name):
    """From zero by 0.5 within 2: four steps reach the border, a fifth stays there."""
    inside = ball(name, 2.0, tf.zeros([2, 3, 4]))
    gradient = [tf.random.normal([2, 3, 4])]
    delta = None
    for reached in (0.5, 1.0, 1.5, 2.0, 2.0):
        delta = inside.step(delta, gradient, 0.5).delta
        np.testing.assert_allclose(inside.size(delta), [reached] * 2, rtol=1e-5)
    long = inside.step(None, gradient, 100.0).delta
    np.testing.assert_allclose(inside.size(long), [2.0] * 2, rtol=1e-6)


def test_a_step_counts_only_what_the_mask_allows():
    inside = ball("l2", 1.0, tf.zeros([1, 3, 1]), tf.constant([[True, True, False]]))
    found = inside.step(None, [tf.constant([[[3.0], [4.0], [np.nan]]])])
    np.testing.assert_allclose(found.delta[0], [[[0.6], [0.8], [0.0]]], rtol=1e-6)
    assert found.failed.numpy().tolist() == [0.0]


def test_an_example_that_the_mask_excludes_is_not_perturbed():
    for name in NORMS:
        nowhere = tf.constant([[False, False]])
        inside = ball(name, 1.0, tf.ones([1, 2, 2]), nowhere, relative=True)
        delta = inside.step(None, [tf.ones([1, 2, 2])]).delta
        assert not np.any(delta[0])
        assert inside.size(delta).numpy().tolist() == [0.0]


@every_norm
@pytest.mark.parametrize("wild", [np.nan, np.inf, -np.inf])
def test_an_example_without_a_finite_gradient_is_not_perturbed(name, wild):
    """It is counted; the others move as without it."""
    inside = ball(name, 1.0, tf.zeros([3, 4]))
    gradient = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    start = inside.random()
    tame = inside.step(start, [tf.constant(gradient)], 0.1)
    gradient[1, 2] = wild
    found = inside.step(start, [tf.constant(gradient)], 0.1)
    assert not np.any(found.delta[0][1])
    np.testing.assert_array_equal(found.delta[0][::2], tame.delta[0][::2])
    assert tame.failed.numpy().tolist() == [0.0, 0.0, 0.0]
    assert found.failed.numpy().tolist() == [0.0, 1.0, 0.0]
    later = inside.step(found.delta, [tf.ones([3, 4])], 0.1, found.failed)
    assert not np.any(later.delta[0][1])
    assert np.all(later.delta[0][::2] != 0)
    np.testing.assert_array_equal(later.failed, found.failed)


def test_a_resized_ball_is_another_one():
    small = ball("l2", 1.0, tf.ones([1, 2]) * 3, relative=True)
    gradient = [tf.ones([1, 2])]
    for inside, epsilon in ((small.resized(5.0), 5.0), (small, 1.0)):
        delta = inside.step(None, gradient).delta
        np.testing.assert_allclose(L2.size(delta[0]), [3 * epsilon], rtol=1e-6)


def test_a_resized_ball_keeps_mask_and_choice():
    mask = tf.constant([[True, False]])
    hidden, gradient = tf.ones([1, 2, 3]), [tf.ones([1, 2, 3])]
    for chosen, moved in (1.0, [True, False]), (0.0, [False, False]):
        inside = Ball("l2", 1.0, False, [hidden], [mask], [chosen]).resized(2.0)
        (delta,) = inside.step(None, gradient).delta
        assert np.any(delta[0], axis=-1).tolist() == moved
        np.testing.assert_allclose(inside.size([delta]), 2.0 * chosen, rtol=1e-6)


def test_several_points_have_a_ball_each():
    hidden = [tf.ones([2, 3]), tf.fill([2, 4], 2.0)]
    inside = Ball("l2", 1.0, True, hidden, [None, None])
    delta = inside.step(None, [tf.ones([2, 3]), tf.ones([2, 4])]).delta
    np.testing.assert_allclose([L2.size(d) for d in delta], [[1, 1], [2, 2]], rtol=1e-6)
    np.testing.assert_allclose(inside.size(delta), [1.0, 1.0], rtol=1e-6)


def test_a_point_that_is_not_chosen_does_not_move():
    hidden = [tf.ones([2, 3]), tf.ones([2, 3])]
    inside = Ball("l2", 1.0, False, hidden, [None, None], [0.0, 1.0])
    gradient = [tf.ones([2, 3])] * 2
    for delta in (
        inside.step(None, gradient).delta,
        inside.step(None, gradient, 0.5).delta,
        inside.random(),
        inside.normal(),
    ):
        assert not np.any(delta[0])
        assert np.all(delta[1] != 0)


def test_a_cut_point_without_a_gradient_is_an_error_that_says_so():
    with pytest.raises(InputError, match="only through operations without a gradient"):
        ball("l2", 1.0, tf.ones([1, 2])).step(None, [None])


# Schedules


def test_a_warm_up_is_linear_and_then_constant():
    steps = tf.range(6, dtype=tf.int64)
    found = [float(value_at(WarmUp(3.0, steps=4), step)) for step in steps]
    np.testing.assert_allclose(found, [0.0, 0.75, 1.5, 2.25, 3.0, 3.0], rtol=1e-6)


def test_any_function_of_the_step_is_a_schedule():
    assert float(value_at(lambda step: step * 2, tf.constant(4, tf.int64))) == 8.0
    assert float(value_at(3, tf.constant(4, tf.int64))) == 3.0


def test_a_schedule_that_falls_below_zero_is_at_zero():
    found = [float(value_at(lambda step: 1.5 - step, step)) for step in range(4)]
    assert found == [1.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("given", [None, "1", True, [1.0, 2.0], tf.constant(False)])
def test_a_schedule_gives_a_number(given):
    with pytest.raises(InputError, match="epsilon: expected a function that gives a n"):
        value_at(lambda step: given, tf.constant(4, tf.int64))
