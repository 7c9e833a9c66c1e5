"""What is counted about texts that a model wrote."""

import random
import time

import pytest

from llmft_helpers.scoring import samples
from llmft_helpers.scoring.samples import longest_copies, sample_faults


def longest_copy(text: str, source: str) -> str:
    """Of all pieces, the longest that stands in `source`, the first of several."""
    pieces = (text[a:b] for a in range(len(text)) for b in range(a + 1, len(text) + 1))
    return max((piece for piece in pieces if piece in source), key=len, default="")


def test_words_and_code():
    assert samples.words_of("Él dice: it's 42.") == ["él", "dice", "it", "s"]
    assert samples.known_words(["uno dos", "tres cuatro"], {"uno", "tres", "dos"}) == 0.75
    assert samples.known_words([""], set()) == 0
    assert samples.parses("class A:\n    x = 1") and not samples.parses("class A:") and not samples.parses("")


def test_the_longest_copy():
    found = longest_copies(["xxhello worldyy", "hello", "abxcd", "", "QQ"], "say hello world, ab cd")
    assert found == {"xxhello worldyy": "hello world", "hello": "hello", "abxcd": "ab", "": "", "QQ": ""}
    assert longest_copies([], "abc") == {} and longest_copies(["abc"], "") == {"abc": ""}


@pytest.mark.parametrize("seed", range(40))
def test_copies_are_those_of_trying_every_piece(seed):
    draw = random.Random(seed)

    def text(length):
        return "".join(draw.choices("abc"[: 1 + seed % 3], k=length))

    source = text(draw.randrange(60))
    texts = [text(draw.randrange(25)) for _ in range(6)] + [source[3:20] + text(3) + source[1:30]]
    assert longest_copies(texts, source) == {each: longest_copy(each, source) for each in texts}


def test_copies_take_time_that_grows_with_the_source_not_with_its_product():
    draw = random.Random(0)
    source = "".join(draw.choices("abcdefgh", k=300_000))
    texts = ["".join(draw.choices("abcdefgh", k=700)) for _ in range(50)]  # trying would look at 10^10 characters
    started = time.process_time()
    found = longest_copies(texts, source)
    assert time.process_time() - started < 10
    assert all(piece in source and piece in text and len(piece) >= 5 for text, piece in found.items())


def test_faults_are_counted_by_domain_against_what_was_wanted():
    def sample(domain, written, wanted, ended):
        return {"domain": domain, "written": written, "wanted": wanted, "ended": ended}

    rows = [
        sample("es", "the dog flies", "the cat sits", True),
        sample("es", "zzz", "the cat sits", False),
        sample("code", "f(self):\n        return 1", "g(self): pass", True),
        sample("code", "f(self:", "g(self): pass", True),
    ]
    faults = sample_faults(rows, "the cat sees the dog\nreturn 1")
    assert list(faults) == ["code", "es"]
    assert faults["es"]["samples"] == 2 and faults["es"]["ended"] == 0.5
    model = faults["es"]["model"]
    assert model == {"known_words": 0.5, "longest_copy": 7, "median_copy": 7, "copied": "the dog"}
    assert faults["es"]["human"]["known_words"] == 2 / 3 and faults["es"]["human"]["copied"] == "the cat s"
    assert faults["code"]["model"]["parses"] == 0.5 and faults["code"]["model"]["texts"] == 2
    assert faults["code"]["human"]["parses"] == 1 and faults["code"]["human"]["texts"] == 1
    assert "parses" not in faults["es"]["model"]
