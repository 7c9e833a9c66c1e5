"""A confined process for code that nobody vouches for, seen from outside: start it, hand over, receive, end it.

`worker.py` is the inside, `confinement.py` what locks it in; what that holds, and what not, stands in
`execution.py`.
"""

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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .confinement import TIMED_OUT

PACKAGES = ("sortedcontainers", "numpy")  # what LeetCode offers beside the standard library, if installed here
PARTS = ("worker", "values", "confinement")  # what runs inside; the first is the script
# modules that a solution may use without an import, beside the worker's STARS; loaded only if it names them
RARE = ("array", "copy", "datetime", "decimal", "fractions", "random", "re", "statistics", "sys", "time")
ANSWER_BYTES = 8_000_000
START_SECONDS = 60.0  # for an interpreter on a busy machine; the limit of a problem runs from then on
CLOCK = 4  # wall-clock time, in limits of CPU time: a busy machine changes no verdict, a sleeper ends
WITHOUT: tuple[str, ...] = ()  # layers that tests leave out, to show that the others hold
_LOCK = threading.Lock()


class Stopped(Exception):
    """The model's code gave no value: verdict and detail; `final` if its process cannot go on."""

    def __init__(self, verdict: str, detail: str, final: bool = True) -> None:
        super().__init__(verdict, detail)
        self.outcome, self.final = (verdict, printable(detail)), final


@dataclass(frozen=True)
class Limits:
    """CPU seconds of one call and of all calls together; address space in MiB."""

    seconds: float
    total: float
    memory_mb: int


class Worker:
    """A confined process and the pipes to it; `stop` (or leaving the context) ends it and all it started."""

    def __init__(self, mode: str, limits: Limits) -> None:
        self.mode, self.limits, self.clock, self.end = mode, limits, math.inf, math.inf
        self.times: list[float] = []  # CPU seconds of each call, as the process itself says
        self.folder = tempfile.mkdtemp(prefix="llmft-")
        config = {"cpu": math.ceil(limits.total), "memory": limits.memory_mb << 20, "folder": self.folder,
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

    def start(self, source: str, problem) -> None:
        words = set(re.findall(r"[A-Za-z_]\w*", source + problem.setup))
        text = "source" if self.mode == "solution" else "check"
        self.send_job({text: source, "entry": problem.entry, "setup": problem.setup, "prelude": problem.prelude,
                       "calls": problem.calls, "in_place": problem.in_place, "seconds": self.limits.seconds,
                       "rare": sorted(words & set(RARE))})  # fmt: skip

    def send_job(self, job: dict) -> None:
        with self._starting():
            self.send({"mode": self.mode, **job}, START_SECONDS)

    def wait_ready(self) -> None:
        """Wait until the process is confined and the problem's own code has run; its time counts from here."""
        with self._starting():
            message = self.receive(START_SECONDS)
        if "broken" in message:
            raise Stopped("error", f"the problem's own code fails: {message['broken']}")
        self.end = time.monotonic() + CLOCK * self.limits.total
        self._wind()

    def _wind(self) -> None:
        """Set the clock for what comes next."""
        self.clock = min(self.end, time.monotonic() + CLOCK * self.limits.seconds)

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
            raise failure_of(message, final=True)

    def call(self, args: list, kwargs: list) -> tuple[object, object]:
        """One call: (returned value, [args, kwargs] afterwards if the problem asks for them or nothing was returned).

        All `encode`d, kwargs as pairs. Stopped if there is no value.
        """
        nonce = secrets.token_hex(8)
        self._wind()
        self.send({"id": nonce, "args": args, "kwargs": kwargs})
        message = self.receive()
        if message.get("id") == nonce and "value" in message:
            spent = message.get("seconds")
            self.times.append(spent if type(spent) is float else 0.0)
            return message["value"], message.get("after")
        raise failure_of(message, final=message.get("id") != nonce)

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
            raise Stopped("timeout", f"over {self._allowed()} of CPU time or {CLOCK} times that on the clock")

    def _allowed(self) -> str:
        return f"{self.limits.seconds:g} s in a call, or {self.limits.total:g} s in all,"

    def _ended(self) -> Stopped:
        """What the end of the pipe says about the process."""
        try:
            status = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return Stopped("error", "closed the pipe for its answers")
        if status == TIMED_OUT:
            return Stopped("timeout", f"over {self._allowed()} of CPU time")
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


def failure_of(message: dict, final: bool) -> Stopped:
    """The failure that the model's process reports; it may name no other verdict than these."""
    match message.get("fail"):
        case ["error" | "memory" | "unsafe" as verdict, str(detail)]:
            return Stopped(verdict, detail, final or verdict == "unsafe")
    return Stopped("error", "sent back something other than an answer")


def printable(text: str) -> str:
    """Printable, one line, at most 300 characters: a model wrote some of it."""
    return "".join(c if c.isprintable() else " " for c in text[:300]).strip()


@functools.cache
def _compile() -> tempfile.TemporaryDirectory:
    """The worker and its parts as bytecode, for as long as this process lives: compiling takes 8 ms every time."""
    folder = tempfile.TemporaryDirectory(prefix="llmft-")
    for part in PARTS:
        source = Path(__file__).with_name(f"{part}.py")
        compiled = str(Path(folder.name) / f"{part}.pyc")
        # a name in <> keeps warnings, traceback and inspect from opening our source to quote a line of it
        py_compile.compile(str(source), compiled, dfile=f"<{part}>", doraise=True)
    return folder


def _compiled() -> Path:
    with _LOCK:  # functools.cache lets two threads in, and the loser's folder would vanish under its users
        return Path(_compile().name) / f"{PARTS[0]}.pyc"


@functools.cache
def _packages() -> list[str]:
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    found = [str(Path(spec.origin).parent) for spec in specs if spec and spec.origin]
    return found + [f"{path}.libs" for path in found if Path(f"{path}.libs").is_dir()]
