"""Where a run's files live, how they are written, and what is said about how they came to be."""

import contextlib
import fcntl
import glob
import gzip
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

import psutil

from .device import device_description, give_memory_back, peak_memory_gb
from .errors import UserError, reason
from .profiles import Profile


def _root() -> Path:
    """The repository above this file; of a copy installed without --editable, the one above the working folder, or
    that folder itself."""
    above = (Path(__file__).resolve().parents[1], Path.cwd(), *Path.cwd().parents)
    return next((f for f in above if (f / "notebooks").is_dir() and (f / "llmft_helpers").is_dir()), Path.cwd())


ROOT = _root()
PINNED = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "evaluate",
          "sacrebleu", "unsloth", "unsloth_zoo")  # fmt: skip
TASKS = ("char_gpt", "translation", "leetcode", "comparison")
MORE_TASKS = ("from_tests",)  # which a run without numbers leaves out


def outputs_root() -> Path:
    """`LLMFT_OUTPUTS`, or `outputs`. A relative one lies in the repository: a notebook's working folder is another than
    the shell's."""
    return (ROOT / os.path.expanduser(os.environ.get("LLMFT_OUTPUTS", "").strip() or "outputs")).resolve()


def run_dir(profile: Profile, task: str) -> Path:
    """outputs/<profile>/<task>, made if missing."""
    return _made(outputs_root() / profile.name / task)


def cache_dir() -> Path:
    return _made(outputs_root() / "cache")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; name one that you may write to") from error
    return folder


@contextlib.contextmanager
def only_run(profile: Profile) -> Iterator[None]:
    """UserError, with its number, if another process is in this block for the same outputs. The system unlocks the
    file when a process ends, however it ends."""
    path = run_dir(profile, ".") / ".lock"
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        advice = "set LLMFT_OUTPUTS to a folder that you may write to"
        raise UserError(f"cannot write to {path.parent} ({reason(error)}): {advice}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"process {file.read().strip()} is writing to {path.parent}: wait for it, end it, or set LLMFT_OUTPUTS "
                "to another folder"
            ) from error
        except OSError as error:  # some disks of a network know no locks
            print(f"{path} cannot be locked ({reason(error)}): do not start a second run", file=sys.stderr)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: a temporary neighbour is renamed over `path`, or over what it links to.

    Pipes, devices and descriptors (/dev/stdout) are written through. An existing file keeps its mode and its owner.
    """
    _made(path.parent)
    try:
        descriptor = _descriptor(path)
        if descriptor is not None or (path.exists() and not path.is_file()):
            with open(os.dup(descriptor) if descriptor is not None else path, "w", encoding="utf-8") as stream:
                stream.write(text)
        else:
            _write_whole(path.resolve(), text)
    except BrokenPipeError:  # its reader has seen enough
        raise
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; free some space or correct the permissions, and run again"
        ) from error


def _descriptor(path: Path) -> int | None:
    """The number of this process's open file that `path` names: /dev/stdout, /dev/fd/63 and links to them."""
    own = Path("/proc/self/fd").resolve()
    for _ in range(40):  # as many links as Linux follows
        if path.parent.resolve() == own:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _write_whole(path: Path, text: str) -> None:
    _made(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        if path.exists():
            shutil.copymode(path, partial)
            with contextlib.suppress(PermissionError):  # giving files away is root's
                os.chown(partial, path.stat().st_uid, path.stat().st_gid)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty neighbour of `path`, or of the folder it links to, to be filled inside the block; then it takes the
    place. A failure, or a kill, leaves what was there.
    """
    path = path.resolve()
    partial, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    _sweep(path)
    partial.mkdir(parents=True)
    try:
        yield partial
        _as_usual(partial)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(partial, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sweep(path: Path) -> None:
    """Remove what this process, and those that were killed, left of their attempts at `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        pid = int(left.suffixes[-2][1:])
        if pid == os.getpid() or not psutil.pid_exists(pid):
            shutil.rmtree(left, ignore_errors=True)


def _as_usual(folder: Path) -> None:
    """Files for whom the umask says: safetensors' are for their owner alone, and Ollama runs as a user of its own."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(folder.stat().st_mode & 0o666)


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    write_text(path, "".join(_line(row) + "\n" for row in rows))


def _line(row: dict) -> str:
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 has no place for
        return json.dumps(row)
    return text


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the notebook that writes it first") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from error


def read_jsonl(path: Path) -> list[dict]:
    """One object a line, `.gz` or not; UserError names the file and the line."""
    rows = []
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    rows.append(read_object(line, f"{path}:{number}"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); convert it, e.g. with iconv") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: broken gzip file ({error}); copy or download it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}): name a file that you may read") from error
    return rows


def read_object(line: str, where: str) -> dict:
    """A line of JSON; UserError that begins with `where` if it is no object."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg}); is the line cut off?") from error
    except RecursionError as error:
        raise UserError(f"{where}: a value is nested too deep; leave it out") from error
    except ValueError:  # an integer of more digits than int() reads
        row = json.loads(line, parse_int=lambda digits: int(Decimal(digits)))
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with named columns, found {type(row).__name__}")
    return row


def fingerprint(value: object) -> str:
    """Twelve hex digits of SHA-256 over a canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Stages:
    """Seconds per named stage of a notebook: `with stages("training"): ...`; what a stage freed goes back to the
    system, so that the next one does not come on top of it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            give_memory_back()
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 2)


def git_commit() -> str | None:
    """Short hash of the checkout, with `+` where tracked code differs from it; None outside a checkout of our own."""
    # as a hook's or another tool's, these would name another repository
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(ROOT), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if not top or not ROOT.samefile(top):  # a copy inside another repository is not its commit
        return None
    commit = git("rev-parse", "--short", "HEAD")
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!outputs")
    return f"{commit}+" if commit and dirty else commit


def from_root(path: str) -> str:
    """`path` relative to the repository where it lies there, else as it is: files that others read name no folder of
    this machine that they need not."""
    file, root = Path(path), ROOT.resolve()
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()


def provenance(profile: Profile, stages: Stages, data: dict[str, str]) -> dict:
    """Versions, device, profile, seed, data fingerprints, commit, seconds per stage and peak memory of a run."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in PINNED},
        },
        **device_description(),
        "profile": asdict(profile) | {"file": profile.file and from_root(profile.file)},
        "seed": profile.seed,
        "data": data,
        "git_commit": git_commit(),
        "seconds": stages.seconds,
        "peak_memory_gb": peak_memory_gb(),
    }


def save_metrics(profile: Profile, task: str, metrics: dict) -> None:
    """Write outputs/<profile>/<task>/metrics.json and refresh results.json from all that are there."""
    path = run_dir(profile, task) / "metrics.json"
    write_json(path, metrics)
    root = path.parents[1]
    present = [name for name in (*TASKS, *MORE_TASKS) if (root / name / "metrics.json").is_file()]
    write_json(root / "results.json", {name: read_json(root / name / "metrics.json") for name in present})
