"""Imports run one way, as the table in docs/architecture.md says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "summand"
FILES = sorted(PACKAGE.rglob("*.py"))
GROUND = {"errors", "dtypes", "options"}
FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def rows():
    """Folder or file -> what it may import, from the table; the last rows may import all above."""
    table = re.search(
        r"\| folder \|.*?\n\n", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL
    ).group()
    allowed = {}
    for line in table.strip().splitlines()[2:]:
        first, _, last = (cell.strip() for cell in line.strip("|").split("|"))
        names = [n.strip("`/").removesuffix(".py").replace("/", ".") for n in first.split()]
        may = {w.strip("` /").replace("/", ".") for w in last.split(",")}
        if "ground" in may:
            may |= GROUND
        if last == "all above":
            may = {*allowed, *names} | {m for ms in allowed.values() for m in ms}
        for name in names:
            allowed[name] = may
    return allowed


ROWS = rows()


def row_of(module):
    """The row of the table that a module belongs to: the longest that fits."""
    fits = [r for r in ROWS if module == r or module.startswith(r + ".")]
    return max(fits, key=len, default=None)


def imported(path):
    """Modules of the package that a file imports, below `summand`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [f"{node.module}.{a.name}" for a in node.names]
            assert all(a.name != "*" for a in node.names), f"{path}:{node.lineno}: import *"
        else:
            continue
        for name in names:
            if name.startswith("summand."):
                yield node.lineno, name.removeprefix("summand.")


def module_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    module = module_of(path)
    if module in ("__init__", ""):
        return  # the public names
    row = row_of(module)
    if row is None and not list(imported(path)):
        return  # a folder of stages: only its docstring
    assert row is not None, f"{module} is in no row of the table in docs/architecture.md"
    for line, name in imported(path):
        inside = name == row or name.startswith(row + ".")
        allowed = any(name == m or name.startswith(m + ".") for m in ROWS[row])
        assert inside or allowed, f"{path.name}:{line}: {module} may not import summand.{name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_imports_inside_functions(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    raise AssertionError(f"{path.name}:{inner.lineno}: an import in a function")


def test_no_module_without_a_subject():
    names = {part for path in FILES for part in module_of(path).split(".")}
    assert not names & FORBIDDEN


def test_llvm_is_imported_where_it_belongs():
    for path in FILES:
        tree = ast.parse(path.read_text())
        names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        if any(n.split(".")[0] == "llvmlite" for n in names):
            module = module_of(path)
            assert module.startswith(("runtime", "codegen.cpu")) or module == "compiler", module


def test_files_stay_readable():
    for path in [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]:
        count = len(path.read_text().splitlines())
        assert count <= 800, f"{path.relative_to(ROOT)} has {count} lines; split it"
