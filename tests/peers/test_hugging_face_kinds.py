"""Every kind that Hugging Face's transformers has gives its numbers, both ways."""

import json

import numpy as np
import our_numbers
import pytest
import tensorflow as tf
import torch
import transformers
from generation import IS_LEGACY
from safetensors.numpy import load_file

from tiedbert.bert import (
    build_bert,
    classifier,
    load_safetensors,
    masked_lm,
    save_safetensors,
)
from tiedbert.bert.model_types import MODEL_TYPES

WIDTH, WORDS, TIME = 48, 101, 20
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,
}
NARROW = {"embedding_size": 24}
ROBERTA = {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
# Name -> (what their classes begin with, settings).
KINDS = {
    "bert": ("Bert", {"pad_token_id": 3}),
    "ernie": ("Ernie", {"use_task_id": True, "task_type_vocab_size": 3}),
    "albert": ("Albert", {**NARROW, "hidden_act": "gelu_new"}),
    "electra": ("Electra", NARROW),
    "electra-wide": ("Electra", {"embedding_size": WIDTH}),
    "roberta": ("Roberta", ROBERTA),
    "roberta-segments": ("Roberta", {"type_vocab_size": 2, "pad_token_id": 4}),
    "xlm-roberta": ("XLMRoberta", ROBERTA),
    "camembert": ("Camembert", ROBERTA),
    "distilbert": ("DistilBert", {"activation": "relu", "sinusoidal_pos_embds": True}),
    "roformer": ("RoFormer", {**NARROW, "hidden_act": "relu"}),
}
OF_KERAS_3 = {"roberta", "roberta-segments", "xlm-roberta", "camembert", "distilbert"}
HERE = [name for name in KINDS if not (IS_LEGACY and name in OF_KERAS_3)]
kinds = pytest.mark.parametrize("name", HERE)
READ_ONLY = {"ernie", "xlm-roberta", "camembert"}  # written as their kind
written = pytest.mark.parametrize("name", [n for n in HERE if n not in READ_ONLY])

RANDOM = np.random.default_rng(5)
POSITIONS = np.array([[1, 6, 12, 19], [0, 5, 9, 13], [2, 3, 4, 6]], np.int32)
LABELS = RANDOM.integers(5, WORDS, POSITIONS.shape, np.int32)
LENGTHS = (20, 14, 7)


def random_theirs(name, ending, **more):
    torch.manual_seed(0)
    title, settings = KINDS[name]
    config = getattr(transformers, f"{title}Config")
    if title == "DistilBert":
        settings = {"hidden_dim": SIZES["intermediate_size"], **settings}
    theirs = getattr(transformers, title + ending)(
        config(**{**SIZES, **settings, **more})
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:  # sinusoids stay
                parameter.add_(0.1 * torch.randn_like(parameter))
    return theirs.eval()


def texts(pad, left=False):
    """(token ids, 1 where there is a token); some texts are padded."""
    tokens = RANDOM.integers(5, WORDS, [3, TIME])
    real = np.stack([length > np.arange(TIME) for length in LENGTHS])
    real = real[:, ::-1] if left else real
    return np.where(real, tokens, pad).astype(np.int32), real


def their_inputs(theirs, tokens, real):
    """Their arguments; segments where the model has several."""
    inputs = {
        "input_ids": torch.tensor(tokens, dtype=torch.long),
        "attention_mask": torch.tensor(real.astype(np.int64)),
    }
    if getattr(theirs.config, "type_vocab_size", 0) > 1:
        segments = segments_of(tokens)
        inputs["token_type_ids"] = torch.tensor(segments, dtype=torch.long)
    return inputs


def segments_of(tokens):
    return np.tile(np.arange(TIME) > 3, [len(tokens), 1]).astype(np.int32)


def our_inputs(model, tokens):
    known = {
        "Input-Token": tokens,
        "Input-Segment": segments_of(tokens),
        "Masked-Positions": POSITIONS,
    }
    return [tf.constant(known[tensor.name]) for tensor in model.inputs]


def read(theirs, folder, make=lambda bert: bert, **options):
    """Our model of a folder that they write."""
    theirs.save_pretrained(folder)
    model = make(build_bert(folder / "config.json", **options))
    load_safetensors(model, folder)
    return model


def assert_close(found, expected, what):
    found, expected = np.array(found), expected.detach().numpy()
    assert np.abs(expected).max() > 0.1
    error = np.abs(found - expected).max()
    print(f"{what}: up to {np.abs(expected).max():.1f}, largest error {error:.1e}")
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def pads(theirs):
    return theirs.config.pad_token_id


@kinds
@pytest.mark.parametrize("left", [False, True])
def test_hidden_states_are_theirs(name, left, tmp_path):
    if left and KINDS[name][0] in ("Bert", "Ernie", "Albert", "Electra", "RoFormer"):
        pytest.skip("as in bert4keras, the first token of these is never padding")
    theirs = random_theirs(name, "Model")
    tokens, real = texts(pads(theirs), left)
    model = read(theirs, tmp_path)
    expected = theirs(**their_inputs(theirs, tokens, real)).last_hidden_state
    found = model(our_inputs(model, tokens)).numpy()
    assert_close(found[real], expected[torch.tensor(real.copy())], f"{name} hidden")


@kinds
@pytest.mark.parametrize("early", [False, True])
def test_logits_loss_and_gradients_are_theirs(name, early, tmp_path):
    theirs = random_theirs(name, "ForMaskedLM")
    tokens, real = texts(pads(theirs))
    model = read(theirs, tmp_path, lambda bert: masked_lm(bert, early_gather=early))
    labels = np.full(tokens.shape, -100)
    np.put_along_axis(labels, POSITIONS.astype(np.int64), LABELS, axis=1)
    outcome = theirs(**their_inputs(theirs, tokens, real), labels=torch.tensor(labels))
    outcome.loss.backward()
    places = torch.tensor(POSITIONS.astype(np.int64))[..., None].expand(-1, -1, WORDS)
    logits, loss, gradients = step(model, tokens)
    assert_close(logits, outcome.logits.gather(1, places), f"{name} logits")
    np.testing.assert_allclose(loss, outcome.loss.item(), rtol=1e-5)
    if name in READ_ONLY:
        return
    model.set_weights(gradients)
    save_safetensors(model, tmp_path / "gradients")
    found = load_file(tmp_path / "gradients" / "model.safetensors")
    found.pop("roformer.encoder.embed_positions.weight", None)  # not trained
    expected = {
        name: parameter.grad.numpy()
        for name, parameter in theirs.named_parameters()
        if parameter.grad is not None
    }
    our_numbers.assert_gradients_agree(found, expected)


def step(model, tokens):
    from tensorflow import keras

    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        logits = model(our_inputs(model, tokens), training=False)
        loss = loss_of(LABELS, logits)
    gradients = tape.gradient(loss, model.weights)
    return logits, loss, [np.array(tf.convert_to_tensor(g)) for g in gradients]


def test_the_logits_of_a_discriminator_are_theirs(tmp_path):
    theirs = random_theirs("electra", "ForPreTraining")
    tokens, real = texts(pads(theirs))
    model = read(theirs, tmp_path / "theirs", with_discriminator="linear")
    expected = theirs(**their_inputs(theirs, tokens, real)).logits
    found = model(our_inputs(model, tokens)).numpy()[..., 0]
    assert_close(found[real], expected[torch.tensor(real)], "electra discriminator")
    save_safetensors(model, tmp_path / "ours")
    load_theirs(tmp_path / "ours", type(theirs))


def load_theirs(folder, made):
    """A model of theirs; every weight must come from the folder and find a place."""
    theirs, notes = made.from_pretrained(folder, output_loading_info=True)
    assert not notes["missing_keys"], notes
    assert not notes["unexpected_keys"], notes
    assert not notes["mismatched_keys"], notes
    return theirs.eval()


@written
def test_they_read_what_we_write(name, tmp_path):
    theirs = random_theirs(name, "ForMaskedLM")
    tokens, real = texts(pads(theirs))
    save_safetensors(read(theirs, tmp_path / "theirs", masked_lm), tmp_path / "ours")
    again = load_theirs(tmp_path / "ours", type(theirs))
    inputs = their_inputs(theirs, tokens, real)
    torch.testing.assert_close(again(**inputs).logits, theirs(**inputs).logits)
    again.save_pretrained(tmp_path / "again")
    found = load_file(tmp_path / "ours" / "model.safetensors")
    expected = load_file(tmp_path / "again" / "model.safetensors")
    assert {k: v.shape for k, v in found.items()} == {
        k: v.shape for k, v in expected.items()
    }


@written
def test_a_classifier_of_texts_is_theirs(name, tmp_path):
    theirs = random_theirs(name, "ForSequenceClassification", num_labels=5)
    tokens, real = texts(pads(theirs))
    model = read(theirs, tmp_path / "theirs", lambda bert: classifier(bert, 5))
    expected = theirs(**their_inputs(theirs, tokens, real)).logits
    assert_close(model(our_inputs(model, tokens)), expected, f"{name} texts")
    save_safetensors(model, tmp_path / "ours")
    load_theirs(tmp_path / "ours", type(theirs))


@written
def test_a_classifier_of_tokens_is_theirs(name, tmp_path):
    from tensorflow import keras

    def head(bert):
        logits = keras.layers.Dense(5, name="Classifier")(bert.output)
        return keras.Model(bert.inputs, logits)

    theirs = random_theirs(name, "ForTokenClassification", num_labels=5)
    tokens, real = texts(pads(theirs))
    model = read(theirs, tmp_path / "theirs", head)
    expected = theirs(**their_inputs(theirs, tokens, real)).logits
    found = model(our_inputs(model, tokens)).numpy()
    assert_close(found[real], expected[torch.tensor(real)], f"{name} tokens")
    save_safetensors(model, tmp_path / "ours")
    load_theirs(tmp_path / "ours", type(theirs))


@pytest.mark.parametrize("title", ["Bert", "Albert"])
def test_both_heads_of_pretraining_are_theirs(title, tmp_path):
    theirs = random_theirs(title.lower(), "ForPreTraining")
    tokens, real = texts(pads(theirs))
    options = {"with_nsp": True, "with_mlm": "linear"}
    model = read(theirs, tmp_path / "theirs", **options)
    outcome = theirs(**their_inputs(theirs, tokens, real))
    order, logits = model(our_inputs(model, tokens))
    theirs_order = outcome.sop_logits if title == "Albert" else outcome[1]
    assert_close(order, theirs_order.softmax(-1), f"{title} order")
    mask = torch.tensor(real)
    assert_close(logits.numpy()[real], outcome.prediction_logits[mask], f"{title} mlm")
    save_safetensors(model, tmp_path / "ours")
    load_theirs(tmp_path / "ours", type(theirs))


@kinds
def test_what_a_file_does_not_say_is_what_they_take(name, tmp_path):
    """The defaults of their configurations are ours."""
    title, _ = KINDS[name]
    model_type = getattr(transformers, f"{title}Config").model_type
    config = getattr(transformers, f"{title}Config")()
    names = {v: k for k, v in MODEL_TYPES[model_type].names.items()}
    for setting, value in MODEL_TYPES[model_type].defaults.items():
        theirs = getattr(config, names.get(setting, setting), value)
        assert theirs == value, setting


def test_every_model_type_is_one_of_theirs():
    known = transformers.CONFIG_MAPPING
    assert [t for t in MODEL_TYPES if t not in known] == ["nezha"]


def test_they_find_the_class_of_our_kinds(tmp_path):
    config = {**SIZES, "hidden_act": "gelu", "type_vocab_size": 1}
    path = tmp_path / "bert_config.json"
    path.write_text(json.dumps(config))
    for kind in ("distilbert", "hf_roberta") if not IS_LEGACY else ():
        save_safetensors(masked_lm(build_bert(path, model=kind)), tmp_path)
        found = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
        assert found.config.vocab_size == WORDS
