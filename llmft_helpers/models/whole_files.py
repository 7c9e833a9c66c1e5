"""Whether a folder's files are those that were written: a full disk, or a copy that broke off, leaves torn ones."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import WRITE_ERRORS, UserError, reason
from ..storage import file_digest, whole_folder, write_json

MANIFEST = "files.json"
EDITED = (MANIFEST, "llmft.json", "README.md")  # by hand, or later


def made_once(folder: Path, make: Callable[[Path], None], announcement: str = "") -> Path:
    """`folder`, filled by `make` unless it is there as it was made; a torn one is made again."""
    if torn(folder):
        if announcement:
            print(announcement)
        try:
            with whole_folder(folder) as partial:
                make(partial)
                write_manifest(partial)
        except WRITE_ERRORS as error:
            free = "3 bytes a weight of free space are needed"
            raise UserError(f"cannot write {folder}: {reason(error)}; {free}") from error
    return folder


def write_manifest(folder: Path) -> None:
    """Note size and SHA-256 of every file that is never edited."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in EDITED)
    write_json(folder / MANIFEST, {name: _mark(folder / name) for name in names})


def torn(folder: Path) -> str:
    """The first file that is not as `write_manifest` found it, and how; "" if all are, "no files.json" without one."""
    try:
        marks = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"no {MANIFEST}"
    for name, (size, digest) in marks.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, {size:,} when it was written"
        if _mark(path) != [size, digest]:
            return f"{name} is not what was written"
    return ""


def _mark(path: Path) -> list:
    state = path.stat()
    return [state.st_size, _digest(path, state.st_size, state.st_mtime_ns)]


@functools.cache
def _digest(path: Path, *_state: int) -> str:
    """Computed once for every state of the file: half a gigabyte takes a second."""
    return file_digest(path)


def refuse_torn(folder: Path, remedy: str) -> None:
    """UserError with `remedy` if a file of a model or adapter is torn; what is in no manifest, as others and earlier
    versions write it, is judged by its format.
    """
    what = torn(folder) if (folder / MANIFEST).is_file() else ""
    what = what or _misformed(folder)
    if what:
        raise UserError(f"{folder}: {what}: {remedy}")


def _misformed(folder: Path) -> str:
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == ".json":
                names = json.loads(path.read_text(encoding="utf-8"))
                if path.name.endswith(".index.json"):
                    missing = [name for name in names["weight_map"].values() if not (folder / name).is_file()]
                    if missing:
                        return f"{missing[0]} is missing"
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt"):  # compares the file's length with its header
                    pass
        except (ValueError, KeyError, SafetensorError) as error:
            return f"{path.name} is cut or broken ({reason(error)})"
    return ""
