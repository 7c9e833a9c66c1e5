"""What can be counted about texts that a model wrote: known words, what is copied from the training text, code that
parses. None of it says whether they mean anything.
"""

import re
from collections.abc import Iterable

from .answers import parses


def sample_faults(samples: list[dict], train_text: str) -> dict[str, dict]:
    """Domain -> counts, of the model's texts and of the human ones that were wanted in their place.

    A sample has `domain`, `written`, `wanted` and `ended`, whether the model came to an end by itself.
    """
    words = set(words_of(train_text))
    copies = longest_copies([row[key] for row in samples for key in ("written", "wanted")], train_text)
    by_domain: dict[str, list[dict]] = {}
    for row in samples:
        by_domain.setdefault(row["domain"], []).append(row)
    return {
        domain: {
            "model": _count(rows, "written", words, copies),
            "human": _count(rows, "wanted", words, copies),
            "samples": len(rows),
            "ended": sum(row["ended"] for row in rows) / len(rows),
        }
        for domain, rows in sorted(by_domain.items())
    }


def _count(rows: list[dict], key: str, words: set[str], copies: dict[str, str]) -> dict:
    texts = list(dict.fromkeys(row[key] for row in rows))  # a document is wanted once, however often it was asked for
    pieces = sorted((copies[text] for text in texts), key=len)
    faults = {"known_words": known_words(texts, words), "longest_copy": len(pieces[-1])}
    faults |= {"median_copy": len(pieces[len(pieces) // 2]), "copied": pieces[-1]}
    if rows[0]["domain"] == "code":
        faults["parses"] = sum(parses("class Solution:\n    def " + text) for text in texts) / len(texts)
        faults["texts"] = len(texts)
    return faults


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def known_words(texts: list[str], vocabulary: set[str]) -> float:
    """Share of the words that stand in `vocabulary`."""
    words = [word for text in texts for word in words_of(text)]
    return sum(word in vocabulary for word in words) / max(1, len(words))


def longest_copies(texts: Iterable[str], source: str) -> dict[str, str]:
    """Text -> its longest piece that stands in `source`, the first of several.

    Time grows with the length of `source` plus that of the texts: all of them go into one automaton, and `source`
    is read through it once.
    """
    texts = dict.fromkeys(texts)
    automaton = SuffixAutomaton()
    for text in texts:
        automaton.add(text)
    found = automaton.longest_in(source)
    return {text: automaton.longest_found(text, found) for text in texts}


class SuffixAutomaton:
    """Every piece of the texts that were added leads from state 0 to a state (Blumer et al. 1985).

    Pieces that end at the same places share a state; `length` is that of the longest of them. `link` leads to the
    state of the longest shorter piece that ends at more places.
    """

    def __init__(self):
        self.length, self.link, self.following = [0], [-1], [{}]

    def add(self, text: str) -> None:
        last = 0
        for character in text:
            last = self._extend(last, character)

    def _extend(self, last: int, character: str) -> int:
        known = self.following[last].get(character)
        if known is not None:  # of a text before this one
            return known if self.length[known] == self.length[last] + 1 else self._split(last, character, known)
        new = self._state(self.length[last] + 1, {})
        while last >= 0 and character not in self.following[last]:
            self.following[last][character] = new
            last = self.link[last]
        if last >= 0:
            known = self.following[last][character]
            exact = self.length[known] == self.length[last] + 1
            self.link[new] = known if exact else self._split(last, character, known)
        return new

    def _state(self, length: int, following: dict[str, int], link: int = 0) -> int:
        self.length.append(length)
        self.link.append(link)
        self.following.append(following)
        return len(self.length) - 1

    def _split(self, last: int, character: str, known: int) -> int:
        """A state of its own for the pieces of `known` that are no longer than `last` and the character."""
        short = self._state(self.length[last] + 1, dict(self.following[known]), self.link[known])
        self.link[known] = short
        while last >= 0 and self.following[last].get(character) == known:
            self.following[last][character] = short
            last = self.link[last]
        return short

    def longest_in(self, source: str) -> list[int]:
        """Of each state, the length of its longest piece that stands in `source`; 0 for none."""
        following, link, lengths = self.following, self.link, self.length
        found, state, length = [0] * len(lengths), 0, 0
        for character in source:
            while character not in following[state] and state:
                state = link[state]
                length = lengths[state]
            if character in following[state]:
                state, length = following[state][character], length + 1
                if length > found[state]:
                    found[state] = length
        for state in sorted(range(1, len(found)), key=lengths.__getitem__, reverse=True):
            if found[state]:  # what it links to ends there, too
                found[link[state]] = lengths[link[state]]
        return found

    def longest_found(self, text: str, found: list[int]) -> str:
        """The first of the longest pieces of an added text that `found` says are in the source."""
        best, state = "", 0
        for end, character in enumerate(text, 1):
            state = shared = self.following[state][character]
            while shared and not found[shared]:
                shared = self.link[shared]
            if found[shared] > len(best):
                best = text[end - found[shared] : end]
        return best
