"""Pages of the site that are made of other files of the repository.

MkDocs calls the functions `on_...`. Links between files of the repository become links
between pages; a link to a file without a page is a warning, and `make docs` then fails.
"""

import ast
import logging
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LOG = logging.getLogger("mkdocs.hooks")

# File of the repository -> page. The files of docs/ keep their names.
PAGES = {
    "README.md": "index.md",
    "README.zh.md": "index.zh.md",
    "docs": "index.md",
    "docs/gallery": "examples.md",
    "examples/README.md": "examples.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
}
EXAMPLES = {
    f"examples/{path.name}": f"gallery/{path.stem}.md"
    for path in sorted((ROOT / "examples").iterdir())
    if path.suffix in (".py", ".json")
}
LOADED_FROM_ELSEWHERE = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^>]*>"""
)
WITH_MODULES = """    options:
      show_root_heading: false
      show_submodules: true
"""
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def on_config(config):
    """Fill the sections of the navigation that follow from the sources."""
    for section in config.nav:
        if "Reference" in section:
            section["Reference"] = [{f"tiedbert.{p}": api_page(p)} for p in packages()]
        if "Examples" in section:
            runnable = [page for name, page in EXAMPLES.items() if name.endswith(".py")]
            section["Examples"] += [
                {Path(p).stem: p} for p in in_reading_order(runnable)
            ]
    return config


def on_files(files, config):
    """Add the pages that no file of docs/ holds."""
    made = {page: text_of(name) for name, page in PAGES.items() if not is_folder(name)}
    made.update({page: example(name) for name, page in EXAMPLES.items()})
    made.update({api_page(name): api(name) for name in packages()})
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead the links to pages; examples are shown as they are."""
    uri = page.file.src_uri
    if uri.startswith(("gallery/", "api/")):
        return markdown
    sources = {made: name for name, made in PAGES.items() if not is_folder(name)}
    source = sources.get(uri, f"docs/{uri}")

    def led(match):
        start, target, anchor, end = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        return start + page_of(path, source) + (anchor or "") + end

    return LINK.sub(led, markdown)


def on_post_page(output, page, config):
    """A page may link to other sites but must load nothing from them."""
    for loaded in LOADED_FROM_ELSEWHERE.findall(output):
        LOG.warning("%s loads from another site: %s", page.file.src_uri, loaded)
    return output


def page_of(path, source):
    """The page that shows a file of the repository."""
    page = PAGES.get(path) or EXAMPLES.get(path)
    if page is None and path.startswith("docs/"):
        page = path.removeprefix("docs/")
    if page is None:
        LOG.warning("%s: a link leads to %s, which has no page", source, path)
    return page or path


def is_folder(name):
    return (ROOT / name).is_dir()


def text_of(name):
    """A file of the repository as Markdown."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".md"):
        return text
    return f"# {name.title()}\n\n```text\n{text}\n```\n"


def example(name):
    """The docstring of an example, what it printed, and its code."""
    path = ROOT / name
    code = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return f"# {path.name}\n\n```json\n{code}```\n"
    about = ast.get_docstring(ast.parse(code))
    page = f"# {path.name}\n\n{about}\n"
    record = ROOT / f"docs/gallery/{path.stem}.txt"
    if record.exists():
        printed = record.read_text(encoding="utf-8")
        page += f"\n## What it printed\n\n```text\n{printed}```\n"
    return f"{page}\n## Code\n\n```python\n{code}```\n"


def in_reading_order(pages):
    """The numbered examples by their number, then the others by name."""
    number = re.compile(r"gallery/(\d+)_")
    return sorted(pages, key=lambda p: (int((number.match(p) or [0, "99"])[1]), p))


def packages():
    """The packages in the `__all__` of tiedbert, which is read and not imported."""
    return sorted(public_names(parsed("tiedbert")))


def parsed(module):
    """The syntax tree of a module or package."""
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def public_names(tree):
    """The names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def api_page(package):
    return f"api/{package}.md"


def api(package):
    """The docstring of a package, and each of its public names where it is defined.

    Griffe takes `tiedbert.surgery.split` for the module of that name, so the functions
    are named by the modules that the package imports them from.
    """
    tree = parsed(f"tiedbert.{package}")
    homes = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)  # within `if TYPE_CHECKING` too
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names = public_names(tree)
    if not names:  # the modules of the package are public, or it is a module itself
        return f"# tiedbert.{package}\n\n::: tiedbert.{package}\n{WITH_MODULES}"
    parts = [f"# tiedbert.{package}", ast.get_docstring(tree)]
    for name in sorted(names, key=str.lower):
        parts.append(f"::: {homes.get(name, f'tiedbert.{package}.{name}')}")
    return "\n\n".join(parts) + "\n"
