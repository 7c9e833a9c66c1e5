"""Read any corpus into plain rows: JSONL, CSV, TSV, Parquet, two aligned text files, or a hub data set.

Every reader yields `(where, row)`, where `where` names file and line for messages.
"""

import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..errors import UserError
from ..profiles import Source
from ..runs import ROOT
from .hub import hub_advice

Located = tuple[str, dict]
MISSING = object()
HINTS = {".csv": ', with fields that hold commas or "quotes" in double quotes', ".tsv": ""}


def read_source(source: Source, wanted: tuple[str, ...], optional: tuple[str, ...] = ()) -> list[Located]:
    """Rows of one source under our column names, `limit` applied; a null or a number in a wanted column becomes text.

    Raises UserError for a missing or broken file, a missing column, a repeated `id` or `task_id`, no rows at all.
    """
    if stray := set(source.columns) - {*wanted, *optional}:
        raise UserError(
            f"source {source.name!r}: columns maps {', '.join(sorted(stray))}, but ours are called "
            f"{', '.join((*wanted, *optional))}: write ours = theirs"
        )
    rows = list(islice(_located_rows(source), source.limit))
    if not rows:
        raise UserError(f"source {source.name!r}: {_origin(source)} holds no rows; fill it or leave the source out")
    named = [(where, _rename(row, source, where, wanted, optional)) for where, row in rows]
    _reject_repeated_ids(named)
    return named


def _origin(source: Source) -> str:
    return source.hub or " and ".join([source.path] if isinstance(source.path, str) else source.path)


def _located_rows(source: Source) -> Iterator[Located]:
    if (source.path is None) == (source.hub is None):
        raise UserError(f"source {source.name!r}: set either path or hub")
    if source.hub:
        return _read_hub(source)
    if isinstance(source.path, tuple):
        return _read_aligned(*(resolve(part, source.name) for part in source.path))
    path = resolve(source.path, source.name)
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    readers = {
        ".jsonl": _read_jsonl, ".jsonl.gz": _read_jsonl, ".csv": _read_csv, ".tsv": _read_csv,
        ".parquet": _read_parquet,
    }  # fmt: skip
    if suffix not in readers:
        raise UserError(f"source {source.name!r}: {path} is not one of {', '.join(readers)} or two text files")
    return readers[suffix](path)


def resolve(path: str, source_name: str) -> Path:
    """A path relative to the working folder or else to the repository."""
    for candidate in (Path(path), ROOT / path):
        if os.path.isfile(candidate):  # False where Path.is_file raises: a folder that may not be searched
            return candidate
        if os.path.isdir(candidate):
            raise UserError(f"source {source_name!r}: {candidate} is a folder: name the file in it")
    raise UserError(f"source {source_name!r}: file {path} not found in {Path.cwd()} or {ROOT}: correct its path")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rb") as raw:
            for number, line in enumerate(raw, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{number}: not UTF-8 (byte 0x{error.object[error.start]:02x}); convert the file, "
            "e.g. iconv -f latin1 -t utf-8"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}:{number + 1}: broken gzip file ({error}); copy or download it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _read_jsonl(path: Path) -> Iterator[Located]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}:{number}: not valid JSON ({error.msg}); is the line cut off? Repair or remove it"
            ) from error
        if not isinstance(row, dict):
            raise UserError(
                f"{path}:{number}: found a {type(row).__name__}, not an object with named columns; "
                'write one object a line, {"es": ..., "en": ...}'
            )
        yield f"{path}:{number}", row


def _read_csv(path: Path) -> Iterator[Located]:
    # Tatoeba-like TSV files hold bare quotes, so only CSV gives quotes a meaning.
    dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {"strict": True}
    reader = csv.reader((line for _, line in _lines(path)), **dialect)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise UserError(f"{path}:1: a column name stands twice in the header ({', '.join(header)}); rename one")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise UserError(
                    f"{path}:{reader.line_num}: {len(fields)} fields where the header has {len(header)} "
                    f"({', '.join(header)}); repair the line{HINTS[path.suffix]}"
                )
            yield f"{path}:{reader.line_num}", dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise UserError(
            f"{path}:{reader.line_num}: broken CSV ({error}); repair the line{HINTS[path.suffix]}"
        ) from error


def _read_parquet(path: Path) -> Iterator[Located]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: broken Parquet file after row {number} ({_first_line(error)}); copy or download it again"
        ) from error


def _read_aligned(spanish: Path, english: Path) -> Iterator[Located]:
    lengths = {path: sum(1 for _ in _lines(path)) for path in (spanish, english)}
    if len(set(lengths.values())) > 1:
        longer, shorter = sorted(lengths, key=lengths.__getitem__, reverse=True)
        raise UserError(
            f"{longer}:{lengths[shorter] + 1}: no partner line: it has {lengths[longer]} lines and {shorter} has "
            f"{lengths[shorter]}; align them line by line, with an empty line where a translation is missing"
        )
    for (number, left), (_, right) in zip(_lines(spanish), _lines(english), strict=True):
        yield f"{spanish}:{number}", {"es": left.rstrip("\r\n"), "en": right.rstrip("\r\n")}


def _read_hub(source: Source) -> Iterator[Located]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        # Streaming reads only what `limit` asks for.
        table = load_dataset(
            source.hub, source.config, split=source.hub_split, revision=source.revision,
            streaming=source.limit is not None,
        )  # fmt: skip
        for number, row in enumerate(table, 1):
            yield f"{source.hub}:row {number}", row
    except DatasetNotFoundError as error:
        raise UserError(
            f"source {source.name!r}: {source.hub} is not on the hub, was renamed, or is gated: check the name, "
            f"accept its terms and set HF_TOKEN if it is gated ({_first_line(error)})"
        ) from error
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        otherwise = "check config and hub_split, or use a local file (path = ...) where there is no network"
        raise UserError(
            f"source {source.name!r}: {source.hub} (config {source.config}, split {source.hub_split}) could not be "
            f"loaded: {_first_line(error)}; {hub_advice(error, otherwise)}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _rename(row: dict, source: Source, where: str, wanted: tuple[str, ...], optional: tuple[str, ...]) -> dict:
    renamed = {}
    for name in (*wanted, *optional):
        column = source.columns.get(name, name)
        value = _nested(row, column)
        demanded = name in wanted or name in source.columns
        if value is MISSING and demanded:
            raise UserError(
                f"{where}: no column {column!r} (there are: {', '.join(map(str, row))}); "
                f'map it in the profile, e.g. columns = {{ {name} = "..." }}'
            )
        if name in wanted:
            if isinstance(value, dict | list):
                raise UserError(
                    f"{where}: column {column!r} holds a {type(value).__name__}, not text; "
                    f'name the part that is meant, e.g. columns = {{ {name} = "{column}.{name}" }}'
                )
            renamed[name] = "" if value is None else str(value)
        elif value is not MISSING and value is not None:
            renamed[name] = value
    return renamed


def _nested(row: dict, column: str) -> object:
    """The value at a dotted path; None for a null on the way, MISSING where a name is not there."""
    value: object = row
    for part in column.split("."):
        if value is None:
            return None
        value = value.get(part, MISSING) if isinstance(value, dict) else MISSING
    return value


def _reject_repeated_ids(rows: list[Located]) -> None:
    seen: dict[str, str] = {}
    for where, row in rows:
        key = str(row.get("id", row.get("task_id", "")))
        if key in seen:
            raise UserError(
                f"{where}: id {key!r} was used before, at {seen[key]}; make ids unique, or rename the column "
                "so that rows get ids of their own"
            )
        if key:
            seen[key] = where
