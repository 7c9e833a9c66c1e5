"""The one exception that a user's mistake raises, and the system's reason for a write that failed."""

import os
import re

from safetensors import SafetensorError

WRITE_ERRORS = (OSError, SafetensorError)  # safetensors raises no OSError, whatever the disk says


class UserError(Exception):
    """Names the file, key or row that is wrong and what to do; the command line prints it and exits with 2."""


def system_errno(error: Exception) -> int | None:
    """The system's error number in one of WRITE_ERRORS; None where no system call failed, as for a broken file."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else None


def reason(error: Exception) -> str:
    """One line: the system's words for its error, or the error's own."""
    number = system_errno(error)
    return os.strerror(number) if number else " ".join(str(error).split())
