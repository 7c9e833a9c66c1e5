"""Whether a source is what its profile says, as a whole: sides swapped, another language, lines out of step.

Filters judge a row at a time and let many rows of a wrong source through. This counts over a sample.
"""

import re
import statistics
import warnings
from collections import Counter

from ..errors import UserError
from .cleaning import ENGLISH, SPANISH, normalise

SAMPLE = 2000
UNUSUAL = 0.2  # share of a source that one filter may take without a word
FOREIGN_STOP, FOREIGN_WARN = 0.5, 0.1  # share of the sentences whose language can be told
ENOUGH = 40  # sentences with a number or a name in them, or whose language can be told
ALIGNED = 0.2  # share of rows whose numbers and names agree: 40 to 91% in good data, 0 to 8% in any other order
LENGTHS = 0.3  # correlation of the sides' lengths: 0.6 to 0.99 in good data, less in a file sorted by length
FEW = 8  # sentences with numbers or names, where lengths do not correlate either
COMMON = 0.01  # of a part's rows
STEPS = (-3, -2, -1, 1, 2, 3)
# Function words that are none in Spanish or English, and some that Spanish shares, so that the others decide.
FOREIGN = {
    "Portuguese": "não é você uma um em ele isso muito são eu meu minha foi ao das na seu sua também mais nós à às "
    "quem com tem aqui ela isto eles vocês por que de para se está",
    "Italian": "il che di è non per sono gli della del questo anche perché cosa io più nella dei lui sei hai la le una",
    "French": "des est et je vous il elle dans pas une avec nous ce qui mais très au du cette ne suis la le un de",
    "Catalan": "és amb els això però què molt dels per seva aquest aquesta són jo on ho la el en una un al que de",
}
WORDS = {"Spanish": SPANISH, "English": ENGLISH} | {name: frozenset(text.split()) for name, text in FOREIGN.items()}
Pair = tuple[str, str]


def check_source(name: str, pairs: list[Pair], dropped: Counter, examples: dict[str, list]) -> None:
    """`pairs`: all of a source's (es, en) in the order of the file. UserError where it is wrong as a whole, with three
    rows; a warning where one filter takes more than a fifth of it.
    """
    sample = pairs[:: max(1, len(pairs) // SAMPLE)]
    _check_languages(name, sample)
    _check_alignment(name, pairs)
    for reason, count in dropped.items():
        if count > UNUSUAL * len(pairs):
            warnings.warn(
                f"source {name!r}: the filter {reason!r} takes {count:,} of {len(pairs):,} rows, e.g. "
                f"{_shown(examples[reason])}; look at the file and its columns",
                stacklevel=2,
            )


def tongue(text: str) -> str | None:
    """The language of WORDS that most of a sentence's words are function words of; None for a tie or none."""
    words = normalise(text).split()
    found = Counter({name: sum(word in known for word in words) for name, known in WORDS.items()})
    (best, count), (_, second) = found.most_common(2)
    return best if count > second else None


def _check_languages(name: str, sample: list[Pair]) -> None:
    told = [Counter(filter(None, (tongue(pair[side]) for pair in sample))) for side in (0, 1)]
    for side, (column, wanted) in enumerate((("es", "Spanish"), ("en", "English"))):
        total = told[side].total()
        if total < ENOUGH:
            continue
        language, count = max(told[side].items(), key=lambda item: (item[0] != wanted) * item[1])
        if language == wanted or count <= FOREIGN_WARN * total:
            continue
        rows = _shown([pair for pair in sample if tongue(pair[side]) == language][:3])
        if count <= FOREIGN_STOP * total:
            warnings.warn(
                f"source {name!r}: {count / total:.0%} of its {column} side reads as {language}: {rows}", stacklevel=3
            )
            continue
        swapped = told[1 - side].most_common(1)[0][0] != ("Spanish", "English")[1 - side]
        remedy = "the sides are swapped: map columns the other way round" if swapped else "map another column"
        raise UserError(f"source {name!r}: its {column} side reads as {language}, not {wanted}: {rows}; {remedy}")


def _check_alignment(name: str, pairs: list[Pair]) -> None:
    """Numbers and names stand on both sides of a translation, and of no other line's; long sentences stay long."""
    size = max(SAMPLE, len(pairs) // 8)
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        anchors, words = _rare_anchors(part)
        here, rows = agreement(anchors, words, 0)
        lengths = correlation([[len(text) for text in side] for side in zip(*part, strict=True)])
        if here >= ALIGNED or rows < (FEW if lengths < LENGTHS else ENOUGH):
            continue
        around = {step: agreement(anchors, words, step)[0] for step in STEPS}
        best = max(around, key=around.__getitem__)
        if around[best] >= ALIGNED and around[best] > 2 * here:
            cause = f"its lines are out of step by {best:+}: remove or add the line that is too many or missing"
        else:
            cause = "its sides are no translations of each other: align them again"
        raise UserError(
            f"source {name!r}: from row {start + 1} on, numbers and names agree in {here:.0%} of {rows} rows and the "
            f"sides' lengths correlate with {lengths:.2f}: {cause}; rows there: {_shown(part[:3])}"
        )


def _rare_anchors(part: list[Pair]) -> tuple[list[set[str]], list[set[str]]]:
    """(numbers and names of each row's Spanish, words of its English), without those that many rows have, as "Tom".

    Spanish gives names alone a capital, English also days, months and languages.
    """
    words = [set(re.findall(r"\w+", english)) for _, english in part]
    anchors = [{*re.findall(r"\d+", es), *re.findall(r"(?<=[^.!?¿¡]\s)[A-Z]\w{2,}", es)} for es, _ in part]
    count = Counter(anchor for side in (anchors, words) for some in side for anchor in some)
    common = {anchor for anchor, number in count.items() if number > COMMON * len(part)}
    return [some - common for some in anchors], words


def agreement(anchors: list[set[str]], words: list[set[str]], step: int) -> tuple[float, int]:
    """(share of the rows with anchors that have one among the words `step` rows further, number of such rows)."""
    pairs = zip(anchors[max(0, -step) :], words[max(0, step) :], strict=False)
    common = [bool(one & other) for one, other in pairs if one]
    return (sum(common) / len(common) if common else 0.0), len(common)


def correlation(lengths: list[list[int]]) -> float:
    """Of the sides' lengths, 1 where one of them is always the same."""
    left, right = lengths
    return statistics.correlation(left, right) if len({*left}) > 1 < len({*right}) else 1.0


def _shown(rows: list[Pair]) -> str:
    return "; ".join(f"{es[:60]!r} | {en[:60]!r}" for es, en in rows[:3])
