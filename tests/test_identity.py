"""The map and the set by identity, with keys that are equal and keys without a hash."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from tiedbert._identity import IdentityMap, IdentitySet


def test_equal_keys_are_two():
    one, two = [1], [1]
    names = IdentityMap([(one, "one")])
    names[two] = "two"
    assert names[one] == "one"
    assert names[two] == "two"
    assert list(names.values()) == ["one", "two"]
    assert [1] not in names


def test_keys_need_no_hash():
    variable = tf.Variable(1.0)
    array = np.zeros(2)
    names = IdentityMap({None: 0}.items())
    names.update([(variable, 1), (array, 2)])
    assert names.get(variable) == 1
    assert names.get(tf.constant(1.0)) is None
    assert names.get(tf.constant(1.0), 3) == 3
    assert names.setdefault(array, 4) == 2
    assert names.pop(array) == 2
    assert len(names) == 2
    with pytest.raises(KeyError):
        names[array]


def test_a_key_lives_as_long_as_its_entry():
    """Else a new object could get its `id`."""

    class Key:
        pass

    key = Key()
    alive = weakref.ref(key)
    names, kept = IdentityMap([(key, 1)]), IdentitySet([key])
    del key
    gc.collect()
    assert alive() in names
    names.clear()
    assert alive() in kept
    kept.clear()
    gc.collect()
    assert alive() is None


def test_the_set_keeps_the_order_and_the_first():
    a, b, c = [0], [0], [0]
    found = IdentitySet([b, a, b])
    found.update([c, a])
    assert [id(x) for x in found] == [id(b), id(a), id(c)]
    found.add(b)
    found.discard(a)
    found.discard([0])
    assert len(found) == 2
    assert a not in found
    assert found.isdisjoint([a])
    assert [id(x) for x in found - IdentitySet([b])] == [id(c)]
