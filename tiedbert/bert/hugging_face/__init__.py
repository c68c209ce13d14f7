"""Models in the formats of Hugging Face's transformers, read and written."""
