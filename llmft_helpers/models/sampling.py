"""Answers that are drawn instead of taken greedily, each by its own random numbers, whatever shares its batch."""

import math
from dataclasses import dataclass

import torch

from ..storage import fingerprint

LIKELY = 1024  # tokens looked at first: sorting a large vocabulary takes longer than a small model's step


@dataclass(frozen=True)
class Sampling:
    """`answers` to each prompt, their tokens drawn at `temperature` (above 0) from the fewest that together have at
    least `top_p` of the probability (Holtzman et al. 2020, arXiv 1904.09751)."""

    temperature: float
    top_p: float = 1.0
    answers: int = 1
    seed: int = 0

    def uniforms(self, prompt: str, answer: int, count: int) -> torch.Tensor:
        """The random numbers in [0, 1) that draw one answer, (count,): a function of seed, prompt and answer alone."""
        generator = torch.Generator().manual_seed(int(fingerprint([self.seed, prompt, answer]), 16))
        return torch.rand(count, generator=generator, dtype=torch.float64)


class Draw:
    """A logits processor that leaves each row the one token which its next random number draws: in a greedy search, a
    sample.

    The same for every batch. Batches of another shape round logits differently, so that a draw differs where its number
    lies within that rounding of the border between two tokens, or of the edge of `top_p`.
    """

    def __init__(self, sampling: Sampling, asked: list[tuple[str, int]], most: int):
        self.sampling, self.step = sampling, 0
        self.uniforms = torch.stack([sampling.uniforms(*one, most) for one in asked])  # (B, most)

    def keep(self, places: list[int]) -> None:
        self.uniforms = self.uniforms[places]

    def __call__(self, ids, scores):  # (B, T), (B, V)
        uniform = self.uniforms[:, self.step].to(scores.device)  # (B,)
        self.step += 1
        drawn = draw(scores, uniform, self.sampling.temperature, self.sampling.top_p)  # (B,)
        return torch.full_like(scores, -math.inf).scatter_(1, drawn[:, None], 0.0)  # (B, V)


def draw(scores: torch.Tensor, uniform: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """A token for each row, (B,), of logits (B, V) by uniform numbers (B,): where the probabilities of the nucleus,
    summed up in the order of the vocabulary, first exceed that share of their sum. By probability, two tokens about as
    likely would change places by rounding."""
    probabilities = torch.softmax(scores.float() / temperature, -1)  # (B, V)
    tokens = None
    if top_p < 1:
        probabilities, tokens = _nucleus(probabilities, top_p)  # (B, K) twice
    sums = probabilities.double().cumsum(-1)  # (B, K)
    places = torch.searchsorted(sums, uniform[:, None] * sums[:, -1:], right=True)  # (B, 1)
    return (places if tokens is None else tokens.gather(1, places))[:, 0]


def _nucleus(probabilities: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(their probabilities, 0 outside of the nucleus, the likeliest tokens in the order of the vocabulary), (B, K)."""
    count, size = LIKELY, probabilities.shape[-1]
    likely, tokens = probabilities.topk(min(count, size))  # (B, K)
    while count < size and likely.sum(-1).min() < top_p:
        count *= 8
        likely, tokens = probabilities.topk(min(count, size))
    before = likely.double().cumsum(-1) - likely  # what is likelier than each
    likely = likely.masked_fill(before >= top_p, 0.0)
    tokens, order = tokens.sort()
    return likely.gather(1, order), tokens
