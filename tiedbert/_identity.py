"""A map and a set that compare their keys by identity.

``==`` of two tensors compares values, variables cannot be hashed, and a user's layer
may define either as it likes. A key is held as long as its entry, so that no new object
can get its `id`.
"""

from collections.abc import Iterable, Iterator, MutableMapping, MutableSet
from typing import Any


class IdentityMap(MutableMapping):
    """A dict of which each key is one object, whatever it is equal to.

    Args:
        pairs: (key, value) pairs, or a mapping.
    """

    def __init__(self, pairs: Iterable = ()) -> None:
        self._entries = {}  # id of a key -> (key, value)
        self.update(pairs)

    def __getitem__(self, key: Any) -> Any:
        return self._entries[id(key)][1]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._entries[id(key)] = key, value

    def __delitem__(self, key: Any) -> None:
        del self._entries[id(key)]

    def __contains__(self, key: Any) -> bool:
        return id(key) in self._entries

    def __iter__(self) -> Iterator:
        return (key for key, _ in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, or `default`."""
        entry = self._entries.get(id(key))
        return default if entry is None else entry[1]


class IdentitySet(MutableSet):
    """A set of which each element is one object, in the order in which they came."""

    def __init__(self, elements: Iterable = ()) -> None:
        self._elements = {id(element): element for element in elements}

    def __contains__(self, element: Any) -> bool:
        return id(element) in self._elements

    def __iter__(self) -> Iterator:
        return iter(self._elements.values())

    def __len__(self) -> int:
        return len(self._elements)

    def add(self, element: Any) -> None:
        """Add one element."""
        self._elements.setdefault(id(element), element)

    def discard(self, element: Any) -> None:
        """Take an element out if it is there."""
        self._elements.pop(id(element), None)

    def update(self, elements: Iterable) -> None:
        """Add several elements."""
        for element in elements:
            self._elements.setdefault(id(element), element)
