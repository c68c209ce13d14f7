"""Public functions and methods have annotations, for type checkers and for the site.

The sources are read and not imported, so tiedbert.bert is looked at under Keras 3 too.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef
CALLED_BY_NAME = ("__init__", "__call__")


def file_of(module):
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def tree_of(module):
    return ast.parse(file_of(module).read_text(encoding="utf-8"))


def names_in_all(tree):
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def modules_of(package):
    paths = sorted(file_of(package).parent.glob("[!_]*.py"))
    return [f"{package}.{path.stem}" for path in paths]


def public_definitions():
    """(module, node) of each public function and class."""
    for package in names_in_all(tree_of("tiedbert")):
        yield from definitions(f"tiedbert.{package}")


def definitions(module):
    tree = tree_of(module)
    names = names_in_all(tree)
    is_package = file_of(module).name == "__init__.py"
    if names is None and is_package:  # then its modules are public
        for each in modules_of(module):
            yield from definitions(each)
        return
    defined = {
        n.name: n for n in tree.body if isinstance(n, (*FUNCTIONS, ast.ClassDef))
    }
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)  # within `if TYPE_CHECKING` too
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for name in names or [name for name in defined if not name.startswith("_")]:
        if name in defined:
            yield module, defined[name]
        elif name in imported:
            home, original = imported[name]
            yield from (
                (where, node)
                for where, node in definitions_in(home)
                if node.name == original
            )


def definitions_in(module):
    kinds = (*FUNCTIONS, ast.ClassDef)
    return [(module, node) for node in tree_of(module).body if isinstance(node, kinds)]


def functions(module, node):
    """(dotted name, function, is a method) of a function, or of a class's methods."""
    if not isinstance(node, ast.ClassDef):
        yield f"{module}.{node.name}", node, False
        return
    for each in node.body:
        if isinstance(each, FUNCTIONS) and is_public(each.name):
            decorators = {ast.unparse(d) for d in each.decorator_list}
            yield (
                f"{module}.{node.name}.{each.name}",
                each,
                "staticmethod" not in decorators,
            )


def is_public(name):
    return not name.startswith("_") or name in CALLED_BY_NAME


def missing(function, is_method):
    """The parameters without an annotation, and "return"."""
    given = function.args
    named = [*given.posonlyargs, *given.args][is_method:] + given.kwonlyargs
    rest = [each for each in (given.vararg, given.kwarg) if each]
    found = [each.arg for each in named + rest if each.annotation is None]
    if function.returns is None and function.name != "__init__":
        found.append("return")
    return found


def test_public_functions_have_annotations():
    lacking = {
        name: missing(function, is_method)
        for module, node in public_definitions()
        for name, function, is_method in functions(module, node)
    }
    assert len(lacking) > 80, "it looks at everything that is public"
    assert {name: what for name, what in lacking.items() if what} == {}


def test_the_check_sees_what_lacks():
    (node,) = ast.parse("def f(a: int, b, *c, **d: int): pass").body
    assert missing(node, is_method=False) == ["b", "c", "return"]
    (node,) = ast.parse("def f(self, a) -> int: pass").body
    assert missing(node, is_method=True) == ["a"]
