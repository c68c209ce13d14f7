"""Under Keras 3, the models are those of bert4keras, which a Keras 2 process runs."""

import bert_zoo
import numpy as np
import pytest
import tensorflow as tf
from bert4keras_numbers import checkpoint_of, numbers, outputs_and_gradients
from bert_mlm import POSITIONS
from bert_samples import BATCH, scramble, write_config
from generation import IS_LEGACY
from variants import others_slow

from tiedbert.bert import (
    build_bert,
    load_google_checkpoint,
    masked_lm,
    save_google_checkpoint,
)
from tiedbert.bert.google_names import google_names
from tiedbert.bert.own_weights import own_weights

pytestmark = pytest.mark.skipif(IS_LEGACY, reason="there it is bert4keras itself")

BY_DEFAULT = ["bert-nsp", "albert-unilm", "nezha", "roformer_v2-mlm"]
names = pytest.mark.parametrize("name", others_slow(BY_DEFAULT, bert_zoo.OF_BOTH))


@pytest.fixture(scope="module")
def theirs(request, tmp_path_factory):
    """The numbers of bert4keras for the models that this run asks for."""
    asked = {
        item.callspec.params["name"]
        for item in request.session.items
        if item.path == request.path and "callspec" in vars(item)
    }
    path = tmp_path_factory.mktemp("numbers") / "numbers.npz"
    return {**numbers(sorted(asked), path), "path": path}


def ours(name, theirs, folder):
    """Our model of a name with the weights of theirs."""
    model = bert_zoo.build(name, folder)
    left = {key[2:] for key in theirs if key[:2] == (name, "weights")}
    for layer in model.layers:
        for index, weight in enumerate(own_weights(layer)):
            value = theirs[name, "weights", layer.name, index]
            assert tuple(weight.shape) == value.shape, (layer.name, index)
            weight.assign(value)
            left.discard((layer.name, index))
    assert not left, "a layer of bert4keras is missing"
    return model


@names
def test_outputs_and_gradients_are_those_of_bert4keras(name, theirs, tmp_path):
    model = ours(name, theirs, tmp_path)
    outputs, gradients = outputs_and_gradients(model, bert_zoo.inputs_of(model))
    for index, output in enumerate(outputs):
        assert_close(output, theirs[name, "outputs", index], 1e-5)
    compared = 0
    for layer in model.layers:
        pairs = [
            (
                gradients[weight._value.ref()],
                theirs[name, "gradients", layer.name, index],
            )
            for index, weight in enumerate(own_weights(layer))
            if (name, "gradients", layer.name, index) in theirs
        ]
        if pairs:
            # Of one layer together: that of the bias of keys is 0 but for rounding.
            found, expected = (
                np.concatenate([g.ravel() for g in side])
                for side in zip(*pairs, strict=True)
            )
            assert_close(found, expected, 1e-4)
            compared += len(pairs)
    assert compared == len(gradients)


def assert_close(found, expected, tolerance):
    """Up to rounding, beside the size of all numbers."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


STORED = [name for name in bert_zoo.OF_BOTH if not name.startswith("albert_unshared")]


@pytest.mark.parametrize("name", others_slow(BY_DEFAULT, STORED))
def test_a_checkpoint_of_either_is_that_of_the_other(name, theirs, tmp_path):
    _, kind = bert_zoo.options_of(name)
    written = checkpoint_of(theirs["path"], name)
    save_google_checkpoint(ours(name, theirs, tmp_path), tmp_path / "ours.ckpt", kind)
    found, expected = (
        tf.train.load_checkpoint(str(p)) for p in (tmp_path / "ours.ckpt", written)
    )
    shapes = expected.get_variable_to_shape_map()
    assert found.get_variable_to_shape_map() == shapes
    for variable in shapes:
        np.testing.assert_array_equal(
            found.get_tensor(variable), expected.get_tensor(variable)
        )
    model = bert_zoo.build(name, tmp_path)
    load_google_checkpoint(model, written, kind)
    whole = ours(name, theirs, tmp_path)
    stored = google_names(kind, 2)
    for layer in model.layers:
        if layer.name in stored:
            same = whole.get_layer(layer.name)
            for a, b in zip(own_weights(layer), own_weights(same), strict=True):
                np.testing.assert_array_equal(a, b)


OF_MASKED_LM = [n for n in bert_zoo.OF_BOTH if n.endswith("-mlm")]


@pytest.mark.parametrize("name", others_slow(["roformer_v2-mlm"], OF_MASKED_LM))
@pytest.mark.parametrize("early", [False, True])
def test_the_head_at_some_positions_is_bert4keras_own(name, early, theirs, tmp_path):
    whole = ours(name, theirs, tmp_path)
    _, kind = bert_zoo.options_of(name)
    encoder = bert_zoo.build(kind, tmp_path)
    model = masked_lm(encoder, early_gather=early)
    names_there = {layer.name: layer for layer in whole.layers}
    for layer in model.layers:
        if layer.name in names_there:
            same = names_there[layer.name]
            for a, b in zip(own_weights(layer), own_weights(same), strict=True):
                a.assign(b)
    logits = model([*bert_zoo.inputs_of(encoder), tf.constant(POSITIONS)])
    expected = theirs[name, "outputs", 0][np.arange(2)[:, None], POSITIONS]
    assert_close(tf.nn.softmax(logits).numpy(), expected, 1e-5)


def test_a_prefix_is_before_the_name_of_every_layer(tmp_path):
    """Else a checkpoint would leave out the head."""
    config = write_config(tmp_path)
    whole = scramble(build_bert(config, with_mlm=True))
    save_google_checkpoint(whole, tmp_path / "bert.ckpt")
    path = tmp_path / "bert.ckpt"
    model = build_bert(config, path, with_mlm=True, prefix="A-")
    assert all(layer.name.startswith("A-") for layer in model.layers)
    np.testing.assert_array_equal(model(BATCH), whole(BATCH))
