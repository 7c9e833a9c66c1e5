"""Sampling: drawn from the right distribution, by numbers that no batch changes, each prompt read once."""

import dataclasses

import pytest
import torch
from scipy.stats import chisquare

from llmft_helpers.cpu import shared_prefix
from llmft_helpers.models import generation
from llmft_helpers.models.generation import generate
from llmft_helpers.models.sampling import LIKELY, Sampling, draw

SAMPLING = Sampling(temperature=0.9, top_p=0.95, answers=5, seed=3)


@pytest.fixture(scope="module")
def prompts(pairs) -> list[str]:
    return [f"Spanish: {row['es']}\nEnglish:" for row in pairs]


@pytest.mark.parametrize("start", ["", "Translate each of these sentences into the other language.\n\n"])
def test_the_same_seed_gives_the_same_answers_in_batches_of_1_4_and_16(base, prompts, start):
    """With a shared beginning, and without."""
    asked = [start + prompt for prompt in prompts]
    single = [answer for prompt in asked for answer in generate(*base, [prompt], 20, batch_size=1, sampling=SAMPLING)]
    assert len(single) == 25 and len({answer.text for answer in single}) > 20
    for batch_size in (1, 4, 16):
        assert generate(*base, asked, 20, batch_size=batch_size, sampling=SAMPLING) == single
    other = generate(*base, asked, 20, sampling=dataclasses.replace(SAMPLING, seed=4))
    assert sum(a.text == b.text for a, b in zip(other, single, strict=True)) <= 2
    few = generate(*base, asked, 20, sampling=dataclasses.replace(SAMPLING, answers=2))
    assert few == [single[place] for place in range(25) if place % 5 < 2]


def test_rows_that_ended_leave_the_batch_and_the_others_draw_what_they_would(base, prompts, monkeypatch):
    stop = ("e",)
    single = [a for prompt in prompts for a in generate(*base, [prompt], 24, stop, batch_size=1, sampling=SAMPLING)]
    monkeypatch.setattr(generation, "STRETCH", 2)
    assert generate(*base, prompts, 24, stop, batch_size=25, sampling=SAMPLING) == single
    assert len({answer.tokens for answer in single}) > 2


def test_without_a_choice_it_is_the_greedy_answer(base, prompts):
    greedy = generate(*base, prompts, 20)
    for sampling in (Sampling(temperature=1e-4), Sampling(temperature=1.0, top_p=1e-6)):
        assert generate(*base, prompts, 20, sampling=sampling) == greedy


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU reads a batch about as fast as a row")
def test_a_prompt_is_read_once_for_all_its_answers(base, prompts, monkeypatch):
    model, tokenizer = base
    read = []
    plain = shared_prefix.causal_lm(model).model
    forward = plain.forward
    monkeypatch.setattr(
        plain, "forward", lambda input_ids=None, **kw: read.append(tuple(input_ids.shape)) or forward(input_ids, **kw)
    )
    generate(model, tokenizer, prompts[:2], 3, batch_size=10, sampling=SAMPLING)
    longest = max(len(tokenizer(prompt).input_ids) for prompt in prompts[:2])
    assert read == [(2, longest - 1), (10, 1), (10, 1), (10, 1)]
    read.clear()
    generate(model, tokenizer, prompts[:2], 1, batch_size=9, sampling=SAMPLING)  # room for one prompt's five
    assert [rows for rows, _ in read] == [1, 5, 1, 5]


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_draws_follow_the_probabilities(top_p):
    scores = torch.tensor([[2.0, -1.0, 0.5, 1.9, -3.0, 0.0]])
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = draw(scores.expand(20_000, -1), uniform, 0.8, top_p)
    probabilities = torch.softmax(scores[0].double() / 0.8, 0)
    if top_p < 1:  # 2.0, 1.9: 0.44 + 0.39
        probabilities[[1, 2, 4, 5]] = 0
    kept = probabilities > 0
    counts = torch.bincount(drawn, minlength=6)
    assert not counts[~kept].any()
    expected = probabilities[kept] / probabilities.sum() * 20_000
    assert chisquare(counts[kept].numpy(), expected.numpy()).pvalue > 0.01


@pytest.mark.parametrize("spread", [0.0, 0.1, 6.0])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.95])
def test_the_nucleus_is_that_of_transformers(top_p, spread):
    """Of flat distributions it holds more than what is looked at first."""
    from transformers import TopPLogitsWarper

    draws = torch.Generator().manual_seed(1)
    scores = torch.randn(4, 4 * LIKELY, generator=draws) * spread
    scores += torch.arange(4 * LIKELY) * 1e-5  # no ties, which either may break as it likes
    warped = torch.softmax(TopPLogitsWarper(top_p)(None, scores / 0.8).double(), -1)
    sums = warped.cumsum(-1)
    for uniform in torch.rand(200, 4, generator=draws, dtype=torch.float64):
        expected = [int((row <= u).sum()) for row, u in zip(sums, uniform.tolist(), strict=True)]
        assert draw(scores, uniform, 0.8, top_p).tolist() == expected


def test_random_numbers_are_each_answers_own():
    numbers = {tuple(Sampling(1.0, seed=seed).uniforms(prompt, answer, 3).tolist())
               for seed in (0, 1) for prompt in ("a", "b") for answer in (0, 1)}  # fmt: skip
    assert len(numbers) == 8
    long = Sampling(1.0).uniforms("a", 0, 9)
    assert torch.equal(long[:3], Sampling(1.0).uniforms("a", 0, 3)) and long.dtype == torch.float64
