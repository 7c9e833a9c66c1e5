"""Generation: batches change nothing, answers end where they should."""

import pytest
import torch

from llmft_helpers.errors import UserError
from llmft_helpers.models import generation
from llmft_helpers.models.generation import Generated, generate
from llmft_helpers.models.loading import set_special_tokens


@pytest.fixture(scope="module")
def prompts(pairs) -> list[str]:
    return [f"Spanish: {row['es']}\nEnglish:" for row in pairs]


def test_a_batch_of_unequal_prompts_equals_single_rows_token_for_token(base, prompts):
    model, tokenizer = base
    single = [generate(model, tokenizer, [prompt], 12)[0] for prompt in prompts]
    assert generate(model, tokenizer, prompts, 12, batch_size=5) == single
    assert generate(model, tokenizer, prompts, 12, batch_size=2) == single


def test_a_shared_beginning_is_read_once_and_changes_nothing(base, prompts, monkeypatch):
    model, tokenizer = base
    few_shot = [f"{''.join(prompts[:3])}\n\n{prompt}" for prompt in prompts]
    single = [generate(model, tokenizer, [prompt], 12)[0] for prompt in few_shot]
    known, read = [], generation.read_shared_prefix
    monkeypatch.setattr(generation, "read_shared_prefix", lambda *args: known.append(read(*args)) or known[-1])
    assert generate(model, tokenizer, few_shot, 12) == single
    assert [length for length, _ in known] == [len(tokenizer("".join(prompts[:3]) + "\n\nSpanish: ").input_ids)]


def test_prompts_that_are_all_the_same_keep_a_token_to_begin_with(base, prompts):
    model, tokenizer = base
    assert generate(model, tokenizer, prompts[:1] * 3, 12) == generate(model, tokenizer, prompts[:1], 12) * 3


def test_a_prompt_longer_than_the_model_holds_is_named_before_any_work(base, prompts, monkeypatch):
    model, tokenizer = base
    held = model.config.max_position_embeddings
    fits = "a" * (held - 12 - len(tokenizer("").input_ids))
    asked = [prompts[0], fits, fits + "a", fits + "aa"]
    assert generation.too_long(model, tokenizer, asked, 12) == {2: held - 11, 3: held - 10}
    monkeypatch.setattr(model, "generate", None)
    with pytest.raises(UserError, match=f"prompt 3 of 4 has {held - 11} tokens: with 12 for its answer .* the {held}"):
        generate(model, tokenizer, asked, 12)


def test_equals_transformers_greedy_decoding_without_padding(base, prompts):
    model, tokenizer = base
    ids = tokenizer(prompts[0], return_tensors="pt").input_ids
    with torch.no_grad():
        for _ in range(6):
            following = model(input_ids=ids).logits[0, -1].argmax()
            ids = torch.cat([ids, following.view(1, 1)], dim=1)
    expected = tokenizer.decode(ids[0, -6:], skip_special_tokens=True)
    assert generate(model, tokenizer, prompts[:1], 6)[0].text == expected


def test_padding_side_of_the_tokenizer_does_not_matter(base, prompts):
    model, tokenizer = base
    expected = generate(model, tokenizer, prompts, 8)
    tokenizer.padding_side = "left"
    try:
        assert generate(model, tokenizer, prompts, 8) == expected
    finally:
        tokenizer.padding_side = "right"


@pytest.mark.parametrize(
    ("written", "text", "ended"),
    [
        ("Hi.<end>", "Hi.", True),
        ("Hi.\nSpanish: no", "Hi.", False),
        ("\nHi.<end>", "\nHi.", True),  # a line break before the answer does not end it
        ("\n Hi.\nSpanish: no", "\n Hi.", False),
        ("Hi", "Hi", False),
    ],
)
def test_cut_at_end_token_or_stop_string(base, written, text, ended):
    _, tokenizer = base
    body = written.removesuffix("<end>")
    tokens = tokenizer(body).input_ids + (
        [tokenizer.eos_token_id, tokenizer.pad_token_id] if "<end>" in written else []
    )
    cut = generation._cut(tokenizer, tokens, tokenizer.eos_token_id, ("\n",))
    assert (cut.text, cut.ended) == (text, ended)
    assert cut.tokens == len(body) + ("<end>" in written)


@pytest.mark.parametrize("batch_size", (1, 3))
def test_an_answer_that_begins_with_a_line_break_is_heard_out(base, prompts, monkeypatch, batch_size):
    model, tokenizer = base
    script = tokenizer("\nHi.\nand on").input_ids
    forward = model.forward

    def scripted(input_ids=None, **kwargs):  # writes the script, whatever it reads
        output = forward(input_ids=input_ids, **kwargs)
        said = 0 if input_ids.shape[1] > 1 else scripted.said + 1
        scripted.said = said
        output.logits[:, -1, script[min(said, len(script) - 1)]] = 1e4
        return output

    monkeypatch.setattr(model, "forward", scripted)
    answers = generate(model, tokenizer, prompts[:3], len(script), ("\n",), batch_size)
    assert [answer.text for answer in answers] == ["\nHi."] * 3
    assert [answer.tokens for answer in answers] == [len("\nHi.\n")] * 3  # and stops there


def test_out_of_memory_halves_the_batch_and_loses_nothing(base, prompts, monkeypatch, capsys):
    model, tokenizer = base
    expected = generate(model, tokenizer, prompts, 4)
    original = generation._generate_batch
    sizes = []

    def tight(model, tokenizer, batch, *arguments):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no room")
        return original(model, tokenizer, batch, *arguments)

    monkeypatch.setattr(generation, "_generate_batch", tight)
    assert generate(model, tokenizer, prompts, 4, batch_size=5) == expected
    assert sizes[0] == 5 and max(sizes[1:]) == 2
    printed = capsys.readouterr()
    assert "out of memory: going on with batches of 2" in printed.err and printed.out == ""  # that of `translate`


def test_progress_counts_every_prompt(base, prompts):
    seen = []
    generate(*base, prompts, 1, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_pad_token_is_never_the_end_token(base):
    model, tokenizer = base
    tokenizer.pad_token = tokenizer.eos_token
    set_special_tokens(model, tokenizer)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


def test_tokens_per_second():
    assert generation.tokens_per_second([Generated("a", 3, True), Generated("b", 5, False)], 2.0) == 4.0


def test_an_answer_does_not_loop(base, prompts, monkeypatch):
    model, tokenizer = base

    def repeats(tokens: list[int]) -> bool:
        pieces = [tuple(tokens[i : i + generation.LOOP]) for i in range(len(tokens) - generation.LOOP + 1)]
        return len(set(pieces)) < len(pieces)

    inputs = tokenizer(prompts[0], return_tensors="pt")
    start = inputs.input_ids.shape[1]
    plain = model.generate(**inputs, max_new_tokens=300, do_sample=False)[0, start:].tolist()
    assert repeats(plain)
    written = []
    cut = generation._cut
    monkeypatch.setattr(
        generation, "_cut", lambda tokenizer, row, *rest: written.append(row) or cut(tokenizer, row, *rest)
    )
    generate(model, tokenizer, prompts[:1], 300)
    assert len(written[0]) > 2 * generation.LOOP and not repeats(written[0])
