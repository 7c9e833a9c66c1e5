"""The exceptions that a user's mistake and a request to end raise, and the system's reason for a write that failed."""

import os
import re
import signal

from safetensors import SafetensorError

WRITE_ERRORS = (OSError, SafetensorError)  # safetensors raises no OSError, whatever the disk says


class UserError(Exception):
    """Names the file, key or row that is wrong and what to do; the command line prints it and exits with 2."""


class Terminated(KeyboardInterrupt):
    """Another signal than Ctrl-C's asks the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


def system_errno(error: Exception) -> int | None:
    """The system's error number in one of WRITE_ERRORS; None where no system call failed, as for a broken file."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else None


def reason(error: Exception) -> str:
    """One line: the system's words for its error, or the error's own."""
    number = system_errno(error)
    if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(error)):
        return "the disk took only a part of it"  # NumPy keeps the system's number to itself
    return os.strerror(number) if number else " ".join(str(error).split())
