"""Rows that share, or nearly share, a text go into one split: which ones hang together, and what a chain costs."""

from collections import Counter, defaultdict

import numpy

from .cleaning import normalise
from .duplicates import linked, near_duplicate_labels

LARGEST_GROUP = 0.01  # of a source's rows
ALWAYS_ALLOWED = 20  # rows: a problem family, the translations of one sentence


def drop_repeats(rows: list[dict], sides: tuple[str, ...]) -> list[dict]:
    """The first of those rows whose sides are all the same but for capitals; punctuation makes a difference."""
    seen, kept = set(), []
    for row in rows:
        key = tuple(row[side].casefold() for side in sides)
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return kept


def sentence_labels(rows: list[dict], side: str) -> numpy.ndarray:
    """(rows,): the same number for rows whose `side` is the same, or nearly, however it is spelled and punctuated."""
    places: dict[str, int] = {}
    numbers = numpy.array([places.setdefault(normalise(row[side]), len(places)) for row in rows], int)
    return near_duplicate_labels(list(places))[numbers]


def key_labels(rows: list[dict], key: str) -> numpy.ndarray:
    """(rows,): the same number for rows of the same id or family; rows without one stand alone."""
    places: dict[object, int] = {}
    return numpy.array([places.setdefault(row.get(key) or ("row", n), len(places)) for n, row in enumerate(rows)], int)


def like_published(labels: list[numpy.ndarray], published: numpy.ndarray) -> numpy.ndarray:
    """(rows,): which rows share a label with a row of a published test set, and are none."""
    found = numpy.zeros(len(published), bool)
    for label in labels:
        found |= numpy.isin(label, label[published])
    return found & ~published


def grouped(
    sources: list[str], bound: list[numpy.ndarray], sentences: list[numpy.ndarray]
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """((rows,) group numbers, (rows,) whether a row stays), for rows that come in the order of preference.

    Rows of one `bound` label (id, family) stay together whatever their number. Rows of one sentence do too, up to 1% of
    a source, or 20 rows: a larger group is cut at its commonest sentences, and the rows that would hold it together go.
    """
    groups = _connected(bound + sentences)
    size = Counter(sources)
    limit = numpy.zeros(groups.max() + 1)
    numpy.maximum.at(limit, groups, [max(ALWAYS_ALLOWED, LARGEST_GROUP * size[source]) for source in sources])
    stays = numpy.ones(len(groups), bool)
    members = defaultdict(list)
    too_large = numpy.bincount(groups) > limit
    for row in numpy.flatnonzero(too_large[groups]):
        members[groups[row]].append(row)
    following = groups.max() + 1
    for group, rows in members.items():
        part = numpy.array(rows)
        pieces, kept = _cut([label[part] for label in bound], [label[part] for label in sentences], limit[group])
        groups[part], stays[part] = pieces + following, kept
        following += pieces.max() + 1
    return groups, stays


def _connected(labels: list[numpy.ndarray]) -> numpy.ndarray:
    """(rows,): the connected part of each row, where rows of one label are connected."""
    count, edges, nodes = len(labels[0]), [], len(labels[0])
    for label in labels:
        edges.append(numpy.stack([numpy.arange(count), nodes + label], axis=1))
        nodes += label.max() + 1
    parts = linked(nodes, numpy.concatenate(edges))[:count]
    return numpy.unique(parts, return_inverse=True)[1]


def _cut(
    bound: list[numpy.ndarray], sentences: list[numpy.ndarray], limit: float
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Groups within `limit` out of one that is larger: sentences connect, the rarest first, while there is room.

    Where there is none, a sentence stays in the group that holds most of its rows and its other rows are dropped.
    """
    count = len(sentences[0])
    stays = numpy.ones(count, bool)
    root, weight = list(range(count)), [1] * count

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    def join(one: int, other: int) -> None:
        root[other] = one
        weight[one] += weight[other]

    for rows in _rows_by_label(bound):
        for row in rows[1:]:
            if find(row) != find(rows[0]):
                join(find(rows[0]), find(row))
    for rows in sorted(_rows_by_label(sentences), key=lambda rows: (len(rows), rows)):
        parts = Counter(find(row) for row in rows if stays[row])
        home = next(iter(dict(parts.most_common())), None)
        for part in sorted(parts, key=lambda part: -parts[part])[1:]:
            if weight[home] + weight[part] <= limit:
                join(home, part)
        for row in rows:
            if stays[row] and find(row) != find(home):
                stays[row] = False
                weight[find(row)] -= 1
    return numpy.unique([find(row) for row in range(count)], return_inverse=True)[1], stays


def _rows_by_label(labels: list[numpy.ndarray]) -> list[list[int]]:
    """The rows of each label that has more than one."""
    found = []
    for label in labels:
        rows = defaultdict(list)
        for row, number in enumerate(label.tolist()):
            rows[number].append(row)
        found += [group for group in rows.values() if len(group) > 1]
    return found
