"""Text and bytes of the files that people bring: packed or not, in whatever encoding, each fault with its line.

Delimited and JSON files are read by `readers` row by row rather than by `datasets`, whose CSV reader takes "NA" for a
missing value, fills short rows up in silence, and names no row.
"""

import contextlib
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from charset_normalizer import from_bytes

from ..errors import UserError, reason

# What Spanish text is found in where it is not UTF-8; a free guess takes short texts for Chinese or Baltic ones.
OTHER_ENCODINGS = ["cp1252", "mac_roman", "cp850", "utf_16_le", "utf_16_be"]
BYTE_ORDER_MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16",
                    b"\xfe\xff": "utf-16"}  # fmt: skip
SAMPLE_BYTES = 1 << 16


def kind_of(path: Path) -> tuple[str, str]:
    """(ending that says what a file holds, ending that says how it is packed or ""), in lower case; a zip's name ends
    as the file in it does.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packing = suffixes.pop() if suffixes and suffixes[-1] in (".gz", ".zip") else ""
    if packing == ".zip":
        suffixes = [suffix.lower() for suffix in Path(_only_member(path)).suffixes]
    return (suffixes or [""])[-1], packing


def _only_member(path: Path) -> str:
    with faults_said(path), zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise UserError(f"{path}: holds {len(names)} files ({', '.join(names[:3])}): unpack it and name the one meant")
    return names[0]


@contextlib.contextmanager
def faults_said(path: Path) -> Iterator[None]:
    """Faults of a file or its packing as one line."""
    try:
        yield
    except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error) as error:
        packing = "zip" if isinstance(error, zipfile.BadZipFile) or path.suffix.lower() == ".zip" else "gzip"
        raise UserError(f"{path}: broken {packing} file ({error}); copy or download it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); check its permissions") from error


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The unpacked file; UserError names it whatever goes wrong while it is open."""
    _, packing = kind_of(path)
    with faults_said(path), contextlib.ExitStack() as stack:
        if packing == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(path))
            try:
                member = archive.open(_only_member(path))
            except (RuntimeError, NotImplementedError) as error:  # a password; a compression that Python lacks
                raise UserError(f"{path}: {error}: unpack it and name the file in it") from error
            yield stack.enter_context(member)
        else:
            yield stack.enter_context((gzip.open if packing else open)(path, "rb"))


def lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """(number, line with its end), split at line feeds alone; UTF-8, or what a byte order mark or `encoding` says."""
    number = 0
    encoding = encoding or _marked(path)
    with open_bytes(path) as raw:
        if encoding is None:
            for number, line in enumerate(raw, 1):
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, number, error) from error
            return
        try:
            by_line = "\n".encode(encoding) == b"\n"  # a wrapper decodes ahead and could not name the line of a fault
            text = (line.decode(encoding) for line in raw) if by_line else io.TextIOWrapper(raw, encoding, newline="\n")
            for number, line in enumerate(text, 1):
                yield number, line.removeprefix("\ufeff") if number == 1 else line
        except LookupError as error:
            raise UserError(
                f"{path}: encoding {encoding!r} is not known to Python; correct it in the profile"
            ) from error
        except UnicodeError as error:
            raise UserError(
                f"{path}:{number + 1}: not {encoding} ({error}); correct encoding in the profile"
            ) from error


def whole_text(path: Path, encoding: str | None = None) -> str:
    return "".join(text for _, text in lines(path, encoding))


def _marked(path: Path) -> str | None:
    """The encoding that a byte order mark names, if it is not UTF-8; UserError for UTF-16 without one."""
    with open_bytes(path) as raw:
        start = raw.read(SAMPLE_BYTES)
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return encoding
    if start.count(0) > len(start) // 10:
        guess = _guess(start)
        raise UserError(f"{path}:1: not UTF-8 (every other byte is zero){guess}")
    return None


def _not_utf8(path: Path, number: int, error: UnicodeDecodeError) -> UserError:
    with open_bytes(path) as raw:
        sample = raw.read(SAMPLE_BYTES)
    said = _guess(sample if not sample.isascii() else error.object, error.object)
    return UserError(f"{path}:{number}: not UTF-8 (byte 0x{error.object[error.start]:02x}){said}")


def _guess(sample: bytes, line: bytes = b"") -> str:
    """What to do, with the likeliest encoding and how a line reads in it: the reader sees whether it is right."""
    best = from_bytes(sample[: len(sample) // 4 * 4], cp_isolation=OTHER_ENCODINGS).best()
    if best is None:
        return '; name its encoding in the source, encoding = "..."'
    encoding = best.encoding.replace("_", "-")
    words = re.findall(r"\w+", (line or sample).decode(encoding, "replace"))
    telling = next((word for word in words if not word.isascii()), words[0] if words else "")
    return f'; it looks like {encoding} ("{telling[:40]}"): if so, set encoding = "{encoding}" in the source'
