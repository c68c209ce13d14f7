"""The numbers and the files of ModernBERT in Hugging Face's transformers."""

import json

import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers
from our_numbers import assert_gradients_agree
from safetensors.numpy import load_file, save_file

from tiedbert.bert import build_bert, masked_lm
from tiedbert.bert.hugging_face.modern_config import check, describe
from tiedbert.bert.hugging_face.modern_tensors import read_values, stored_tensors
from tiedbert.bert.hugging_face.safetensors_files import StoredTensors
from tiedbert.errors import InputError

CONFIG = {
    "vocab_size": 101,
    "hidden_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "local_attention": 8,
    "pad_token_id": 100,
    "initializer_range": 0.2,
    "attention_dropout": 0.1,
    "embedding_dropout": 0.1,
    "mlp_dropout": 0.1,
}
DRAW = np.random.default_rng(2)
TIME, LENGTHS = 60, (60, 41, 13)
PRESENT = np.arange(TIME) < np.array(LENGTHS)[:, None]
TOKENS = np.where(PRESENT, DRAW.integers(0, 100, PRESENT.shape), 100).astype(np.int32)
POSITIONS = np.array([[1, 20, 59], [0, 17, 40], [3, 8, 12]], np.int32)
LABELS = DRAW.integers(0, 100, POSITIONS.shape).astype(np.int32)
UNPADDED = 1  # so many of the texts
ROWS = {"padded": slice(None), "unpadded": slice(UNPADDED)}


def random_theirs(name, attention="eager", **settings):
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(
        **{**CONFIG, **settings}, attn_implementation=attention
    )
    theirs = getattr(transformers, name)(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert theirs.config._attn_implementation == attention
    return theirs.eval()


def ours_of(folder, head=lambda bert: bert):
    """Our model of their folder, with its weights."""
    model = head(build_bert(folder / "config.json", model="modernbert"))
    check(describe(model), folder / "config.json")
    for weight, value in read_values(model, StoredTensors(folder)):
        weight.assign(value)
    return model


def their_inputs(rows):
    tokens = torch.tensor(TOKENS[rows], dtype=torch.long)
    if rows == ROWS["unpadded"]:
        return {"input_ids": tokens}
    return {"input_ids": tokens, "attention_mask": torch.tensor(PRESENT[rows])}


def assert_near(found, expected, what):
    scale = np.abs(expected).max()
    error = np.abs(np.asarray(found) - expected).max() / scale
    print(f"{what}: up to {scale:.1f}, largest error {error:.1e} of it")
    assert error < 1e-5


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_hidden_states_are_theirs(attention, rows, tmp_path):
    theirs = random_theirs("ModernBertModel", attention)
    theirs.save_pretrained(tmp_path)
    rows = ROWS[rows]
    with torch.no_grad():
        outcome = theirs(**their_inputs(rows)).last_hidden_state.numpy()
    found = ours_of(tmp_path)([TOKENS[rows]]).numpy()
    real = PRESENT[rows]
    assert_near(found[real], outcome[real], "hidden states")


SETTINGS = {
    "published": {},
    "other layers": {"layer_types": ["sliding_attention"] * 2 + ["full_attention"] * 3},
    "odd window": {"local_attention": 11},
    "older": {
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 500.0,
        "local_rope_theta": 50.0,
    },
    "silu": {"hidden_activation": "silu", "classifier_activation": "silu"},
    "tanh": {
        "hidden_activation": "gelu_pytorch_tanh",
        "classifier_activation": "gelu_pytorch_tanh",
    },
    "epsilon": {"norm_eps": 1e-2},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_logits_loss_and_gradients_are_theirs(name, tmp_path):
    theirs = random_theirs("ModernBertForMaskedLM", **SETTINGS[name])
    theirs.save_pretrained(tmp_path)
    labels = np.full(TOKENS.shape, -100)
    np.put_along_axis(labels, POSITIONS.astype(np.int64), LABELS, axis=1)
    outcome = theirs(**their_inputs(ROWS["padded"]), labels=torch.tensor(labels))
    outcome.loss.backward()
    model = ours_of(tmp_path, masked_lm)
    with tf.GradientTape() as tape:
        logits = model([TOKENS, POSITIONS], training=False)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    expected = outcome.logits.detach().numpy()
    expected = np.take_along_axis(expected, POSITIONS[..., None].astype(int), axis=1)
    assert_near(logits, expected, "logits")
    np.testing.assert_allclose(loss, outcome.loss.item(), rtol=1e-5)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        weight.assign(tf.convert_to_tensor(gradient))  # for their names
    assert_gradients_agree(
        stored_tensors(model),
        {name: p.grad.numpy() for name, p in theirs.named_parameters()},
    )


@pytest.mark.parametrize("head", [lambda bert: bert, masked_lm])
def test_they_read_what_we_write(head, tmp_path):
    name = "ModernBertForMaskedLM" if head is masked_lm else "ModernBertModel"
    source, folder = tmp_path / "theirs", tmp_path / "ours"
    random_theirs(name).save_pretrained(source)
    model = ours_of(source, head)
    folder.mkdir()
    config, tensors = describe(model), stored_tensors(model)
    assert config["architectures"] == [name]
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    again, notes = getattr(transformers, name).from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(notes[key] for key in ("missing_keys", "unexpected_keys"))
    assert not notes["mismatched_keys"]
    written = load_file(source / "model.safetensors")
    assert sorted(tensors) == sorted(written)
    for key, value in written.items():
        np.testing.assert_array_equal(tensors[key], value)
    with torch.no_grad():
        outcome = again.eval()(**their_inputs(ROWS["padded"]))[0].numpy()
    if head is masked_lm:
        outcome = np.take_along_axis(outcome, POSITIONS[..., None].astype(int), axis=1)
        assert_near(model([TOKENS, POSITIONS]), outcome, "logits")
    else:
        assert_near(model([TOKENS]).numpy()[PRESENT], outcome[PRESENT], "hidden states")


def test_an_untied_head_of_theirs_is_refused(tmp_path):
    theirs = random_theirs("ModernBertForMaskedLM", tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "tie_word_embeddings": True})
    )
    with pytest.raises(InputError, match="the head is not tied"):
        ours_of(tmp_path, masked_lm)


def test_their_half_precision_is_read(tmp_path):
    random_theirs("ModernBertModel").to(torch.bfloat16).save_pretrained(tmp_path)
    theirs = transformers.ModernBertModel.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        outcome = theirs.eval()(**their_inputs(ROWS["padded"]))[0].numpy()
    found = ours_of(tmp_path)([TOKENS]).numpy()
    assert_near(found[PRESENT], outcome[PRESENT], "hidden states")
