"""Programs that nobody vouches for, run against tests in a confined process; the verdict is made outside of it.

`execution.py` says what the confinement does not protect against. May use `errors` alone.
"""

from .execution import grade, isolation_level

__all__ = ["grade", "isolation_level"]
