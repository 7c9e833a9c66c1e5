"""From sources to splits: clean, merge, tie together what belongs together, split, and account for every row.

A row of the sentence corpora is `{"id", "es", "en", "source", "register", "group"}`, one of the problems has
LeetCodeDataset's columns plus `family`, `source` and `group`. Splits are made by group (rows that share, or nearly
share, a text; a problem family) before anything is weighted or formatted, and `check_no_leak` stops the build if a
test row is in training.
"""

import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy

from ..errors import UserError
from ..profiles import Profile, Source, TaskSettings
from ..storage import fingerprint
from . import groups, solutions
from .checks import check_source
from .cleaning import reason_to_drop, repairs, tidy
from .prepared import prepared
from .sources import read_source
from .splitting import check_no_leak, identity, order, split_rows

PAIR_COLUMNS, PAIR_EXTRAS = ("es", "en"), ("id", "register")
PROBLEM_COLUMNS = ("task_id", "problem_description", "starter_code", "entry_point", "completion")
PROBLEM_EXTRAS = (
    "title", "difficulty", "tags", "family", "tests", "test", "prompt", "test_list", "compare", "estimated_date",
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
    settings, seed = profile.translation, profile.seed
    return Corpus(*prepared("pairs", settings, seed, lambda: _make_pairs(settings, seed)))


def load_problems(profile: Profile) -> Corpus:
    """The profile's programming problems, split by family, or by date where the source has such a split."""
    settings, seed = profile.leetcode, profile.seed
    return Corpus(*prepared("problems", settings, seed, lambda: _make_problems(settings, seed)))


def _make_pairs(settings: TaskSettings, seed: int) -> tuple[dict, dict]:
    rows, accounts = _read_all(settings, seed, PAIR_COLUMNS, PAIR_EXTRAS, _pairs)
    rows = _tie(rows, accounts, settings, repeats=("es", "en"), sentences=("es", "en"), bound=("id",))
    splits = split_rows(rows, settings, seed)
    check_no_leak(splits, ("es", "en"))
    return splits, _manifest(splits, settings, accounts)


def _make_problems(settings: TaskSettings, seed: int) -> tuple[dict, dict]:
    rows, accounts = _read_all(settings, seed, PROBLEM_COLUMNS, PROBLEM_EXTRAS, _problems)
    sentences, bound = ("problem_description",), ("task_id", "family")
    rows = _tie(rows, accounts, settings, ("problem_description", "completion"), sentences, bound)
    splits = split_rows(rows, settings, seed)
    for name in ("train", "validation"):
        splits[name] = _sound(splits[name], accounts)
    check_no_leak(splits, ("problem_description", "task_id"))
    _name_faults(accounts)
    return splits, _manifest(splits, settings, accounts)


@dataclass
class Account:
    """What happened to a source's rows: how many came in, were mended and dropped, and up to three of each reason."""

    rows_in: int = 0
    repaired: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)
    examples: dict[str, list] = field(default_factory=lambda: defaultdict(list))

    def drop(self, reason: str, example: object) -> None:
        self.dropped[reason] += 1
        if len(self.examples[reason]) < 3:
            self.examples[reason].append(example)


def _read_all(
    settings: TaskSettings, seed: int, wanted: tuple[str, ...], optional: tuple[str, ...], make: Callable
) -> tuple[list[dict], dict[str, Account]]:
    """All sources' rows in one list, and an account by source name."""
    rows, accounts = [], {}
    for source in settings.sources:
        if source.name in accounts:
            raise UserError(f"two sources are called {source.name!r}: rename one, rows are counted by source name")
        account = accounts[source.name] = Account()
        rows += make(read_source(source, wanted, optional, seed), source, account)
    return rows, accounts


def _pairs(located: Iterable, source: Source, account: Account) -> list[dict]:
    """A source's pairs that pass the filters; UserError where the source is wrong as a whole."""
    rows, everything = [], []
    for _, row in located:
        account.rows_in += 1
        account.repaired.update({fault for side in PAIR_COLUMNS for fault in repairs(row[side])})
        spanish, english = tidy(row["es"]), tidy(row["en"])
        everything.append((spanish, english))
        reason = reason_to_drop(spanish, english)
        if reason:
            account.drop(reason, (spanish, english))
        else:
            # An id made of the text stays the same when the file is sorted or grows.
            key = row.get("id")
            key = f"{source.name}-{fingerprint([spanish, english])}" if key in (None, "") else str(key)
            register = sys.intern(str(row.get("register") or source.register or source.name))
            rows.append({"id": key, "es": spanish, "en": english, "source": source.name, "register": register})
    check_source(source.name, everything, account.dropped, account.examples)
    return rows


def _problems(located: Iterable, source: Source, account: Account) -> list[dict]:
    """A source's problems; a solution to train on that is no Python is dropped, with its place."""
    rows = []
    for where, row in located:
        account.rows_in += 1
        row = as_problem(row, source, where)
        reason = solutions.fault(row["completion"]) if source.split != "test" else None
        if reason:
            account.drop(reason, (where, row["task_id"]))
        else:
            rows.append(row)
    return rows


def as_problem(row: dict, source: Source, where: str) -> dict:
    """A row as prompts and grader take it; UserError for an empty column, or without tests."""
    for column in PROBLEM_COLUMNS:
        if not row[column].strip():
            raise UserError(f"{where}: column {column!r} is empty; fill it or remove the problem")
    if row.get("test_list") and not row.get("tests") and not row.get("test"):
        row["tests"] = row.pop("test_list")  # MBPP's name for a list of asserts
    if not row.get("tests") and not row.get("test"):
        raise UserError(f"{where}: problem {row['task_id']!r} has neither `tests` nor `test`; add one or map a column")
    tests = row.get("tests", [])
    listed = tests if isinstance(tests, list) else [tests]
    as_data = all(isinstance(test, dict) and {"args", "expected"} <= set(test) for test in listed)
    if not as_data and not (listed is tests and all(isinstance(test, str) for test in tests)):
        raise UserError(
            f"{where}: problem {row['task_id']!r}: `tests` must be a list of "
            '{"args": [...], "expected": ...} or of asserts; repair it, or map a `test` column instead'
        )
    row["family"] = row.get("family") or row["task_id"]
    row["source"] = source.name
    row["completion"] = solutions.whole_solution(row)
    row["problem_description"] = row["problem_description"].strip()
    return row


def _tie(
    rows: list[dict], accounts: dict[str, Account], settings: TaskSettings, repeats: tuple[str, ...],
    sentences: tuple[str, ...], bound: tuple[str, ...],
) -> list[dict]:  # fmt: skip
    """Rows that stay, with a `group` each: repeats, rows like a published test row and what a chain costs are dropped.

    Preferred are published test rows, then earlier sources; within a source the order is a hash of the row's id, so
    that the order in the file does not matter. UserError if a source loses all rows.
    """
    rank = {source.name: (source.split != "test", number) for number, source in enumerate(settings.sources)}
    rows.sort(key=lambda row: (rank[row["source"]], order(identity(row), 0), *(row[side] for side in repeats)))
    rows = _drop(rows, _all_but(rows, groups.drop_repeats(rows, repeats)), "duplicate", accounts, repeats)
    labels = [groups.sentence_labels(rows, side) for side in sentences]
    keys = [groups.key_labels(rows, key) for key in bound]
    published = numpy.array([not rank[row["source"]][0] for row in rows])
    like = groups.like_published(labels + keys, published)
    rows = _drop(rows, like, "like a test row", accounts, repeats)
    labels, keys, published = [one[~like] for one in labels], [one[~like] for one in keys], published[~like]
    number, stays = groups.grouped([row["source"] for row in rows], keys, labels)
    stays |= published
    names: dict[int, str] = {}
    for row, group, stay in zip(rows, number.tolist(), stays, strict=True):
        if stay:
            row["group"] = names.setdefault(group, f"{row['source']}/{identity(row)}")
    rows = _drop(rows, ~stays, "chain of shared sentences", accounts, repeats)
    _reject_emptied(rows, accounts, settings)
    return rows


def _all_but(rows: list[dict], kept: list[dict]) -> numpy.ndarray:
    known = set(map(id, kept))
    return numpy.array([id(row) not in known for row in rows], bool)


def _drop(
    rows: list[dict], lost: numpy.ndarray, reason: str, accounts: dict[str, Account], shown: tuple[str, ...]
) -> list[dict]:
    for number in numpy.flatnonzero(lost):
        row = rows[number]
        accounts[row["source"]].drop(reason, tuple(row[side][:200] for side in shown))
    return [row for row, gone in zip(rows, lost, strict=True) if not gone]


def _reject_emptied(rows: list[dict], accounts: dict[str, Account], settings: TaskSettings) -> None:
    left = {row["source"] for row in rows}
    for source in settings.sources:
        if source.name not in left:
            account = accounts[source.name]
            reasons = ", ".join(f"{reason} {count}" for reason, count in account.dropped.items())
            raise UserError(
                f"source {source.name!r}: none of the {account.rows_in} rows of {source.path or source.hub} is left "
                f"after cleaning (dropped: {reasons}); check its columns and languages, or leave the source out"
            )


def _sound(rows: list[dict], accounts: dict[str, Account]) -> list[dict]:
    """Without the problems whose solution fails the problem's own tests."""
    wrong = solutions.failing(rows)
    for number, detail in wrong.items():
        accounts[rows[number]["source"]].drop(solutions.TESTS, (rows[number]["task_id"], detail))
    return [row for number, row in enumerate(rows) if number not in wrong]


def _name_faults(accounts: dict[str, Account]) -> None:
    for name, account in accounts.items():
        for reason in solutions.FAULTS:
            if account.dropped[reason]:
                named = "; ".join(": ".join(example) for example in account.examples[reason])
                warnings.warn(f"source {name!r}: {reason}: {account.dropped[reason]} rows, {named}", stacklevel=5)


def _manifest(splits: dict[str, list[dict]], settings: TaskSettings, accounts: dict[str, Account]) -> dict:
    rows_out = {name: Counter(row["source"] for row in part) for name, part in splits.items()}
    sources = {}
    for source in settings.sources:
        account = accounts[source.name]
        rows = {name: count[source.name] for name, count in rows_out.items()}
        sources[source.name] = {
            "from": source.path or source.hub, "revision": source.revision, "licence": source.licence,
            "rows_in": account.rows_in, "repaired": dict(account.repaired), "dropped": dict(account.dropped),
            "examples": {reason: list(map(list, rows)) for reason, rows in account.examples.items()},
            "rows_out": rows, "unused": account.rows_in - account.dropped.total() - sum(rows.values()),
        }  # fmt: skip
    return {"sources": sources, "fingerprints": {name: fingerprint(part) for name, part in splits.items()}}


def count_after(rows: list[dict], date: str) -> int:
    """Rows whose `estimated_date` (LeetCodeDataset's, year-month-day) is later than `date`."""
    return sum(str(row.get("estimated_date") or "")[: len(date)] > date for row in rows)
