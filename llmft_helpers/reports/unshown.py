"""Which answers a report does not show: an untuned base can write a slur, and a page need not repeat it.

Such answers are scored like all others. The words are kept as hashes, so that nobody has to read them either.
"""

import hashlib
import re
from pathlib import Path

# The first ten hex digits of SHA-256 of slurs and curses, in lower case.
WORDS = frozenset(Path(__file__).with_name("unshown_words.txt").read_text(encoding="utf-8").split())


def is_shown(text: str) -> bool:
    return not any(_mark(word) in WORDS for word in set(re.findall(r"\w+", text.lower())))


def _mark(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()[:10]


def shown(rows: list[dict]) -> list[dict]:
    """The rows of predictions in which every arm's `text` may be shown."""
    return [row for row in rows if all(is_shown(part["text"]) for part in row.values() if _is_answer(part))]


def _is_answer(part: object) -> bool:
    return isinstance(part, dict) and "text" in part
