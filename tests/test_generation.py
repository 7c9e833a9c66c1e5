"""Generation: batches change nothing, answers end where they should."""

import random
from dataclasses import replace

import pytest
import torch
from tiny_gguf import write

from llmft_helpers.errors import UserError
from llmft_helpers.models import generation
from llmft_helpers.models.embedded import character_tokenizer
from llmft_helpers.models.generation import Generated, generate
from llmft_helpers.models.gguf_files import GgufFile
from llmft_helpers.models.gguf_tokenizer import read_tokenizer
from llmft_helpers.models.loading import load_base_model, set_special_tokens
from llmft_helpers.models.sampling import Sampling


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
    generation._refuse_too_long(model, tokenizer, asked[:2], 12)
    with pytest.raises(UserError, match=f"prompt 3 of 3 has {held - 10} tokens"):
        generation._refuse_too_long(model, tokenizer, [*asked[:2], asked[3]], 12)
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
    cut = generation._cut(tokenizer, tokens, ("\n",))
    assert (cut.text, cut.ended) == (text, ended)
    assert cut.tokens == len(body) + ("<end>" in written)


def test_padding_after_a_stop_string_is_not_counted_as_an_end_token(tmp_path):
    """Qwen's padding ends texts too; rows of a batch are filled with it."""
    tokenizer = read_tokenizer(GgufFile(write(tmp_path / "qwen2.gguf", "qwen2")))
    row = tokenizer("the house\n").input_ids
    alone = generation._cut(tokenizer, row, ("\n",))
    assert alone == Generated("the house", len(row), False)
    assert generation._cut(tokenizer, [*row, *[tokenizer.pad_token_id] * 2], ("\n",)) == alone


def test_an_answer_begins_with_the_line_break_that_its_prompt_was_asked_with(base, monkeypatch):
    model, tokenizer = base
    prompts = ['    """A."""', "Spanish: no\nEnglish:"]
    expected = generate(model, tokenizer, ['    """A."""\n', prompts[1]], 8)
    monkeypatch.setattr(generation, "as_asked", lambda _, prompt: prompt + "\n" * prompt.endswith('"""'))
    first, second = generate(model, tokenizer, prompts, 8)
    assert (first.text, second) == (f"\n{expected[0].text}", expected[1])
    drawn = generate(model, tokenizer, prompts, 8, sampling=Sampling(0.8, 0.95, 2, 1))
    assert [one.text[:1] == "\n" for one in drawn[:2]] == [True, True]


@pytest.mark.parametrize("end", ("<|end|>", "<|endoftext|>"))
def test_an_instruct_model_s_answer_ends_at_its_base_s_end_token_too(profile, tmp_path, end):
    """Qwen's tokenizer names the end of a turn, and its model ends a plain text with the other one, its padding."""
    path = write(tmp_path / "qwen2.gguf", "qwen2")
    model, tokenizer = load_base_model(replace(profile.model, name=str(path)))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|endoftext|>")
    script = iter(tokenizer("Spanish").input_ids + tokenizer.convert_tokens_to_ids([end]) + [5] * 20)

    def as_written(module, inputs, logits):  # (B, 1, V)
        return torch.nn.functional.one_hot(torch.tensor(next(script)), logits.shape[-1]).float().expand_as(logits)

    handle = model.get_output_embeddings().register_forward_hook(as_written)
    (answer,) = generate(model, tokenizer, ["the house"], 12)
    handle.remove()
    assert (answer.text, answer.ended) == ("Spanish", True)
    assert answer.tokens == len(tokenizer("Spanish").input_ids) + 1


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU a batch stays whole")
def test_rows_that_ended_leave_the_batch_and_the_others_write_what_they_would(base, monkeypatch):
    model, tokenizer = base
    prompts = ["Uno a", "Dos de b", "Tres c", "Cuatro por d", "Cinco e"]  # a random model goes on as its prompt ends
    free = [answer.text.lstrip()[1:] for answer in generate(model, tokenizer, prompts, 12)]
    written = dict.fromkeys("".join(free))
    stop = next(character for character in written if any(character not in text for text in free))
    single = [generate(model, tokenizer, [prompt], 12, (stop,))[0] for prompt in prompts]
    sizes, library = [], model.generate
    monkeypatch.setattr(generation, "STRETCH", 2)
    monkeypatch.setattr(
        model, "generate", lambda input_ids, **kwargs: sizes.append(len(input_ids)) or library(input_ids, **kwargs)
    )
    assert generate(model, tokenizer, prompts, 12, (stop,)) == single
    assert len(prompts) == sizes[0] > sizes[-1] > 0 and sizes == sorted(sizes, reverse=True) and len(sizes) == 6


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


def test_checkpointing_of_gradients_is_as_before_after_an_answer_of_unsloths(base, prompts, monkeypatch):
    """Unsloth's `generate` ends with `for_inference` in force where the model was in evaluation mode."""
    from unsloth import FastLanguageModel

    model, tokenizer = base
    answer = model.generate

    def as_on_a_card(*arguments, **named):
        FastLanguageModel.for_inference(model)
        return answer(*arguments, **named)

    def flags():
        return [m.gradient_checkpointing for m in model.modules() if hasattr(m, "gradient_checkpointing")]

    monkeypatch.setattr(model, "generate", as_on_a_card)
    before = flags()
    model.gradient_checkpointing_enable()
    model.train()
    try:
        wanted = flags()
        assert any(wanted)
        generate(model, tokenizer, prompts[:1], 2)
        assert flags() == wanted and model.training
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
    assert flags() == before


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


# what is looked at in a step of decoding, against whole texts


def byte_level_tokenizer():
    """Llama 3's and SmolLM2's kind: a token is a run of bytes, which may end within a character."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ĊĊ", "Ġno", "#ĠP", "ĊPro", "blem", "m:ĠÃ"]
    backend = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")


def byte_fallback_tokenizer():
    """Gemma's and Llama 2's kind: a word carries its space; bytes stand for what has no token."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁no", "▁#", "\n", "Problem", "▁Pro", "blem:"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")


TOKENIZERS = [character_tokenizer, byte_level_tokenizer, byte_fallback_tokenizer]
STOPS = [("\n",), ("\n# Problem", "\nProblem:"), (" no", "é"), ("o \n", "m: é\n")]


def random_answers(tokenizer, stop, rows=40, tokens=48, seed=0):
    """Random tokens, half of them out of stop strings, accents, white space and special tokens: (B, T)."""
    draw = random.Random(seed)
    wanted = [
        *tokenizer("".join(stop) + " \né€", add_special_tokens=False).input_ids,
        *(
            token
            for token, piece in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
            if len(piece) > 1
        ),
    ]
    every = range(len(tokenizer) + 3)  # the last three mean nothing: models pad their vocabulary
    few = [[draw.choice(draw.choice((wanted, every))) for _ in range(tokens)] for _ in range(rows)]
    spelled = tokenizer(f" no{stop[-1]}", add_special_tokens=False).input_ids
    for row in few[::2]:
        place = draw.randrange(tokens - len(spelled))
        row[place : place + len(spelled)] = spelled
        row.insert(place + len(spelled) // 2, tokenizer.pad_token_id)  # shows nothing
    return torch.tensor([row[:tokens] for row in few])


class WholeTextStops:
    """Whether each row holds a stop string after its first word, by all of its tokens."""

    def __init__(self, tokenizer, stop: tuple[str, ...]):
        self.tokenizer, self.stop = tokenizer, stop

    def __call__(self, ids, scores):  # (B, T)
        texts = [generation._text(self.tokenizer, row) for row in ids]
        return torch.tensor([generation._stop_place(text, self.stop) is not None for text in texts])  # (B,)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("make", TOKENIZERS)
def test_the_last_tokens_end_an_answer_where_the_whole_text_does(make, stop):
    tokenizer = make()
    ids = random_answers(tokenizer, stop)
    ends = generation._AnswerEnds(tokenizer, stop, generation._Answers(0))
    whole, ended = WholeTextStops(tokenizer, stop), torch.zeros(len(ids), dtype=torch.bool)
    for length in range(1, ids.shape[1] + 1):
        ended |= whole(ids[:, :length], None)  # as `generate` keeps them
        assert torch.equal(ends(ids[:, :length], None), ended), length
    assert ended.float().mean() > 0.2


def test_the_last_tokens_are_all_that_is_decoded(monkeypatch):
    tokenizer, stop = character_tokenizer(), ("\n# Problem",)
    ids = torch.tensor([tokenizer("a line\n# Proof\n" * 40).input_ids])
    ends, decoded, text = generation._AnswerEnds(tokenizer, stop, generation._Answers(0)), [], generation._text
    monkeypatch.setattr(generation, "_text", lambda t, tokens: decoded.append(len(tokens)) or text(t, tokens))
    assert not any(ends(ids[:, :length], None).item() for length in range(1, ids.shape[1] + 1))
    assert max(decoded) == len(stop[0]) + 4


@pytest.mark.parametrize("start", [0, 7])
def test_the_loop_guard_bars_what_transformers_does(start):
    """The reference sees the answers alone, as the guard is to."""
    from transformers import NoRepeatNGramLogitsProcessor

    draw, reference = torch.Generator().manual_seed(0), NoRepeatNGramLogitsProcessor(generation.LOOP)
    few = torch.randint(5, (8, start + 400), generator=draw)  # (B, T)
    for b, period in enumerate((1, 2, 5, 23, 24, 25, 60)):  # one row stays random
        few[b, start + 100 : start + 300] = few[b, start + 100 : start + 100 + period].repeat(200)[:200]
    guard, barred = generation._NoLoop(generation._Answers(start)), 0
    for length in range(start, few.shape[1] + 1):
        scores = torch.randn(8, 6, generator=draw)
        expected = reference(few[:, start:length], scores.clone())
        assert torch.equal(guard(few[:, :length], scores), expected), length
        barred += expected.isinf().sum().item()
    assert barred > 500 and not expected[7].isinf().any()


def test_a_step_of_decoding_is_one_transfer_for_all_rows(base, prompts, monkeypatch):
    model, tokenizer = base
    read = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: read.append(tuple(tensor.shape)) or tolist(tensor))
    generate(model, tokenizer, prompts, 9, ("\n# Problem",))
    assert read == [(len(prompts), 1)] * 9
