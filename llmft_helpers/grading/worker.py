"""The process in which one model-written solution (or one problem's tests) runs; started by `sandbox.py`.

Started as a script in a fresh interpreter, it confines itself and forks once: the *outer* half keeps no
model code, waits, and takes every descendant with it; the *inner* half is locked in (`confine`) and talks
JSON lines over its own pair of pipes. It runs by its path, compiled, with its two parts beside it.
"""

import builtins
import copy
import ctypes
import json
import os
import resource
import signal
import sys
import time
import types

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from confinement import SOLUTION, SPARE, audit_hook, confine, limit_call, readable_paths, supervise, unshare  # noqa: E402
from values import decode, encode  # noqa: E402

del sys.path[0]  # no import of a solution looks there

__builtins__ = dict(vars(builtins))  # the functions below keep these when a solution patches `builtins`

RECURSION = 60_000  # LeetCode's is far above Python's 1,000; a call through @cache counts three times
STARS = ("typing", "functools", "collections", "itertools", "heapq", "bisect", "string", "operator", "math")


class CandidateFailed(BaseException):
    """The model's code gave no value: (verdict, detail). Not an Exception, so that no test swallows it."""


class Pipe:
    """JSON lines in and out; holds its own references, so that patched modules change nothing."""

    def __init__(self) -> None:
        self.requests, self.replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
        self.null = os.open(os.devnull, os.O_RDWR)
        for standard in 0, 1:
            os.dup2(self.null, standard)
        self._write, self._dumps, self._loads = os.write, json.dumps, json.loads

    def ready(self) -> None:
        os.dup2(self.null, 2)  # until here, standard error tells the grader why we could not start
        self.send({"ready": True})

    def send(self, message: dict) -> None:
        line = self._dumps(message).encode() + b"\n"
        while line:
            line = line[self._write(self.replies, line) :]

    def receive(self) -> dict:
        line = self.requests.readline()
        if not line:
            os._exit(0)
        return self._loads(line)


def serve_solution(job: dict, pipe: Pipe, hook: types.FunctionType | None) -> None:
    """Load the model's code, then answer calls {"id", "args", "kwargs"} with {"id", "value"} or {"id", "fail"}."""
    space = _namespace("solution", job, pipe)
    clock = time.process_time
    pipe.ready()
    try:
        limit_call(job["seconds"])
        if hook:
            sys.addaudithook(hook)
        exec(compile(job["source"], SOLUTION, "exec"), space)
        _entry(space, job)
    except BaseException as error:
        pipe.send({"fail": _failure(error)})
        return
    pipe.send({"loaded": True})
    while True:
        request = pipe.receive()
        try:
            limit_call(job["seconds"])
            start = clock()
            args, kwargs = decode(request["args"], space), dict(decode(request["kwargs"], space))
            value = encode(_entry(space, job)(*args, **kwargs))
            reply = {"id": request["id"], "value": value, "seconds": clock() - start}
            if value is None or job["in_place"]:
                reply["after"] = [encode(args), encode(list(kwargs.items()))]
            pipe.send(reply)
        except BaseException as error:
            value = args = kwargs = reply = None
            pipe.send({"id": request["id"], "fail": _failure(error)})


def serve_tests(job: dict, pipe: Pipe) -> None:
    """Run `check` with a candidate that asks for the model's answer through the pipe; report test by test."""
    space = _namespace("tests", job, pipe)

    def candidate(*args, **kwargs):
        pipe.send({"call": [encode(list(args)), encode(list(kwargs.items()))]})
        answer = pipe.receive()
        if "fail" in answer:
            raise CandidateFailed(*answer["fail"])
        try:
            if answer["after"] is not None:
                after, named = decode(answer["after"], space)
                for old, new in zip([*args, *kwargs.values()], [*after, *dict(named).values()], strict=True):
                    put_back(old, new)
            return decode(answer["value"], space)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise CandidateFailed("error", "returned malformed data") from error

    class Test:
        def __init__(self, number: int) -> None:
            self.number = number

        def __enter__(self) -> None:
            pass

        def __exit__(self, kind, error, trace) -> bool:
            if isinstance(error, CandidateFailed):
                verdict, detail = error.args
            elif error is None or isinstance(error, AssertionError):
                verdict, detail = "wrong" if error else "passed", ""
            else:
                verdict, detail = "wrong", f"the test raised {kind.__name__}: {error}"
            pipe.send({"test": self.number, "verdict": verdict, "detail": detail})
            return True

    space["__test__"] = Test
    check = space["check"]  # the entry point may be called so, too
    if "." not in job["entry"]:
        space[job["entry"]] = candidate  # some tests of HumanEval call the function by its name
    pipe.ready()
    pipe.receive()  # the model's code is loaded
    try:
        check(candidate)
    except CandidateFailed as error:
        pipe.send({"done": list(error.args)})
    except Exception as error:
        pipe.send({"done": ["error", f"the tests raised {type(error).__name__}: {error}"]})
    else:
        pipe.send({"done": None})


def serve_probe(job: dict, pipe: Pipe) -> None:
    """Try what the layers should forbid and say what was refused."""
    import socket

    def refused(action) -> bool:
        try:
            action()
        except (OSError, MemoryError):
            return True
        return False

    def fork() -> None:
        if not os.fork():
            os._exit(0)
        os.wait()

    def write(folder: str) -> None:
        path = os.path.join(folder, f"llmft-probe-{os.getpid()}")
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.unlink(path)

    def connect() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.connect(("192.0.2.1", 9))  # TEST-NET-1: needs a route, sends nothing

    pipe.ready()
    pipe.send({
        "uid": os.getuid(),
        "memory": refused(lambda: bytearray(job["memory"] + SPARE)),
        "fork": refused(fork),
        "write": refused(lambda: write("/tmp")) and refused(lambda: write(job["folder"])),
        "read": refused(lambda: os.close(os.open(job["file"], os.O_RDONLY))),
        "signal": refused(lambda: os.kill(job["grader"], 0)),
        "network": refused(connect),
    })  # fmt: skip


def _namespace(name: str, job: dict, pipe: Pipe) -> dict:
    """A module's namespace with the names that LeetCode provides (if asked for) and the problem's own prompt."""
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclasses look their module up
    space = vars(module)
    if "random" in job["rare"]:
        __import__("random").seed(0)  # the same verdict twice
    if job["prelude"]:
        for star in STARS:
            exec(f"import {star}\nfrom {star} import *", space)
        for rare in job["rare"]:
            space[rare] = __import__(rare)
        for shadowed in vars(builtins).keys() & space.keys() - vars(types.ModuleType(name)).keys():
            del space[shadowed]  # `pow` is the builtin, not math's or operator's
        sys.setrecursionlimit(RECURSION)
    try:
        exec(compile(job["setup"], "<prompt>", "exec"), space)
        exec(compile(job.get("check", ""), "<tests>", "exec"), space)
    except Exception as error:
        pipe.send({"broken": f"{type(error).__name__}: {error}"})
        os._exit(0)
    return space


def put_back(old: object, new: object) -> None:
    """Give an argument the contents that the solution, which returned nothing, left in its copy."""
    if type(old) is not type(new):
        return
    if isinstance(old, list | bytearray):
        old[:] = new
    elif isinstance(old, dict | set):
        old.clear()
        old.update(new)
    elif type(old).__name__ in ("ListNode", "TreeNode"):
        vars(old).update(vars(new))


def _entry(space: dict, job: dict):
    """The function to call: a method of a fresh `Solution()`, or a plain function where the problem allows one."""
    owner, _, name = job["entry"].rpartition(".")
    owner_class = space.get("Solution")
    if job["calls"] and isinstance(space.get(name), type):
        return lambda names, arguments: _calls(space[name], names, arguments)
    if isinstance(owner_class, type) and hasattr(owner_class, name):
        return getattr(owner_class(), name)
    if owner or not callable(space.get(name)):
        raise NameError(f"the code defines no {'Solution.' if owner else ''}{name}")
    return space[name]


def _calls(made_of: type, names: list[str], arguments: list[list]) -> list:
    """What each call on one object returns at the time; the first makes the object."""
    made = made_of(*arguments[0])
    return [None] + [copy.deepcopy(getattr(made, n)(*a)) for n, a in zip(names[1:], arguments[1:], strict=True)]


def _failure(error: BaseException) -> list[str]:
    """[verdict, detail]: type, message and the line in the model's own source."""
    if isinstance(error, MemoryError):
        limit = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))  # room to say so
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    trace, error.__traceback__ = error.__traceback__, None
    while trace:
        if trace.tb_frame.f_code.co_filename == SOLUTION:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        message = (error.msg if isinstance(error, SyntaxError) else str(error))[:200]
    except BaseException:  # a model's exception class may fail, or end the process, in its own __str__
        message = ""
    name = type(error).__name__
    verdict = "memory" if isinstance(error, MemoryError) else "error"
    return [verdict, f"{name}: {message}".rstrip(": ") + (f" (line {line})" if line else "")]


def _inner(config: dict, pipe: Pipe, libc: ctypes.CDLL | None) -> None:
    packages = config["packages"]
    paths = readable_paths(packages)
    sys.path += sorted({os.path.dirname(path) for path in packages})
    confine(config, libc, paths)
    sys.set_int_max_str_digits(0)  # the limit on CPU time holds for long integers, too
    job = pipe.receive()
    if job["mode"] == "tests":
        serve_tests(job, pipe)
    elif job["mode"] == "solution":
        hook = None if "audit" in config["without"] else audit_hook(pipe.send, paths)
        serve_solution(job, pipe, hook)
    else:
        serve_probe(job | config, pipe)


def main() -> None:
    config = json.loads(sys.argv[1])
    pipe = Pipe()
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc:
        libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        libc.prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG: a dead grader leaves nothing running
        if "namespaces" not in config["without"]:
            unshare(libc)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # until the handler knows whom to end
    inner = os.fork()
    if inner == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        try:
            _inner(config, pipe, libc)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    pipe.requests.close()
    os.close(pipe.replies)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(inner, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os._exit(supervise(inner, config["cpu"]))


if __name__ == "__main__":
    main()
