"""What the doctor says about one thing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`advice` is empty where nothing is missing."""

    name: str
    value: str
    advice: str = ""
