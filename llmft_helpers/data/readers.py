"""Rows of one file as `(where, row)`: JSON Lines, JSON, CSV, TSV, Parquet, or two aligned text files."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from ..profiles import Source
from .files import kind_of, lines, open_bytes, whole_text

Located = tuple[str, dict]
JSON_ENDINGS, TABLE_ENDINGS = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv")
NEEDED_QUOTES = re.compile(r'(?:^|\t)"(?:[^"\t]|"")*""(?:[^"\t]|"")*"(?:\t|$)', re.MULTILINE)
ALL_QUOTED = re.compile(r'"[^"\t]*"(?:\t"[^"\t]*")*\s*$')
csv.field_size_limit(2**31 - 1)  # its 131,072 characters a field are fewer than a long document has


def read_file(path: Path, source: Source) -> Iterator[Located]:
    """Rows of a file by its ending; a source with `separator` is delimited text whatever the ending."""
    ending, _ = kind_of(path)
    if source.separator or ending in TABLE_ENDINGS:
        return _read_table(path, ending, source)
    if ending in JSON_ENDINGS:
        return _read_json(path, source)
    if ending == ".parquet":
        return _read_parquet(path)
    known = ", ".join((*JSON_ENDINGS, *TABLE_ENDINGS, ".parquet"))
    raise UserError(
        f"source {source.name!r}: {path} is not one of {known} (also .gz or .zip) or two text files; "
        'for delimited text of another name set separator, e.g. separator = "\\t"'
    )


def _read_json(path: Path, source: Source) -> Iterator[Located]:
    """An array (at `field`, where the file is one object), or else one object a line."""
    first = next((text for _, text in lines(path, source.encoding) if text.strip()), "")
    if source.field or _spans_lines(first, path):
        rows = _array(path, source)
        if rows is not None:
            for number, row in enumerate(rows, 1):
                yield _object(row, f"{path}:row {number}")
            return
    for number, line in lines(path, source.encoding):
        if line.strip():
            yield _object(_parsed(line, f"{path}:{number}"), f"{path}:{number}")


def _spans_lines(first: str, path: Path) -> bool:
    """Whether the first line begins a value that the whole file is."""
    if first.lstrip().startswith("["):
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return kind_of(path)[0] == ".json" and first.lstrip().startswith("{")
    return False


def _array(path: Path, source: Source) -> list | None:
    """The file's list of rows; None where it is no JSON value as a whole. UserError where `field` leads to no list."""
    try:
        value = json.loads(whole_text(path, source.encoding))
    except (ValueError, RecursionError) as error:
        if source.field:
            raise UserError(f"{path}: not one JSON value ({error}); repair it, or leave out field") from error
        return None
    for part in source.field.split(".") if source.field else ():
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, list):
        return value
    lists = [name for name, part in value.items() if isinstance(part, list)] if isinstance(value, dict) else []
    raise UserError(
        f"{path}: one object and no list of rows{f' at field {source.field!r}' if source.field else ''}; "
        f'name the list in the source, field = "..." (there are: {", ".join(lists) or "none"})'
    )


def _parsed(line: str, where: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg}); is the line cut off? Repair or remove it") from error
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply to be read; remove the row") from error
    except ValueError as error:  # an integer of more than 4,300 digits
        raise UserError(f"{where}: {error}; write the number as text") from error


def _object(row: object, where: str) -> Located:
    if not isinstance(row, dict):
        raise UserError(
            f"{where}: found a {type(row).__name__}, not an object with named columns; "
            'write one object a line, {"es": ..., "en": ...}'
        )
    return where, row


def _read_table(path: Path, ending: str, source: Source) -> Iterator[Located]:
    separator = source.separator or ("\t" if ending == ".tsv" else ",")
    dialect = {"delimiter": separator, "strict": True}
    # Tatoeba-like files hold bare quotes; pandas quotes what needs it.
    if separator == "\t" and not _is_quoted(path, source):
        dialect = {"delimiter": separator, "quoting": csv.QUOTE_NONE}
    hint = "" if separator == "\t" else ', with fields that hold the separator or "quotes" in double quotes'
    reader = csv.reader(_table_lines(path, source), **dialect)
    try:
        header = list(source.header) or next(reader, [])
        if len(set(header)) < len(header):
            raise UserError(f"{path}:1: a column name stands twice in the header ({', '.join(header)}); rename one")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise UserError(
                    f"{path}:{reader.line_num}: {len(fields)} fields where the header has {len(header)} "
                    f"({', '.join(header)}); repair the line{hint}"
                )
            yield f"{path}:{reader.line_num}", dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: broken CSV ({error}); repair the line{hint}") from error


def _table_lines(path: Path, source: Source) -> Iterator[str]:
    """Without the carriage return of a line's end, which a bare dialect takes for a part of its last field."""
    return (re.sub(r"\r\n$", "\n", line) for _, line in lines(path, source.encoding))


def _is_quoted(path: Path, source: Source) -> bool:
    """Whether quotes in a tab-separated file are CSV's: it parses so, in equal rows, and some field needs them."""
    needed = False

    def noted() -> Iterator[str]:
        nonlocal needed
        for number, line in enumerate(_table_lines(path, source)):
            needed = needed or bool(NEEDED_QUOTES.search(line)) or (number == 0 and bool(ALL_QUOTED.match(line)))
            yield line

    width = len(source.header)
    try:
        for fields in csv.reader(noted(), delimiter="\t", strict=True):
            width = width or len(fields)
            if fields and len(fields) != width:
                return False
            needed = needed or any("\t" in field or "\n" in field for field in fields)
    except csv.Error:
        return False
    return needed


def _read_parquet(path: Path) -> Iterator[Located]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    with open_bytes(path) as raw:
        file = io.BytesIO(raw.read()) if kind_of(path)[1] else raw
        try:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:row {number}", row
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(
                f"{path}: broken Parquet file after row {number} ({first_line(error)}); copy or download it again"
            ) from error


def read_aligned(spanish: Path, english: Path, encoding: str | None) -> Iterator[Located]:
    """Line n of one file with line n of the other; UserError where one is longer."""
    lengths = {path: sum(1 for _ in lines(path, encoding)) for path in (spanish, english)}
    if len(set(lengths.values())) > 1:
        longer, shorter = sorted(lengths, key=lengths.__getitem__, reverse=True)
        raise UserError(
            f"{longer}:{lengths[shorter] + 1}: no partner line: it has {lengths[longer]} lines and {shorter} has "
            f"{lengths[shorter]}; align them line by line, with an empty line where a translation is missing"
        )
    for (number, left), (_, right) in zip(lines(spanish, encoding), lines(english, encoding), strict=True):
        yield f"{spanish}:{number}", {"es": left.rstrip("\r\n"), "en": right.rstrip("\r\n")}


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
