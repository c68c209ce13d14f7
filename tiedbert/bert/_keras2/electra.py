"""The generator of ELECTRA, which bert4keras does not have."""

from bert4keras import models

# The generator shares the embeddings with the discriminator; the rest is its own.
_RENAMED = {
    "electra/encoder/": "generator/encoder/",
    "electra/embeddings_project/": "generator/embeddings_project/",
}
HEAD = {
    "MLM-Dense": [
        "generator_predictions/dense/kernel",
        "generator_predictions/dense/bias",
    ],
    "MLM-Norm": [
        "generator_predictions/LayerNorm/beta",
        "generator_predictions/LayerNorm/gamma",
    ],
    "MLM-Bias": ["generator_predictions/output_bias"],
}


class Electra(models.ELECTRA):
    """bert4keras' ELECTRA with Google's names of the masked language model head.

    A model trained without a separate generator (``untied_generator=False``) has this
    head on its only encoder.

    Source: ``run_pretraining.py`` and ``model/modeling.py`` of google-research/electra.
    """

    def variable_mapping(self):
        """Layer name -> names in Google's checkpoint."""
        return {**super().variable_mapping(), **HEAD}

    def load_variable(self, checkpoint, name):
        """One variable; of the bias of the head only the tokens of `keep_tokens`."""
        value = super().load_variable(checkpoint, name)
        return self.load_embeddings(value) if name in HEAD["MLM-Bias"] else value


class ElectraGenerator(Electra):
    """The generator: the same layers, smaller, under other names."""

    def variable_mapping(self):
        """Layer name -> names in Google's checkpoint."""
        return {
            layer: [_renamed(name) for name in names]
            for layer, names in super().variable_mapping().items()
        }


def _renamed(name) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name
