"""The mistakes of mutations.py fit the library and the tests as they are."""

from pathlib import Path

import pytest
from mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_has_a_place_and_tests(mutation):
    """`make mutations` runs them: that takes minutes."""
    text = (ROOT / "tiedbert" / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1
    for test in mutation.tests:
        file, _, name = test.partition("::")
        written = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert f"def {name or 'test_'}" in written
