"""Where a run's files live, and what is said about how they came to be."""

import contextlib
import fcntl
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from .device import device_description, give_memory_back, peak_memory_gb
from .errors import UserError, reason
from .profiles import Profile
from .storage import made, read_json, write_json


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
    return made(outputs_root() / profile.name / task)


def cache_dir() -> Path:
    return made(outputs_root() / "cache")


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
