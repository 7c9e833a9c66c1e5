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

import functools
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from ..errors import UserError
from .comparison import COMPARE
from .problems import Problem, read_problem
from .sandbox import Limits, Stopped, Worker, printable

PER_PROBLEM = 4  # the CPU time of all tests of a problem, in limits of one test
REFERENCE_SECONDS = 60.0  # for a reference whose time is measured
TESTS_SECONDS = 10.0  # CPU time of tests that are code, beside the solution's
TIMES_REFERENCE = 10  # a solution that is so much slower than the reference still counts


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
    takes its remaining tests along. `seconds` is CPU time per call (whole seconds, rounded up), four times that per
    problem; both grow to ten times what the row's reference takes, if it has one. Four times that on the clock also
    ends it, so that a busy machine does not change verdicts. `memory_mb` is address space in MiB.
    `progress(done, total)` is called in the calling thread. UserError on a problem row that cannot be read;
    RuntimeError if the isolated interpreter does not start: that is never the solution's fault.
    """
    if len(solutions) != len(problems):
        raise UserError(f"{len(solutions)} solutions for {len(problems)} problems: give one solution per problem")
    read = [read_problem(row) for row in problems]
    results: list[dict] = [{} for _ in read]
    measured: dict[str, Limits] = {}
    limits = Limits(seconds, PER_PROBLEM * seconds, memory_mb)
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        jobs = {
            pool.submit(_grade_one, solution, problem, limits, measured): i
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
    with tempfile.NamedTemporaryFile() as secret, Worker("probe", Limits(5, 5, 256)) as worker:
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


def _grade_one(solution: str, problem: Problem, limits: Limits, measured: dict[str, Limits]) -> dict:
    outcomes, _ = _run(solution, problem, limits)
    if problem.reference and any(verdict == "timeout" for verdict, _ in outcomes):
        key = problem.task_id + problem.reference
        if key not in measured:
            measured[key] = _limits_by_reference(problem, limits)
        if measured[key] != limits:
            outcomes, _ = _run(solution, problem, measured[key])
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


def _limits_by_reference(problem: Problem, limits: Limits) -> Limits:
    """`limits`, or what TIMES_REFERENCE asks for if that is more."""
    outcomes, times = _run(problem.reference, problem, Limits(REFERENCE_SECONDS, REFERENCE_SECONDS, limits.memory_mb))
    if any(verdict != "passed" for verdict, _ in outcomes):
        return limits
    slowest, total = TIMES_REFERENCE * max(times), TIMES_REFERENCE * sum(times)
    return Limits(max(limits.seconds, slowest), max(limits.total, total), limits.memory_mb)


def _run(solution: str, problem: Problem, limits: Limits) -> tuple[list[tuple[str, str]], list[float]]:
    """((verdict, detail) of each test, CPU seconds of each call)."""
    with Worker("solution", limits) as model:
        try:
            outcomes = (_run_cases if problem.cases else _run_check)(model, solution, problem, limits)
        except Stopped as stopped:
            outcomes = [stopped.outcome] * problem.total
        return outcomes, model.times


def _run_cases(model: Worker, solution: str, problem: Problem, limits: Limits) -> list[tuple[str, str]]:
    """(verdict, detail) of each {"args", "expected"}; compared here."""
    outcomes: list[tuple[str, str]] = []
    same = COMPARE[problem.compare]
    model.start(solution, problem)
    model.wait_ready()
    model.load()
    for case in problem.cases:
        try:
            value, after = model.call(case["args"], [])
        except Stopped as stopped:
            outcomes.append(stopped.outcome)
            if stopped.final:
                return outcomes + [stopped.outcome] * (problem.total - len(outcomes))
            continue
        if problem.in_place:
            value = _first_argument(after)
        if same(case["expected"], value):
            outcomes.append(("passed", ""))
        else:
            outcomes.append(("wrong", printable(f"expected {_short(case['expected'])}, got {_short(value)}")))
    return outcomes


def _first_argument(after: object) -> object:
    match after:
        case [[first, *_], _]:
            return first
    return None


def _run_check(model: Worker, solution: str, problem: Problem, limits: Limits) -> list[tuple[str, str]]:
    """(verdict, detail) of each test in `check`, which runs in a process of its own; values are handed across."""
    outcomes: dict[int, tuple[str, str]] = {}
    ended: Stopped | None = None
    got = ""
    own_setup = "" if not problem.prelude else problem.setup
    longer = limits.total + TESTS_SECONDS
    with Worker("tests", Limits(longer, longer, limits.memory_mb)) as tests:
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
                    answer["value"], answer["after"] = model.call(*message["call"])
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
