"""Reference solutions: put into one form at load, and those that cannot be right are named and left out of training."""

import re

from ..grading.execution import grade
from .method_bodies import parsed

MARKDOWN, SYNTAX, TESTS = "solution is in Markdown", "solution does not parse", "solution fails its tests"
FAULTS = (MARKDOWN, SYNTAX, TESTS)


def whole_solution(row: dict) -> str:
    """The completion as a program of its own: HumanEval's, an indented body, behind the prompt that it continues."""
    completion = row["completion"]
    if parsed(completion) is None:
        for beginning in (row.get("prompt") or "", row["starter_code"], row["problem_description"]):
            if beginning and parsed(joined := f"{beginning.rstrip()}\n{completion.lstrip(chr(10))}"):
                return joined
    return completion


def fault(completion: str) -> str | None:
    """Why a completion cannot be trained on, as far as its text shows."""
    if parsed(completion) is not None:
        return None
    return MARKDOWN if re.search(r"^\s*(```|~~~)", completion, re.MULTILINE) else SYNTAX


def failing(rows: list[dict]) -> dict[int, str]:
    """Place -> detail of the rows whose solution fails its own tests, each run in a confined process."""
    graded = grade([row["completion"] for row in rows], rows) if rows else []
    return {n: f"{one['verdict']}: {one['detail']}"[:200] for n, one in enumerate(graded) if not one["passed"]}
