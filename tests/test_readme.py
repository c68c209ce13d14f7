"""The README's Python runs as it stands; both languages show the same code."""

import re
from pathlib import Path

import pytest
from generation import IS_LEGACY

ROOT = Path(__file__).parents[1]


def blocks(name, language):
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


DOCS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
READMES = ["README.md", "README.zh.md", "examples/README.md", "benchmarks/README.md"]
PAGES = [*READMES, *DOCS, "CONTRIBUTING.md", "CHANGELOG.md"]
# The first block of the README cuts and trains the model that the second one builds.
MAIN, MODEL = blocks("README.md", "python")
CODE = [("README.md", MODEL + MAIN)] + [
    (page, code)
    for page in DOCS
    for code in blocks(page, "python")
    if not IS_LEGACY or ("tiedbert.bert" in code and page != "docs/bert.md")
]


@pytest.mark.both_kerases
@pytest.mark.parametrize(("page", "code"), CODE)
def test_python_in_the_documents_runs(page, code):
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("language", ["python", "sh"])
def test_both_languages_show_the_same_code(language):
    assert blocks("README.md", language)
    assert blocks("README.md", language) == blocks("README.zh.md", language)


def test_both_languages_have_the_same_links():
    english, chinese = (links(name) for name in ("README.md", "README.zh.md"))
    translated = {"README.zh.md": "README.md"}
    assert [translated.get(link, link) for link in english] == chinese


def links(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(r"\]\(([^)#]+)[^)]*\)", text)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for target in links(name):
        local = (ROOT / name).parent / target
        assert target.startswith("https://") or local.exists(), target


@pytest.mark.both_kerases
@pytest.mark.legacy_keras
def test_the_picture_shows_what_crosses(tmp_path):
    """docs/images/bert_cut.svg, for a masked language model of three blocks."""
    from tiedbert.bert import build_bert, masked_lm
    from tiedbert.surgery import split

    picture = (ROOT / "docs/images/bert_cut.svg").read_text(encoding="utf-8")
    (at,) = re.findall(r"split\(model, at=\"(.+?)\"\)", picture)
    config = ROOT / "examples/small_bert.json"
    model = masked_lm(build_bert(config, num_hidden_layers=3))
    front, rest = split(model, at)
    block = "Transformer-0-FeedForward-Norm"
    names = [name.removesuffix("_crossing") for name in rest.input_names]
    assert names[:3] == [at, block, "Masked-Positions"]
    assert all(name.startswith("read_mask") for name in names[3:])
    shared = {id(weight) for weight in front.weights}
    tied = [weight.name for weight in rest.weights if id(weight) in shared]
    assert tied == ["Embedding-Token/embeddings:0"]
