"""Text from prompts: one function for every arm, task and notebook."""

import contextlib
import functools
import math
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from ..cpu.cache import roomy_cache
from ..cpu.shared_prefix import read_for_all, read_shared_prefix
from ..errors import UserError
from .boundary import as_asked
from .endings import end_tokens
from .sampling import Draw, Sampling

LOOP = 24  # tokens: no reference solution that we train on repeats that many
STRETCH = 6  # new tokens after which rows that ended leave the batch on a CPU


@dataclass(frozen=True)
class Generated:
    """`text` without the stop string; `ended`: whether the model itself wrote an end token."""

    text: str
    tokens: int
    ended: bool


@torch.inference_mode()
def generate(
    model,
    tokenizer,
    prompts: list[str],
    max_new_tokens: int,
    stop: tuple[str, ...] = (),
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
    sampling: Sampling | None = None,
) -> list[Generated]:
    """Continuations in the order of `prompts`, each up to an end token, a stop string or the limit: greedy ones, or as
    many drawn ones of each prompt, one after the other, as `sampling` asks for.

    A greedy model that begins to repeat itself seldom stops: no answer may write the same LOOP tokens twice.
    A prompt that is asked with the line break after it (`boundary.as_asked`) has it at the beginning of its answer.
    Prompts of like length share a batch, padded on the left. Out of memory halves the batch and goes on.
    `progress(done, total)` is called after every batch. UserError for a prompt that the model cannot hold.
    """
    begun = [as_asked(tokenizer, prompt) for prompt in prompts]
    leads = [begin.removeprefix(prompt) for begin, prompt in zip(begun, prompts, strict=True)]
    prompts = begun
    _refuse_too_long(model, tokenizer, prompts, max_new_tokens)
    answers = sampling.answers if sampling else 1
    asked = [(prompt, answer) for prompt in prompts for answer in range(answers)]
    order = sorted(range(len(asked)), key=lambda i: -len(asked[i][0]))  # longest first: memory fails early
    results: list[Generated | None] = [None] * len(asked)
    done = 0
    with _answering(model):
        while done < len(order):
            batch = order[done : done + (batch_size - batch_size % answers or batch_size)]  # whole prompts, if they fit
            try:
                generated = _generate_batch(model, tokenizer, [asked[i] for i in batch], max_new_tokens, stop, sampling)
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise
                batch_size //= 2
                torch.cuda.empty_cache()
                # standard output belongs to the answers
                print(f"out of memory: going on with batches of {batch_size}", file=sys.stderr)
                continue
            for i, result in zip(batch, generated, strict=True):
                results[i] = result
            done += len(batch)
            if progress:
                progress(done, len(order))
    return [replace(one, text=leads[i // answers] + one.text) for i, one in enumerate(results)]


@contextlib.contextmanager
def _answering(model) -> Iterator[None]:
    """Evaluation mode inside. Unsloth's `generate` turns the checkpointing of gradients off, and on again only for a
    model that was in training."""
    was_training = model.training
    # of each module itself: PEFT's wrapper shows its base's
    checkpointing = [(m, on) for m in model.modules() if (on := vars(m).get("gradient_checkpointing"))]
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
        for module, on in checkpointing:
            module.gradient_checkpointing = on


def _refuse_too_long(model, tokenizer, prompts: list[str], max_new_tokens: int) -> None:
    held = model.config.get_text_config().max_position_embeddings
    for number, prompt in enumerate(prompts, 1):
        count = len(tokenizer(prompt).input_ids)
        if count + max_new_tokens > held:
            raise UserError(
                f"prompt {number} of {len(prompts)} has {count} tokens: with {max_new_tokens} for its answer that is "
                f"more than the {held} that the model can hold; shorten it, or lower max_new_tokens"
            )


def _generate_batch(
    model, tokenizer, asked: list[tuple[str, int]], max_new_tokens: int, stop: tuple[str, ...], sampling
) -> list[Generated]:
    """One result for each (prompt, number of the answer)."""
    ids, mask, cache = _read(model, tokenizer, [prompt for prompt, _ in asked], once=sampling is not None)
    answers = _Answers(ids.shape[1])
    answers.rows = written = [[] for _ in asked]  # those of rows that go on, and all
    answers.draw = sampling and Draw(sampling, asked, max_new_tokens)
    stretch = max_new_tokens if cache is None else STRETCH
    for done in range(0, max_new_tokens, stretch):
        ids = _write(model, tokenizer, ids, mask, cache, min(stretch, max_new_tokens - done), answers, stop)
        going = [place for place, row in enumerate(answers.read(ids)) if _goes_on(tokenizer, row, stop)]
        if cache is None or not going:
            break
        if len(going) < len(ids):  # or rows that ended would be computed until the last one ends
            places = torch.tensor(going)
            answers.keep(going)
            cache.batch_select_indices(places)
            ids, mask = ids[places], mask[places]
        mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
    return [_cut(tokenizer, row, stop) for row in written]


def _read(model, tokenizer, prompts: list[str], once: bool):
    """(ids (B, T), mask (B, T), cache that may know their beginnings); `once`: on a CPU equal prompts are read once."""
    distinct = list(dict.fromkeys(prompts)) if once else prompts
    rows = tokenizer(distinct).input_ids
    known, cache = read_shared_prefix(model, rows, min(map(len, rows)) - 1)
    rests = tokenizer.pad({"input_ids": [row[known:] for row in rows]}, padding_side="left", return_tensors="pt")
    prefix = torch.tensor([row[:known] for row in rows], dtype=torch.long)  # (B, P)
    ids = torch.cat([prefix, rests.input_ids], 1).to(model.device)  # (B, T), padded after what is shared
    mask = torch.cat([torch.ones_like(prefix), rests.attention_mask], 1).to(model.device)  # (B, T)
    cache = roomy_cache() if cache is None else cache
    if once:
        places = torch.tensor([distinct.index(prompt) for prompt in prompts])  # (answers,)
        read_for_all(model, ids, mask, cache, known, places)
        ids, mask = ids[places], mask[places]
    return ids, mask, cache


def _write(model, tokenizer, ids, mask, cache, at_most: int, answers: "_Answers", stop: tuple[str, ...]):
    """`ids` (B, T) and up to `at_most` tokens more, (B, T + new); `cache` may know all but one."""
    return model.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=cache,
        max_new_tokens=at_most,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=end_tokens(tokenizer),
        logits_processor=[_NoLoop(answers), *([answers.draw] if answers.draw else [])],
        stopping_criteria=[_AnswerEnds(tokenizer, stop, answers)] if stop else None,
    )


def _goes_on(tokenizer, row: list[int], stop: tuple[str, ...]) -> bool:
    return _end(tokenizer, row) is None and _stop_place(_text(tokenizer, row), stop) is None


def _end(tokenizer, tokens: list[int]) -> int | None:
    """Where the first end token stands."""
    ends = set(end_tokens(tokenizer))
    return next((place for place, token in enumerate(tokens) if token in ends), None)


class _Answers:
    """The tokens that each row has written, copied from the device once: a step's in one transfer for all rows."""

    draw: Draw | None = None

    def __init__(self, width: int):
        self.width, self.rows = width, []

    def keep(self, places: list[int]) -> None:
        self.rows = [self.rows[place] for place in places]
        if self.draw:
            self.draw.keep(places)

    def read(self, ids) -> list[list[int]]:  # (B, T + new)
        if ids.shape[1] > self.width:
            new = ids[:, self.width :].tolist()  # (B, new since the last call)
            self.rows = self.rows or [[] for _ in new]
            for row, tokens in zip(self.rows, new, strict=True):
                row.extend(tokens)
            self.width = ids.shape[1]
        return self.rows


class _NoLoop:
    """Bars the token that would write the same LOOP tokens a second time in one answer; the prompt may be repeated.

    As transformers' NoRepeatNGramLogitsProcessor does, which looks through the whole text at every step.
    """

    def __init__(self, answers: _Answers):
        self.answers, self.known = answers, 0  # tokens of a row
        self.followers = defaultdict(set)  # (row, its LOOP - 1 tokens) -> what it wrote after them

    def __call__(self, ids, scores):  # (B, T + new), (B, V)
        rows = self.answers.read(ids)
        self._remember(rows)
        ends = ((b, *row[1 - LOOP :]) for b, row in enumerate(rows))
        barred = [(end[0], token) for end in ends if end in self.followers for token in self.followers[end]]
        if not barred:
            return scores
        places = torch.tensor(barred, device=scores.device)  # (barred, 2)
        return scores.index_put(places.unbind(1), scores.new_tensor(-math.inf))  # (B, V)

    def _remember(self, rows: list[list[int]]) -> None:
        for b, row in enumerate(rows):
            for place in range(max(self.known, LOOP - 1), len(row)):
                self.followers[b, *row[place - LOOP + 1 : place]].add(row[place])
        self.known = max(map(len, rows), default=0)


class _AnswerEnds:
    """Rows that wrote a stop string after their first word. transformers' `stop_strings` would end an answer that
    begins with a line break before it said anything.

    Looks at the last tokens only. Where they hold a stop string, or a part of a character, the whole answer decides.
    """

    def __init__(self, tokenizer, stop: tuple[str, ...], answers: _Answers):
        self.tokenizer, self.stop, self.answers = tokenizer, stop, answers
        self.known, self.tails, self.ended = 0, [], []
        self.reach = max(len(string.encode()) for string in stop) + 4  # tokens of a byte each; a character has up to 4
        # special tokens show nothing; twice, since a decoder may drop the space before the first word
        self.shows = functools.cache(lambda token: _text(tokenizer, [token, token]) != "")

    def __call__(self, ids, scores, **kwargs):  # (B, T + new)
        rows = self.answers.read(ids)
        self.tails = self.tails or [deque(maxlen=self.reach) for _ in rows]
        self.ended = self.ended or [False] * len(rows)
        for b, row in enumerate(rows):
            new = [token for token in row[self.known :] if self.shows(token)]
            if new and not self.ended[b]:
                self.tails[b].extend(new)
                self.ended[b] = self._ends(row, self.tails[b])
        self.known = len(rows[0])
        return torch.tensor(self.ended, device=ids.device)  # (B,)

    def _ends(self, row: list[int], tail: Iterable[int]) -> bool:
        text = _text(self.tokenizer, list(tail))
        if not any(sign in text for sign in (*self.stop, "\ufffd")):
            return False
        return _stop_place(_text(self.tokenizer, row), self.stop) is not None


def _text(tokenizer, tokens) -> str:
    return tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def before_stop(text: str, stop: tuple[str, ...]) -> str:
    """The text up to the first stop string after its first word."""
    return text[: _stop_place(text, stop)]


def _stop_place(text: str, stop: tuple[str, ...]) -> int | None:
    """Where the first stop string after the leading white space begins."""
    lead = len(text) - len(text.lstrip())
    places = [text.index(string, lead) for string in stop if string in text[lead:]]
    return min(places, default=None)


def _cut(tokenizer, tokens: list[int], stop: tuple[str, ...]) -> Generated:
    end = _end(tokenizer, tokens)
    tokens = [token for token in tokens[:end] if token != tokenizer.pad_token_id]
    text = _text(tokenizer, tokens)
    answer = before_stop(text, stop)  # shorter: the model wrote past its answer, and what follows may be padding
    ended = end is not None and answer == text
    return Generated(answer, len(tokens) + ended, ended)


def tokens_per_second(results: list[Generated], seconds: float) -> float:
    return sum(result.tokens for result in results) / seconds


class Timer:
    """`with Timer() as timer: ...; timer.seconds`."""

    def __enter__(self) -> "Timer":
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_) -> None:
        self.seconds = time.perf_counter() - self.start
