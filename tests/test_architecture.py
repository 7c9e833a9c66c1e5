"""The rooms of the package: imports point down, no cycle, and notebooks come in through the faces."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
import pytest

from llmft_helpers.runs import ROOT

PACKAGE = ROOT / "llmft_helpers"
# A room or module, and what it may use besides itself: every name stands below the line that uses it.
MAY_USE = {
    "errors": set(),
    "device": {"errors"},
    "processes": {"errors"},
    "grading": {"errors"},
    "cpu": {"device", "errors"},
    "profiles": {"errors"},
    "storage": {"errors"},
    "runs": {"storage", "profiles", "device", "errors"},
}
MAY_USE["data"] = {"runs", "grading", *MAY_USE["runs"]}
MAY_USE["reports"] = {"runs", *MAY_USE["runs"]}
MAY_USE["models"] = {"reports", "data", "cpu", *MAY_USE["data"]}
MAY_USE["scoring"] = {"models", "grading", "processes", *MAY_USE["models"]}
MAY_USE["training"] = {"scoring", *MAY_USE["scoring"]}
MAY_USE["doctor"] = {"models", "grading", *MAY_USE["models"]}
MAY_USE["streams"] = {"runs", *MAY_USE["runs"]}
MAY_USE["answering"] = {"streams", "scoring", *MAY_USE["scoring"]}
MAY_USE["evaluating"] = {"answering", *MAY_USE["answering"]}
MAY_USE["playground"] = {"answering", *MAY_USE["answering"]}
MAY_USE["__main__"] = set(MAY_USE) - {"__main__"}
OUTSIDE = {"values", "confinement"}  # the worker's own parts, which it imports outside the package


def module_name(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imported(name: tuple[str, ...], source: str) -> set[tuple[str, ...]]:
    """Modules of the package that a module's text imports, anywhere in it."""
    folder = name if MODULES.get(name, Path()).name == "__init__.py" else name[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("llmft_helpers")):
            module = tuple((node.module or "").removeprefix("llmft_helpers").strip(".").split("."))
            module = tuple(part for part in module if part)
            base = folder[: len(folder) - node.level + 1] + module if node.level else module
            found |= {base + (alias.name,) if base + (alias.name,) in MODULES else base for alias in node.names}
    return found - {()}


ARROWS = {name: imported(name, path.read_text(encoding="utf-8")) for name, path in MODULES.items() if name}


def offenders(arrows: dict) -> list[str]:
    """Imports that point to a room or module which stands above, or beside."""
    return sorted(
        f"{'.'.join(name)} imports {'.'.join(target)}"
        for name, targets in arrows.items()
        for target in targets
        if target[0] != name[0] and target[0] not in MAY_USE[name[0]]
    )


def test_imports_point_down():
    assert {name[0] for name in ARROWS} == set(MAY_USE)
    assert offenders(ARROWS) == []


def test_an_arrow_that_points_up_is_found():
    arrows = {("data", "sources"): imported(("data", "sources"), "from ..models.loading import generate\n")}
    assert offenders(arrows) == ["data.sources imports models.loading"]


def test_no_module_imports_itself_by_a_detour():
    TopologicalSorter(ARROWS).prepare()  # raises CycleError


def test_the_text_of_an_import_is_read_as_python_reads_it():
    assert ("scoring", "metrics") in ARROWS["training", "trainer"] and ("processes",) in ARROWS["training", "tasks"]
    assert ("grading", "execution") in ARROWS["grading",] and ("data", "corpora") in ARROWS["training", "tasks"]


def test_every_module_is_small_enough_to_read():
    long = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values()}
    assert {name: lines for name, lines in long.items() if lines > 320} == {}


def test_the_top_of_the_package_holds_few_modules():
    top = {path.stem for path in PACKAGE.glob("*.py")}
    assert top == {
        "__main__",
        "answering",
        "device",
        "errors",
        "evaluating",
        "processes",
        "profiles",
        "runs",
        "storage",
        "streams",
    }


@pytest.mark.parametrize("room", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_a_face_says_what_is_in_the_room_and_hands_out_few_names(room):
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    assert "May use" in ast.get_docstring(tree)
    handed = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    brought = {alias.asname or alias.name for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names}
    assert set(handed) == brought and len(handed) <= 28


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_import_from_the_faces_alone(path):
    source = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
    modules = [
        node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llmft_helpers.")
    ]
    assert modules and [module for module in modules if module.count(".") > 1] == []


def test_every_room_is_packed():
    packed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert [
        room for room in {name[0] for name in ARROWS if len(name) > 1} if f'"llmft_helpers.{room}"' not in packed
    ] == []
