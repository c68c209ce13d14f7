"""The class of Hugging Face's library that computes what a model does."""

from collections.abc import Mapping
from typing import Any

from tensorflow import keras

from tiedbert.bert.activation_names import name_of, their_activation
from tiedbert.bert.encoders import feed_forward_of
from tiedbert.bert.first_token import FirstToken
from tiedbert.bert.head_activations import pooling_activation
from tiedbert.bert.hugging_face.names import Format
from tiedbert.errors import InputError
from tiedbert.surgery.graph import Graph

# Its heads have this activation whatever hidden_act is.
_GELU_IN_TRANSFORM = ("hf_roberta", "electra", "electra_generator")


def refusal(form: Format, message: str) -> InputError:
    """The error for a model that is not what a format says."""
    return InputError(f"Hugging Face's {form.title} has {message}")


def architecture_of(
    model: keras.Model, kind: str, form: Format, layers: Mapping[str, Any]
) -> str:
    """The name of the class, such as ``BertForMaskedLM``.

    Args:
        model: a model of bert4keras' layers.
        kind: its kind.
        form: the format of the kind.
        layers: its layers by name.

    Raises:
        InputError: the library has no such class, or its class computes something else.
    """
    ending = _ending(model, form, layers)
    usual = ("Model", "ForMaskedLM", "ForTokenClassification")
    if ending not in {*usual, "ForSequenceClassification", *form.endings}:
        raise refusal(form, f"no class {form.title}{ending}: it has no such head alone")
    _check_activations(model, kind, form, ending, layers)
    return form.title + ending


def _ending(model, form, layers) -> str:
    masked, next_sentence = "MLM-Bias" in layers, "NSP-Proba" in layers
    if "Classifier" in layers:
        return _of_classifier(model, form, layers)
    if "Discriminator-Prediction" in layers:
        return "ForPreTraining"
    if masked:
        return "ForPreTraining" if next_sentence else "ForMaskedLM"
    return "ForNextSentencePrediction" if next_sentence else "Model"


def _check_activations(model, kind, form, ending, layers):
    """InputError if a layer of a head has another activation than Hugging Face's."""
    hidden_act = feed_forward_of(model).activation[0]
    of_texts = ending == "ForSequenceClassification"
    transform = "gelu" if kind in _GELU_IN_TRANSFORM else hidden_act
    for name, expected in (
        ("Pooler-Dense", pooling_activation(kind, hidden_act) if of_texts else "tanh"),
        ("MLM-Dense", transform),
        ("Discriminator-Dense", hidden_act),
    ):
        found = layers[name].activation if name in layers else expected
        if _comparable(found) != _comparable(expected):
            raise refusal(
                form,
                f'{name_of(expected)} in "{name}"; this one has {name_of(found)}',
            )


def _comparable(activation):
    return their_activation(activation) or name_of(activation)


def _of_classifier(model, form, layers) -> str:
    """The class of an encoder with a layer "Classifier"."""
    makers = Graph(model).producers
    last = makers.get(model.outputs[0])
    if last is None or len(model.outputs) > 1 or last.layer is not layers["Classifier"]:
        raise refusal(
            form, 'one output, the logits of "Classifier"; this one has others'
        )
    if name_of(layers["Classifier"].activation) != "linear":
        raise refusal(form, 'logits, a "Classifier" without an activation')
    names = _path_to_encoder(makers, last)
    if names[0].endswith("-FeedForward-Norm") and names[0] == _last_norm(model):
        return "ForTokenClassification"
    if names == ["Pooler-Dense", "Pooler", _last_norm(model)] and isinstance(
        layers["Pooler"], (FirstToken, keras.layers.Lambda)
    ):
        return "ForSequenceClassification"
    raise refusal(
        form,
        'a "Classifier" of the hidden states, or of a pooler of the first token; this '
        f"one reads {' of '.join(names)}",
    )


def _path_to_encoder(makers, call) -> list[str]:
    """The layers before a classifier, dropout left out, down to the encoder."""
    source = makers.get(call.inputs[0])
    while source and isinstance(source.layer, keras.layers.Dropout):
        source = makers.get(source.inputs[0])
    names = [_name_of_maker(source)]
    while names[-1] in ("Pooler-Dense", "Pooler"):
        source = makers.get(source.inputs[0])
        names.append(_name_of_maker(source))
    return names


def _last_norm(model) -> str:
    return f"{feed_forward_of(model).name}-Norm"


def _name_of_maker(call) -> str:
    return call.layer.name if call else "an input"
