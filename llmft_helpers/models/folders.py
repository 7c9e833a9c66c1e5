"""Folders of the cache that are made once, such as a converted model."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..errors import WRITE_ERRORS, UserError, reason

SIZES = "files.json"  # written last: what a whole folder holds


def made_once(folder: Path, make: Callable[[Path], None], announcement: str = "") -> Path:
    """`folder`, filled by `make` unless it is there with all its files in full; a torn one is made again."""
    if not _is_whole(folder):
        if announcement:
            print(announcement)
        _write(folder, make)
    return folder


def _is_whole(folder: Path) -> bool:
    note = folder / SIZES
    return note.is_file() and note.read_text(encoding="utf-8") == _sizes(folder)


def _sizes(folder: Path) -> str:
    return json.dumps({path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != SIZES})


def _write(folder: Path, make: Callable[[Path], None]) -> None:
    """Fill a neighbour, then rename it: a killed run leaves no half folder behind."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        make(partial)
        (partial / SIZES).write_text(_sizes(partial), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    except WRITE_ERRORS as error:
        raise UserError(f"cannot write {folder}: {reason(error)}; 3 bytes a weight of free space are needed") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
