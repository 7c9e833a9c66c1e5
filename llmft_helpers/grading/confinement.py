"""What locks the sandbox's process in: resource limits, Landlock, namespaces, no privileges, an audit hook.

The confined process imports this file outside the package, so it may import the standard library alone.
Landlock: https://docs.kernel.org/userspace-api/landlock.html; namespaces: man 7 namespaces.
"""

import builtins
import ctypes
import math
import os
import resource
import signal
import stat
import struct
import sys
import time
import types

__builtins__ = dict(vars(builtins))  # the functions below keep these when a solution patches `builtins`

NOBODY = 65534
TIMED_OUT = 124  # exit status of the outer half, as timeout(1) has it
SPARE = 64 << 20  # bytes of address space kept back, to report a MemoryError with
STACK = 64 << 20  # bytes, enough for the worker's RECURSION through C calls
SOLUTION = "<solution>"

# What a solution to a pure problem never does. The kernel's layers hold without this list; it gives the verdict.
UNSAFE = ("os.", "shutil.", "socket.", "subprocess.", "tempfile.", "signal.", "pty.", "mmap.", "sqlite3.",
          "syslog.", "ctypes.dlsym", "ctypes.call_function", "ctypes.string_at", "ctypes.cdata",
          "ctypes.addressof", "sys.addaudithook")  # fmt: skip
HARMLESS = ("os.listdir", "os.scandir", "os.putenv", "os.unsetenv")
LOCAL_SOCKET = 1  # AF_UNIX
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def audit_hook(send: types.MethodType, readable: list[str]) -> types.FunctionType:
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
        elif event == "socket.__new__" and args[1] == LOCAL_SOCKET:
            return  # asyncio wakes itself through a pair of them; to connect, bind or send is an event of its own
        else:
            what = event
        caller = frame(1)
        while caller and caller.f_code.co_filename != SOLUTION:
            caller = caller.f_back
        where = f" (line {caller.f_lineno})" if caller else ""
        send({"fail": ["unsafe", what[:200] + where]})
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
        resource.RLIMIT_CPU: (cpu, cpu),  # soft = hard: SIGKILL, which cannot be handled; `limit_call` lowers the soft
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


def limit_call(seconds: float) -> None:
    """From here, so many seconds of CPU time (a little less to one more) until SIGXCPU."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time() + seconds - 0.1)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


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


def unshare(libc: ctypes.CDLL) -> None:
    """New network, IPC and process namespaces for the inner half; without root, in a new user namespace."""
    user, group, root = os.geteuid(), os.getegid(), os.geteuid() == 0
    flags = 0x40000000 | 0x08000000 | 0x20000000  # CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWPID
    if libc.unshare(flags if root else flags | 0x10000000) == 0 and not root:
        for name, text in ("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def confine(config: dict, libc: ctypes.CDLL | None, paths: list[str]) -> None:
    """Lock this process in for good; of the file system only `paths` can be read afterwards."""
    without = config["without"]
    os.setsid()
    os.chdir(config["folder"])
    _limit(config["cpu"], config["memory"], "processes" not in without)
    if libc:
        # The first process of a namespace is spared signals without a handler: this one needs no interpreter.
        libc.signal(signal.SIGXCPU, ctypes.cast(libc._exit, ctypes.c_void_p))
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        if "landlock" not in without:
            _landlock(libc, paths, [os.path.dirname(os.__file__), *filter(os.path.isdir, sys.path)])
    _drop_privileges(libc, "user" not in without)
    if libc:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def supervise(inner: int, cpu: int) -> int:
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
        code = os.waitstatus_to_exitcode(status)
        return TIMED_OUT if code == signal.SIGXCPU else min(code, TIMED_OUT - 1)
    out_of_time = os.WTERMSIG(status) == signal.SIGXCPU or usage.ru_utime + usage.ru_stime > 0.9 * cpu
    return TIMED_OUT if out_of_time else 128 + os.WTERMSIG(status)
