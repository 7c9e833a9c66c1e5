"""Groups of rows to test, validation and training, and the guard that stops a build whose splits share a text."""

import hashlib
import itertools
from collections import Counter, defaultdict

from ..errors import UserError
from ..profiles import TaskSettings
from .cleaning import normalise


def identity(row: dict) -> str:
    return str(row.get("id", row.get("task_id")))


def order(key: str, seed: int) -> str:
    """Sort key of a shuffle that does not move old rows when new ones are added."""
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def split_rows(rows: list[dict], settings: TaskSettings, seed: int) -> dict[str, list[dict]]:
    """Whole groups to test, validation, train, in a seeded order; test and validation draw evenly from the sources.

    A source with a fixed `split` keeps it: where there is a published test set, the test rows are its first
    `test_rows` in the seeded order (all of them if it has fewer) and validation draws from the training sources; else
    both draw from the groups that hold no row of a source for training alone. UserError when a split cannot be filled.
    """
    fixed = {source.name: source.split for source in settings.sources}
    rows = sorted(rows, key=lambda row: (order(row["group"], seed), identity(row)))
    published = [row for row in rows if fixed[row["source"]] == "test"]
    others = [row for row in rows if fixed[row["source"]] != "test"]
    trained = {row["group"] for row in others if fixed[row["source"]] == "train"} if not published else set()
    drawable = [row for row in others if row["group"] not in trained]
    if published:
        test, in_test = published[: settings.test_rows], {row["group"] for row in published}
    else:
        in_test = _draw_groups(drawable, settings.test_rows, "test_rows")
        test = [row for row in drawable if row["group"] in in_test]
    left = [row for row in drawable if row["group"] not in in_test]
    in_validation = _draw_groups(left, settings.validation_rows, "validation_rows")
    validation = [row for row in left if row["group"] in in_validation]
    train = _weighted([row for row in others if row["group"] not in in_test | in_validation], settings)
    if not train:
        raise UserError(
            f"no rows left to train on of {len(rows)} after cleaning: raise the sources' weight, or add data"
        )
    return {"train": train, "validation": validation, "test": test}


def _draw_groups(rows: list[dict], count: int, setting: str) -> set[str]:
    """The first groups that hold about `count` rows, the same number from every source but at most half of it."""
    available = Counter(row["source"] for row in rows)
    room, left = {}, count
    for number, name in enumerate(sorted(available, key=lambda name: (available[name], name))):
        room[name] = min(available[name] // 2, left // (len(available) - number))
        left -= room[name]
    needs: dict[str, Counter] = defaultdict(Counter)
    for row in rows:
        needs[row["group"]][row["source"]] += 1
    taken = set()
    for group, need in needs.items():
        if all(size <= room[name] for name, size in need.items()):
            taken.add(group)
            for name, size in need.items():
                room[name] -= size
    if left or not taken:
        have = ", ".join(f"{number} of {name!r}" for name, number in available.items()) or "none"
        raise UserError(
            f"{setting} = {count} is too many: at most half of a source's rows may be drawn, whole groups together, "
            f"and there are {have} to draw from after cleaning; lower {setting} or add data"
        )
    return taken


def _weighted(rows: list[dict], settings: TaskSettings) -> list[dict]:
    """The first rows of each source in the shuffled order: its `weight` share, and of `train_rows` the same part."""
    available = Counter(row["source"] for row in rows)
    shares = {source.name: source.weight * available[source.name] for source in settings.sources}
    wanted = sum(shares.values())
    part = min(1, settings.train_rows / wanted) if settings.train_rows and wanted else 1
    ends = [round(part * end) for end in itertools.accumulate(shares.values(), initial=0)]  # their sum is the whole
    room = {name: end - start for name, (start, end) in zip(shares, itertools.pairwise(ends), strict=True)}
    kept = []
    for row in rows:
        if room[row["source"]] > 0:
            room[row["source"]] -= 1
            kept.append(row)
    return kept


def check_no_leak(splits: dict[str, list[dict]], sides: tuple[str, ...]) -> None:
    """UserError if any normalised side, or the group, of a test or validation row stands in training."""
    for side in ("group", *sides):
        train = {_seen(row, side) for row in splits["train"]}
        for name in ("validation", "test"):
            for row in splits[name]:
                if _seen(row, side) in train:
                    raise UserError(f"{name} row {identity(row)!r} shares its {side} with training: {row[side][:80]!r}")


def _seen(row: dict, side: str) -> str:
    return row[side] if side == "group" else normalise(row[side])
