"""Each filter on hand-made examples; near duplicates against brute force."""

import json
import random
import unicodedata
from itertools import combinations

import pytest

from llmft_helpers.data.cleaning import (
    MAX_CHARACTERS,
    drop_duplicates,
    drop_near_duplicates,
    language_of,
    near_duplicate_pairs,
    normalise,
    reason_to_drop,
    tidy,
)
from llmft_helpers.runs import ROOT

LONG_ES = ("Mañana vendrá mi hermano con los niños y comeremos todos juntos en el patio. " * 8).strip()
LONG_EN = ("Tomorrow my brother is coming with the children and we will all eat in the yard. " * 8).strip()


@pytest.mark.parametrize(
    ("spanish", "english", "reason"),
    [
        ("¿Quién llama?", "Who is calling?", None),
        ("Sí.", "Yes, I do.", None),
        ("No significa no.", "No means no.", None),
        ("No, no y no.", "No, no, no!", None),
        ("La Paz y El Alto", "La Paz and El Alto", None),
        ("Vive en Los Ángeles, no en El Paso.", "He lives in Los Angeles, not in El Paso.", None),
        ("", "Nothing.", "empty side"),
        ("…", "Nothing.", "empty side"),
        ("Radio Nacional", "radio nacional!", "source equals target"),
        (LONG_ES, LONG_EN, "too long"),
        (LONG_ES[:480], LONG_EN[:490], None),
        ("Voy.", "I am going there as soon as I have had my breakfast.", "length ratio"),
        ("Dijo que vendría en cuanto terminara de comer.", "He will.", "length ratio"),
        ("The keys are in the drawer.", "The keys were in the drawer.", "language"),
        ("Las llaves están en el cajón.", "Las llaves del coche están en el cajón.", "language"),
        ("What do you want from him?", "¿Qué quieres de él?", "language"),
    ],
)
def test_first_filter_that_a_pair_fails(spanish, english, reason):
    assert reason_to_drop(spanish, english) == reason


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is the station?", "en"),
        ("¿Dónde está la estación?", "es"),
        ("La estación is near the river, I think.", "en"),
        ("Llueve.", "other"),
        ("", "other"),
        ("def add(a, b): return a", "other"),
    ],
)
def test_language_by_function_words(text, language):
    assert language_of(text) == language


def test_language_of_the_shipped_sentences():
    rows = [json.loads(line) for line in (ROOT / "data/es_en/everyday.jsonl").read_text().splitlines()[:1000]]
    for side, wrong in (("es", "en"), ("en", "es")):
        named = [language_of(row[side]) for row in rows]
        assert named.count(side) >= 960 and named.count(wrong) <= 2


def test_length_limits_are_where_they_are_said_to_be():
    assert reason_to_drop("a" * MAX_CHARACTERS, "b" * MAX_CHARACTERS) is None
    assert reason_to_drop("a" * (MAX_CHARACTERS + 1), "b" * MAX_CHARACTERS) == "too long"
    assert reason_to_drop("a" * 60, "b" * 20) is None  # 2.5 times the shorter side and ten characters of grace
    assert reason_to_drop("a" * 61, "b" * 20) == "length ratio"
    assert reason_to_drop("b" * 20, "a" * 61) == "length ratio"


def test_tidy_and_normalise():
    decomposed = unicodedata.normalize("NFD", "  ¿Qué\u00a0 año\tes?\n")
    assert tidy(decomposed) == "¿Qué año es?"
    assert normalise(decomposed) == normalise("¡qué AÑO, es…!") == "qué año es"
    assert normalise("el año") != normalise("el ano")  # an accent is a difference


def test_a_repeat_on_either_side_is_dropped_and_the_first_kept():
    rows = [
        {"es": "Hola.", "en": "Hello."},
        {"es": "¡Hola!", "en": "Hi."},
        {"es": "Buenas.", "en": "hello"},
        {"es": "Adiós.", "en": "Hi."},  # its only relative was dropped itself
    ]
    assert drop_duplicates(rows, ("es", "en")) == [rows[0], rows[3]]


def brute_force_jaccard(a: str, b: str) -> float:
    grams = [{t[i : i + 5] for i in range(len(t) - 4)} or {t} for t in (normalise(a), normalise(b))]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def variants(seed: int) -> list[str]:
    """200 sentences from 20 stems, with anything between none and many of their letters changed."""
    chance = random.Random(seed)
    stems = ["".join(chance.choice("abcdefghijklmn ") for _ in range(chance.randint(4, 120))) for _ in range(20)]
    texts = []
    for number in range(200):
        letters = list(stems[number % 20])
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 8))):
            letters[chance.randrange(len(letters))] = chance.choice("xyz")
        texts.append("".join(letters))
    return texts


@pytest.mark.parametrize("seed", range(3))
def test_minhash_finds_what_brute_force_finds(seed):
    texts = variants(seed)
    scores = {(a, b): brute_force_jaccard(texts[a], texts[b]) for a, b in combinations(range(len(texts)), 2)}
    expected = {pair: score for pair, score in scores.items() if score >= 0.8}
    assert {(a, b): score for a, b, score in near_duplicate_pairs(texts)} == expected
    assert len(expected) > 50 and sum(score > 0.6 for score in scores.values()) > len(expected) + 50


def test_near_duplicates_are_dropped_against_kept_rows_only():
    chain = [
        "The committee will meet again on the second Monday of October in the large hall of the town",
        "The committee will meet again on the second Monday of October in the large hall of the city now",
        "The committee would meet again on the second Monday of October in the large hall of the city now",
    ]
    steps = [brute_force_jaccard(chain[a], chain[b]) for a, b in ((0, 1), (1, 2), (0, 2))]
    assert steps[0] > 0.8 and steps[1] > 0.8 > steps[2]
    rows = [{"en": text, "es": text[::-1]} for text in chain]
    assert drop_near_duplicates(rows, ("en",)) == [rows[0], rows[2]]
    assert drop_near_duplicates(rows, ("en",), spared=3) == rows
    assert drop_near_duplicates(rows, ("en",), spared=2) == rows[:2]


def test_either_side_makes_a_near_duplicate():
    same = "We would like to thank everybody who has helped us in these difficult weeks"
    rows = [{"es": "Uno dos tres cuatro.", "en": same}, {"es": "Algo muy distinto.", "en": same + "!"}]
    assert drop_near_duplicates(rows, ("es", "en")) == rows[:1]
    assert drop_near_duplicates(rows, ("es",)) == rows
