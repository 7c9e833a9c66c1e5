"""Whether the solutions that come with problems can be what a model learns from."""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import UserError
from .execution import grade
from .problems import read_problem, reference

FENCE = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)


class Fault(NamedTuple):
    """What is wrong with a reference, in words that can be counted, and the particulars."""

    kind: str
    detail: str


def reference_faults(
    rows: Sequence[dict], *, progress: Callable[[int, int], None] | None = None, workers: int | None = None
) -> dict[int, Fault]:
    """Index and fault of each row whose `completion` does not parse, is wrapped in Markdown or fails its own tests.

    Each reference runs once, isolated. A row whose tests cannot be read is among them, with that reason.
    """
    faults = {i: fault for i, row in enumerate(rows) if (fault := _unreadable(row))}
    rest = [i for i in range(len(rows)) if i not in faults]
    chosen = [rows[i] for i in rest]
    graded = grade([reference(row) for row in chosen], chosen, progress=progress, workers=workers)
    for i, one in zip(rest, graded, strict=True):
        if not one["passed"]:
            faults[i] = Fault("fails its own tests", f"{one['verdict']}: {one['detail']}")
    return dict(sorted(faults.items()))


def _unreadable(row: dict) -> Fault | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(reference(row), "<reference>", "exec", dont_inherit=True)  # ast.parse takes a stray return
    except SyntaxError as error:
        if FENCE.search(reference(row)):
            return Fault("is wrapped in Markdown", f"line {error.lineno}: {error.msg}")
        return Fault("does not parse", f"line {error.lineno}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return Fault("does not parse", str(error))
    try:
        read_problem(row)
    except UserError as error:
        return Fault("has tests that cannot be read", str(error))
    return None
