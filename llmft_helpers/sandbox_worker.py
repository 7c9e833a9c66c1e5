"""The process in which one model-written solution (or one problem's tests) runs; started by `execution.py`.

Started as a script in a fresh interpreter, it confines itself and forks once: the *outer* half keeps no
model code, waits, and takes every descendant with it; the *inner* half is locked in (`_confine`) and talks
JSON lines over its own pair of pipes. Values cross as plain data (`encode`, `decode`), never as pickles.
Only the standard library and no sibling module is imported: the script is run by its path.
Landlock: https://docs.kernel.org/userspace-api/landlock.html; namespaces: man 7 namespaces.
"""

import builtins
import ctypes
import json
import os
import resource
import signal
import stat
import struct
import sys
import types

__builtins__ = dict(vars(builtins))  # the functions below keep these when a solution patches `builtins`

NOBODY = 65534
TIMED_OUT = 124  # exit status of the outer half, as timeout(1) has it
SPARE = 64 << 20  # bytes of address space kept back, to report a MemoryError with
MAX_NODES = 200_000
RECURSION = 20_000  # LeetCode's is far above Python's 1,000
STACK = 64 << 20  # bytes, enough for that depth through C calls
SOLUTION = "<solution>"

STARS = ("typing", "functools", "collections", "itertools", "heapq", "bisect", "string", "operator", "math")
RARE = ("array", "copy", "datetime", "decimal", "fractions", "random", "re", "statistics", "sys", "time")
# What a solution to a pure problem never does. The kernel's layers hold without this list; it gives the verdict.
UNSAFE = ("os.", "shutil.", "socket.", "subprocess.", "tempfile.", "signal.", "pty.", "mmap.", "sqlite3.",
          "syslog.", "ctypes.dlsym", "ctypes.call_function", "ctypes.string_at", "ctypes.cdata",
          "ctypes.addressof", "sys.addaudithook")  # fmt: skip
HARMLESS = ("os.listdir", "os.scandir", "os.putenv", "os.unsetenv")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class CandidateFailed(BaseException):
    """The model's code gave no value: (verdict, detail). Not an Exception, so that no test swallows it."""


class Opaque:
    """Stands for an object that is no plain data; it equals nothing but itself."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def encode(value: object) -> object:
    """`value` as JSON types: exact builtins only, the rest tagged {"t": kind, "v": payload}.

    RecursionError on nesting too deep (or a list that holds itself), ValueError on a cyclic linked list or tree.
    """
    kind = type(value)  # not isinstance: __class__ can lie
    if value is None or kind in (bool, float, str):
        return value
    if issubclass(kind, int):
        plain = int.__add__(value, 0)
        return plain if -(1 << 63) < plain < 1 << 63 else {"t": "int", "v": hex(plain)}
    if issubclass(kind, float):
        return float.__add__(value, 0.0)
    if issubclass(kind, str):
        return str.__add__(value, "")
    if issubclass(kind, list):
        return [encode(item) for item in list.__iter__(value)]
    if issubclass(kind, tuple):
        return {"t": "tuple", "v": [encode(item) for item in tuple.__iter__(value)]}
    if issubclass(kind, dict):
        return {"t": "dict", "v": [[encode(key), encode(item)] for key, item in dict.items(value)]}
    if issubclass(kind, set):
        return {"t": "set", "v": [encode(item) for item in set.__iter__(value)]}
    if issubclass(kind, frozenset):
        return {"t": "frozenset", "v": [encode(item) for item in frozenset.__iter__(value)]}
    if issubclass(kind, (bytes, bytearray)):
        return {"t": "bytes", "v": bytes(value).hex()}
    if kind.__module__ == "numpy":
        return encode(value.tolist())
    if kind.__name__ == "ListNode":
        return {"t": "ListNode", "v": _encode_list(value)}
    if kind.__name__ == "TreeNode":
        return {"t": "TreeNode", "v": _encode_tree(value)}
    return {"t": "object", "v": kind.__name__}


def _encode_list(node: object) -> list:
    values = []
    while node is not None:
        values.append(encode(node.val))
        if len(values) > MAX_NODES:
            raise ValueError("the linked list does not end")
        node = node.next
    return values


def _encode_tree(root: object) -> list:
    """Level order; a node is [value], a missing child null."""
    row, queue = [], [root]
    for node in queue:
        if node is None:
            row.append(None)
            continue
        row.append([encode(node.val)])
        queue += (node.left, node.right)
        if len(row) > MAX_NODES:
            raise ValueError("the tree does not end")
    return row


def decode(wire: object, space: dict) -> object:
    """The value that `encode` wrote; node classes are taken from `space`. ValueError on an unknown tag."""
    if type(wire) is list:
        return [decode(item, space) for item in wire]
    if type(wire) is not dict:
        return wire
    kind, payload = wire.get("t"), wire.get("v")
    if kind == "int":
        return int(payload, 16)
    if kind == "tuple":
        return tuple(decode(item, space) for item in payload)
    if kind == "dict":
        return {decode(key, space): decode(item, space) for key, item in payload}
    if kind in ("set", "frozenset"):
        return (set if kind == "set" else frozenset)(decode(item, space) for item in payload)
    if kind == "bytes":
        return bytes.fromhex(payload)
    if kind == "ListNode":
        head = None
        for item in reversed(payload):
            node = space["ListNode"](decode(item, space))
            node.next, head = head, node
        return head
    if kind == "TreeNode":
        return _decode_tree(payload, space)
    if kind == "object":
        return Opaque(payload)
    raise ValueError("malformed value")


def _decode_tree(row: list, space: dict) -> object:
    nodes = [None if item is None else space["TreeNode"](decode(item[0], space)) for item in row]
    children = iter(nodes[1:])
    for node in nodes:
        if node is not None:
            node.left, node.right = next(children, None), next(children, None)
    return nodes[0]


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
    pipe.ready()
    try:
        if hook:
            sys.addaudithook(hook)
        exec(compile(job["source"], SOLUTION, "exec"), space)
        _entry(space, job["entry"])
    except BaseException as error:
        pipe.send({"fail": _failure(error)})
        return
    pipe.send({"loaded": True})
    while True:
        request = pipe.receive()
        try:
            args, kwargs = decode(request["args"], space), decode(request["kwargs"], space)
            value = encode(_entry(space, job["entry"])(*args, **kwargs))
            pipe.send({"id": request["id"], "value": value})
        except BaseException as error:
            value = args = kwargs = None
            pipe.send({"id": request["id"], "fail": _failure(error)})


def serve_tests(job: dict, pipe: Pipe) -> None:
    """Run `check` with a candidate that asks for the model's answer through the pipe; report test by test."""
    space = _namespace("tests", job, pipe)

    def candidate(*args, **kwargs):
        pipe.send({"call": [encode(list(args)), encode(kwargs)]})
        answer = pipe.receive()
        if "fail" in answer:
            raise CandidateFailed(*answer["fail"])
        try:
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
    if "." not in job["entry"]:
        space[job["entry"]] = candidate  # some tests of HumanEval call the function by its name
    pipe.ready()
    pipe.receive()  # the model's code is loaded
    try:
        space["check"](candidate)
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
    words = job["words"]
    if "random" in words:
        __import__("random").seed(0)  # the same verdict twice
    if job["prelude"]:
        for star in STARS:
            exec(f"import {star}\nfrom {star} import *", space)
        for rare in RARE:
            if rare in words:
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


def _entry(space: dict, entry: str):
    """The function to call: a method of a fresh `Solution()`, or a plain function where the problem allows one."""
    owner, _, name = entry.rpartition(".")
    owner_class = space.get("Solution")
    if isinstance(owner_class, type) and hasattr(owner_class, name):
        return getattr(owner_class(), name)
    if owner or not callable(space.get(name)):
        raise NameError(f"the code defines no {'Solution.' if owner else ''}{name}")
    return space[name]


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


def _audit_hook(pipe: Pipe, readable: list[str]) -> types.FunctionType:
    """Ends the process with the verdict unsafe when the model's code reaches for files, processes or sockets."""
    frame, leave, roots = sys._getframe, os._exit, tuple(readable)
    fsdecode, abspath = os.fsdecode, os.path.abspath

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            if isinstance(args[0], int):
                return
            path, writing = fsdecode(args[0]), args[2] & WRITING
            if not writing and (path.startswith("<") or abspath(path).startswith(roots)):
                return  # "<solution>" is what the interpreter looks for when it words a SyntaxError
            what = f"open {path!r}"
        elif not event.startswith(UNSAFE) or event in HARMLESS:
            return
        else:
            what = event
        caller = frame(1)
        while caller and caller.f_code.co_filename != SOLUTION:
            caller = caller.f_back
        where = f" (line {caller.f_lineno})" if caller else ""
        pipe.send({"fail": ["unsafe", what[:200] + where]})
        leave(0)

    return hook


def readable_paths(packages: list[str]) -> list[str]:
    """What a solution may read: the standard library (without site-packages), shared libraries, `packages`."""
    library, shared = os.path.dirname(os.__file__), os.path.join(sys.base_prefix, "lib")
    paths = [e.path for e in os.scandir(library) if e.name not in ("site-packages", "dist-packages", "test")]
    if os.path.isdir(shared):
        paths += [e.path for e in os.scandir(shared) if ".so" in e.name]
    system = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache",
              "/dev/null", "/dev/urandom")  # fmt: skip
    return paths + packages + [path for path in system if os.path.exists(path)]


def _limit(cpu: int, memory: int, processes: bool) -> None:
    """Resource limits (seconds, bytes); a hard limit cannot be raised again without privileges."""
    limits = {
        resource.RLIMIT_CPU: (cpu, cpu),  # soft = hard: SIGKILL, which cannot be handled
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_NOFILE: (64, 64),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_AS: (memory, memory + SPARE),
        resource.RLIMIT_STACK: (STACK, resource.getrlimit(resource.RLIMIT_STACK)[1]),
    }
    if processes:
        limits[resource.RLIMIT_NPROC] = (0, 0)  # no fork, no thread
    for name, (soft, hard) in limits.items():
        try:
            resource.setrlimit(name, (soft, hard))
        except (OSError, ValueError):  # macOS refuses some; a lower hard limit may be in force already
            continue


def _landlock(libc: ctypes.CDLL, paths: list[str], listed: list[str]) -> None:
    """Allow reading below `paths`, the names in `listed` (imports look there), no TCP, no signals to the outside."""
    version = libc.syscall(444, None, 0, 1)
    if version < 1:
        return
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    rules = struct.pack("QQQ", rights, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = libc.syscall(444, rules, len(rules), 0)
    read_file, read_dir = 1 << 2, 1 << 3
    for path, allowed in [*((path, read_file | read_dir) for path in paths), *((path, read_dir) for path in listed)]:
        handle = os.open(path, os.O_PATH)
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            allowed = read_file
        libc.syscall(445, ruleset, 1, struct.pack("=Qi", allowed, handle), 0)
        os.close(handle)
    libc.syscall(446, ruleset, 0)
    os.close(ruleset)


def _drop_privileges(libc: ctypes.CDLL | None, user: bool) -> None:
    """Become nobody (where root and `user`) and give up every capability, whoever we are."""
    root = os.geteuid() == 0
    # An interpreter below /root is closed to nobody; Landlock still bounds what this capability can read.
    capability = 1 << 2 if root and not _open_to_all(os.path.dirname(os.__file__)) else 0  # CAP_DAC_READ_SEARCH
    if libc and root:
        libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    if root and user:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if libc:
        libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", capability, capability, 0, 0, 0, 0))


def _open_to_all(path: str) -> bool:
    while path != "/":
        if not os.stat(path).st_mode & stat.S_IXOTH:
            return False
        path = os.path.dirname(path)
    return True


def _unshare(libc: ctypes.CDLL) -> None:
    """New network, IPC and process namespaces for the inner half; without root, in a new user namespace."""
    user, group, root = os.geteuid(), os.getegid(), os.geteuid() == 0
    flags = 0x40000000 | 0x08000000 | 0x20000000  # CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWPID
    if libc.unshare(flags if root else flags | 0x10000000) == 0 and not root:
        for name, text in ("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def _confine(config: dict, libc: ctypes.CDLL | None, paths: list[str]) -> None:
    without = config["without"]
    os.setsid()
    os.chdir(config["folder"])
    _limit(config["cpu"], config["memory"], "processes" not in without)
    if libc:
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        if "landlock" not in without:
            _landlock(libc, paths, [os.path.dirname(os.__file__), *filter(os.path.isdir, sys.path)])
    _drop_privileges(libc, "user" not in without)
    if libc:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def _supervise(inner: int, cpu: int) -> int:
    """Wait for the inner half, then end whatever it left behind; the exit status to hand on."""
    _, status, usage = os.wait4(inner, 0)
    children = f"/proc/self/task/{os.getpid()}/children"  # orphans come to us: we are their subreaper
    while os.path.exists(children):
        with open(children) as file:
            left = file.read().split()
        if not left:
            break
        for pid in left:
            os.kill(int(pid), signal.SIGKILL)
            os.waitpid(int(pid), 0)
    if not os.WIFSIGNALED(status):
        return min(os.waitstatus_to_exitcode(status), TIMED_OUT - 1)
    return TIMED_OUT if usage.ru_utime + usage.ru_stime > cpu - 0.1 else 128 + os.WTERMSIG(status)


def _inner(config: dict, pipe: Pipe, libc: ctypes.CDLL | None) -> None:
    packages = config["packages"]
    paths = readable_paths(packages)
    sys.path += sorted({os.path.dirname(path) for path in packages})
    _confine(config, libc, paths)
    job = pipe.receive()
    if job["mode"] == "tests":
        serve_tests(job, pipe)
    elif job["mode"] == "solution":
        hook = None if "audit" in config["without"] else _audit_hook(pipe, paths)
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
            _unshare(libc)
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
    os._exit(_supervise(inner, config["cpu"]))


if __name__ == "__main__":
    main()
