"""One prepared copy of a profile's rows for all notebooks that read them, in the cache.

Its name says what it was made of: the files' content, the settings of the data and this package's code for it.
"""

import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ..profiles import TaskSettings
from ..runs import cache_dir
from ..storage import file_digest, fingerprint
from .files import faults_said
from .sources import resolve

CODE = (Path(__file__).parent, Path(__file__).parents[1] / "grading")
DATA_SETTINGS = ("sources", "validation_rows", "test_rows", "train_rows")


def prepared(kind: str, settings: TaskSettings, seed: int, make: Callable[[], tuple[dict, dict]]) -> tuple[dict, dict]:
    """(splits, manifest) as `make` gives them, from the cache where they are whole; made and kept there otherwise.

    Hub data sets are kept by their revision; without one, what the hub holds may change, and nothing is kept.
    """
    if any(source.hub and not source.revision for source in settings.sources):
        return make()
    path = cache_dir() / f"{kind}-{_key(settings, seed)}.jsonl.gz"
    found = _read(path)
    if found is None:
        found = make()
        _write(path, *found)
    return found


def _key(settings: TaskSettings, seed: int) -> str:
    chosen = {name: value for name, value in asdict(settings).items() if name in DATA_SETTINGS}
    local = [source for source in settings.sources if source.path]
    parts = [(s.name, part) for s in local for part in ((s.path,) if isinstance(s.path, str) else s.path)]
    files = [_content(resolve(part, name)) for name, part in parts]
    code = [_content(file) for folder in CODE for file in sorted(folder.glob("*.py"))]
    return fingerprint([chosen, seed, files, code])


def _content(path: Path) -> str:
    with faults_said(path):
        return file_digest(path)


def _read(path: Path) -> tuple[dict, dict] | None:
    """None where there is no copy or a torn one: gzip ends in a checksum."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            head = json.loads(next(file))
            rows = [json.loads(line) for line in file]
    except (OSError, EOFError, zlib.error, ValueError, StopIteration):
        return None
    places = iter(rows)
    return {name: [next(places) for _ in range(count)] for name, count in head["counts"].items()}, head["manifest"]


def _write(path: Path, splits: dict, manifest: dict) -> None:
    """Row by row, beside its place, and then renamed; a full disk costs the copy, not the run."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with gzip.open(partial, "wt", compresslevel=1, encoding="utf-8") as file:
            file.write(json.dumps({"counts": {name: len(rows) for name, rows in splits.items()}, "manifest": manifest}))
            for rows in splits.values():
                file.writelines("\n" + json.dumps(row) for row in rows)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
