"""The README's Python runs as it stands; both languages show the same code."""

import re
from pathlib import Path

import pytest
from generation import IS_LEGACY

ROOT = Path(__file__).parents[1]


def blocks(name, language):
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


PAGES = ["README.md", "docs/surgery.md", "docs/head.md", "docs/adversarial.md"]
LINKS = [*PAGES, "README.zh.md", "examples/README.md", "benchmarks/README.md"]
CODE = [
    (page, code)
    for page in PAGES
    for code in blocks(page, "python")
    if IS_LEGACY or "tiedbert.bert" not in code
]


@pytest.mark.parametrize(("page", "code"), CODE)
def test_python_in_the_documents_runs(page, code):
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("language", ["python", "sh"])
def test_both_languages_show_the_same_code(language):
    assert blocks("README.md", language)
    assert blocks("README.md", language) == blocks("README.zh.md", language)


@pytest.mark.parametrize("name", LINKS)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
