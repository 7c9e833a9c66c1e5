"""A user's own file as test rows: none of them is left out in silence, so that a score is of the whole file.

Read by the readers of a corpus, and put into its form.
"""

from pathlib import Path

from ..errors import UserError
from ..profiles import Source
from .cleaning import tidy
from .corpora import PAIR_COLUMNS, PROBLEM_COLUMNS, PROBLEM_EXTRAS, as_problem
from .sources import read_source


def read_own_rows(path: Path, task: str) -> list[dict]:
    """Pairs or problems; UserError names the row that lacks a column or leaves it empty."""
    source = Source(name=path.name, path=str(path))
    if task == "translation":
        return [_pair(row, source, where) for where, row in read_source(source, PAIR_COLUMNS, ("id", "source"))]
    located = read_source(source, PROBLEM_COLUMNS, PROBLEM_EXTRAS)
    return [as_problem(row, source, where) for where, row in located]


def _pair(row: dict, source: Source, where: str) -> dict:
    pair = row | {side: tidy(row[side]) for side in PAIR_COLUMNS}
    for side in PAIR_COLUMNS:
        if not pair[side]:
            raise UserError(f"{where}: column {side!r} is empty; fill it or remove the pair")
    return pair | {"source": str(row.get("source", source.name))}
