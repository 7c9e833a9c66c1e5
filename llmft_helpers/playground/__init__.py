"""A question of one's own: base, few-shot base and tuned answer it next to each other, in a box or in a terminal.

May use `answering` and what is below.
"""

from .arms import Arms
from .box import try_it

__all__ = ["Arms", "try_it"]
