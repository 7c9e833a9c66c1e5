"""Whether what a program returned is what a problem expects; values arrive as `values.encode` writes them."""

import functools
import math

TOLERANCE = 1e-6


def same_value(expected: object, wire: object, tolerance: float | None = None) -> bool:
    """Whether an encoded value is what the problem expects (plain JSON).

    Types agree: True is not 1, "1" is not 1; a tuple is a list; an int may stand for an expected float. With a
    tolerance (absolute and relative), any two numbers that are that close agree.
    """
    if isinstance(wire, dict):
        kind, payload = wire.get("t"), wire.get("v")
        if kind == "tuple" and isinstance(payload, list):
            wire = payload
        elif kind == "int" and isinstance(payload, str):
            return type(expected) in (int, float) and _same_number(expected, int(payload, 16), tolerance)
        else:
            return kind == "dict" and isinstance(expected, dict) and _same_dict(expected, payload, tolerance)
    if isinstance(expected, list):
        return (
            isinstance(wire, list)
            and len(wire) == len(expected)
            and all(same_value(e, w, tolerance) for e, w in zip(expected, wire, strict=True))
        )
    if type(expected) in (int, float) and type(wire) in (int, float):
        return _same_number(expected, wire, tolerance)
    return type(expected) is type(wire) and expected == wire


def _same_number(expected: float, got: float, tolerance: float | None) -> bool:
    if expected == got:
        return type(expected) is float or type(got) is int or tolerance is not None
    if expected != expected and got != got:
        return True
    try:
        return tolerance is not None and math.isclose(expected, got, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an int beyond any float
        return False


def _same_dict(expected: dict, pairs: object, tolerance: float | None) -> bool:
    try:
        items = {key: item for key, item in pairs if type(key) is str}
    except (TypeError, ValueError):  # forged: not a list of pairs
        return False
    return (
        len(items) == len(pairs)
        and items.keys() == expected.keys()
        and all(same_value(expected[key], items[key], tolerance) for key in items)
    )


def _same_unordered(expected: object, wire: object) -> bool:
    """Lists with the same elements, in any order."""
    if isinstance(wire, dict) and wire.get("t") == "tuple":
        wire = wire.get("v")
    if not isinstance(expected, list) or not isinstance(wire, list) or len(wire) != len(expected):
        return same_value(expected, wire)
    left = list(expected)
    for item in wire:
        match = next((i for i, e in enumerate(left) if same_value(e, item)), None)
        if match is None:
            return False
        del left[match]
    return True


COMPARE = {
    "exact": same_value,
    "unordered": _same_unordered,
    "float": functools.partial(same_value, tolerance=TOLERANCE),
}
