from generation import IS_LEGACY

# `make test-peers` runs pytest once for each Keras.
collect_ignore = ["test_keras_hub.py", "test_modernbert.py"] if IS_LEGACY else []
