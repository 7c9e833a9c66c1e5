"""Texts that nearly repeat each other, found in time that grows with their number.

Character 5-grams, MinHash and banding (Leskovec et al., Mining of Massive Datasets, ch. 3) propose; two sketches are
compared before two texts, and the exact Jaccard index decides. In a bucket each text meets only its next NEIGHBOURS,
sorted by another band, and only texts that are not linked yet: what matters is who hangs together, not every pair.
"""

from collections.abc import Iterator

import numpy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

GRAM = 5
NEAR_DUPLICATE_JACCARD = 0.8
BANDS, BAND_ROWS = 16, 4  # finds a pair at the threshold in a band with 41%, in one of sixteen with 99.98%
PERMUTATIONS = BANDS * BAND_ROWS
BITMAP_BITS = 512
NEIGHBOURS = 8
TEXTS_AT_ONCE, PAIRS_AT_ONCE = 20_000, 100_000


class Sketches:
    """What is kept of each text: its grams (sorted hashes, one text after the other from `starts` on), a bitmap of
    them, (texts, 8) words of 64 bits, and a key for each band, (bands, texts).
    """

    def __init__(self, texts: list[str]) -> None:
        parts, sizes = [], []
        self.bitmaps = numpy.zeros((len(texts), BITMAP_BITS // 64), numpy.uint64)
        self.bands = numpy.empty((BANDS, len(texts)), numpy.uint64)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = slice(start, start + TEXTS_AT_ONCE)
            grams, counts = _grams(texts[some])
            self.bitmaps[some] = _bitmaps(grams, counts)
            self.bands[:, some] = _band_keys(grams, counts)
            parts.append(grams)
            sizes.append(counts)
        self.grams, self.sizes = numpy.concatenate(parts), numpy.concatenate(sizes)
        self.starts = numpy.cumsum(self.sizes) - self.sizes

    def near(self, left: numpy.ndarray, right: numpy.ndarray) -> numpy.ndarray:
        """(pairs,): whether texts `left[i]` and `right[i]` have a Jaccard index of at least 0.8."""
        found = numpy.zeros(len(left), bool)
        for start in range(0, len(left), PAIRS_AT_ONCE):
            a, b = left[start : start + PAIRS_AT_ONCE], right[start : start + PAIRS_AT_ONCE]
            both = self.sizes[a] + self.sizes[b]
            # Sets differ in as many grams as their bitmaps in bits, or more: a bound from above (arXiv 1711.07295).
            differ = numpy.bitwise_count(self.bitmaps[a] ^ self.bitmaps[b]).sum(axis=1, dtype=numpy.int64)
            likely = numpy.flatnonzero((both - differ) >= NEAR_DUPLICATE_JACCARD * (both + differ))
            if len(likely):
                found[start + likely] = self._jaccard(a[likely], b[likely]) >= NEAR_DUPLICATE_JACCARD
        return found

    def _jaccard(self, left: numpy.ndarray, right: numpy.ndarray) -> numpy.ndarray:
        keys = numpy.concatenate([self._keyed(left), self._keyed(right)])
        keys.sort()
        common = numpy.bincount((keys[1:][keys[1:] == keys[:-1]] >> numpy.uint64(32)).astype(int), minlength=len(left))
        return common / (self.sizes[left] + self.sizes[right] - common)

    def _keyed(self, texts: numpy.ndarray) -> numpy.ndarray:
        """Each text's grams below the text's place in `texts`, in one number."""
        sizes = self.sizes[texts]
        ends = numpy.cumsum(sizes)
        places = numpy.arange(ends[-1]) + numpy.repeat(self.starts[texts] - (ends - sizes), sizes)
        pair = numpy.repeat(numpy.arange(len(texts), dtype=numpy.uint64), sizes)
        return pair << numpy.uint64(32) | self.grams[places]


def _grams(texts: list[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(hashes of all texts' different 5-grams, number of them in each text); a shorter text is one gram."""
    padded = [text.ljust(GRAM, "\0") for text in texts]
    codes = numpy.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), numpy.uint32).astype(numpy.uint64)
    text = numpy.repeat(numpy.arange(len(texts), dtype=numpy.uint64), [len(one) for one in padded])
    hashed = numpy.zeros(len(codes) - GRAM + 1, numpy.uint64)
    for place in range(GRAM):  # a polynomial in an odd number, then mixed
        hashed = hashed * numpy.uint64(0x100000001B3) + codes[place : place + len(hashed)]
    hashed = (hashed ^ hashed >> numpy.uint64(31)) * numpy.uint64(0xBF58476D1CE4E5B9) >> numpy.uint64(32)
    inside = text[: len(hashed)] == text[GRAM - 1 :]
    keys = text[: len(hashed)][inside] << numpy.uint64(32) | hashed[inside]
    keys.sort()  # and not numpy.unique, whose table of hashes takes ten times as long
    keys = keys[numpy.append(True, keys[1:] != keys[:-1])]
    counts = numpy.bincount((keys >> numpy.uint64(32)).astype(int), minlength=len(texts))
    return keys.astype(numpy.uint32), counts


def _bitmaps(grams: numpy.ndarray, counts: numpy.ndarray) -> numpy.ndarray:
    """(texts, 8): bit h mod 512 is set for each gram h of a text."""
    bits = numpy.zeros((len(counts), BITMAP_BITS), bool)
    bits[numpy.repeat(numpy.arange(len(counts)), counts), grams % BITMAP_BITS] = True
    return numpy.packbits(bits, axis=1).view(numpy.uint64)


def _band_keys(grams: numpy.ndarray, counts: numpy.ndarray) -> numpy.ndarray:
    """(bands, texts): four minima of a text in one number; a minimum is the least value that one of 64 fixed
    multiply-shift hashes gives to the text's grams.
    """
    chance = numpy.random.default_rng(1)
    factors = chance.integers(1 << 31, size=PERMUTATIONS, dtype=numpy.uint32) * numpy.uint32(2) + numpy.uint32(1)
    starts = numpy.cumsum(counts) - counts
    keys = numpy.zeros((BANDS, len(counts)), numpy.uint64)
    for number, factor in enumerate(factors):
        least = numpy.minimum.reduceat(_mixed(grams, factor), starts)
        key = (keys[number // BAND_ROWS] ^ least) * numpy.uint64(0x9E3779B97F4A7C15)
        keys[number // BAND_ROWS] = key ^ key >> numpy.uint64(29)
    return keys


def _mixed(grams: numpy.ndarray, factor: numpy.uint32) -> numpy.ndarray:
    """A permutation of 32-bit numbers: no two grams tie."""
    values = grams ^ factor
    values *= factor
    values ^= values >> numpy.uint32(15)
    values *= numpy.uint32(0x2C1B3C6D)
    return values


def linked(count: int, pairs: numpy.ndarray) -> numpy.ndarray:
    """(count,): a number for each connected part of the graph whose edges are `pairs`, (edges, 2)."""
    ones = numpy.ones(len(pairs), bool)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def near_duplicate_labels(texts: list[str]) -> numpy.ndarray:
    """(texts,): the same number for texts that near duplicates, or chains of them, connect."""
    labels = numpy.arange(len(texts))
    if len(texts) < 2:
        return labels
    sketches = Sketches(texts)
    for band in range(BANDS):
        for left, right in _neighbours(sketches.bands[band], sketches.bands[(band + 1) % BANDS]):
            apart = labels[left] != labels[right]
            left, right = left[apart], right[apart]
            near = sketches.near(left, right)
            if near.any():
                pairs = numpy.stack([labels[left[near]], labels[right[near]]], axis=1)
                labels = linked(len(texts), pairs)[labels]
    return labels


def _neighbours(key: numpy.ndarray, then: numpy.ndarray) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
    """Pairs of texts of the same bucket, one place apart in the order of `then`, two places apart, ..."""
    order = numpy.argsort(key, kind="stable")
    same = key[order[1:]] == key[order[:-1]]
    members = order[numpy.append(same, False) | numpy.append(False, same)]
    members = members[numpy.lexsort((then[members], key[members]))]
    for distance in range(1, NEIGHBOURS + 1):
        left, right = members[:-distance], members[distance:]
        together = key[left] == key[right]
        if not together.any():
            return
        yield left[together], right[together]
