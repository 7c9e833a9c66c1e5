"""Each filter on hand-made examples; near duplicates against brute force."""

import json
import random
import unicodedata
from itertools import combinations

import numpy
import pytest

from llmft_helpers.data import duplicates
from llmft_helpers.data.cleaning import (
    MAX_CHARACTERS,
    language_of,
    normalise,
    reason_to_drop,
    repairs,
    tidy,
)
from llmft_helpers.data.duplicates import near_duplicate_labels
from llmft_helpers.data.groups import drop_repeats, grouped, key_labels, sentence_labels
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


def test_what_shows_nothing_is_taken_out_and_seen_through():
    dirty = "Tom &amp; Mary&#39;s ca\u00adf\u00e9\u200b \x00&quot;Luna&quot;\ufeff &nbsp;AT&T; R&D"
    assert tidy(dirty) == 'Tom & Mary\'s caf\u00e9 "Luna" AT&T; R&D'
    assert repairs(dirty) == ["HTML entities", "invisible characters"]
    assert repairs("AT&T, R&D;\tcaf\u00e9") == []
    assert normalise("ca\u00adf\u00e9 &quot;Luna&quot;") == normalise("Caf\u00e9 Luna")
    assert tidy("a\ud800b") == "ab"


def test_only_a_repeat_of_both_sides_is_dropped_and_punctuation_makes_a_difference():
    rows = [
        {"es": "Hola.", "en": "Hello."},
        {"es": "¡Hola!", "en": "Hello."},
        {"es": "Hola.", "en": "Hi."},
        {"es": "hola.", "en": "HELLO."},
        {"es": "¿Están bien?", "en": "Are they well?"},
        {"es": "Están bien.", "en": "Are they well?"},
    ]
    assert drop_repeats(rows, ("es", "en")) == [*rows[:3], *rows[4:]]


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


def parts(count: int, edges) -> set[frozenset[int]]:
    """Connected parts by plain search."""
    near = {n: {n} for n in range(count)}
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    found = set()
    for start in range(count):
        part, todo = set(), [start]
        while todo:
            node = todo.pop()
            if node not in part:
                part.add(node)
                todo += near[node]
        found.add(frozenset(part))
    return found


def test_texts_are_compared_in_portions_as_they_are_at_once(monkeypatch):
    whole = parts_of(near_duplicate_labels(variants(0)))
    monkeypatch.setattr(duplicates, "PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(duplicates, "TEXTS_AT_ONCE", 16)
    assert parts_of(near_duplicate_labels(variants(0))) == whole and len(whole) > 1


def test_a_large_source_may_have_larger_groups_and_two_large_groups_stay_apart():
    rows = numpy.arange(4000)
    number, stays = grouped(["a"] * 4000, [rows], [numpy.maximum(rows - 29, 0)])  # 30 rows of one sentence, 40 allowed
    assert stays.all() and len(set(number[:30])) == 1
    number, stays = grouped(["a"] * 400, [rows[:400]], [rows[:400] // 100])
    assert stays.sum() == 80 and len(set(number[stays])) == 4


def parts_of(labels) -> set[frozenset[int]]:
    return {frozenset(i for i, label in enumerate(labels) if label == one) for one in set(labels)}


@pytest.mark.parametrize("seed", range(3))
def test_minhash_finds_what_brute_force_finds(seed):
    texts = variants(seed)
    scores = {(a, b): brute_force_jaccard(texts[a], texts[b]) for a, b in combinations(range(len(texts)), 2)}
    expected = {pair: score for pair, score in scores.items() if score >= 0.8}
    assert parts_of(near_duplicate_labels([normalise(text) for text in texts])) == parts(len(texts), expected)
    assert len(expected) > 50 and sum(score > 0.6 for score in scores.values()) > len(expected) + 50


def test_of_templated_text_nearly_all_near_duplicates_are_linked():
    chance = random.Random(1)
    texts = sorted({
        f"the temperature in {chance.choice(('lima', 'quito', 'salamanca', 'san juan'))} is "
        f"{chance.randint(0, 999)} degrees today, said {chance.choice(('ana', 'luis', 'guadalupe'))}"
        for _ in range(700)
    })  # fmt: skip
    labels = near_duplicate_labels(texts)
    near = [(a, b) for a, b in combinations(range(len(texts)), 2) if brute_force_jaccard(texts[a], texts[b]) >= 0.8]
    apart = sum(labels[a] != labels[b] for a, b in near)
    assert len(near) > 3000 and apart <= 0.001 * len(near)


def groups_of(rows, **bound):
    labels = [sentence_labels(rows, side) for side in ("es", "en")]
    return grouped(["a"] * len(rows), [key_labels(rows, "id")], labels)


def test_rows_that_share_or_nearly_share_a_side_or_an_id_are_one_group():
    same = "We would like to thank everybody who has helped us in these difficult weeks"
    rows = [
        {"id": 1, "es": "Uno dos tres cuatro.", "en": same},
        {"id": 2, "es": "Algo muy distinto.", "en": same + "!"},
        {"id": 3, "es": "¿Algo muy distinto?", "en": "Nothing like it."},
        {"id": 4, "es": "Sola.", "en": "Alone."},
        {"id": 4, "es": "Con el mismo número.", "en": "Of the same number."},
        {"id": None, "es": "Sin número.", "en": "Without a number."},
        {"id": None, "es": "Tampoco.", "en": "Nor this."},
        {"id": 5, "es": "Cerca.", "en": same.replace("weeks", "week")},
    ]
    number, stays = groups_of(rows)
    assert parts_of(number) == set(map(frozenset, [{0, 1, 2, 7}, {3, 4}, {5}, {6}])) and stays.all()


def test_a_chain_is_cut_at_its_commonest_sentences_and_loses_little():
    chance = random.Random(2)
    word = lambda: "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=12))  # noqa: E731
    # a hundred sentences with ten translations each, all held together by one answer that fits them all
    rows = [
        {"id": None, "es": f"{spanish}", "en": word()} for spanish in (word() for _ in range(100)) for _ in range(10)
    ]
    rows += [{"id": None, "es": rows[10 * n]["es"], "en": "Yes."} for n in range(100)]
    number, stays = groups_of(rows)
    sizes = [int(((number == one) & stays).sum()) for one in set(number)]
    assert max(sizes) <= 20 and stays[:1000].all() and 98 <= (~stays).sum() <= 99
    kept = [row for row, stay in zip(rows, stays, strict=True) if stay]
    home = {}
    for row, one in zip(kept, number[stays], strict=True):
        for side in ("es", "en"):
            assert home.setdefault((side, row[side]), one) == one


def test_templates_keep_a_group_of_the_allowed_size():
    rows = [
        {
            "id": None,
            "es": f"La temperatura en el norte de la ciudad de Lima es hoy de {n} grados",
            "en": f"Today the temperature in the north of the city of Lima is {n} degrees",
        }
        for n in range(100, 200)
    ]
    number, stays = groups_of(rows)  # fmt: skip
    assert stays.sum() == 20 and len(set(number[stays])) == 1
