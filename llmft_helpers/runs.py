"""Where a run's files live, how they are written, and what is said about how they came to be."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from .device import device_description, give_memory_back, peak_memory_gb
from .errors import UserError, reason
from .profiles import Profile

ROOT = Path(__file__).resolve().parents[1]
PINNED = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "evaluate",
          "sacrebleu", "unsloth", "unsloth_zoo")  # fmt: skip
TASKS = ("char_gpt", "translation", "leetcode", "comparison")


def outputs_root() -> Path:
    """`LLMFT_OUTPUTS`, or `outputs` in the repository."""
    return Path(os.environ.get("LLMFT_OUTPUTS", ROOT / "outputs")).resolve()


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


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: a temporary neighbour is renamed over `path`."""
    _made(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror}; free some space or correct the permissions, and run again"
        ) from error


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the notebook that writes it first") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from error


def read_jsonl(path: Path) -> list[dict]:
    """One object a line; UserError names the file and the line."""
    rows = []
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    rows.append(_object(line, path, number))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); convert it, e.g. with iconv") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}): name a file that you may read") from error
    return rows


def _object(line: str, path: Path, number: int) -> dict:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{number}: not valid JSON ({error.msg}); is the line cut off?") from error
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number}: expected an object with named columns, found {type(row).__name__}")
    return row


def fingerprint(value: object) -> str:
    """Twelve hex digits of SHA-256 over a canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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
    """Short hash of the checkout, with `+` where tracked code differs from it; None outside a checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

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
    present = [name for name in TASKS if (root / name / "metrics.json").is_file()]
    write_json(root / "results.json", {name: read_json(root / name / "metrics.json") for name in present})
