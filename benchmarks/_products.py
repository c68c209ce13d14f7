"""The matrix products of a step alone, and the best product of the machine."""

import time

import tensorflow as tf


class Products:
    """Products ``[rows, inner] @ [inner, columns]`` with those of their gradients.

    Args:
        shapes: list of ``(rows, inner, columns)`` or ``(rows, inner, columns, batch)``,
            `batch` being the axes before.
        dtype: of the numbers.

    Attributes:
        flops: floating-point operations of a call.
    """

    def __init__(self, shapes, dtype="float32"):
        self.flops = 0
        self._compiled = [self._three(dtype, *shape) for shape in shapes]

    def _three(self, dtype, rows, inner, columns, batch=()):
        a, b, c = (
            tf.cast(tf.random.normal([*batch, *shape]), dtype)
            for shape in ((rows, inner), (inner, columns), (rows, columns))
        )
        self.flops += 3 * 2 * rows * inner * columns * int(tf.reduce_prod(batch or [1]))

        @tf.function
        def products():
            return [
                tf.matmul(a, b)[..., 0, 0],
                tf.matmul(c, b, transpose_b=True)[..., 0, 0],
                tf.matmul(a, c, transpose_a=True)[..., 0, 0],
            ]

        return products

    def __call__(self):
        for products in self._compiled:
            products()


def best_product(dtype, sizes=(1024, 2048, 3072), repetitions=5):
    """GFLOP/s of the fastest square product."""
    found = []
    for size in sizes:
        a = tf.cast(tf.random.normal([size, size]), dtype)
        product = tf.function(lambda a=a: tf.matmul(a, a)[0, 0])
        product()
        for _ in range(repetitions):
            started = time.perf_counter()
            product().numpy()
            found.append(2e-9 * size**3 / (time.perf_counter() - started))
    return max(found)
