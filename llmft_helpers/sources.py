"""Read any corpus into plain rows: JSONL, CSV, TSV, Parquet, two aligned text files, or a hub data set.

Every reader yields `(where, row)`, where `where` names file and line for messages.
"""

import csv
import gzip
import json
from collections.abc import Iterable, Iterator
from itertools import islice, zip_longest
from pathlib import Path

from .errors import UserError
from .profiles import Source
from .runs import ROOT

Located = tuple[str, dict]


def read_source(source: Source, wanted: tuple[str, ...], optional: tuple[str, ...] = ()) -> list[Located]:
    """Rows of one source under our column names, `limit` applied.

    Raises UserError for a missing or broken file, a missing column, a repeated `id` or `task_id`, no rows at all.
    """
    rows = list(islice(_located_rows(source), source.limit))
    if not rows:
        raise UserError(f"source {source.name!r}: {source.path or source.hub} holds no rows")
    named = [(where, _rename(row, source, where, wanted, optional)) for where, row in rows]
    _reject_repeated_ids(named)
    return named


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
        if candidate.is_file():
            return candidate
    raise UserError(f"source {source_name!r}: file {path} not found (looked in {Path.cwd()} and {ROOT})")


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
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{path}: broken gzip file after line {number}: {error}") from error


def _read_jsonl(path: Path) -> Iterator[Located]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not valid JSON ({error.msg}); is the line cut off?") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: expected an object with named columns, found {type(row).__name__}")
        yield f"{path}:{number}", row


def _read_csv(path: Path) -> Iterator[Located]:
    # Tatoeba-like TSV files hold bare quotes, so only CSV gives quotes a meaning.
    dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {"strict": True}
    reader = csv.reader((line for _, line in _lines(path)), **dialect)
    try:
        header = next(reader, None)
        for fields in reader:
            if len(fields) != len(header):
                raise UserError(
                    f"{path}:{reader.line_num}: {len(fields)} fields where the header has {len(header)} "
                    f"({', '.join(header)})"
                )
            yield f"{path}:{reader.line_num}", dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: broken CSV: {error}") from error


def _read_parquet(path: Path) -> Iterator[Located]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:row {number}", row
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: not a readable Parquet file: {error}") from error


def _read_aligned(spanish: Path, english: Path) -> Iterator[Located]:
    both = zip_longest(_lines(spanish), _lines(english))
    for left, right in both:
        if left is None or right is None:
            longer, number = (english, right[0]) if left is None else (spanish, left[0])
            raise UserError(f"{longer}:{number}: no partner line in the other file; both need the same number of lines")
        yield f"{spanish}:{left[0]}", {"es": left[1].rstrip("\r\n"), "en": right[1].rstrip("\r\n")}


def _read_hub(source: Source) -> Iterator[Located]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

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
            f"accept its terms and set HF_TOKEN if it is gated ({error})"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"source {source.name!r}: {source.hub} (config {source.config}, split {source.hub_split}) could not be "
            f"loaded: {str(error).splitlines()[0]}; without a network use a local file (path = ...)"
        ) from error


def _rename(row: dict, source: Source, where: str, wanted: Iterable[str], optional: Iterable[str]) -> dict:
    renamed = {}
    for name in wanted:
        column = source.columns.get(name, name)
        value = _nested(row, column)
        if value is None:
            raise UserError(
                f"{where}: no column {column!r} (there are: {', '.join(map(str, row))}); "
                f'map it in the profile, e.g. columns = {{ {name} = "..." }}'
            )
        renamed[name] = value
    for name in optional:
        value = _nested(row, source.columns.get(name, name))
        if value is not None:
            renamed[name] = value
    return renamed


def _nested(row: dict, column: str) -> object:
    value: object = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _reject_repeated_ids(rows: list[Located]) -> None:
    seen: dict[object, str] = {}
    for where, row in rows:
        key = row.get("id", row.get("task_id"))
        if key is not None and key in seen:
            raise UserError(f"{where}: id {key!r} was used before, at {seen[key]}; ids must be unique")
        seen[key] = where
