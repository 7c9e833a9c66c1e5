"""From sources to splits: every row accounted for, nothing leaks, nothing moves without need."""

import json
import os
import random
import re
from collections import Counter
from dataclasses import replace

import numpy
import pytest

from llmft_helpers import runs, storage
from llmft_helpers.data import corpora, prepared
from llmft_helpers.data.corpora import (
    Corpus,
    check_no_leak,
    load_pairs,
    load_problems,
)
from llmft_helpers.data.plain_text import character_documents, compared_validation
from llmft_helpers.errors import UserError
from llmft_helpers.grading.execution import grade
from llmft_helpers.profiles import Source


def made_pairs(count: int, seed: int) -> list[dict]:
    """Pairs of random words: no two alike."""
    chance = random.Random(seed)

    def sentence(letters: str) -> str:
        words = ("".join(chance.choices(letters, k=chance.randint(4, 8))) for _ in range(chance.randint(5, 8)))
        return " ".join(words) + "."

    return [{"es": sentence("aeiouñlmrst"), "en": sentence("aeiouwkhpbd")} for _ in range(count)]


def made_problems(count: int, seed: int, **columns) -> list[dict]:
    return [
        {
            "task_id": f"task-{seed}-{number}", "problem_description": pair["es"] + " " + pair["en"],
            "starter_code": "class Solution:\n    def f(self) -> int:", "entry_point": "f",
            "completion": f"class Solution:\n    def f(self) -> int:\n        return {number}\n",
            "tests": [{"args": [], "expected": number}],
        } | columns
        for number, pair in enumerate(made_pairs(count, seed))
    ]  # fmt: skip


@pytest.fixture
def source(tmp_path):
    """source(name, rows, **settings): the rows in a file."""

    def write(name: str, rows: list[dict], **settings) -> Source:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return Source(name, path=str(path), **settings)

    return write


@pytest.fixture
def pairs_of(profile):
    def load(*sources: Source, seed: int = 1, test: int = 10, validation: int = 6, train: int = 0) -> Corpus:
        settings = replace(
            profile.translation, sources=sources, test_rows=test, validation_rows=validation, train_rows=train
        )
        return load_pairs(replace(profile, translation=settings, seed=seed))

    return load


@pytest.fixture
def problems_of(profile, monkeypatch):
    monkeypatch.setattr(corpora.solutions, "grade", lambda solutions, rows: [{"passed": True} for _ in rows])

    def load(*sources: Source, seed: int = 1, test: int = 10, validation: int = 6) -> Corpus:
        settings = replace(profile.leetcode, sources=sources, test_rows=test, validation_rows=validation, train_rows=0)
        return load_problems(replace(profile, leetcode=settings, seed=seed))

    return load


def english(rows: list[dict]) -> list[str]:
    return [row["en"] for row in rows]


def accounts_balance(corpus: Corpus) -> bool:
    return all(
        entry["rows_in"] == sum(entry["dropped"].values()) + sum(entry["rows_out"].values()) + entry["unused"]
        and entry["unused"] >= 0
        and all(entry["rows_out"][name] == sum(r["source"] == source for r in corpus.splits[name])
                for name in corpora.SPLITS)
        for source, entry in corpus.manifest["sources"].items()
    )  # fmt: skip


def test_manifest_accounts_for_every_row(source, pairs_of):
    good = made_pairs(60, 1)
    bad = [
        {"es": "", "en": "Nothing here."},
        {"es": "Radio&nbsp;", "en": "radio"},
        {"es": "a" * 501, "en": "b" * 501},
        {"es": "Voy.", "en": "I am going there as soon as I can."},
        {"es": "The keys are in the drawer.", "en": "The keys were in the drawer."},
        {"es": good[0]["es"].upper(), "en": "Something else altogether, quite different from it."},
        {"es": "Una cosa muy distinta de las otras cosas.", "en": good[1]["en"] + "x"},
    ]
    first = source("first", good + bad, licence="CC0-1.0", revision="r7", weight=0.5)
    second = source("second", made_pairs(40, 2) + good[:3] + bad[:1])
    corpus = pairs_of(first, second, train=30)
    entries = corpus.manifest["sources"]
    assert entries["first"]["rows_in"] == 67 and entries["second"]["rows_in"] == 44
    assert entries["first"]["dropped"] == {
        "empty side": 1, "source equals target": 1, "too long": 1, "length ratio": 1, "language": 1,
    }  # fmt: skip
    assert entries["first"]["examples"]["length ratio"] == [[bad[3]["es"], bad[3]["en"]]]
    assert entries["first"]["repaired"] == {"HTML entities": 1}
    assert entries["second"]["dropped"] == {"empty side": 1, "duplicate": 3}  # the first source's rows stay
    homes = {row["en"]: name for name, part in corpus.splits.items() for row in part}
    assert len({homes.get(row["en"], "train") for row in (good[0], bad[5])}) == 1
    assert accounts_balance(corpus) and entries["first"]["unused"] > 0
    assert (entries["first"]["licence"], entries["first"]["revision"]) == ("CC0-1.0", "r7")
    assert {name: len(rows) for name, rows in corpus.splits.items()} == {"train": 30, "validation": 6, "test": 10}
    assert Counter(row["source"] for row in corpus.test) == {"first": 5, "second": 5}  # drawn evenly


def test_same_split_again_whatever_the_order_of_rows_and_another_for_another_seed(source, pairs_of):
    rows = made_pairs(80, 3)
    rows += [{"es": row["es"].upper(), "en": row["en"] + " indeed"} for row in rows[:10]]  # either may be kept
    numbered = [row | {"id": f"n{number}"} for number, row in enumerate(rows)]
    for given in (rows, numbered):
        corpus = pairs_of(source("a", given))
        assert pairs_of(source("a", given)).splits == corpus.splits
        shuffled = pairs_of(source("a", random.Random(5).sample(given, len(given))))
        assert shuffled.splits == corpus.splits
        assert shuffled.manifest == corpus.manifest
        other = pairs_of(source("a", given), seed=2)
        assert set(english(other.test)) != set(english(corpus.test))
        assert other.manifest["fingerprints"] != corpus.manifest["fingerprints"]
    assert corpus.train != sorted(corpus.train, key=lambda row: int(row["id"][1:]))  # shuffled


def test_added_rows_take_no_training_row_into_the_test_and_move_few_test_rows_out(source, pairs_of):
    rows = made_pairs(220, 4)
    before, after = (pairs_of(source("a", rows[:count]), test=50, validation=20) for count in (200, 220))
    assert not set(english(after.test)) & set(english(before.train))
    stayed = set(english(after.test)) & set(english(before.test))
    assert len(stayed) >= 40  # ten percent more rows: about five of fifty make room


def test_weight_applies_to_training_rows_only(source, pairs_of):
    rows, others = made_pairs(100, 5), made_pairs(100, 6)
    whole = pairs_of(source("a", rows), source("b", others))
    quarter = pairs_of(source("a", rows, weight=0.25), source("b", others))
    assert (quarter.test, quarter.validation) == (whole.test, whole.validation)
    count = Counter(row["source"] for row in quarter.train)
    assert count == {"a": 23, "b": 92}  # 100 less 5 for the test and 3 for validation; a quarter of it
    assert [row for row in whole.train if row in quarter.train] == quarter.train


@pytest.mark.parametrize(
    ("weight", "train", "counts"),
    [
        (0.25, 40, {"a": 8, "b": 32}),
        (1.0, 41, {"a": 20, "b": 21}),
        (0.25, 0, {"a": 23, "b": 92}),
        (0.25, 900, {"a": 23, "b": 92}),
    ],
)
def test_a_limit_of_training_rows_leaves_each_source_its_part(weight, train, counts, source, pairs_of):
    """23 of one source and 92 of the other are a fifth and four fifths, however few are taken."""
    corpus = pairs_of(source("a", made_pairs(100, 5), weight=weight), source("b", made_pairs(100, 6)), train=train)
    assert Counter(row["source"] for row in corpus.train) == counts


def test_a_small_source_gives_at_most_half_of_its_rows_away(source, pairs_of):
    corpus = pairs_of(source("big", made_pairs(300, 7)), source("small", made_pairs(8, 8)), test=60, validation=20)
    assert Counter(row["source"] for row in corpus.test) == {"big": 56, "small": 4}
    assert Counter(row["source"] for row in corpus.validation) == {"big": 18, "small": 2}


def test_rows_keep_their_id_and_register_or_get_one(source, pairs_of):
    rows = [row | {"id": f"n{n}", "register": "slang"} for n, row in enumerate(made_pairs(20, 9))]
    a, b, c = source("a", rows), source("b", made_pairs(20, 10), register="formal"), source("c", made_pairs(20, 11))
    corpus = pairs_of(a, b, c, test=9)
    registers = {(row["source"], row["register"]) for row in corpus.train}
    assert registers == {("a", "slang"), ("b", "formal"), ("c", "c")}
    everything = [row for rows in corpus.splits.values() for row in rows]
    assert {row["id"] for row in everything if row["source"] == "a"} == {row["id"] for row in rows}
    assert len({row["id"] for row in everything}) == len(everything) == 60


@pytest.mark.parametrize("seed", range(5))
def test_families_stay_together(source, problems_of, seed):
    rows = made_problems(90, 12)
    for number, row in enumerate(rows):
        row["family"] = f"family-{number % 90 // 4 if number < 60 else number}"  # fours, then loners
    corpus = problems_of(source("code", rows), seed=seed, test=20, validation=12)
    homes = {row["family"]: name for name, part in corpus.splits.items() for row in part}
    assert all(homes[row["family"]] == name for name, part in corpus.splits.items() for row in part)
    assert (len(corpus.test), len(corpus.validation)) == (20, 12)
    assert max(Counter(row["family"] for row in corpus.test).values()) == 4
    assert accounts_balance(corpus)


def test_a_family_larger_than_a_group_of_sentences_may_be_stays_together(source, problems_of):
    rows = made_problems(90, 40)
    for row in rows[:40]:
        row["family"] = "large"
    splits = problems_of(source("code", rows)).splits
    assert sum(any(row.get("family") == "large" for row in part) for part in splits.values()) == 1


def test_rows_that_would_hold_too_large_a_group_together_are_counted(source, pairs_of):
    rows = made_pairs(200, 50)
    for row in rows[:60]:
        row["en"] = "Yes, of course we will."
    entry = pairs_of(source("a", rows)).manifest["sources"]["a"]
    assert entry["dropped"] == {"chain of shared sentences": 40} and entry["unused"] == 0


def test_published_splits_are_kept_and_training_yields_to_them(source, problems_of):
    train, test = made_problems(60, 13), made_problems(24, 14)
    test[1]["problem_description"] = test[0]["problem_description"] + "!!"  # an exact copy inside the test
    test[3]["problem_description"] = test[2]["problem_description"] + "x"  # a near one
    train[0]["problem_description"] = test[4]["problem_description"].upper()
    train[1]["problem_description"] = test[5]["problem_description"] + "x"
    train[2]["task_id"] = test[6]["task_id"]
    train[3]["family"] = test[7]["family"] = "shared"
    train[4]["completion"] = train[5]["completion"]
    train[4]["problem_description"] = train[5]["problem_description"]
    published = source("exam", test, split="test"), source("practice", train, split="train")
    for sources in (published, published[::-1]):
        corpus = problems_of(*sources, test=50)
        assert {row["source"] for row in corpus.test} == {"exam"} and len(corpus.test) == 24
        assert {row["source"] for row in corpus.train + corpus.validation} == {"practice"}
        entries = corpus.manifest["sources"]
        assert entries["exam"]["dropped"] == {}
        assert entries["practice"]["dropped"] == {"duplicate": 1, "like a test row": 4}
        assert entries["practice"]["unused"] == 0 and accounts_balance(corpus)
        ours = {row["task_id"] for row in corpus.train + corpus.validation}
        assert ours | {train[4]["task_id"], train[5]["task_id"]} == {row["task_id"] for row in train[4:]}
    assert len(problems_of(*published, test=12).test) == 12


def test_rows_published_for_training_are_never_tested_on(source, pairs_of):
    fixed, free = source("fixed", made_pairs(50, 15), split="train"), source("free", made_pairs(50, 16))
    corpus = pairs_of(fixed, free)
    assert {row["source"] for row in corpus.test + corpus.validation} == {"free"}
    assert Counter(row["source"] for row in corpus.train) == {"fixed": 50, "free": 34}
    alone = pairs_of(free)
    assert (corpus.test, corpus.validation) == (alone.test, alone.validation)
    with pytest.raises(UserError, match="test_rows = 10 is too many: .* none to draw from"):
        pairs_of(fixed)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"test": 500},
            "test_rows = 500 is too many: .*100 of 'a' to draw from after cleaning; lower test_rows or add",
        ),
        ({"test": 51}, "test_rows = 51 is too many"),
        ({"validation": 90}, "validation_rows = 90 is too many: .*90 of 'a'"),
    ],
)
def test_split_larger_than_the_data_is_refused(source, pairs_of, settings, said):
    with pytest.raises(UserError, match=said):
        pairs_of(source("a", made_pairs(100, 17)), **settings)


def test_a_source_that_loses_all_rows_is_named_with_the_reasons(source, pairs_of):
    rows = made_pairs(60, 18)
    swapped = [{"es": f"The {n} keys are in the drawer.", "en": f"Las {n} llaves están en el cajón."} for n in range(9)]
    with pytest.raises(UserError, match=r"'bad': none of the 9 rows of \S*bad.jsonl .*\(dropped: language 9\); check"):
        pairs_of(source("a", rows), source("bad", swapped))
    with pytest.raises(
        UserError, match=r"'copy': none of the 30 rows .*\(dropped: duplicate 30\).*leave the source out"
    ):
        pairs_of(source("a", rows), source("copy", rows[:30]))
    with pytest.raises(UserError, match="two sources are called 'a': rename one"):
        pairs_of(source("a", rows), source("a", rows))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"completion": "  "}, "code.jsonl:6: column 'completion' is empty; fill it or remove"),
        ({"completion": None}, "code.jsonl:6: column 'completion' is empty"),
        ({"tests": []}, "code.jsonl:6: problem 'task-19-5' has neither `tests` nor `test`; add"),
        ({"tests": "[[1], 2]"}, "code.jsonl:6: problem 'task-19-5': `tests` must be a list of .*repair"),
        ({"tests": [{"args": [1]}]}, "code.jsonl:6: problem 'task-19-5': `tests` must be a list"),
    ],
)
def test_broken_problem_is_named_before_anything_runs(source, problems_of, broken, said):
    rows = made_problems(60, 19)
    rows[5] |= broken
    with pytest.raises(UserError, match=said):
        problems_of(source("code", rows))


@pytest.fixture
def graded_problems_of(problems_of, monkeypatch):
    """problems_of, whose solutions are run."""
    monkeypatch.setattr(corpora.solutions, "grade", grade)
    return problems_of


def test_a_solution_that_cannot_be_right_is_named_counted_and_left_out_of_training(source, graded_problems_of):
    rows = made_problems(24, 30)
    rows[3]["completion"] = f"Here it is:\n```python\n{rows[3]['completion']}```\n"
    rows[4]["completion"] += "    def g(self:\n"
    with pytest.warns(UserWarning) as warned:
        corpus = graded_problems_of(source("code", rows), test=2, validation=2)
    account = corpus.manifest["sources"]["code"]
    assert account["dropped"] == {"solution is in Markdown": 1, "solution does not parse": 1}
    assert re.search(r"code.jsonl:4$", account["examples"]["solution is in Markdown"][0][0])
    assert any("does not parse: 1 rows" in str(one.message) and "task-30-4" in str(one.message) for one in warned)
    assert accounts_balance(corpus) and len(corpus.train) == 18
    wrong = corpus.train[0]["task_id"]
    rows[int(wrong.split("-")[-1])]["completion"] = "class Solution:\n    def f(self):\n        return -1\n"
    with pytest.warns(UserWarning, match=f"fails its tests: 1 rows, {wrong}: wrong: expected"):
        corpus = graded_problems_of(source("code", rows), test=2, validation=2)
    assert corpus.manifest["sources"]["code"]["dropped"]["solution fails its tests"] == 1 and accounts_balance(corpus)
    assert wrong not in {row["task_id"] for row in corpus.train} and len(corpus.train) == 17


def test_human_eval_and_mbpp_mapped_by_columns_are_whole_programs_that_pass(source, graded_problems_of):
    prompts = [f'def f(x: int) -> int:\n    """Add {n} to {p["es"]}."""\n' for n, p in enumerate(made_pairs(24, 31))]
    rows = [
        {"task_id": f"H/{n}", "prompt": prompt, "entry_point": "f",
         "canonical_solution": f"    if x:\n        return x + {n}\n    return {n}\n",
         "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n"}
        for n, prompt in enumerate(prompts)
    ]  # fmt: skip
    columns = {"problem_description": "prompt", "starter_code": "prompt", "completion": "canonical_solution"}
    corpus = graded_problems_of(source("humaneval", rows, columns=columns), test=2, validation=2)
    assert len(corpus.train) == 20 and not corpus.manifest["sources"]["humaneval"]["dropped"]
    row = corpus.train[0]
    assert row["completion"] == row["prompt"] + rows[int(row["task_id"][2:])]["canonical_solution"]
    rows = [
        {"task_id": n, "text": f"Add {n} to a number, {pair['en']}", "code": f"def add(x):\n  return x + {n}",
         "starter_code": "def add(x):", "entry_point": "add",
         "test_list": [f"assert add(1) == {n + 1}", f"assert add(0) == {n}"]}
        for n, pair in enumerate(made_pairs(24, 32))
    ]  # fmt: skip
    columns = {"problem_description": "text", "completion": "code"}
    corpus = graded_problems_of(source("mbpp", rows, columns=columns), test=2, validation=2)
    assert len(corpus.train) == 20 and not corpus.manifest["sources"]["mbpp"]["dropped"]
    assert grade([row["completion"] for row in corpus.test], corpus.test)[0]["tests_total"] == 2


def test_a_prepared_copy_is_read_again_until_data_settings_or_code_change(source, pairs_of, monkeypatch, tmp_path):
    monkeypatch.setenv("LLMFT_OUTPUTS", str(tmp_path / "outputs"))
    made = []
    whole = corpora._make_pairs
    monkeypatch.setattr(corpora, "_make_pairs", lambda *settings: made.append(1) or whole(*settings))
    given = source("a", made_pairs(60, 33))
    first = pairs_of(given)
    again = pairs_of(given)
    assert len(made) == 1 and (again.splits, again.manifest) == (first.splits, first.manifest)
    [copy] = (tmp_path / "outputs" / "cache").iterdir()
    for torn in (copy.read_bytes()[:-20], b"", b"no gzip"):
        copy.write_bytes(torn)
        made.clear()
        assert pairs_of(given).splits == first.splits == pairs_of(given).splits and len(made) == 1
    assert [file.name for file in (tmp_path / "outputs" / "cache").iterdir()] == [copy.name]
    made.clear()
    assert pairs_of(given, seed=2).splits != first.splits and len(made) == 1
    assert len(pairs_of(given, test=12).test) == 12 and len(made) == 2
    assert pairs_of(source("a", made_pairs(61, 33))).manifest["sources"]["a"]["rows_in"] == 61 and len(made) == 3
    monkeypatch.setattr(prepared, "CODE", (tmp_path,))
    pairs_of(given)
    assert len(made) == 4


def test_a_source_that_is_missing_or_unreadable_is_named(source, pairs_of, monkeypatch):
    gone = source("mine", made_pairs(3, 1))
    os.remove(gone.path)
    with pytest.raises(UserError, match="source 'mine': file .* not found"):
        pairs_of(gone)
    kept = source("kept", made_pairs(3, 1))

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(prepared, "file_digest", refuse)  # tests may run as root, who reads everything
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); check its permissions"):
        pairs_of(kept)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda rows: [{"es": row["en"], "en": row["es"]} for row in rows],
         "source 'mine': its es side reads as English, not Spanish: .*sides are swapped: map columns the other way"),
        (lambda rows: [row | {"en": after["en"]} for row, after in zip(rows, rows[1:], strict=False)],
         r"source 'mine': from row 1 on, numbers and names agree in 0% of \d+ rows .*out of step by -1: remove or add"),
        (lambda rows: [row | {"en": other["en"]} for row, other in zip(rows, rows[700:] + rows[:700], strict=True)],
         "numbers and names agree in [01]% of .*no translations of each other"),
    ],
)  # fmt: skip
def test_a_source_that_is_wrong_as_a_whole_is_refused(wrong, said, source, pairs_of):
    rows = storage.read_jsonl(runs.ROOT / "data/es_en/formal.jsonl")
    with pytest.raises(UserError, match=said):
        pairs_of(source("mine", wrong(rows)))


PORTUGUESE = [
    "Ele não sabe que você está aqui.", "Eu gosto muito da minha casa.", "Onde fica a estação de trem?",
    "Eles foram ao mercado com o pai.", "Isso não é um problema.", "A minha irmã tem um carro novo.",
    "Quem é você?", "Não sei o que dizer.", "Hoje eu não vou ao trabalho.", "Você também quer um café?",
]  # fmt: skip


def test_another_language_is_refused_where_it_is_most_and_named_where_it_is_much(source, pairs_of, recwarn):
    rows = storage.read_jsonl(runs.ROOT / "data/es_en/everyday.jsonl")[:500]
    foreign = [{"es": f"{PORTUGUESE[n % 10][:-1]}, {n}.", "en": f"{row['en']} {n}"} for n, row in enumerate(rows)]
    with pytest.raises(UserError, match="its es side reads as Portuguese, not Spanish: 'Ele não sabe"):
        pairs_of(source("mine", foreign))
    pairs_of(source("mine", rows))
    assert not recwarn
    with pytest.warns(UserWarning, match="2[0-9]% of its es side reads as Portuguese"):
        pairs_of(source("mine", rows[:400] + foreign[400:]))


def test_a_filter_that_takes_much_of_a_source_is_named_with_three_rows(source, pairs_of):
    rows = made_pairs(60, 34)
    with pytest.warns(UserWarning, match="the filter 'length ratio' takes 20 of 60 rows, e.g. .* | 'no'; .*; .*look"):
        corpus = pairs_of(source("mine", [row | {"en": "no"} if n < 20 else row for n, row in enumerate(rows)]))
    assert len(corpus.manifest["sources"]["mine"]["examples"]["length ratio"]) == 3


def test_rows_of_leetcode_data_reach_the_grader_as_they_were_published(source, problems_of):
    rows = made_problems(40, 24, entry_point="Solution().f", prompt="from typing import *\n")
    for number, row in enumerate(rows):
        del row["tests"]
        row["test"] = f"def check(candidate):\n    assert candidate() == {number}\n"
    test = problems_of(source("code", rows)).test[:2]
    plain = "def f():\n    return 1\n"  # LeetCode calls a method of class Solution
    graded = grade([test[0]["completion"], plain], test, workers=1)
    assert [row["passed"] for row in graded] == [True, False]
    assert graded[1]["detail"] == "NameError: the code defines no Solution.f"


def test_leak_guard_fires_for_either_side_however_it_is_written(source, pairs_of, monkeypatch):
    kept = {"id": "k", "es": "¿Quién llama?", "en": "Who is calling?", "group": "a"}
    held = {"id": "h", "es": "Nada.", "en": "Void.", "group": "b"}
    for side, text in (("es", "quién  LLA\u00adMA"), ("en", "who is &quot;calling"), ("group", "a")):
        for name in ("test", "validation"):
            splits = {"train": [kept], "validation": [], "test": []} | {name: [held | {side: text}]}
            with pytest.raises(
                UserError, match=f"{name} row 'h' shares its {side} with training: {re.escape(repr(text))}"
            ):
                check_no_leak(splits, ("es", "en"))
    check_no_leak({"train": [kept], "validation": [], "test": [held]}, ("es", "en"))
    # Where rows that belong together are not tied, the build itself stops.
    rows = [row | {"en": f"{row['en']} {turn}"} for row in made_pairs(40, 20) for turn in ("first", "then again")]
    monkeypatch.setattr(corpora.groups, "sentence_labels", lambda rows, side: numpy.arange(len(rows)))
    with pytest.raises(UserError, match="shares its es with training"):
        pairs_of(source("a", rows))


def near(a: str, b: str) -> bool:
    grams = [{text[i : i + 5] for i in range(len(text) - 4)} for text in (a, b)]
    return len(grams[0] & grams[1]) >= 0.8 * len(grams[0] | grams[1])


@pytest.mark.parametrize("seed", range(3))
def test_translations_of_one_sentence_are_kept_and_stay_in_one_split(source, pairs_of, seed):
    rows = made_pairs(100, 25)
    others = [row | {"en": made_pairs(1, 100 + n)[0]["en"]} for n, row in enumerate(rows[:40])]  # the same Spanish
    nearly = [{"es": made_pairs(1, 200 + n)[0]["es"], "en": row["en"] + "!x"} for n, row in enumerate(others[:20])]
    corpus = pairs_of(source("a", rows + others + nearly), seed=seed, test=40, validation=20)
    assert corpus.manifest["sources"]["a"]["dropped"] == {} and accounts_balance(corpus)
    assert [len(corpus.splits[name]) for name in ("train", "validation", "test")] == [100, 20, 40]
    assert max(Counter(row["group"] for row in corpus.test).values()) > 1
    for held in corpus.test + corpus.validation:
        other = corpus.train + (corpus.validation if held in corpus.test else corpus.test)
        assert not any(near(held[side], row[side]) for row in other for side in ("es", "en"))


def test_a_repeated_id_is_a_group(source, pairs_of, problems_of):
    rows = [row | {"id": n // 4} for n, row in enumerate(made_pairs(80, 26))]
    corpus = pairs_of(source("a", rows), test=20, validation=8)
    homes = {}
    for name, part in corpus.splits.items():
        assert all(homes.setdefault(row["id"], name) == name for row in part)
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 52, "validation": 8, "test": 20}
    problems = made_problems(60, 27)
    for number, row in enumerate(problems):
        row["task_id"] = f"task-{number // 2}"
    corpus = problems_of(source("code", problems))
    assert accounts_balance(corpus) and len(corpus.train) == 44
    assert not {row["task_id"] for row in corpus.train} & {row["task_id"] for row in corpus.test}


def test_character_documents_hold_both_corpora_and_only_the_split_asked_for(source, pairs_of, problems_of):
    pairs = pairs_of(source("a", made_pairs(40, 21), register="spoken"), source("b", made_pairs(40, 22)))
    problems = problems_of(source("code", made_problems(40, 23)))
    for name in corpora.SPLITS:
        documents = character_documents(pairs, problems, name)
        assert Counter(domain for domain, _ in documents) == (
            Counter(row["register"] for row in pairs.splits[name]) + Counter(code=len(problems.splits[name]))
        )
        text = "".join(text for _, text in documents)
        for row in pairs.splits[name]:
            assert f"{row['es']}\n{row['en']}\n\n" in text
        for row in problems.splits[name]:
            assert row["problem_description"] in text and row["completion"].strip() in text
    train = "".join(text for _, text in character_documents(pairs, problems, "train"))
    assert not any(row["es"] in train or row["en"] in train for row in pairs.test + pairs.validation)


def test_compared_text_is_the_first_rows_of_each_source_that_fit(profile):
    def rows(name, lengths):  # a document of n characters each
        return [{"source": name, "register": name, "es": "x" * (n - 4), "en": "y"} for n in lengths]

    pairs = Corpus({"validation": rows("a", [40, 30, 20, 10]) + rows("b", [500]), "train": rows("a", [9])})
    pairs.splits["validation"][1], pairs.splits["validation"][-1] = pairs.validation[-1], pairs.validation[1]
    solution = {"source": "c", "problem_description": "x" * 40, "completion": "y" * 40}
    settings = replace(profile, char_gpt=replace(profile.char_gpt, characters=400 * 71))
    some, problems = compared_validation(settings, pairs, Corpus({"validation": [solution] * 2}))
    assert [(row["source"], len(row["es"]) + 4) for row in some.validation] == [
        ("a", 40), ("b", 500), ("a", 20), ("a", 10),
    ]  # fmt: skip
    assert len(problems.validation) == 1  # 84 characters: more than there is room for, but a source is never left out
    assert len(character_documents(some, problems, "validation")) == 5


def test_shipped_presets_load_within_their_sizes():
    from llmft_helpers.profiles import load_profile

    for name in ("tiny", "demo"):
        profile = load_profile(name)
        for load, settings in ((load_pairs, profile.translation), (load_problems, profile.leetcode)):
            corpus = load(profile)
            assert len(corpus.test) == settings.test_rows and len(corpus.validation) == settings.validation_rows
            assert len(corpus.train) <= (settings.train_rows or len(corpus.train)) and accounts_balance(corpus)
            dropped = Counter()
            for entry in corpus.manifest["sources"].values():
                dropped.update(entry["dropped"])
            assert not dropped, f"{name}: our own data loses rows: {dropped}"
