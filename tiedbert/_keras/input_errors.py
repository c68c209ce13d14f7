"""InputErrors as they were raised, without what Keras writes around them."""

import contextlib
from collections.abc import Iterator

from tiedbert.errors import InputError


@contextlib.contextmanager
def input_errors_unwrapped() -> Iterator[None]:
    """Context in which neither autograph nor Keras writes around an InputError."""
    try:
        yield
    except Exception as error:
        first: InputError | None = None
        found: BaseException | None = error
        while found is not None:
            first = found if isinstance(found, InputError) else first
            found = found.__context__
        if first is None or first is error:
            raise
        raise first from None
