from generation import IS_LEGACY

# `make test-peers` runs pytest once for each Keras.
IN_KERAS_2 = ["test_hugging_face.py", "test_minilm_example.py"]
collect_ignore = ["test_keras_hub.py"] if IS_LEGACY else IN_KERAS_2
