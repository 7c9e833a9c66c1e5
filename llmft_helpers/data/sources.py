"""Read any corpus into plain rows under our column names: a file of any kind that `readers` knows, or a hub data set.

`where` names file and line, or row, for messages.
"""

import hashlib
import heapq
import os
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path

from ..errors import UserError
from ..profiles import Source
from ..runs import ROOT
from .files import kind_of
from .hub import hub_advice
from .readers import TABLE_ENDINGS, Located, first_line, read_aligned, read_file

MISSING = object()


def read_source(
    source: Source, wanted: tuple[str, ...], optional: tuple[str, ...] = (), seed: int = 0
) -> Iterator[Located]:
    """Rows of one source under our column names; a null or a number in a wanted column becomes text.

    `limit` draws from a file by a hash of each row's content and `seed`, wherever the row stands; of a hub data set,
    which is streamed, it takes the head. Raises UserError for a missing or broken file, a missing column, no rows.
    """
    if stray := set(source.columns) - {*wanted, *optional}:
        raise UserError(
            f"source {source.name!r}: columns maps {', '.join(sorted(stray))}, but ours are called "
            f"{', '.join((*wanted, *optional))}: write ours = theirs"
        )
    empty = True
    for where, row in _limited(_located_rows(source), source, seed):
        empty = False
        yield where, _rename(row, source, where, wanted, optional)
    if empty:
        raise UserError(f"source {source.name!r}: {_origin(source)} holds no rows; fill it or leave the source out")


def _limited(rows: Iterator[Located], source: Source, seed: int) -> Iterator[Located]:
    if source.limit is None:
        yield from rows
    elif source.hub:
        yield from islice(rows, source.limit)
    else:

        def drawn(numbered: tuple[int, Located]) -> bytes:
            return hashlib.blake2b(repr((seed, numbered[1][1])).encode("utf-8", "replace"), digest_size=8).digest()

        yield from (row for _, row in sorted(heapq.nsmallest(source.limit, enumerate(rows), key=drawn)))


def _origin(source: Source) -> str:
    return source.hub or " and ".join([source.path] if isinstance(source.path, str) else source.path)


def _located_rows(source: Source) -> Iterator[Located]:
    if (source.path is None) == (source.hub is None):
        raise UserError(f"source {source.name!r}: set either path or hub")
    if source.hub:
        return _read_hub(source)
    if isinstance(source.path, tuple):
        return read_aligned(*(resolve(part, source.name) for part in source.path), source.encoding)
    return read_file(resolve(source.path, source.name), source)


def resolve(path: str, source_name: str) -> Path:
    """A path relative to the working folder or else to the repository."""
    for candidate in (Path(path), ROOT / path):
        if os.path.isfile(candidate):  # False where Path.is_file raises: a folder that may not be searched
            return candidate
        if os.path.isdir(candidate):
            raise UserError(f"source {source_name!r}: {candidate} is a folder: name the file in it")
    raise UserError(f"source {source_name!r}: file {path} not found in {Path.cwd()} or {ROOT}: correct its path")


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
            f"accept its terms and set HF_TOKEN if it is gated ({first_line(error)})"
        ) from error
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        otherwise = "check config and hub_split, or use a local file (path = ...) where there is no network"
        raise UserError(
            f"source {source.name!r}: {source.hub} (config {source.config}, split {source.hub_split}) could not be "
            f"loaded: {first_line(error)}; {hub_advice(error, otherwise)}"
        ) from error


def _rename(row: dict, source: Source, where: str, wanted: tuple[str, ...], optional: tuple[str, ...]) -> dict:
    renamed = {}
    for name in (*wanted, *optional):
        column = source.columns.get(name, name)
        value = _plain(_nested(row, column), where, column)
        demanded = name in wanted or name in source.columns
        if value is MISSING and demanded:
            raise UserError(
                f"{where}: no column {column!r} (there are: {', '.join(map(str, row))}); "
                f'map it in the profile, e.g. columns = {{ {name} = "..." }}, or rename it{_other_remedy(row, source)}'
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


def _plain(value: object, where: str, column: str) -> object:
    """As JSON could hold it: of the types that only Parquet has, dates and exact decimals become text."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {name: _plain(part, where, column) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part, where, column) for part in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: column {column!r} holds bytes that are not UTF-8: store it as text") from error
    return str(value) if isinstance(value, date | time | timedelta | Decimal) else value


def _other_remedy(row: dict, source: Source) -> str:
    """What else a missing column may mean: a table without a header line, rows below a key of one JSON object."""
    ending = kind_of(resolve(source.path, source.name))[0] if isinstance(source.path, str) else ""
    is_table = isinstance(source.path, str) and (source.separator or ending in TABLE_ENDINGS)
    if is_table and not source.header:
        names = ", ".join(f'"column {number}"' for number in range(1, len(row) + 1))
        return f"; the first line was taken as the header: if it is a row, name the columns, header = [{names}]"
    lists = [name for name, value in row.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return f'; or, if the rows are the list {lists[0]!r}, set field = "{lists[0]}"' if lists and source.path else ""


def _nested(row: dict, column: str) -> object:
    """The value of a column, or at a dotted path of names and list indices where no column has that whole name.

    None for a null on the way, MISSING where a name is not there.
    """
    if column in row:
        return row[column]
    value: object = row
    for part in column.split("."):
        if value is None:
            return None
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part, MISSING) if isinstance(value, dict) else MISSING
    return value
