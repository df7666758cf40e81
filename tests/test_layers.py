"""A layer knows only the layers under it: read from the imports themselves, lazy ones and type-only
ones included.

The order is the table of docs/design.md. A layer is a folder or a module right under ``gamwarm/``;
a layer that is not listed here fails, so a new one is placed on purpose.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "gamwarm"

MOST_LINES = 500
"""Lines of code in one module: docstrings, comments and blank lines do not count."""

LARGEST_SHARE = 0.15
"""No folder holds more of the package's lines than this."""

UNDER_PROBLEM = {"checks", "columns", "display", "errors", "formats", "interrupts", "parallel", "version"}
PURE = UNDER_PROBLEM | {"problem", "identity", "records"}
FILE = {"storage", "encoding", "entries", "maintenance"}

KNOWS = {
    "version": set(),
    "display": set(),
    "errors": {"display"},
    "formats": {"errors", "display"},
    "interrupts": set(),
    "checks": {"errors", "display"},
    "columns": {"errors", "display"},
    "families": {"errors", "display", "checks"},
    "parallel": {"errors", "display", "interrupts", "checks"},
    "walltime": {"errors", "display", "interrupts", "checks", "parallel"},
    "problem": UNDER_PROBLEM,
    "identity": UNDER_PROBLEM | {"problem"},
    "records": UNDER_PROBLEM | {"problem", "identity"},
    "transfer": PURE,
    # A durable file knows no records.
    "storage": UNDER_PROBLEM,
    "encoding": PURE,
    "entries": PURE | {"storage", "encoding"},
    "maintenance": PURE | {"storage", "encoding", "entries"},
    "archive": PURE | FILE,
    "store": PURE | {"walltime", "transfer", *FILE},
    "report": PURE | {"walltime", "transfer", *FILE, "store"},
    "fitting": PURE | {"walltime", "transfer", *FILE, "store"},
    "__init__": PURE | {"walltime", "transfer", *FILE, "store", "fitting"},
    "folds": PURE | {"walltime", "transfer", *FILE, "store"},
    # On top of the public names, as a third-party engine would be.
    "engine": PURE | {"walltime", "transfer", *FILE, "store", "fitting", "__init__", "families"},
    "cli": PURE | {"walltime", "transfer", *FILE, "store", "archive", "report"},
    "__main__": PURE | {"walltime", "transfer", *FILE, "store", "archive", "report", "cli"},
    "demo": PURE | {"walltime", "transfer", *FILE, "store", "fitting", "__init__", "families", "engine", "folds"},
    "adapters": PURE | {"walltime", "transfer", *FILE, "store", "fitting", "__init__"},
    "testing": PURE | {"walltime", "transfer", *FILE, "store", "fitting", "__init__"},
}

# Importing it from gamwarm.parallel would import mpi4py for everybody.
SECOND_DOORS = {"gamwarm.parallel.mpi"}

MODULES = sorted(PACKAGE.rglob("*.py"))


class Import(NamedTuple):
    """One imported module, absolute, and where the statement stands."""

    target: str
    line: int


def module_name(path: Path) -> str:
    parts = ("gamwarm", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def layer_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def is_module(name: str) -> bool:
    place = PACKAGE.parent.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or place.is_dir()


@cache
def names_offered_by(package: str) -> set[str]:
    """Return ``__all__`` of a package: ``from package import name`` means that name, not a module
    called so too.
    """
    file = PACKAGE.parent.joinpath(*package.split("."), "__init__.py")
    for node in ast.parse(file.read_text()).body if file.is_file() else []:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


def imports_of(source: str, module: str, is_package: bool) -> Iterator[Import]:
    """Yield what a module imports, relative imports made absolute, ``from package import module``
    as the module.
    """
    package = module.removesuffix(".__init__") if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                inside = base.startswith("gamwarm") and is_module(full) and alias.name not in names_offered_by(base)
                yield Import(full if inside else base, node.lineno)


def complaints(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return what is wrong with a module's imports, one line each."""
    layer = layer_of(module)
    if layer not in KNOWS:
        return [f"layer {layer!r} is not in the table; place it in docs/design.md and here"]
    found = []
    for target, line in imports_of(source, module, is_package):
        where = f"{module} line {line}: imports {target}"
        if target.split(".")[0] == "mpi4py" and module != "gamwarm.parallel.mpi":
            found.append(f"{where}; only gamwarm.parallel.mpi may")
        if target.split(".")[0] != "gamwarm":
            continue
        other = layer_of(target)
        if other == layer:
            continue
        if other not in KNOWS[layer]:
            found.append(f"{where}; the layer {layer!r} does not know {other!r}")
        elif target.count(".") > 1 and target not in SECOND_DOORS:
            found.append(f"{where}; import from gamwarm.{other} itself, its modules are private")
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_layer_imports_only_layers_under_it_and_through_their_front_door(path):
    is_package = path.name == "__init__.py"

    assert complaints(path.read_text(), module_name(path), is_package=is_package) == []


def lines_of_code(source: str) -> int:
    """Count the lines that hold code: not docstrings, comments or blank lines."""
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for n, line in lines if n not in docstrings and line.strip() and not line.lstrip().startswith("#"))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_module_is_two_modules(path):
    lines = lines_of_code(path.read_text())

    assert lines <= MOST_LINES, f"{module_name(path)} has {lines} lines of code; cut it where it does two things"


def test_lines_of_code_leave_out_prose():
    assert lines_of_code('"""A module."""\n\n# why\nX = 1\n\n\ndef f():\n    """Do\n    it."""\n    return X\n') == 3


def test_no_folder_is_most_of_the_package():
    lines = {path: len(path.read_text().splitlines()) for path in MODULES}
    total = sum(lines.values())
    shares = {
        folder.name: sum(n for path, n in lines.items() if path.is_relative_to(folder)) / total
        for folder in PACKAGE.iterdir()
        if folder.is_dir()
    }

    assert {name: round(share, 3) for name, share in shares.items() if share > LARGEST_SHARE} == {}


FOREIGN = {"_asdict", "_exit", "_fields", "_getframe", "_is_owned", "_make", "_replace"}
"""Underscored names of Python itself: of its modules, locks and named tuples."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_defined_in(tree: ast.AST) -> set[str]:
    """Return every name that a module defines: functions, classes, variables, slots, and attributes
    that it sets.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.add(node.value)
    return found


@cache
def names_defined_in_folder(folder: Path) -> set[str]:
    return set().union(*(names_defined_in(ast.parse(path.read_text())) for path in folder.glob("*.py")))


def private_names_of_others(source: str, of_the_folder: set[str]) -> list[str]:
    """Return the uses of underscored names that another module defines, one line each.

    A class may use, through ``self`` or ``cls``, what its base in another module of the folder
    defines.
    """
    tree = ast.parse(source)
    own = names_defined_in(tree) | FOREIGN
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += [f"line {node.lineno}: imports {alias.name}" for alias in node.names if is_private(alias.name)]
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            inherits = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            if not (inherits and node.attr in of_the_folder):
                found.append(f"line {node.lineno}: uses {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_an_underscored_name_is_used_by_its_own_module_only(path):
    of_the_folder = names_defined_in_folder(path.parent)

    assert private_names_of_others(path.read_text(), of_the_folder) == []
    assert not is_private(path.stem), "modules have no underscore: only what a folder's __init__ lists is public"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("from gamwarm.storage.pager import _frame", "line 1: imports _frame"),
        ("def f(store):\n    return store._ranks", "line 2: uses store._ranks"),
        ("class A:\n    def f(self):\n        return self._of_nobody", "line 3: uses self._of_nobody"),
    ],
)
def test_the_use_of_a_private_name_would_be_seen(source, complaint):
    assert private_names_of_others(source, {"_ranks"}) == [complaint]


def test_a_base_in_the_same_folder_is_no_other():
    assert private_names_of_others("class A(B):\n    def f(self):\n        return self._ranks", {"_ranks"}) == []


def strongly_connected(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == index[module]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == module:
                    break
            if len(group) > 1:
                circles.append(sorted(group))

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return circles


def test_no_modules_import_each_other():
    """Lazy and type-only imports count: what needs a promise to avoid a circle is in the wrong
    place.
    """
    names = {module_name(path): path for path in MODULES if path.name != "__init__.py"}
    graph = {
        name: {i.target for i in imports_of(path.read_text(), name, False) if i.target in names and i.target != name}
        for name, path in names.items()
    }

    assert strongly_connected(graph) == []


def test_a_circle_would_be_seen():
    assert strongly_connected({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_the_table_has_no_way_round():
    for layer, known in KNOWS.items():
        for lower in known:
            assert layer not in KNOWS[lower], f"{layer} and {lower} know each other"
            assert KNOWS[lower] <= known | {lower}, f"{layer} knows {lower} but not all that {lower} knows"


def test_every_layer_is_in_the_table_of_the_design_page():
    page = (PACKAGE.parent / "docs" / "design.md").read_text()
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}

    assert [name for name in sorted(folders) if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize(
    ("source", "module", "complaint"),
    [
        ("from gamwarm.storage import Store", "gamwarm.records.block", "does not know 'storage'"),
        ("from gamwarm.transfer import restore", "gamwarm.encoding.codec", "does not know 'transfer'"),
        ("from ..store import open_store", "gamwarm.problem.blocks", "does not know 'store'"),
        ("from gamwarm import FitProblem", "gamwarm.transfer.build", "does not know '__init__'"),
        ("import gamwarm.engine", "gamwarm.store.store", "does not know 'engine'"),
        ("def f():\n    from mpi4py import MPI", "gamwarm.store.store", "only gamwarm.parallel.mpi may"),
        ("from gamwarm.problem.blocks import Role", "gamwarm.identity.descriptor", "its modules are private"),
        ("from gamwarm.problem import blocks", "gamwarm.identity.descriptor", "its modules are private"),
        ("import json", "gamwarm.attic.shelf", "not in the table"),
    ],
)
def test_a_wrong_import_would_be_seen(source, module, complaint):
    found = complaints(source, module)

    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from mpi4py import MPI", "gamwarm.parallel.mpi"),
        ("from gamwarm.problem.blocks import Role", "gamwarm.problem.layout"),
        ("from . import penalties", "gamwarm.problem.layout"),
        ("from gamwarm.transfer import inner_cap", "gamwarm.store.lookup"),
        ("import gamwarm", "gamwarm.engine.driver"),
        ("from gamwarm.errors import InvalidInput", "gamwarm.encoding.codec"),
    ],
)
def test_a_right_import_is_let_pass(source, module):
    assert complaints(source, module) == []
