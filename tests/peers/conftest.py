from generation import IS_LEGACY

# `make test-peers` runs pytest once for each Keras.
IN_KERAS_2 = ["test_hugging_face.py", "test_minilm_example.py"]
IN_KERAS_3 = ["test_keras_hub.py", "test_modernbert.py"]
collect_ignore = IN_KERAS_3 if IS_LEGACY else IN_KERAS_2
