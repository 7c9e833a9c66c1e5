"""Take the definitions out of a notebook without running it: imports, functions, classes and UPPER_CASE constants.

    gpt = lift("01_char_gpt")
    model = gpt.GPT(vocabulary=100, layers=2, heads=2, width=32, context=64)

Every other statement (loading data, training, plots) is left out. A definition that is replaced in the lifted
module is replaced for all others in it, since they look their names up there: `gpt.MLP = MyMLP`.
"""

import ast
from pathlib import Path
from types import ModuleType

import nbformat

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def lift(name: str) -> ModuleType:
    """A fresh module with the definitions of notebooks/<name>.ipynb; errors point at cell and line."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    module = ModuleType(name)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            tree = ast.parse(cell.source)
            tree.body = [statement for statement in tree.body if _is_definition(statement)]
            exec(compile(tree, f"<{name} cell {number}>", "exec"), module.__dict__)
    return module


def _is_definition(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id.isupper() for target in statement.targets)
    return isinstance(statement, DEFINITIONS)
