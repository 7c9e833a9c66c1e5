"""Whether what a program returned is what a problem expects; both as `values.encode` writes them."""

import math
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial

TOLERANCE = 1e-5  # absolute or relative, LeetCode's: "answers within 10^-5 of the actual answer will be accepted"
EVERY_DEPTH = 1000


def _open(wire: object) -> tuple[str, object]:
    """(kind, payload) of an encoded value: a tuple is a list, a frozenset a set; plain JSON dicts are read, too."""
    if isinstance(wire, list):
        return "list", wire
    if not isinstance(wire, dict):
        return "", wire
    if wire.keys() != {"t", "v"}:
        return "dict", list(wire.items())
    kind, payload = wire["t"], wire["v"]
    if kind == "int":
        return "", int(payload, 16)
    if kind == "TreeNode":  # trailing nulls say nothing
        end = max((i for i, item in enumerate(payload, 1) if item is not None), default=0)
        return kind, payload[:end]
    return {"tuple": "list", "frozenset": "set"}.get(kind, kind), payload


def _key(wire: object, depth: int) -> Hashable:
    """Equal for values that agree exactly; lists down to `depth` in any order. TypeError for what is no plain data."""
    kind, payload = _open(wire)
    if kind == "":
        return _scalar_key(payload)
    if kind == "dict":
        return kind, frozenset((_key(key, 0), _key(item, depth)) for key, item in payload)
    if kind == "bytes":
        return kind, payload
    if kind not in ("list", "set", "ListNode", "TreeNode"):
        raise TypeError(f"a {kind} cannot be compared")
    keys = [_key(item, depth - 1) for item in payload]
    if kind == "set" or (kind == "list" and depth > 0):
        return kind, frozenset(Counter(keys).items())
    return kind, tuple(keys)


def _scalar_key(value: object) -> Hashable:
    """True is not 1, "1" is not 1, but 240.0 is 240, and NaN is NaN."""
    if type(value) in (int, float):
        return "number", value if value == value else "NaN"
    return type(value).__name__, value


def _close(expected: object, wire: object, depth: int) -> bool:
    """As equal keys, but numbers agree within TOLERANCE, unless both are integers."""
    kind, want = _open(expected)
    other, got = _open(wire)
    if kind != other:
        return False
    if kind == "":
        return _scalar_key(want) == _scalar_key(got) or _close_numbers(want, got)
    if kind == "dict":
        wanted = {_key(key, 0): item for key, item in want}
        found = {_key(key, 0): item for key, item in got}
        return wanted.keys() == found.keys() and all(_close(wanted[key], found[key], depth) for key in wanted)
    if kind not in ("list", "set", "ListNode", "TreeNode"):
        return _key(expected, 0) == _key(wire, 0)
    agree = partial(_close, depth=depth - 1)
    if kind == "set" or (kind == "list" and depth > 0):
        return _any_order(want, got, agree)
    return len(want) == len(got) and all(map(agree, want, got))


def _close_numbers(want: object, got: object) -> bool:
    kinds = {type(want), type(got)}
    try:
        return (
            float in kinds and kinds <= {int, float} and math.isclose(want, got, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        )
    except OverflowError:  # an int beyond any float
        return False


def _any_order(want: list, got: list, agree: Callable[[object, object], bool]) -> bool:
    """Whether each wanted item has a partner of its own: Kuhn's algorithm, since closeness is not transitive."""
    partner: dict[int, int] = {}  # index of got: index of want

    def place(i: int, tried: set[int]) -> bool:
        for j, item in enumerate(got):
            if j not in tried and agree(want[i], item):
                tried.add(j)
                if j not in partner or place(partner[j], tried):
                    partner[j] = i
                    return True
        return False

    if len(want) != len(got):
        return False
    numbers = all(type(item) in (int, float) for item in want + got)
    if numbers and all(map(agree, sorted(want), sorted(got))):
        return True
    return all(place(i, set()) for i in range(len(want)))


def _agrees(expected: object, wire: object, depth: int, close: bool) -> bool:
    try:
        if close:
            return _close(expected, wire, depth)
        return _key(expected, depth) == _key(wire, depth)
    except (TypeError, ValueError, AttributeError, RecursionError):  # forged, or no plain data
        return False


COMPARE = {
    "exact": partial(_agrees, depth=0, close=False),
    "unordered": partial(_agrees, depth=1, close=False),
    "unordered_deep": partial(_agrees, depth=EVERY_DEPTH, close=False),
    "float": partial(_agrees, depth=0, close=True),
    "unordered_float": partial(_agrees, depth=1, close=True),
    "unordered_deep_float": partial(_agrees, depth=EVERY_DEPTH, close=True),
}
