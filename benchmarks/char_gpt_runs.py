"""The two arms' common ground: the notebook's texts, alphabet and scores, and a run of its GPT outside it."""

import copy
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from lifting import lift  # noqa: E402

from llmft_helpers.data import corpora, plain_text  # noqa: E402
from llmft_helpers.profiles import CharGptSettings, Profile  # noqa: E402

Documents = list[tuple[str, str]]

CURVE_POINTS = 20
STANDARD_ERROR = 0.002  # nats
LEAST_WINDOWS = 1024


def load_texts(profile: Profile) -> dict[str, Documents]:
    """The notebook's documents of the profile, by split."""
    gpt = lift("01_char_gpt")
    everything = gpt.without_weights(profile)
    pairs, problems = corpora.load_pairs(everything), corpora.load_problems(everything)
    texts = {split: plain_text.character_documents(pairs, problems, split) for split in corpora.SPLITS}
    return texts | {"train": gpt.whole_documents(texts["train"], profile.char_gpt.characters)}


def read_texts(path: Path | None, profile: Profile) -> dict:
    """The profile's documents, or one file as nanoGPT's prepare.py splits and spells it: the first 90% to train on, the
    rest for validation, and as "alphabet" the characters of the whole file."""
    if path is None:
        return load_texts(profile)
    text = path.read_text(encoding="utf-8")
    cut = int(0.9 * len(text))
    return {
        "train": [("text", text[:cut])],
        "validation": [("text", text[cut:])],
        "alphabet": sorted(set(text)),
    }


def tokenizer_and_text(gpt, texts: dict):
    """(tokenizer, training text as read): the alphabet is that of the documents, before any is repeated."""
    train = texts["train"]
    if "alphabet" in texts:
        tokenizer = gpt.CharTokenizer(texts["alphabet"])
    else:
        tokenizer = gpt.make_tokenizer("".join(text for _, text in train))
    return tokenizer, "".join(text for _, text in gpt.balanced(train))


def final_scores(gpt, model, tokenizer, texts: dict) -> dict:
    """By the notebook's rule on validation and, if there is one, test text; by nanoGPT's on validation."""
    scores = gpt.evaluate(model, tokenizer, texts["validation"], gpt.HISTORY)
    if "test" in texts:
        scores["test"] = gpt.evaluate(model, tokenizer, texts["test"], gpt.HISTORY)
    text = "".join(text for _, text in texts["validation"])
    return scores | {"random_windows": random_windows(model, torch.tensor(tokenizer.encode(text)))}


@torch.inference_mode()
def random_windows(model, ids, error: float = STANDARD_ERROR, batch_size: int = 64) -> dict:
    """Nats a character by nanoGPT's rule: the mean over all positions of windows at random places, ids (N,).

    Its `estimate_loss` takes 200 batches; here windows are drawn until the standard error of the mean is below `error`.
    """
    model.eval()
    generator = torch.Generator().manual_seed(0)
    windows, means = ids.unfold(0, model.context + 1, 1), []  # (N - T, T + 1)
    while True:
        batch = windows[torch.randint(len(windows), (batch_size,), generator=generator)]  # (B, T + 1)
        logits = model(batch[:, :-1]).float().transpose(1, 2)  # (B, V, T)
        means += F.cross_entropy(logits, batch[:, 1:], reduction="none").mean(1).tolist()
        spread = torch.tensor(means).std().item() / math.sqrt(len(means))
        if len(means) >= LEAST_WINDOWS and spread < error:
            return {"val_loss": sum(means) / len(means), "standard_error": spread, "windows": len(means)}


def train_ours(gpt, settings: CharGptSettings, seed: int, texts: dict, score=final_scores) -> dict:
    """Train the lifted GPT as the notebook does; returns parameters, `curve` of (seconds, bits a character), and what
    `score` says of the best weights.
    """
    tokenizer, text = tokenizer_and_text(gpt, texts)
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
        **score(gpt, model, tokenizer, texts),
    }
