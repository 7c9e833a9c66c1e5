"""Execution grading: model-written Python is run against a problem's tests in confined processes.

How a verdict comes about. A solution runs in a fresh interpreter (`worker.py`) that gets arguments and
gives back *returned values*, as plain data over a pipe of its own. Expected values never enter that process:
either this process compares them (rows with `tests`), or a second confined process runs the row's `check` function
with a stand-in for the candidate (rows with `test`: LeetCodeDataset, HumanEval). So printing "passed", exiting
with status 0, an `__eq__` that lies, patched modules and forged messages gain nothing: code that owns its process
can at most send a *value*, and it does not know the right one.

What holds where (`isolation_level()` tries it out and says so): a limit on CPU time, address space and file size, no
new processes or threads, an empty environment, standard streams discarded, a temporary folder that is removed,
an audit hook that names an attempt ("unsafe"); on Linux also namespaces without network, the processes of the
machine out of sight, Landlock (only the standard library can be read, nothing written) and, as root, another user.

What it does not protect against: holes in the kernel or in the interpreter's C code; timing and load as side
channels; a solution that knows the problem's answers by heart. Where Landlock is missing, native code can read files
open to the user; where namespaces are missing too and we are not root, the memory of this process (unless the system
restricts ptrace) and signal it. macOS does not enforce the memory limit and has none of the Linux layers.
"""

import ast
import functools
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

from ..errors import UserError
from .comparison import COMPARE
from .sandbox import Stopped, Worker, printable
from .values import encode

VERDICTS = ("passed", "wrong", "error", "timeout", "memory", "unsafe")


@dataclass(frozen=True)
class Problem:
    """A row of any of the three shapes, taken apart."""

    task_id: str
    entry: str  # "Solution.twoSum" (a class is demanded) or "twoSum"
    setup: str  # source that both the solution and the tests see
    prelude: bool  # LeetCode's imports are provided
    cases: tuple[dict, ...] = ()  # {"args", "expected"}
    compare: str = "exact"
    check: str = ""  # source with every test in its own `with __test__(number):`
    labels: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return len(self.cases) or len(self.labels)


def grade(
    solutions: Sequence[str],
    problems: Sequence[dict],
    *,
    workers: int | None = None,
    seconds: float = 5.0,
    memory_mb: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict]:
    """Run solution i against the tests of problem i; one row per pair, in order.

    A row: task_id, passed, verdict, tests_passed, tests_total, detail, verdicts (one per test). The verdict is
    the first that is not "passed": wrong, error (type and line), timeout, memory, unsafe. A process that ends
    takes its remaining tests along. `seconds` is CPU time per problem (whole seconds, rounded up); twice that on the
    clock also ends it, so that a busy machine does not change verdicts. `memory_mb` is address space in MiB.
    `progress(done, total)` is called in the calling thread. UserError on a problem row that cannot be read;
    RuntimeError if the isolated interpreter does not start: that is never the solution's fault.
    """
    if len(solutions) != len(problems):
        raise UserError(f"{len(solutions)} solutions for {len(problems)} problems: give one solution per problem")
    read = [read_problem(row) for row in problems]
    results: list[dict] = [{} for _ in read]
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        jobs = {
            pool.submit(_grade_one, solution, problem, seconds, memory_mb): i
            for i, (solution, problem) in enumerate(zip(solutions, read, strict=True))
        }
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                results[jobs[job]] = job.result()
                if progress:
                    progress(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


@functools.cache
def isolation_level() -> str:
    """One line on what confines a solution on this machine, found by trying it in such a process."""
    with tempfile.NamedTemporaryFile() as secret, Worker("probe", 5, 256) as worker:
        os.chmod(secret.name, 0o644)
        worker.send_job({"file": secret.name, "grader": os.getpid()})
        worker.wait_ready()
        facts = worker.receive()
    claims = {
        "memory": "memory limit",
        "fork": "no new processes",
        "network": "no network",
        "write": "no file writes",
        "read": "no reading outside the standard library",
        "signal": "no signals to other processes",
    }
    held = [text for key, text in claims.items() if facts[key]]
    missing = [text for key, text in claims.items() if not facts[key]]
    line = f"fresh interpreter as uid {facts['uid']}, CPU and time limit, audit hook, " + ", ".join(held)
    return line + ("; NOT in force here: " + ", ".join(missing) if missing else "")


def read_problem(row: dict) -> Problem:
    """A row of shape `tests` (ours), or `test` (LeetCodeDataset, HumanEval). UserError if it is none of them."""
    task = str(row.get("task_id", "?"))
    try:
        if "tests" in row:
            cases = tuple({"args": list(test["args"]), "expected": test["expected"]} for test in row["tests"])
            compare = row.get("compare", "exact")
            if not cases or compare not in COMPARE:
                raise ValueError(f"no tests, or compare is none of {', '.join(COMPARE)}")
            return Problem(task, f"Solution.{row['entry_point']}", "", True, cases, compare)
        check, labels = split_check(row["test"])
        entry = row["entry_point"].replace("Solution().", "Solution.")
        given = bool(re.search(rf"^def {re.escape(entry)}\b", row["prompt"], re.MULTILINE))
        # HumanEval's prompt is the solution's own beginning, and its task includes the imports
        return Problem(task, entry, row["prompt"], not given, check=check, labels=labels)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"problem {task}: cannot read its tests: {error!r}") from error


def split_check(source: str) -> tuple[str, tuple[str, ...]]:
    """The tests' source with every statement of `check` that asserts in a `with __test__(i):`, and their texts.

    `assert True` and the like are no tests and stay as they are. ValueError if nothing is tested.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    labels: list[str] = []
    for check in tree.body:
        if isinstance(check, ast.FunctionDef) and check.name == "check":
            for i, node in enumerate(check.body):
                if _asserts(node):
                    test = ast.Call(ast.Name("__test__", ast.Load()), [ast.Constant(len(labels))], [])
                    check.body[i] = ast.With([ast.withitem(test)], [node])
                    labels.append(ast.unparse(node))
    if not labels:
        raise ValueError("no function check(candidate) with an assert in it")
    return ast.unparse(ast.fix_missing_locations(tree)), tuple(labels)


def _asserts(node: ast.stmt) -> bool:
    return any(isinstance(n, ast.Assert) and not isinstance(n.test, ast.Constant) for n in ast.walk(node))


def _grade_one(solution: str, problem: Problem, seconds: float, memory_mb: int) -> dict:
    run = _run_cases if problem.cases else _run_check
    try:
        outcomes = run(solution, problem, seconds, memory_mb)
    except Stopped as stopped:
        outcomes = [stopped.outcome] * problem.total
    verdicts = [verdict for verdict, _ in outcomes]
    verdict, detail = next((o for o in outcomes if o[0] != "passed"), ("passed", ""))
    return {
        "task_id": problem.task_id,
        "passed": verdict == "passed",
        "verdict": verdict,
        "tests_passed": verdicts.count("passed"),
        "tests_total": problem.total,
        "detail": detail,
        "verdicts": verdicts,
    }


def _run_cases(solution: str, problem: Problem, seconds: float, memory_mb: int) -> list[tuple[str, str]]:
    """(verdict, detail) of each {"args", "expected"}; compared here."""
    outcomes: list[tuple[str, str]] = []
    same = COMPARE[problem.compare]
    with Worker("solution", seconds, memory_mb) as model:
        model.start(solution, problem)
        model.wait_ready()
        model.load()
        for case in problem.cases:
            try:
                value = model.call(encode(case["args"]), encode({}))
            except Stopped as stopped:
                outcomes.append(stopped.outcome)
                if stopped.final:
                    return outcomes + [stopped.outcome] * (problem.total - len(outcomes))
                continue
            if same(case["expected"], value):
                outcomes.append(("passed", ""))
            else:
                text = f"expected {_short(encode(case['expected']))}, got {_short(value)}"
                outcomes.append(("wrong", printable(text)))
    return outcomes


def _run_check(solution: str, problem: Problem, seconds: float, memory_mb: int) -> list[tuple[str, str]]:
    """(verdict, detail) of each test in `check`, which runs in a process of its own; values are handed across."""
    outcomes: dict[int, tuple[str, str]] = {}
    ended: Stopped | None = None
    got = ""
    own_setup = "" if not problem.prelude else problem.setup
    with Worker("solution", seconds, memory_mb) as model, Worker("tests", seconds + 10, memory_mb) as tests:
        model.start(solution, replace(problem, setup=own_setup))
        tests.start(problem.check, problem)
        tests.wait_ready()  # first: the model's clock runs from its own readiness
        model.wait_ready()
        model.load()
        tests.send({"go": True})
        while True:
            try:
                message = tests.receive()
            except Stopped as stopped:
                rest = stopped.outcome if stopped.outcome[0] == "timeout" else ("error", f"tests: {stopped}")
                break
            if "call" in message:
                answer: dict = {}
                try:
                    if ended:
                        raise ended
                    answer["value"] = model.call(*message["call"])
                    got = _short(answer["value"])
                except Stopped as stopped:
                    ended = stopped if stopped.final else None
                    answer["fail"] = stopped.outcome
                tests.send(answer)
            elif "test" in message:
                detail = message["detail"]
                if message["verdict"] == "wrong":
                    detail = f"{problem.labels[message['test']][:160]}; got {got} {detail}"
                outcomes[message["test"]] = (message["verdict"], printable(detail))
            else:
                rest = tuple(message["done"] or ("error", "the tests ended early"))
                break
    return [outcomes.get(i, rest) for i in range(problem.total)]


def _short(wire: object) -> str:
    return json.dumps(wire)[:120]


def default_workers() -> int:
    """As many as there are cores for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
