"""Solutions that try to cheat, break out, stay alive, or are plainly unlucky: the right verdict, and nothing left."""

import os
import secrets
import tempfile
from pathlib import Path

import pytest

from llmft_helpers.grading import execution, sandbox

MARK = f"llmft-hostile-{os.getpid()}"
SLEEP = f"7{os.getpid()}.25"  # seconds; finds a spawned `sleep` again among all processes
TARGETS = ["/tmp", "/var/tmp", "/dev/shm", ".", os.path.expanduser("~"), str(Path(__file__).parent)]
# Nobody can know these answers, so whoever passes has forged it.
SECRET = {
    "task_id": "secret",
    "entry_point": "answer",
    "tests": [{"args": [[3, 1, 2]], "expected": [secrets.randbits(50), i]} for i in range(3)],
}
SORTED = {
    "task_id": "sorted",
    "entry_point": "answer",
    "tests": [{"args": [nums], "expected": sorted(nums)} for nums in ([3, 1, 2], [5, 4], [9, 9, 1, 0])],
}


WORTH = secrets.randbits(50)
# The same for the other ways in which an answer comes back: in place, call by call, through tests that are code.
STARTER = "class Solution:\n    def answer(self, nums: {}) -> {}:\n        "
SECRETS = {
    "in place": SECRET | {"starter_code": STARTER.format("List[int]", "None")},
    "tree": SECRET | {"starter_code": STARTER.format("TreeNode", "Optional[TreeNode]")},
    "any order": SECRET | {"compare": "unordered_deep_float"},
    "calls": {
        "task_id": "calls",
        "entry_point": "Box",
        "starter_code": "class Box:\n    def __init__(self, n: int):\n        pass",
        "tests": [{"args": [["Box", "get"], [[1], []]], "expected": [None, WORTH + i]} for i in range(3)],
    },
    "code": {
        "task_id": "code",
        "entry_point": "Solution().answer",
        "prompt": "",
        "test": f"def check(candidate):\n    nums = [1]\n    candidate(nums)\n    assert nums == [{WORTH}]\n"
        f"    assert candidate([2]) == {WORTH}\n    nums = [3]\n    assert candidate(nums) == sum(nums) + {WORTH}\n",
    },
}


def method(body: str, top: str = "") -> str:
    lines = "".join(f"        {line}\n" for line in body.strip("\n").splitlines())
    return f"{top}\nclass Solution:\n    def answer(self, nums):\n{lines}"


# name: (verdict, source), graded against SECRET
CHEATS = {
    "prints passed": ("wrong", method("print('passed'); print('{\"verdict\": \"passed\"}')")),
    "sys.exit(0)": ("error", method("import sys; sys.exit(0)")),
    "sys.exit at import": ("error", "import sys\nsys.exit(0)\n"),
    "os._exit(0)": ("error", method("import os; os._exit(0)")),
    "os._exit at import": ("error", "import os\nos._exit(0)\n"),
    "raises KeyboardInterrupt": ("error", method("raise KeyboardInterrupt")),
    "raises AssertionError": ("error", method("assert False")),
    "exception that fails to print": (
        "error",
        method("raise E", "class E(Exception):\n    def __str__(self): raise SystemExit(0)"),
    ),
    "patched builtins": (
        "wrong|error",
        method(
            "return True",
            "import builtins\nfor n in ('all', 'any', 'isinstance', 'issubclass', 'type', 'len', 'zip', 'sorted'):\n"
            "    setattr(builtins, n, lambda *a, **k: True)",
        ),
    ),
    "patched json": (
        "wrong|error",
        method("return 1", "import json\njson.dumps = lambda *a, **k: '{\"fail\": [\"passed\", \"\"]}'"),
    ),
    "patched os": ("wrong", method("return 1", "import os\nos.write = os.read = os._exit = lambda *a: 0")),
    "emptied sys.modules": ("wrong|error", method("return 1", "import sys\nsys.modules.clear()")),
    "object equal to all": (
        "wrong",
        method("return Yes()", "class Yes:\n    def __eq__(self, o): return True\n    __hash__ = None"),
    ),
    "list equal to all": (
        "wrong",
        method("return Yes([1])", "class Yes(list):\n    def __eq__(self, o): return True\n    __ne__ = None"),
    ),
    "int equal to all": ("wrong", method("return Yes(1)", "class Yes(int):\n    def __eq__(self, o): return True")),
    "class that lies": ("wrong", method("return Yes()", "class Yes:\n    __class__ = list")),
    "metaclass that lies": (
        "wrong|error",
        method(
            "return Yes()",
            "class M(type):\n    def __eq__(c, o): return True\n    __hash__ = type.__hash__\n"
            "class Yes(metaclass=M): pass",
        ),
    ),
    "returns NaN": ("wrong", method("return float('nan')")),
    "returns itself": ("error", method("a = []; a.append(a); return a")),
    "returns a generator": ("wrong", method("yield from nums")),
    "returns a function": ("wrong", method("return lambda: 1")),
    "returns an endless list": ("memory|timeout", method("return L()", "class L(list): pass\nL = lambda: [0] * 10**9")),
    "endless iterator in a list's clothes": (
        "wrong",
        method("return L()", "class L(list):\n    def __iter__(self):\n        while True: yield 1"),
    ),
    "deeply nested value": ("error", method("a = []\nfor _ in range(10**5): a = [a]\nreturn a")),
    "nested below the sender's limit": ("error|wrong", method("a = []\nfor _ in range(5000): a = [a]\nreturn a")),
    "cyclic linked list": (
        "error",
        method("n = ListNode(); n.next = n; return n", "class ListNode:\n    val = 1\n    next = None"),
    ),
    "20 MB answer": ("error", method("return 'x' * 20_000_000")),
    "junk into the pipe": (
        "error",
        method("import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'junk\\n')\n    except OSError: pass"),
    ),
    "binary into the pipe": (
        "error",
        method("import os\nfor fd in range(3, 64):\n    try: os.write(fd, bytes(range(99)))\n    except OSError: pass"),
    ),
    "flood into the pipe": (
        "error|timeout",
        method(
            "import os\nwhile True:\n  for fd in range(3, 64):\n    try: os.write(fd, b'x' * 65536)\n"
            "    except OSError: pass"
        ),
    ),
    "forged answer of another call": (
        "error",
        method(
            "import os\nfor fd in range(3, 64):\n"
            "    try: os.write(fd, b'{\"id\": \"0\", \"value\": [1]}\\n')\n    except OSError: pass"
        ),
    ),
    "verdict in place of an answer": (
        "error",
        method(
            "import sys\nframe = sys._getframe(1).f_locals\n"
            "frame['pipe'].send({'id': frame['request']['id'], 'fail': ['passed', '']})"
        ),
    ),
    "verdict instead of loading": (
        "error",
        "import sys\nsys._getframe(1).f_locals['pipe'].send({'verdict': 'passed', 'passed': True})\n",
    ),
    "value sent by hand": (
        "wrong|error",
        method(
            "import sys\nframe = sys._getframe(1).f_locals\n"
            "frame['pipe'].send({'id': frame['request']['id'], 'value': {'t': 'dict', 'v': 7}})"
        ),
    ),
    "closed pipe": ("error", method("import os; os.closerange(3, 64)")),
    "closed pipe, then endless": ("error", method("import os; os.closerange(3, 64)\nwhile True: pass")),
    "looks for the answers in memory": (
        "wrong",
        method("import gc; return [o for o in gc.get_objects() if type(o) is dict and 'expected' in o]"),
    ),
    "looks for the answers in the frames": (
        "wrong",
        method(
            "import sys\nf, seen = sys._getframe(), []\nwhile f:\n"
            "    seen += [str(v) for v in f.f_locals.values() if 'expected' in str(v)]\n    f = f.f_back\nreturn seen"
        ),
    ),
    "looks for the answers in argv and environment": (
        "wrong",
        method("import os, sys; return [*sys.orig_argv, *os.environ.values()]"),
    ),
    "reads the test file": ("unsafe", method(f"return open({__file__!r}).read()")),
    "reads /proc/<parent>/mem": (
        "unsafe",
        method(f"f = open('/proc/{os.getpid()}/mem', 'rb'); f.seek(4096); return f.read(100).hex()"),
    ),
    "reads /proc/self/environ": ("unsafe", method("return open('/proc/self/environ').read()")),
    "reads /etc/passwd by os.open": ("unsafe", method("import os; return os.open('/etc/passwd', 0)")),
    "lists folders": ("unsafe|error", method("import os, glob; return [*glob.glob('/tmp/*'), *os.walk('/')]")),
    "sockets": ("unsafe", method("import socket; socket.create_connection(('1.1.1.1', 53), 1)")),
    "unix socket": ("unsafe", method("import socket; socket.socket(socket.AF_UNIX).connect('/run/docker.sock')")),
    "binds a unix socket": ("unsafe", method("import socket; socket.socket(socket.AF_UNIX).bind('/tmp/llmft-socket')")),
    "sends by a unix socket": (
        "unsafe",
        method("import socket; socket.socket(socket.AF_UNIX, 2).sendto(b'x', '/run/systemd/journal/socket')"),
    ),
    "async entry point": ("wrong", method("return [1]").replace("    def", "    async def")),
    "fetches a page": ("unsafe", method("from urllib.request import urlopen; return urlopen('http://1.1.1.1').read()")),
    "input()": ("error", method("return int(input())")),
    "reads stdin": ("wrong", method("import sys; return sys.stdin.read()")),
    "endless loop": ("timeout", method("while True: pass")),
    "endless loop at import": ("timeout", "while True: pass\n"),
    "endless loop that catches all": (
        "timeout",
        method("while True:\n    try:\n        while True: pass\n    except: pass"),
    ),
    "sleeps": ("timeout", method("import time; time.sleep(100)")),
    "ignores signals, then endless": (
        "timeout",
        method(
            "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
            "    except (OSError, ValueError): pass\nwhile True: pass"
        ),
    ),
    "slow regular expression": ("timeout", method("import re; re.match(r'(a+)+$', 'a' * 40 + 'b')")),
    "huge power": ("timeout|memory", method("return 7 ** 7 ** 12")),
    "50 GB list": ("memory", method("return [0] * (50 * 2**30 // 8)")),
    "list that grows": ("memory|timeout", method("a = []\nwhile True: a += [bytearray(1 << 20)]")),
    "grows and catches": (
        "timeout|memory",
        method("a = []\nwhile True:\n    try: a.append(bytearray(1 << 22))\n    except MemoryError: pass"),
    ),
    "endless recursion": ("error", method("return self.answer(nums)")),
    "recursion without a limit": (
        "error|memory|timeout",
        method("import sys; sys.setrecursionlimit(10**9); return self.answer(list(map(lambda x: x, nums)))"),
    ),
    "recursion through C": (
        "error|memory|timeout",
        method(
            "import sys; sys.setrecursionlimit(10**9); return sorted([self], key=lambda s: s.answer(nums))",
        ),
    ),
    "segmentation fault": ("unsafe|error", method("import ctypes; ctypes.string_at(0)")),
    "abort": ("error", method("import os; os.abort()")),
    "fork bomb": ("unsafe", method("import os\nwhile True: os.fork()")),
    "daemon by double fork": (
        "unsafe",
        method(
            "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(1000)\n"
            "    os._exit(0)\nreturn 1"
        ),
    ),
    "subprocess": ("unsafe", method(f"import subprocess; subprocess.Popen(['sleep', '{SLEEP}'])")),
    "os.system": ("unsafe", method(f"import os; os.system('sleep {SLEEP} &')")),
    "posix_spawn": ("unsafe", method(f"import os; os.posix_spawn('/bin/sleep', ['sleep', '{SLEEP}'], {{}})")),
    "exec": ("unsafe", method(f"import os; os.execv('/bin/sleep', ['sleep', '{SLEEP}'])")),
    "fork_exec behind the hook": (
        "error|unsafe",
        method(
            "import _posixsubprocess, os\nr, w = os.pipe()\n"
            f"_posixsubprocess.fork_exec([b'sleep', b'{SLEEP}'], [b'/bin/sleep'], True, (w,), None, None, -1, -1, -1,"
            " -1, -1, -1, r, w, True, True, -1, None, None, None, -1, None, False)"
        ),
    ),
    "multiprocessing": (
        "unsafe|error",
        method("import multiprocessing as m; p = m.Process(target=print); p.start(); p.join(); return 1"),
    ),
    "kills its parent": ("unsafe", method("import os; os.kill(os.getppid(), 9)")),
    "kills the grader": ("unsafe", method(f"import os; os.kill({os.getpid()}, 9)")),
    "kills everybody": ("unsafe", method("import os; os.kill(-1, 9)")),
    "kills its group": ("unsafe", method("import os; os.killpg(0, 9)")),
    "libc by ctypes": ("unsafe", method("import ctypes; ctypes.CDLL(None).fork(); return 1")),
    "thread that outlives it": (
        "error",
        method("import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start(); return 1"),
    ),
    "removes files": ("unsafe", method(f"import shutil; shutil.rmtree('/tmp/{MARK}')")),
    "raises its limits": (
        "wrong|error|unsafe",
        method("import resource; resource.setrlimit(resource.RLIMIT_NPROC, (99, 99))"),
    ),
    "null byte in the source": ("error", "x = 1\0\n"),
    "surrogate in the source": ("error", "x = '\ud800'\ny = \ud800\n"),
    "nested source": ("error|memory", "x = " + "(" * 5000 + ")" * 5000 + "\n"),
    "unary tower": ("error|memory", "x = " + "-" * 100_000 + "1\n"),
    "empty": ("error", ""),
    "prose": ("error", "Sure! Here is the solution:\n"),
    "entry point is no function": ("error", "class Solution:\n    answer = 3\n"),
    "Solution wants arguments": ("error", method("return 1").replace("def", "def __init__(self, x): pass\n    def", 1)),
} | {
    f"writes to {folder}": ("unsafe", method(f"f = open('{folder}/{MARK}', 'w'); f.write('x' * 100); f.close()"))
    for folder in TARGETS
}  # fmt: skip

ANY = (
    "class Any(list):\n    def __eq__(s, o): return True\n    __ne__ = __lt__ = None\n"
    "    val, left, right, next = 1, None, None, None\n"
)
BOX = (
    "class Box:\n    def __init__(self, n): pass\n    def get(self): return Any()\n"
    "    def __getattr__(self, n): return Any\n"
)
BY_HAND = (
    "import sys\nframe = sys._getframe(1).f_locals\nif 'request' in frame:\n"
    "    frame['pipe'].send({'id': frame['request']['id'], 'value': VALUE, 'seconds': 1e9, 'after': AFTER})"
)
# name: source, graded against all of SECRETS
OTHER_CHEATS = {
    "equal to all": ANY + BOX + method("nums.append(Any())\nreturn Any()"),
    "argument equal to all": ANY + BOX + method("nums[:] = [Any()]"),
    "nodes that lie": (
        "class TreeNode(int):\n    val = property(lambda s: s)\n    left = right = None\n"
        "    def __eq__(s, o): return True\n"
        + method("return TreeNode()")
    ),
    **{
        f"by hand: value {value}, after {after}": method(BY_HAND.replace("VALUE", value).replace("AFTER", after))
        for value in ("None", "[]", "{'t': 'TreeNode', 'v': 7}", "{'t': 'dict', 'v': [[[], []]]}")
        for after in ("None", "7", "[[[1], 2], []]", "[[{'t': 'int', 'v': 'x'}], []]")
    },
}  # fmt: skip

# Odd, but right: graded against SORTED
HONEST = {
    "right": method("return sorted(nums)"),
    "huge output": method("for _ in range(100): print('x' * 1_000_000)\nreturn sorted(nums)"),
    "binary output": method("import sys; sys.stdout.buffer.write(bytes(range(256)) * 999); return sorted(nums)"),
    "closed streams": method("import sys; sys.stdout.close(); sys.stderr.close(); return sorted(nums)"),
    "bomb at exit": method(
        "return sorted(nums)", "import atexit, time\natexit.register(lambda: time.sleep(1000))"
    ),
    "mutated arguments": method("nums.sort(); a = nums[:]; nums.clear(); return a"),
    "keeps the arguments": method("seen.append(nums); seen[0].append(99); return sorted(seen.pop())[:-1]", "seen = []"),
    "state in the instance": method(
        "self.n = getattr(self, 'n', 0) + 1\nreturn sorted(nums) if self.n == 1 else []"
    ),
    "tuple": method("return tuple(sorted(nums))"),
    "subclass of list": method("return L(sorted(nums))", "class L(list):\n    def __iter__(self): return iter([0])"),
    "deep but finite recursion": method(
        "return down(9000, nums)", "def down(n, nums): return down(n - 1, nums) if n else sorted(nums)"
    ),
    "recursion of a cached function": method(
        "return sorted(nums)[:down(10_000) + 9]", "@cache\ndef down(n): return down(n - 1) if n else 0"
    ),
    "cached recursion in a method": method(
        "@lru_cache(None)\ndef down(n, k): return max(down(n - 1, j) for j in range(k, k + 1)) if n else 0\n"
        "down(6000, 0)\nreturn sorted(nums)"
    ),
    "warns": method("import warnings; warnings.warn('slow', stacklevel=2); warnings.warn('x'); return sorted(nums)"),
    "prints its stack": method("import traceback; traceback.print_stack(); return sorted(nums)"),
    "prints a traceback": method(
        "import traceback\ntry: 1 / 0\nexcept ZeroDivisionError: traceback.print_exc()\nreturn sorted(nums)"
    ),
    "looks at its stack": method("import inspect; return sorted(nums)[:len(inspect.stack()) * 9]"),
    "logs its stack": method(
        "import logging; logging.basicConfig(level=0); logging.info('x', stack_info=True); return sorted(nums)"
    ),
    "coroutine that nobody awaits": method("later(); return sorted(nums)", "async def later(): pass"),
    "asyncio.run": method(
        "import asyncio\nreturn asyncio.run(later(nums))",
        "import asyncio\nasync def later(nums): await asyncio.sleep(0); return sorted(nums)",
    ),
}  # fmt: skip


def leftovers() -> list[str]:
    """Processes started by this test run that are still there, and files that a solution wrote."""
    worker = str(sandbox._compiled()).encode()
    found = [str(Path(folder, MARK)) for folder in TARGETS if Path(folder, MARK).exists()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if worker in command or SLEEP.encode() in command:
            found.append(f"{process.name}: {command!r}")
    return found


def run(folder: Path, cheats: dict, honest: dict, without: tuple[str, ...] = ()) -> tuple[dict[str, dict], list[str]]:
    """(gradings by name, what stays behind) of all with four workers in a temporary folder of our own."""
    sandbox._compiled()  # its folder stays for the process
    before = tempfile.tempdir, sandbox.WITHOUT
    tempfile.tempdir, sandbox.WITHOUT = str(folder), without
    try:
        rows = execution.grade(
            [source for _, source in cheats.values()] + list(honest.values()),
            [SECRET] * len(cheats) + [SORTED] * len(honest),
            seconds=1,
            memory_mb=256,
            workers=4,
        )
    finally:
        tempfile.tempdir, sandbox.WITHOUT = before
    left = leftovers() + [str(path) for path in folder.iterdir()]
    return dict(zip([*cheats, *honest], rows, strict=True)), left


def run_clean(*arguments) -> dict[str, dict]:
    rows, left = run(*arguments)
    assert left == []
    return rows


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    return run_clean(tmp_path_factory.mktemp("grading"), CHEATS, HONEST)


@pytest.mark.parametrize("name", CHEATS)
def test_verdict(graded, name):
    row = graded[name]
    assert row["verdict"] in CHEATS[name][0].split("|"), row
    assert not row["passed"] and row["tests_passed"] == 0 and row["tests_total"] == 3
    assert row["detail"].isprintable()


@pytest.mark.parametrize("name", HONEST)
def test_odd_but_right(graded, name):
    assert graded[name]["passed"], graded[name]


def test_no_other_way_back_can_be_forged():
    pairs = [(source, problem) for source in OTHER_CHEATS.values() for problem in SECRETS.values()]
    rows = execution.grade(*map(list, zip(*pairs, strict=True)), seconds=1, memory_mb=256, workers=4)
    assert [row for row in rows if row["tests_passed"] or row["verdict"] not in ("wrong", "error")] == []


def complete() -> bool:
    return "NOT" not in execution.isolation_level()


QUICK = {name: cheat for name, cheat in CHEATS.items() if not cheat[0].startswith("timeout")}


@pytest.mark.parametrize(
    "without",
    [("audit",), ("namespaces",), ("landlock",), ("namespaces", "landlock", "user")],
    ids=lambda layers: "without " + " ".join(layers),
)
def test_layers_hold_without_each_other(tmp_path, without):
    """The hook only words a verdict; and where the kernel offers less, what is left gives the same verdicts."""
    if not complete():
        pytest.skip("the kernel's layers are not all there: the others are all we have")
    rows = run_clean(tmp_path, QUICK, {}, without)
    for name, row in rows.items():
        assert row["tests_passed"] == 0, (name, row)
        # root itself is under no limit on processes and threads: they start, and are ended with the solution
        allowed = QUICK[name][0].split("|") + ["wrong"] * ("user" in without)
        if "audit" not in without:
            assert row["verdict"] in allowed, (name, row)


def test_daemons_die_with_the_outer_half_alone(tmp_path):
    """No limit on processes, no namespace: the subreaper still finds a daemon that left its session."""
    everything = ("audit", "namespaces", "landlock", "processes")
    daemon = {
        "daemon": CHEATS["daemon by double fork"],
        "sleeper": ("wrong", method(f"import subprocess; subprocess.Popen(['/bin/sleep', '{SLEEP}'])")),
    }
    rows = run_clean(tmp_path, daemon, {}, everything)
    assert [row["verdict"] for row in rows.values()] == ["wrong", "wrong"], rows


def test_there_are_forty():
    assert len(CHEATS) >= 40
