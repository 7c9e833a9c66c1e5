"""What the doctor says about one thing, and what it says where it cannot look."""

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import reason


@dataclass(frozen=True)
class Finding:
    """`advice` is empty where nothing is missing."""

    name: str
    value: str
    advice: str = ""


def probed(name: str, probe: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """What `probe` finds. Whatever it raises is a finding too: people ask the doctor when something is broken."""
    try:
        found = probe()
    except Exception as error:
        value = f"cannot be told ({type(error).__name__}: {reason(error)})"
        return [Finding(name, value, "correct what the message names, and ask again")]
    return found if isinstance(found, list) else [found]
