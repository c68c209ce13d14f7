"""The README's Python runs as it stands; both languages show the same code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(name, language):
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("README.md", "python"))
def test_python_in_the_readme_runs(code):
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("language", ["python", "sh"])
def test_both_languages_show_the_same_code(language):
    assert blocks("README.md", language)
    assert blocks("README.md", language) == blocks("README.zh.md", language)


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "examples/README.md"])
def test_links_lead_somewhere(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
