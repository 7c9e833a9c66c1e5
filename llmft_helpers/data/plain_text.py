"""Sentence pairs and problems as plain text documents: what character models read and all models are compared on."""

from collections import Counter

from ..profiles import Profile
from .corpora import Corpus
from .splitting import order


def character_documents(pairs: Corpus, problems: Corpus, split: str) -> list[tuple[str, str]]:
    """(domain, text) of every document of one split: sentence pairs, by register, and solved problems as plain text."""
    documents = [(row["register"], _document(row)) for row in pairs.splits[split]]
    documents += [("code", _document(row)) for row in problems.splits[split]]
    return sorted(documents, key=lambda document: order(document[1], 0))


def _document(row: dict) -> str:
    sides = (row["es"], row["en"]) if "es" in row else (row["problem_description"], "", row["completion"].strip())
    return "\n".join(sides) + "\n\n"


def compared_validation(profile: Profile, pairs: Corpus, problems: Corpus) -> tuple[Corpus, Corpus]:
    """So much of the validation split as every model is scored on, character GPT (notebook 01) and others (04) alike.

    Of each source the first rows that fit into 1/400 of the profile's characters as documents, and at least one.
    """
    room = profile.char_gpt.characters // 400
    used = Counter()
    kept: list[list[dict]] = []
    for corpus in (pairs, problems):
        kept.append([])
        for row in corpus.validation:
            size = len(_document(row))
            if not used[row["source"]] or used[row["source"]] + size <= room:
                used[row["source"]] += size
                kept[-1].append(row)
    return tuple(Corpus({"validation": rows}) for rows in kept)
