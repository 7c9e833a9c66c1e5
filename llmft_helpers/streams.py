"""What the command line reads and writes: UTF-8 whatever the locale, standard streams that may be closed."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError, reason
from .storage import write_text

STANDARD_INPUT = "standard input"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path | None) -> str:
    """All of a file or of standard input, without a byte order mark; UserError says what to do about the rest."""
    name = path or STANDARD_INPUT
    if path is None:
        refuse_closed_input()
    try:
        return _decoded(path.read_bytes() if path else sys.stdin.buffer.read(), name)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: object, error: OSError) -> UserError:
    return UserError(f"{name}: cannot be read ({reason(error)}): name a file that you may read")


def _decoded(content: bytes, name: object) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = "utf-16" if content.startswith(UTF16_MARKS) else "cp1252"
        advice = f"convert it, e.g. iconv -f {encoding} -t utf-8"
        raise UserError(f"{name}: not UTF-8 (byte {error.start}); {advice}") from error


def split_lines(text: str) -> list[str]:
    """Lines as an editor counts them: only a line feed ends one."""
    return text.removesuffix("\n").split("\n") if text else []


def arriving_lines() -> Iterator[str]:
    """Lines of standard input, each as soon as it is there; UserError at one that is not UTF-8."""
    try:
        for number, line in enumerate(sys.stdin.buffer, 1):
            yield _decoded(line, f"{STANDARD_INPUT}, line {number}").removesuffix("\n")
    except OSError as error:
        raise _unreadable(STANDARD_INPUT, error) from error


def refuse_closed_input() -> None:
    """UserError before any work, if there is nothing to read."""
    if sys.stdin is None:
        raise UserError(f"{STANDARD_INPUT} is closed: name a file with --input")


def write_answers(path: Path | None, text: str) -> None:
    """To a file, or in UTF-8 to standard output."""
    if path:
        write_text(path, text)
    else:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()


def refuse_closed_output(path: Path | None, advice: str = "name a file with --output") -> None:
    """UserError before any work, if nobody would get its result."""
    if path is None and sys.stdout is None:
        raise UserError(f"standard output is closed: {advice}")


def refuse_overwriting(output: Path | None, *inputs: Path | None, option: str = "--output") -> None:
    """UserError, before any work, if `output` is a folder or would replace one of the files that are read."""
    if output and output.is_dir():
        raise UserError(f"{option} {output} is a folder: name a file in it")
    for path in filter(None, inputs):
        if output and output.is_file() and path.is_file() and output.samefile(path):
            raise UserError(f"{option} {output} is the input: name another file")


def refuse_columns(path: Path, rows: list[dict], *names: str) -> None:
    """UserError if a row lacks one of the columns, or holds something other than text in it."""
    for number, row in enumerate(rows, 1):
        refuse_row(f"{path}: row {number}", row, *names)


def refuse_row(where: str, row: dict, *names: str) -> None:
    """UserError that begins with `where` if the row lacks one of the columns, or holds something other than text."""
    for name in names:
        if name not in row:
            raise UserError(f"{where} has no {name!r} (it has: {', '.join(row)})")
        if not isinstance(row[name], str):
            raise UserError(f"{where}: {name!r} must be text, it is {type(row[name]).__name__}")


def discard_output() -> None:
    """What standard output refuses goes nowhere, or the interpreter would try it once more as it ends."""
    if sys.stdout is None or sys.stdout is not sys.__stdout__:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
