"""From text to token ids: everything that comes before a model.

- `tokenizer`: train, load and apply a sentencepiece vocabulary.
- `documents`: read plain text, one document a line.
- `records`: a corpus of token ids as sharded TFRecords.
- `manifest`: that manifest, checked before it is believed.
- `masking`: the masked language model's task, drawn anew for every batch.
- `labelled`: read and batch labelled text for classification.

Import from the modules: a user of the tokenizer alone does not wait for
TensorFlow. Nothing here uses Keras, so all of it serves either generation.
"""
