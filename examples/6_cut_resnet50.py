"""Cut ResNet50 at any layer: the two parts composed are the original.

    python examples/6_cut_resnet50.py        (about 6 seconds)

Expected: one tensor crosses a cut between two residual blocks. Two cross a cut inside
a block, the cut tensor and the shortcut. The difference is exactly 0.0 at both places.
"""

import tensorflow as tf
from tensorflow import keras

from tiedbert.surgery import split

keras.utils.set_random_seed(0)

resnet = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
images = tf.random.uniform([2, 64, 64, 3], maxval=255.0)
expected = resnet(images)

CUTS = {"between blocks": "conv4_block2_out", "inside a block": "conv4_block3_2_relu"}
for place, at in CUTS.items():
    front, rest = split(resnet, at)
    crossing = front(images)
    difference = float(tf.reduce_max(tf.abs(rest(crossing) - expected)))
    assert difference == 0.0

    disturbed = [crossing[0] + 1.0, *crossing[1:]]
    assert tf.reduce_any(rest(disturbed) != expected), "the rest uses what it is given"
    print(f"cut {place}: {len(crossing)} crossing, difference {difference}")
