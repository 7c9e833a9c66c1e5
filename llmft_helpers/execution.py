"""Execution grading: model-written Python is run against a problem's tests in confined processes.

How a verdict comes about. A solution runs in a fresh interpreter (`sandbox_worker.py`) that gets arguments and
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
import contextlib
import functools
import importlib.util
import json
import math
import os
import py_compile
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import UserError
from .sandbox_worker import RARE, TIMED_OUT, encode

VERDICTS = ("passed", "wrong", "error", "timeout", "memory", "unsafe")
PACKAGES = ("sortedcontainers", "numpy")  # what LeetCode offers beside the standard library, if installed here
WORKER = Path(__file__).with_name("sandbox_worker.py")
COMPILED = "sandbox_worker.pyc"
ANSWER_BYTES = 8_000_000
START_SECONDS = 60.0  # for an interpreter on a busy machine; the limit of a problem runs from then on
WITHOUT: tuple[str, ...] = ()  # layers that tests leave out, to show that the others hold
TOLERANCE = 1e-6
_LOCK = threading.Lock()


class Stopped(Exception):
    """The model's code gave no value: verdict and detail; `final` if its process cannot go on."""

    def __init__(self, verdict: str, detail: str, final: bool = True) -> None:
        super().__init__(verdict, detail)
        self.outcome, self.final = (verdict, _clean(detail)), final


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


class Worker:
    """A confined process and the pipes to it; `stop` (or leaving the context) ends it and all it started."""

    def __init__(self, mode: str, seconds: float, memory_mb: int) -> None:
        self.mode, self.seconds, self.clock = mode, seconds, math.inf
        self.folder = tempfile.mkdtemp(prefix="llmft-")
        config = {"cpu": math.ceil(seconds), "memory": memory_mb << 20, "folder": self.folder,
                  "packages": _packages(), "without": WITHOUT}  # fmt: skip
        # -I would also ignore PYTHONHASHSEED; the environment is ours, so -s -P is as isolated, and repeatable.
        command = [sys.executable, "-s", "-P", "-S", "-B", str(_compiled()), json.dumps(config)]
        environment = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
        if "LD_LIBRARY_PATH" in os.environ:  # some interpreters find libpython by it
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True, bufsize=0
        )
        self.replies = b""
        for end in self.process.stdin, self.process.stdout:
            os.set_blocking(end.fileno(), False)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, source: str, problem: Problem) -> None:
        words = set(re.findall(r"[A-Za-z_]\w*", source + problem.setup))
        text = "source" if self.mode == "solution" else "check"
        self.send_job({text: source, "entry": problem.entry, "setup": problem.setup, "prelude": problem.prelude,
                       "words": sorted(words & set(RARE))})  # fmt: skip

    def send_job(self, job: dict) -> None:
        with self._starting():
            self.send({"mode": self.mode, **job}, START_SECONDS)

    def wait_ready(self) -> None:
        """Wait until the process is confined and the problem's own code has run; its time counts from here."""
        with self._starting():
            message = self.receive(START_SECONDS)
        if "broken" in message:
            raise Stopped("error", f"the problem's own code fails: {message['broken']}")
        self.clock = time.monotonic() + 2 * self.seconds

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """Before any model code runs, a failure is ours."""
        try:
            yield
        except Stopped as error:
            self.stop()
            raise RuntimeError(f"the isolated interpreter did not start ({error}): {self.errors}") from error

    def load(self) -> None:
        message = self.receive()
        if message != {"loaded": True}:
            raise _failure(message, final=True)

    def call(self, args: object, kwargs: object) -> object:
        """Returned value (`encode`d) of one call; Stopped if there is none."""
        nonce = secrets.token_hex(8)
        self.send({"id": nonce, "args": args, "kwargs": kwargs})
        message = self.receive()
        if message.get("id") == nonce and "value" in message:
            return message["value"]
        raise _failure(message, final=message.get("id") != nonce)

    def send(self, message: dict, timeout: float | None = None) -> None:
        line, end = json.dumps(message).encode() + b"\n", self._deadline(timeout)
        while line:
            self._poll(self.process.stdin, select.POLLOUT, end)
            try:
                line = line[os.write(self.process.stdin.fileno(), line) :]
            except BrokenPipeError:
                raise self._ended() from None

    def receive(self, timeout: float | None = None) -> dict:
        end = self._deadline(timeout)
        while b"\n" not in self.replies:
            self._poll(self.process.stdout, select.POLLIN, end)
            chunk = os.read(self.process.stdout.fileno(), 1 << 20)
            if not chunk:
                raise self._ended()
            self.replies += chunk
            if len(self.replies) > ANSWER_BYTES:
                raise Stopped("error", f"sent more than {ANSWER_BYTES:,} bytes back")
        line, _, self.replies = self.replies.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise Stopped("error", "sent back something other than an answer, or nested too deep")
        return message

    def _deadline(self, timeout: float | None) -> float:
        return self.clock if timeout is None else time.monotonic() + timeout

    def _poll(self, stream: object, event: int, end: float) -> None:
        poll = select.poll()
        poll.register(stream, event)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise Stopped("timeout", f"over {self.seconds:g} s of CPU time or twice that on the clock")

    def _ended(self) -> Stopped:
        """What the end of the pipe says about the process."""
        try:
            status = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return Stopped("error", "closed the pipe for its answers")
        if status == TIMED_OUT:
            return Stopped("timeout", f"over {self.seconds:g} s of CPU time")
        if status == 128 + signal.SIGKILL:
            return Stopped("memory", "killed by the system, most likely out of memory")
        if status > 128:
            return Stopped("error", f"the interpreter died of {signal.Signals(status - 128).name}")
        return Stopped("error", f"ended its process (status {status}) instead of returning")

    def stop(self) -> None:
        """End the process and every descendant; remove its folder."""
        if self.process.stderr.closed:
            return
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.errors = self.process.stderr.read().decode(errors="replace")[-2000:]
        for stream in self.process.stdin, self.process.stdout, self.process.stderr:
            stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _failure(message: dict, final: bool) -> Stopped:
    """The failure that the model's process reports; it may name no other verdict than these."""
    match message.get("fail"):
        case ["error" | "memory" | "unsafe" as verdict, str(detail)]:
            return Stopped(verdict, detail, final or verdict == "unsafe")
    return Stopped("error", "sent back something other than an answer")


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
                outcomes.append(("wrong", _clean(text)))
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
                outcomes[message["test"]] = (message["verdict"], _clean(detail))
            else:
                rest = tuple(message["done"] or ("error", "the tests ended early"))
                break
    return [outcomes.get(i, rest) for i in range(problem.total)]


def same_value(expected: object, wire: object, tolerance: float | None = None) -> bool:
    """Whether an encoded value is what the problem expects (plain JSON).

    Types agree: True is not 1, "1" is not 1; a tuple is a list; an int may stand for an expected float. With a
    tolerance (absolute and relative), any two numbers that are that close agree.
    """
    if isinstance(wire, dict):
        kind, payload = wire.get("t"), wire.get("v")
        if kind == "tuple" and isinstance(payload, list):
            wire = payload
        elif kind == "int" and isinstance(payload, str):
            return type(expected) in (int, float) and _same_number(expected, int(payload, 16), tolerance)
        else:
            return kind == "dict" and isinstance(expected, dict) and _same_dict(expected, payload, tolerance)
    if isinstance(expected, list):
        return (
            isinstance(wire, list)
            and len(wire) == len(expected)
            and all(same_value(e, w, tolerance) for e, w in zip(expected, wire, strict=True))
        )
    if type(expected) in (int, float) and type(wire) in (int, float):
        return _same_number(expected, wire, tolerance)
    return type(expected) is type(wire) and expected == wire


def _same_number(expected: float, got: float, tolerance: float | None) -> bool:
    if expected == got:
        return type(expected) is float or type(got) is int or tolerance is not None
    if expected != expected and got != got:
        return True
    try:
        return tolerance is not None and math.isclose(expected, got, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an int beyond any float
        return False


def _same_dict(expected: dict, pairs: object, tolerance: float | None) -> bool:
    try:
        items = {key: item for key, item in pairs if type(key) is str}
    except (TypeError, ValueError):  # forged: not a list of pairs
        return False
    return (
        len(items) == len(pairs)
        and items.keys() == expected.keys()
        and all(same_value(expected[key], items[key], tolerance) for key in items)
    )


def _same_unordered(expected: object, wire: object) -> bool:
    """Lists with the same elements, in any order."""
    if isinstance(wire, dict) and wire.get("t") == "tuple":
        wire = wire.get("v")
    if not isinstance(expected, list) or not isinstance(wire, list) or len(wire) != len(expected):
        return same_value(expected, wire)
    left = list(expected)
    for item in wire:
        match = next((i for i, e in enumerate(left) if same_value(e, item)), None)
        if match is None:
            return False
        del left[match]
    return True


COMPARE = {
    "exact": same_value,
    "unordered": _same_unordered,
    "float": functools.partial(same_value, tolerance=TOLERANCE),
}


def _short(wire: object) -> str:
    return json.dumps(wire)[:120]


def _clean(text: str) -> str:
    """Printable, one line, at most 300 characters: a model wrote some of it."""
    return "".join(c if c.isprintable() else " " for c in text[:300]).strip()


@functools.cache
def _compile() -> tempfile.TemporaryDirectory:
    """The worker as bytecode, for as long as this process lives: a script is never cached, and compiling takes 8 ms."""
    folder = tempfile.TemporaryDirectory(prefix="llmft-")
    py_compile.compile(str(WORKER), str(Path(folder.name) / COMPILED), doraise=True)
    return folder


def _compiled() -> Path:
    with _LOCK:  # functools.cache lets two threads in, and the loser's folder would vanish under its users
        return Path(_compile().name) / COMPILED


@functools.cache
def _packages() -> list[str]:
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    found = [str(Path(spec.origin).parent) for spec in specs if spec and spec.origin]
    return found + [f"{path}.libs" for path in found if Path(f"{path}.libs").is_dir()]


def default_workers() -> int:
    """As many as there are cores for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
