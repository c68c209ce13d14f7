"""The masked language models that bert4keras builds, and Google's files of them."""

import numpy as np
import tensorflow as tf
from bert_samples import SEGMENTS, TOKENS, build_theirs, scramble

# Kind and options. ELECTRA's generator is a BERT under names of its own.
KINDS = {
    "bert": {},
    "bert-narrow": {"embedding_size": 8},
    "roberta": {"segment_vocab_size": 0},
    "albert": {"embedding_size": 8},
    "albert_unshared": {"embedding_size": 8},
    "nezha": {},
    "roformer": {},
    "roformer_v2": {},
    "electra": {"embedding_size": 8},
    "electra_generator": {"embedding_size": 8},
}
BY_DEFAULT = ["bert", "albert", "nezha", "roformer_v2", "electra_generator"]
# As in run_pretraining.py and modeling.py of google-research/electra.
GENERATOR_NAMES = [
    ("bert/embeddings/", "electra/embeddings/"),
    ("bert/encoder/embedding_hidden_mapping_in/", "generator/embeddings_project/"),
    ("bert/encoder/", "generator/encoder/"),
    ("cls/predictions/transform/", "generator_predictions/"),
    ("cls/predictions/output_bias", "generator_predictions/output_bias"),
]
POSITIONS = np.array([[1, 3], [5, 0]], np.int32)


def kind_of(name):
    return name.partition("-")[0]


def theirs(name, config, **more):
    """bert4keras' own model with its head on every position, its weights scrambled."""
    kind = kind_of(name)
    kind = "bert" if kind.startswith("electra") else kind
    options = {**KINDS.get(name, {}), **more, "return_keras_model": False}
    transformer = build_theirs(config, model=kind, with_mlm="linear", **options)
    scramble(transformer.model)
    return transformer


def googles_name(name, stored):
    """The name in the release of a kind for the name in BERT's."""
    if name.startswith("electra"):
        for old, new in GENERATOR_NAMES:
            stored = stored.replace(old, new)
    # The discriminator's encoder, when the generator has none of its own.
    return stored.replace("generator/", "electra/") if name == "electra" else stored


def write_googles(name, transformer, path):
    """The checkpoint of bert4keras' model, by TensorFlow's first Saver; its values."""
    values = {}
    for layer, names in transformer.variable_mapping().items():
        weights = getattr(transformer.layers.get(layer), "weights", [])
        for stored, weight in zip(names, weights, strict=False):
            # Blocks of one name start from one value.
            values.setdefault(googles_name(name, stored), weight.numpy())
            weight.assign(values[googles_name(name, stored)])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(stored, initializer=value, use_resource=True)
            for stored, value in values.items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(variables)
        saver.save(session, str(path), write_meta_graph=False, write_state=False)
    return values


def inputs_of(model, pad=0):
    """Two texts and the positions to predict, by the names of the inputs."""
    known = {"Input-Token": TOKENS, "Input-Segment": SEGMENTS}
    padded = {name: np.pad(x, [(0, 0), (0, pad)]) for name, x in known.items()}
    padded["Masked-Positions"] = POSITIONS
    return {tensor.name: padded[tensor.name] for tensor in model.inputs}


def logits_of_theirs(transformer):
    everywhere = transformer.model(inputs_of(transformer.model))
    return tf.gather(everywhere, POSITIONS, batch_dims=1)
