"""What the command line reads and writes: UTF-8 whatever the locale, standard streams that may be closed."""

import os
import sys
from pathlib import Path

from .errors import UserError, reason
from .runs import write_text

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path | None) -> str:
    """All of a file or of standard input, without a byte order mark; UserError says what to do about the rest."""
    name = path or "standard input"
    if path is None and sys.stdin is None:
        raise UserError("standard input is closed: name a file with --input")
    try:
        content = path.read_bytes() if path else sys.stdin.buffer.read()
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except UnicodeDecodeError as error:
        encoding = "utf-16" if content.startswith(UTF16_MARKS) else "cp1252"
        advice = f"convert it, e.g. iconv -f {encoding} -t utf-8"
        raise UserError(f"{name}: not UTF-8 (byte {error.start}); {advice}") from error
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({reason(error)}): name a file that you may read") from error


def write_answers(path: Path | None, text: str) -> None:
    """To a file, or in UTF-8 to standard output."""
    if path:
        write_text(path, text)
    else:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()


def refuse_closed_output(path: Path | None) -> None:
    """UserError before any work, if nobody would get its result."""
    if path is None and sys.stdout is None:
        raise UserError("standard output is closed: name a file with --output")


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
        for name in names:
            if name not in row:
                raise UserError(f"{path}: row {number} has no {name!r} (it has: {', '.join(row)})")
            if not isinstance(row[name], str):
                raise UserError(f"{path}: row {number}: {name!r} must be text, it is {type(row[name]).__name__}")


def discard_output() -> None:
    """What standard output refuses goes nowhere, or the interpreter would try it once more as it ends."""
    if sys.stdout is None or sys.stdout is not sys.__stdout__:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
