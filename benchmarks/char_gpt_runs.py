"""The two arms' common ground: the notebook's texts, alphabet and scores, and a run of its GPT outside it."""

import copy
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from lifting import lift  # noqa: E402

from llmft_helpers.data import corpora, plain_text  # noqa: E402
from llmft_helpers.profiles import CharGptSettings, Profile  # noqa: E402

Documents = list[tuple[str, str]]

CURVE_POINTS = 20


def load_texts(profile: Profile) -> dict[str, Documents]:
    """The notebook's documents of the profile, by split."""
    gpt = lift("01_char_gpt")
    everything = gpt.without_weights(profile)
    pairs, problems = corpora.load_pairs(everything), corpora.load_problems(everything)
    texts = {split: plain_text.character_documents(pairs, problems, split) for split in corpora.SPLITS}
    return texts | {"train": gpt.whole_documents(texts["train"], profile.char_gpt.characters)}


def tokenizer_and_text(gpt, train: Documents):
    """(tokenizer, training text as read): the alphabet is that of the documents, before any is repeated."""
    tokenizer = gpt.make_tokenizer("".join(text for _, text in train))
    return tokenizer, "".join(text for _, text in gpt.balanced(train))


def final_scores(gpt, model, tokenizer, texts: dict[str, Documents]) -> dict:
    validation, test = (gpt.evaluate(model, tokenizer, texts[split], gpt.HISTORY) for split in ("validation", "test"))
    return validation | {"test": test}


def train_ours(gpt, settings: CharGptSettings, seed: int, texts: dict[str, Documents]) -> dict:
    """Train the lifted GPT as the notebook does; returns scores, parameters, `curve` of (seconds, bits a character)."""
    tokenizer, text = tokenizer_and_text(gpt, texts["train"])
    windows = gpt.all_windows(torch.tensor(tokenizer.encode(text), dtype=torch.int32), settings.context)
    torch.manual_seed(seed)
    model = gpt.GPT(tokenizer.size, settings.layers, settings.heads, settings.width, settings.context)
    run, curve, best = gpt.Run(model, settings.learning_rate, seed), [], {}

    def check(run) -> None:
        bits = gpt.evaluate(model, tokenizer, texts["validation"])["bits_per_char"]
        curve.append((run.progress["seconds"], bits))
        if bits <= min(point[1] for point in curve):
            best.update(copy.deepcopy(model.state_dict()))

    gpt.train(run, windows, settings, check)
    model.load_state_dict(best)
    return {
        "name": "ours",
        "seed": seed,
        "curve": curve,
        "seconds": run.progress["seconds"],
        "steps": run.progress["step"],
        "parameters": sum(p.numel() for p in model.parameters()),
        **final_scores(gpt, model, tokenizer, texts),
    }
