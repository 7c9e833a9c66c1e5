"""Files as everything here writes and reads them: whole or not at all, one object a line, a fault in one sentence."""

import contextlib
import glob
import gzip
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

import psutil

from .errors import UserError, reason

ABANDONED = 24 * 3600  # seconds


def made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; name one that you may write to") from error
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: a temporary neighbour is renamed over `path`, or over what it links to.

    Pipes, devices and descriptors (/dev/stdout) are written through. An existing file keeps its mode and its owner.
    """
    made(path.parent)
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
    made(path.parent)
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
        pid = left.suffixes[-2][1:]
        old = time.time() - left.stat().st_mtime > ABANDONED  # or it may be of another machine's process
        if pid == str(os.getpid()) or (old and pid.isdigit() and not psutil.pid_exists(int(pid))):
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
