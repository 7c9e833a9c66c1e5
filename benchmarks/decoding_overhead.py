"""What the loop guard and the stop strings add to a step of decoding, against looking through the whole texts.

    python benchmarks/decoding_overhead.py [--rows 64] [--tokens 512] [--json FILE]

No model runs: the rows are solutions out of data/, a character a step, and the logits are random numbers for a
vocabulary as large as Llama 3's. Both arms must say the same at every step, and take turns step by step. Milliseconds
are means over all steps, in which the texts grow from nothing to --tokens; the last row of the table is what choosing
the best of the logits takes.
"""

import argparse
import time
from itertools import islice
from pathlib import Path

import pandas
import torch
from transformers import NoRepeatNGramLogitsProcessor

from llmft_helpers.device import device_description
from llmft_helpers.models import generation
from llmft_helpers.models.embedded import character_tokenizer
from llmft_helpers.runs import ROOT, git_commit, read_jsonl, write_json

VOCABULARY = 128_256
STOP = ("\n# Problem", "\nProblem:")
ARMS = ("whole texts", "new tokens")


class WholeTextStops:
    """Whether each row holds a stop string after its first word, by all of its tokens."""

    def __init__(self, tokenizer, stop: tuple[str, ...]):
        self.tokenizer, self.stop = tokenizer, stop

    def __call__(self, ids, scores):  # (B, T)
        texts = [generation._text(self.tokenizer, row) for row in ids]
        return torch.tensor([generation._stop_place(text, self.stop) is not None for text in texts])  # (B,)


def arms(tokenizer) -> dict[str, tuple]:
    """Arm -> (loop guard, stop strings), each called with the texts and the logits of a step."""
    answers = generation._Answers(width=0)
    ours = generation._NoLoop(answers), generation._AnswerEnds(tokenizer, STOP, answers)
    return {
        ARMS[0]: (NoRepeatNGramLogitsProcessor(generation.LOOP), WholeTextStops(tokenizer, STOP)),
        ARMS[1]: ours,
    }


def texts(tokenizer, rows: int, tokens: int) -> torch.Tensor:
    """Solutions one after the other, none a second time: (rows, tokens)."""
    problems = read_jsonl(ROOT / "data" / "leetcode" / "problems.jsonl")
    ids = (token for row in problems for token in tokenizer(row["completion"], add_special_tokens=False).input_ids)
    taken = torch.tensor(list(islice(ids, rows * tokens)))
    return taken.view(rows, tokens)


def timed(function, *arguments) -> tuple[object, float]:
    """(what it returns, seconds)."""
    started = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - started


def measure(tokenizer, ids: torch.Tensor) -> dict[str, dict[str, float]]:
    """Milliseconds a step, by part and arm; the arms must not differ."""
    logits = torch.randn(len(ids), VOCABULARY, generator=torch.Generator().manual_seed(0))  # (B, V)
    seconds = {part: dict.fromkeys(ARMS, 0.0) for part in ("loop guard", "stop strings", "choosing the best")}
    parts = arms(tokenizer)
    for length in range(ids.shape[1] + 1):
        results = {arm: [] for arm in ARMS}
        for arm in ARMS:
            for part, function in zip(seconds, parts[arm], strict=False):
                if part == "loop guard" or length:  # the first logits come before the first token
                    result, took = timed(function, ids[:, :length], logits)
                    seconds[part][arm] += took
                    results[arm].append(result)
            seconds["choosing the best"][arm] += timed(logits.argmax, -1)[1]
        assert all(map(torch.equal, *results.values())), length
    return {part: {arm: 1000 * s / ids.shape[1] for arm, s in row.items()} for part, row in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="of the batch (default 64)")
    parser.add_argument("--tokens", type=int, default=512, help="of an answer (default 512)")
    parser.add_argument("--json", type=Path, help="write what is printed")
    options = parser.parse_args()
    tokenizer = character_tokenizer()
    ids = texts(tokenizer, options.rows, options.tokens)
    measured = measure(tokenizer, ids)
    size = f"{options.rows} rows, {options.tokens} tokens, {VOCABULARY:,} logits, {device_description()['device']}"
    print(f"milliseconds a step: {size}")
    print(pandas.DataFrame(measured).T.round(2).to_string())
    if options.json:
        write_json(options.json, {"setting": size, "milliseconds_a_step": measured, "git_commit": git_commit()})


if __name__ == "__main__":
    main()
