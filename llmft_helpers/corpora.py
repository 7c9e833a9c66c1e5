"""From sources to splits: clean, merge, remove duplicates, split, and account for every row.

A row of the sentence corpora is `{"id", "es", "en", "source", "register"}`, one of the problems has
LeetCodeDataset's columns plus `family` and `source`. Splits are made by group (problem family) before
anything is weighted or formatted, and `check_no_leak` stops the build if a test row is in training.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from .cleaning import drop_duplicates, drop_near_duplicates, normalise, reason_to_drop, tidy
from .errors import UserError
from .profiles import Profile, Source, TaskSettings
from .runs import fingerprint
from .sources import read_source

PROBLEM_COLUMNS = ("task_id", "problem_description", "starter_code", "entry_point", "completion")
PROBLEM_EXTRAS = (
    "title",
    "difficulty",
    "tags",
    "family",
    "tests",
    "test",
    "prompt",
    "compare",
    "estimated_date",
)
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


def load_pairs(profile: Profile) -> Corpus:
    """The profile's Spanish-English corpora, cleaned, merged and split."""
    settings = profile.translation
    rows, counts = [], {}
    for source in settings.sources:
        read = [
            _pair(row, source, number)
            for number, (_, row) in enumerate(read_source(source, ("es", "en"), ("id", "register")))
        ]
        kept, dropped = _clean(read)
        counts[source.name] = {"rows_in": len(read), "dropped": dropped}
        rows += kept
    rows = _unique(rows, counts, ("es", "en"))
    splits = split_rows(rows, settings, profile.seed, group=lambda row: row["id"])
    check_no_leak(splits, ("es", "en"))
    return Corpus(splits, _manifest(splits, settings, counts))


def load_problems(profile: Profile) -> Corpus:
    """The profile's programming problems, split by family, or by date where the source has such a split."""
    settings = profile.leetcode
    rows, counts = [], {}
    for source in settings.sources:
        read = [_problem(row, source) for _, row in read_source(source, PROBLEM_COLUMNS, PROBLEM_EXTRAS)]
        counts[source.name] = {"rows_in": len(read), "dropped": Counter()}
        rows += read
    rows = _unique(rows, counts, ("problem_description",))
    splits = split_rows(rows, settings, profile.seed, group=lambda row: row["family"])
    check_no_leak(splits, ("problem_description", "task_id"))
    return Corpus(splits, _manifest(splits, settings, counts))


def _pair(row: dict, source: Source, number: int) -> dict:
    return {
        "id": str(row.get("id", f"{source.name}-{number}")),
        "es": tidy(str(row["es"])),
        "en": tidy(str(row["en"])),
        "source": source.name,
        "register": row.get("register", source.register or source.name),
    }


def _problem(row: dict, source: Source) -> dict:
    row["family"] = row.get("family") or row["task_id"]
    row["source"] = source.name
    row["entry_point"] = row["entry_point"].removeprefix("Solution().")
    row["problem_description"] = row["problem_description"].strip()
    if not row.get("tests") and not row.get("test"):
        raise UserError(f"source {source.name!r}: problem {row['task_id']!r} has neither `tests` nor `test`")
    return row


def _clean(rows: list[dict]) -> tuple[list[dict], Counter]:
    dropped: Counter = Counter()
    kept = []
    for row in rows:
        reason = reason_to_drop(row["es"], row["en"])
        if reason:
            dropped[reason] += 1
        else:
            kept.append(row)
    return kept, dropped


def _unique(rows: list[dict], counts: dict, sides: tuple[str, ...]) -> list[dict]:
    for reason, drop in (("duplicate", drop_duplicates), ("near duplicate", drop_near_duplicates)):
        kept = drop(rows, sides)
        ids = {id(row) for row in kept}
        for row in rows:
            if id(row) not in ids:
                counts[row["source"]]["dropped"][reason] += 1
        rows = kept
    return rows


def _order(key: str, seed: int) -> str:
    """Sort key of a shuffle that does not move old rows when new ones are added."""
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def split_rows(rows: list[dict], settings: TaskSettings, seed: int, group) -> dict[str, list[dict]]:
    """Whole groups to test, validation, train, in a seeded order; test and validation draw evenly from the sources.

    A source with a fixed `split` keeps it. UserError when a split would be empty or larger than its data.
    """
    fixed = {source.name: source.split for source in settings.sources}
    rows = sorted(rows, key=lambda row: (_order(str(group(row)), seed), str(row.get("id", row.get("task_id")))))
    splits: dict[str, list[dict]] = {name: [] for name in SPLITS}
    published_test = [row for row in rows if fixed[row["source"]] == "test"]
    free = [row for row in rows if fixed[row["source"]] != "test"]
    if published_test:
        splits["test"] = published_test[: settings.test_rows]
        seen = {group(row) for row in published_test}
        free = [row for row in free if group(row) not in seen]
    else:
        splits["test"], free = _take_groups(free, settings.test_rows, group, "test_rows")
    splits["validation"], rest = _take_groups(free, settings.validation_rows, group, "validation_rows")
    splits["train"] = _weighted(rest, settings)
    for name, part in splits.items():
        if not part:
            raise UserError(
                f"no rows left for the {name} split: {len(rows)} rows after cleaning; "
                "lower test_rows or validation_rows, or add data"
            )
    return splits


def _take_groups(rows: list[dict], count: int, group, setting: str) -> tuple[list[dict], list[dict]]:
    """Split off about `count` rows, whole groups, the same number from every source."""
    if count >= len(rows):
        raise UserError(f"{setting} = {count} leaves nothing to train on: {len(rows)} rows are left after cleaning")
    sources = sorted({row["source"] for row in rows})
    room = {name: count // len(sources) + (index < count % len(sources)) for index, name in enumerate(sources)}
    size = Counter(group(row) for row in rows)
    taken = set()
    for row in rows:
        if group(row) not in taken and size[group(row)] <= room[row["source"]]:
            taken.add(group(row))
            room[row["source"]] -= size[group(row)]
    return [row for row in rows if group(row) in taken], [row for row in rows if group(row) not in taken]


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
                        f"{name} row {row.get('id', row.get('task_id'))!r} shares its {side} with training: "
                        f"{row[side][:80]!r}"
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


def character_documents(pairs: Corpus, problems: Corpus, split: str) -> list[tuple[str, str]]:
    """(domain, text) of every document of one split: sentence pairs and solved problems as plain text."""
    documents = [(row["source"], f"{row['es']}\n{row['en']}\n\n") for row in pairs.splits[split]]
    for row in problems.splits[split]:
        documents.append(("code", f"{row['problem_description']}\n\n{row['completion'].strip()}\n\n"))
    return sorted(documents, key=lambda document: _order(document[1], 0))
