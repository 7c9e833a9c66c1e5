"""From sources to splits: clean, merge, remove duplicates, split, and account for every row.

A row of the sentence corpora is `{"id", "es", "en", "source", "register"}`, one of the problems has
LeetCodeDataset's columns plus `family` and `source`. Splits are made by group (problem family) before
anything is weighted or formatted, and `check_no_leak` stops the build if a test row is in training.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import UserError
from ..profiles import Profile, Source, TaskSettings
from ..runs import fingerprint
from .cleaning import drop_duplicates, drop_near_duplicates, normalise, reason_to_drop, tidy
from .sources import read_source

PAIR_COLUMNS, PAIR_EXTRAS = ("es", "en"), ("id", "register")
PROBLEM_COLUMNS = ("task_id", "problem_description", "starter_code", "entry_point", "completion")
PROBLEM_EXTRAS = (
    "title", "difficulty", "tags", "family", "tests", "test", "prompt", "compare", "estimated_date",
)  # fmt: skip
SPLITS = ("train", "validation", "test")


@dataclass
class Corpus:
    """`splits`: rows by split name; `manifest`: what happened to every row that came in."""

    splits: dict[str, list[dict]]
    manifest: dict = field(default_factory=dict)

    @property
    def train(self) -> list[dict]:
        return self.splits["train"]

    @property
    def validation(self) -> list[dict]:
        return self.splits["validation"]

    @property
    def test(self) -> list[dict]:
        return self.splits["test"]

    @property
    def counts(self) -> dict[str, int]:
        """Rows by split name."""
        return {name: len(rows) for name, rows in self.splits.items()}

    @property
    def unused(self) -> int:
        """Good rows that the profile leaves out."""
        return sum(entry["unused"] for entry in self.manifest["sources"].values())


def load_pairs(profile: Profile) -> Corpus:
    """The profile's Spanish-English corpora, cleaned, merged and split."""
    settings = profile.translation
    rows, counts = _read_all(settings, PAIR_COLUMNS, PAIR_EXTRAS, _pair)
    rows = _clean(rows, counts)
    rows = _unique(rows, counts, settings, exact=("es", "en"), near=("es", "en"))
    # No two rows share a side any more, so that a row is a sentence group of its own.
    splits = split_rows(rows, settings, profile.seed, group=lambda row: f"{row['source']}/{row['id']}")
    check_no_leak(splits, ("es", "en"))
    return Corpus(splits, _manifest(splits, settings, counts))


def load_problems(profile: Profile) -> Corpus:
    """The profile's programming problems, split by family, or by date where the source has such a split."""
    settings = profile.leetcode
    rows, counts = _read_all(settings, PROBLEM_COLUMNS, PROBLEM_EXTRAS, _problem)
    rows = _unique(rows, counts, settings, exact=("problem_description", "task_id"), near=("problem_description",))
    splits = split_rows(rows, settings, profile.seed, group=lambda row: row["family"])
    check_no_leak(splits, ("problem_description", "task_id"))
    return Corpus(splits, _manifest(splits, settings, counts))


def _read_all(
    settings: TaskSettings, wanted: tuple[str, ...], optional: tuple[str, ...], make: Callable
) -> tuple[list[dict], dict]:
    """All sources' rows in one list, and by source name how many came in and a counter for the drops."""
    rows, counts = [], {}
    for source in settings.sources:
        if source.name in counts:
            raise UserError(f"two sources are called {source.name!r}: rename one, rows are counted by source name")
        read = [make(row, source, where) for where, row in read_source(source, wanted, optional)]
        counts[source.name] = {"rows_in": len(read), "dropped": Counter()}
        rows += read
    return rows, counts


def _pair(row: dict, source: Source, where: str) -> dict:
    spanish, english = tidy(row["es"]), tidy(row["en"])
    return {
        # An id made of the text stays the same when the file is sorted or grows.
        "id": str(row.get("id") or f"{source.name}-{fingerprint([spanish, english])}"),
        "es": spanish,
        "en": english,
        "source": source.name,
        "register": row.get("register") or source.register or source.name,
    }


def _problem(row: dict, source: Source, where: str) -> dict:
    for column in PROBLEM_COLUMNS:
        if not row[column].strip():
            raise UserError(f"{where}: column {column!r} is empty; fill it or remove the problem")
    if not row.get("tests") and not row.get("test"):
        raise UserError(f"{where}: problem {row['task_id']!r} has neither `tests` nor `test`; add one or map a column")
    tests = row.get("tests", [])
    if not isinstance(tests, list) or not all(isinstance(t, dict) and {"args", "expected"} <= set(t) for t in tests):
        raise UserError(
            f"{where}: problem {row['task_id']!r}: `tests` must be a list of "
            '{"args": [...], "expected": ...}; repair it, or map a `test` column instead'
        )
    row["family"] = row.get("family") or row["task_id"]
    row["source"] = source.name
    row["problem_description"] = row["problem_description"].strip()
    return row


def _clean(rows: list[dict], counts: dict) -> list[dict]:
    kept = []
    for row in rows:
        reason = reason_to_drop(row["es"], row["en"])
        if reason:
            counts[row["source"]]["dropped"][reason] += 1
        else:
            kept.append(row)
    return kept


def _unique(
    rows: list[dict], counts: dict, settings: TaskSettings, exact: tuple[str, ...], near: tuple[str, ...]
) -> list[dict]:
    """Drop duplicates, keeping published test rows first, then earlier sources; UserError if a source loses all rows.

    Within a source the order is a hash of the row's id, so that the order in the file does not matter.
    """
    rank = {source.name: (source.split != "test", number) for number, source in enumerate(settings.sources)}
    rows = sorted(rows, key=lambda row: (rank[row["source"]], order(_identity(row), 0)))
    different = drop_duplicates(rows, exact)
    published = sum(not rank[row["source"]][0] for row in different)
    kept = drop_near_duplicates(different, near, spared=published)
    for reason, before, after in (("duplicate", rows, different), ("near duplicate", different, kept)):
        for name, lost in (Counter(r["source"] for r in before) - Counter(r["source"] for r in after)).items():
            counts[name]["dropped"][reason] = lost
    for source in settings.sources:
        if not any(row["source"] == source.name for row in kept):
            entry = counts[source.name]
            reasons = ", ".join(f"{reason} {count}" for reason, count in entry["dropped"].items())
            raise UserError(
                f"source {source.name!r}: none of the {entry['rows_in']} rows of {source.path or source.hub} is left "
                f"after cleaning (dropped: {reasons}); check its columns and languages, or leave the source out"
            )
    return kept


def _identity(row: dict) -> str:
    return str(row.get("id", row.get("task_id")))


def order(key: str, seed: int) -> str:
    """Sort key of a shuffle that does not move old rows when new ones are added."""
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def split_rows(rows: list[dict], settings: TaskSettings, seed: int, group) -> dict[str, list[dict]]:
    """Whole groups to test, validation, train, in a seeded order; test and validation draw evenly from the sources.

    A source with a fixed `split` keeps it: where there is a published test set, the test rows are its first
    `test_rows` in the seeded order (all of them if it has fewer) and validation draws from the training sources; else
    both draw from the sources without a fixed split alone. UserError when a split cannot be filled.
    """
    fixed = {source.name: source.split for source in settings.sources}
    rows = sorted(rows, key=lambda row: (order(str(group(row)), seed), _identity(row)))
    published = [row for row in rows if fixed[row["source"]] == "test"]
    others = [row for row in rows if fixed[row["source"]] != "test"]
    drawable = others if published else [row for row in others if fixed[row["source"]] is None]
    if published:
        test, in_test = published[: settings.test_rows], {group(row) for row in published}
    else:
        in_test = _draw_groups(drawable, settings.test_rows, group, "test_rows")
        test = [row for row in drawable if group(row) in in_test]
    left = [row for row in drawable if group(row) not in in_test]
    in_validation = _draw_groups(left, settings.validation_rows, group, "validation_rows")
    validation = [row for row in left if group(row) in in_validation]
    train = _weighted([row for row in others if group(row) not in in_test | in_validation], settings)
    if not train:
        raise UserError(
            f"no rows left to train on of {len(rows)} after cleaning: raise the sources' weight, or add data"
        )
    return {"train": train, "validation": validation, "test": test}


def _draw_groups(rows: list[dict], count: int, group, setting: str) -> set:
    """The first groups that hold about `count` rows, the same number from every source but at most half of it."""
    available = Counter(row["source"] for row in rows)
    room, left = {}, count
    for number, name in enumerate(sorted(available, key=lambda name: (available[name], name))):
        room[name] = min(available[name] // 2, left // (len(available) - number))
        left -= room[name]
    size = Counter(group(row) for row in rows)
    taken = set()
    for row in rows:
        if group(row) not in taken and size[group(row)] <= room[row["source"]]:
            taken.add(group(row))
            room[row["source"]] -= size[group(row)]
    if left or not taken:
        have = ", ".join(f"{number} of {name!r}" for name, number in available.items()) or "none"
        raise UserError(
            f"{setting} = {count} is too many: at most half of a source's rows may be drawn, whole families together, "
            f"and there are {have} to draw from after cleaning; lower {setting} or add data"
        )
    return taken


def _weighted(rows: list[dict], settings: TaskSettings) -> list[dict]:
    """Each source's first `weight` share of its training rows, still in the shuffled order; then `train_rows`."""
    available = Counter(row["source"] for row in rows)
    room = {source.name: round(source.weight * available[source.name]) for source in settings.sources}
    kept = []
    for row in rows:
        if room[row["source"]] > 0:
            room[row["source"]] -= 1
            kept.append(row)
    return kept[: settings.train_rows or None]


def check_no_leak(splits: dict[str, list[dict]], sides: tuple[str, ...]) -> None:
    """UserError if any normalised side of a test or validation row stands in training."""
    for side in sides:
        train = {normalise(row[side]) for row in splits["train"]}
        for name in ("validation", "test"):
            for row in splits[name]:
                if normalise(row[side]) in train:
                    raise UserError(
                        f"{name} row {_identity(row)!r} shares its {side} with training: {row[side][:80]!r}"
                    )


def _manifest(splits: dict[str, list[dict]], settings: TaskSettings, counts: dict) -> dict:
    sources = {}
    for source in settings.sources:
        rows = {name: sum(row["source"] == source.name for row in part) for name, part in splits.items()}
        entry = counts[source.name]
        dropped = dict(entry["dropped"])
        sources[source.name] = {
            "from": source.path or source.hub, "revision": source.revision, "licence": source.licence,
            "rows_in": entry["rows_in"], "dropped": dropped, "rows_out": rows,
            "unused": entry["rows_in"] - sum(dropped.values()) - sum(rows.values()),
        }  # fmt: skip
    return {"sources": sources, "fingerprints": {name: fingerprint(part) for name, part in splits.items()}}


def count_after(rows: list[dict], date: str) -> int:
    """Rows whose `estimated_date` (LeetCodeDataset's, year-month-day) is later than `date`."""
    return sum(str(row.get("estimated_date") or "")[: len(date)] > date for row in rows)
