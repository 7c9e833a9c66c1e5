"""What this machine can do, and one line of advice for each thing that is missing.

May use `models`, `grading`, `runs` and what is below.
"""

from .findings import Finding
from .machine import examine

__all__ = ["Finding", "examine"]
