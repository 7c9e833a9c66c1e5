"""The GPT of notebook 01, lifted out of it: what it computes, what it costs, and what it does with odd input."""

import copy
import math
import sys

import pytest
import torch
from lifting import lift
from torch.utils._python_dispatch import TorchDispatchMode

from llmft_helpers.errors import UserError
from llmft_helpers.profiles import CharGptSettings

TEXT = "¿Dónde está el río?\nWhere is the river?\n\n" * 20 + "class Solution:\n    def f(self): return 1\n\n" * 20


@pytest.fixture(scope="module")
def notebook():
    """The notebook's definitions, products in float32 so that equal means equal."""
    lifted = lift("01_char_gpt")
    assert lifted.Linear.compute == torch.float32
    return lifted


@pytest.fixture(scope="module")
def tokenizer(notebook):
    return notebook.make_tokenizer(TEXT)


def make(notebook, tokenizer, trained=True, context=32):
    """A small model; `trained` ones get random weights everywhere, since zeros would hide most mistakes."""
    torch.manual_seed(0)
    model = notebook.GPT(tokenizer.size, layers=2, heads=2, width=32, context=context)
    if trained:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def settings(**changes):
    values = {
        "layers": 2, "heads": 2, "width": 32, "context": 32, "batch_size": 4, "seconds": 1e6, "max_steps": 8,
        "learning_rate": 1e-2, "characters": 10**6,
    }  # fmt: skip
    return CharGptSettings(**values | changes)


@pytest.fixture(scope="module")
def model(notebook, tokenizer):
    return make(notebook, tokenizer)


def random_ids(tokenizer, *size):
    return torch.randint(tokenizer.size, size, generator=torch.Generator().manual_seed(1))


# attention and model


@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (1, 9)])
def test_attention_by_hand_equals_the_fused_one(notebook, queries, keys):
    q, k, v = torch.randn(3, 2, 4, keys, 8, generator=torch.Generator().manual_seed(0))
    by_hand = notebook.attention_by_hand(q, k, v)[:, :, -queries:]
    torch.testing.assert_close(notebook.attend(q[:, :, -queries:], k, v), by_hand, atol=1e-5, rtol=0)


def test_attention_weights_sum_to_one_over_the_past(notebook):
    q, k = torch.randn(2, 1, 1, 6, 4, generator=torch.Generator().manual_seed(0))
    v = torch.eye(6).view(1, 1, 6, 6)
    weights = notebook.attention_by_hand(q, k, v)[0, 0]
    torch.testing.assert_close(weights.sum(-1), torch.ones(6))
    assert weights.triu(1).abs().max() == 0 and (weights.tril() > 0).sum() == 21


@pytest.mark.parametrize("position", [0, 1, 7, 30, 31])
def test_a_later_character_never_changes_an_earlier_logit(model, tokenizer, position):
    ids = random_ids(tokenizer, 1, 32)
    changed = ids.clone()
    changed[0, position] = (ids[0, position] + 1) % tokenizer.size
    with torch.inference_mode():
        before, after = model(ids)[0], model(changed)[0]
    torch.testing.assert_close(before[:position], after[:position], atol=0, rtol=0)
    assert (before[position] - after[position]).abs().max() > 1e-3


def test_every_position_reaches_the_last_logit(model, tokenizer):
    ids = random_ids(tokenizer, 1, 32)
    with torch.inference_mode():
        last = model(ids)[0, -1]
        for position in range(32):
            changed = ids.clone()
            changed[0, position] = (ids[0, position] + 1) % tokenizer.size
            assert not torch.equal(model(changed)[0, -1], last), position


def test_rotation_keeps_lengths_and_depends_on_distance_only(notebook):
    turns = notebook.rotary_turns(32, 8)
    a, b = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).expand(2, 1, 1, 32, 8)
    turned_a, turned_b = notebook.rotate(a, turns), notebook.rotate(b, turns)
    torch.testing.assert_close(turned_a.norm(dim=-1), a.norm(dim=-1))
    products = (turned_a @ turned_b.transpose(-2, -1))[0, 0]
    torch.testing.assert_close(products.diagonal(3), products.diagonal(3)[:1].expand(29), atol=1e-5, rtol=0)
    assert (products[5, 3] - products[5, 4]).abs() > 1e-3


def test_group_rows_name_the_characters_that_end_at_a_position(notebook):
    ids = torch.tensor([[5, 6, 7, 5, 6, 7, 6, 7]])
    rows = notebook.group_rows(ids)
    assert rows.shape == (1, 8, notebook.LONGEST_GROUP - 1)
    pairs, triples = rows[0, :, 0], rows[0, :, 1]
    assert pairs[2] == pairs[5] == pairs[7] and pairs[1] == pairs[4] != pairs[2] != pairs[6]
    assert triples[2] == triples[5] != triples[7]
    assert rows.min() >= 0 and rows.max() < notebook.GROUP_ROWS


def test_group_rows_are_spread_over_the_table(notebook):
    ids = torch.cartesian_prod(torch.arange(100), torch.arange(100), torch.arange(10))  # 100,000 different triples
    used = len(notebook.group_rows(ids)[:, 2, 1].unique())
    rows = notebook.GROUP_ROWS  # throwing 100,000 balls into so many boxes at random fills this share of them:
    assert used / rows == pytest.approx(1 - math.exp(-100_000 / rows), rel=0.03)


def test_an_embedding_is_the_sum_of_character_and_groups(notebook, model, tokenizer):
    ids, embedding = random_ids(tokenizer, 2, 9), model.embedding
    table, expected = embedding.groups.weight, embedding.characters.weight[ids].clone()
    for b in range(2):
        for t in range(9):
            for row in notebook.group_rows(ids)[b, t].tolist():
                expected[b, t] += table[row]
    mean, deviation = expected.mean(-1, keepdim=True), expected.var(-1, keepdim=True, correction=0).sqrt()
    with torch.inference_mode():
        torch.testing.assert_close(embedding(ids), (expected - mean) / deviation, atol=1e-4, rtol=0)


def test_groups_are_left_out_in_training_only(notebook, tokenizer):
    model, ids = make(notebook, tokenizer), random_ids(tokenizer, 4, 32)
    with torch.inference_mode():
        assert torch.equal(model(ids), model(ids))
        model.train()
        assert not torch.equal(model(ids), model(ids))
        model.embedding.groups.weight.zero_()
        assert torch.equal(model(ids), model(ids))  # nothing else is left out
        notebook.evaluate(model, tokenizer, [("code", TEXT[:40])])
    assert not model.training


@pytest.mark.parametrize("shape", [(60, 1, 16), (111, 3, 48)])
def test_the_parameter_formula_is_the_count(notebook, shape):
    vocabulary, layers, width = shape
    model = notebook.GPT(vocabulary, layers, heads=2, width=width, context=16)
    assert sum(p.numel() for p in model.parameters()) == notebook.parameter_formula(*shape)


def test_loss_at_start_is_that_of_guessing_evenly(notebook, tokenizer):
    model = make(notebook, tokenizer, trained=False)
    with torch.inference_mode():
        loss = notebook.loss_of(model, random_ids(tokenizer, 4, 33)).item()
    assert loss == pytest.approx(math.log(tokenizer.size), rel=0.02)


def test_a_width_that_the_heads_do_not_divide_is_refused(notebook):
    with pytest.raises(UserError, match=r"width = 30 .* heads = 4"):
        notebook.GPT(50, layers=1, heads=4, width=30, context=16)


# training


def test_overfits_one_batch(notebook, tokenizer):
    run = notebook.Run(make(notebook, tokenizer, trained=False), 1e-2, seed=0)
    windows = torch.tensor(tokenizer.encode(TEXT[:200])).unfold(0, 33, 40)
    for _ in range(150):
        notebook.train_step(run, windows, batch_size=8, factor=1.0)
    assert notebook.loss_of(run.model.eval(), windows).item() < 0.05


def test_resume_is_bit_exact(notebook, tokenizer, tmp_path):
    windows = notebook.all_windows(torch.tensor(tokenizer.encode(TEXT), dtype=torch.int32), 32)

    def new_run(seed):
        torch.manual_seed(seed)
        return notebook.Run(make(notebook, tokenizer, trained=False), 1e-2, seed)

    budget = settings(max_steps=26)
    straight = new_run(1)
    notebook.train(straight, windows, budget, check=lambda run: None)
    first = new_run(1)
    notebook.train(first, windows, budget, check=lambda run: None, until=0.5)
    assert first.progress["step"] == 13  # between two entries of the history
    notebook.save(notebook.run_state(first), tmp_path / "last.pt")
    second = new_run(2)  # another seed: everything must come from the checkpoint
    notebook.load_run_state(second, torch.load(tmp_path / "last.pt"))
    notebook.train(second, windows, budget, check=lambda run: None)
    assert straight.progress["step"] == second.progress["step"] == 26
    expected, state = notebook.run_state(straight), notebook.run_state(second)
    for part in ("model", "generator"):
        torch.testing.assert_close(state[part], expected[part], atol=0, rtol=0)
    for ours, theirs in zip(state["optimizers"], expected["optimizers"], strict=True):
        torch.testing.assert_close(ours["state"], theirs["state"], atol=0, rtol=0)
    losses = [[entry["loss"] for entry in run.progress["history"]] for run in (straight, second)]
    assert len(losses[0]) == 2 and losses[0] == losses[1]
    assert list(tmp_path.iterdir()) == [tmp_path / "last.pt"]


def test_a_checkpoint_that_cannot_be_written_is_one_message_and_leaves_the_old_one(notebook, tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    notebook.save({"good": 1}, path)

    def full(state, partial):
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(notebook.torch, "save", full)
    with pytest.raises(UserError, match=r"last\.pt \(No space left on device\): free some space"):
        notebook.save({"good": 2}, path)
    assert torch.load(path) == {"good": 1} and list(tmp_path.iterdir()) == [path]


def test_training_lowers_the_loss_checks_ten_times_and_stops_on_the_step(notebook, tokenizer):
    windows = notebook.all_windows(torch.tensor(tokenizer.encode(TEXT), dtype=torch.int32), 32)
    run = notebook.Run(make(notebook, tokenizer, trained=False), 1e-2, seed=0)
    checks = []
    notebook.train(run, windows, settings(max_steps=60), check=lambda run: checks.append(run.progress["step"]))
    assert len(checks) == notebook.CHECKS and checks[-1] == run.progress["step"] == 60
    losses = [entry["loss"] for entry in run.progress["history"]]
    assert len(losses) == 6 and losses[-1] < losses[0] / 2


def test_the_budget_in_seconds_ends_training_too(notebook, tokenizer):
    windows = notebook.all_windows(torch.tensor(tokenizer.encode(TEXT), dtype=torch.int32), 32)
    run = notebook.Run(make(notebook, tokenizer, trained=False), 1e-2, seed=0)
    notebook.train(run, windows, settings(seconds=0.3, max_steps=10**6), check=lambda run: None)
    assert 0.3 <= run.progress["seconds"] < 5


def test_the_learning_rate_warms_up_and_ends_at_zero(notebook):
    assert 0 < notebook.rate_factor(0.0) < notebook.rate_factor(notebook.WARM_UP) == 1
    assert notebook.rate_factor(0.5) < notebook.rate_factor(0.3) and notebook.rate_factor(1.0) == 0


def test_every_parameter_has_one_optimizer(notebook, model):
    optimizers = notebook.make_optimizers(model, 1e-3)
    owned = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())


def training_windows(notebook, tokenizer):
    return notebook.all_windows(torch.tensor(tokenizer.encode(TEXT), dtype=torch.int32), 32)


@pytest.mark.parametrize("first_bad", [1, 7, 23])
def test_a_loss_that_is_not_a_number_stops_the_run_before_anything_is_saved(notebook, tokenizer, first_bad):
    run, steps, seen = notebook.Run(make(notebook, tokenizer), 1e-2, 0), [], []
    stack = run.stack

    def spoiled(*stream):
        steps.append(stack(*stream))
        return steps[-1] * (math.nan if len(steps) >= first_bad else 1)

    run.stack = spoiled
    with pytest.raises(UserError, match=r"the loss became nan by step \d+: lower learning_rate"):
        notebook.train(run, training_windows(notebook, tokenizer), settings(max_steps=60), check=seen.append)
    assert first_bad <= len(steps) < first_bad + notebook.LOG_EVERY
    assert len(seen) == (first_bad - 1) // 6  # a check every 6 steps, none with a loss that is not a number


class ReadsOfTheHost(TorchDispatchMode):
    """Counts the numbers that are taken out of tensors: on a GPU each is a wait."""

    reads = 0

    def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
        self.reads += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **kwargs or {})


def test_losses_are_read_when_they_are_logged_and_before_a_check(notebook, tokenizer, monkeypatch):
    run, losses = notebook.Run(make(notebook, tokenizer, trained=False), 1e-2, 0), []
    step = notebook.train_step
    monkeypatch.setattr(notebook, "train_step", lambda *a: losses.append(step(*a)) or losses[-1])
    with ReadsOfTheHost() as host:
        budget = settings(max_steps=60)
        notebook.train(run, training_windows(notebook, tokenizer), budget, lambda run: None, until=0.9)
    assert len(losses) == 54 and host.reads == 5 + 9  # entries, checks
    logged = [entry["loss"] for entry in run.progress["history"]]
    assert logged == [sum(loss.item() for loss in losses[i : i + 10]) / 10 for i in range(0, 50, 10)]


def test_a_compiled_stack_trains_like_the_plain_one(notebook, tokenizer, monkeypatch):
    """What a GPU compiles; `loss_of` as a whole cannot be: the table's sparse gradient stops it."""
    monkeypatch.setitem(sys.modules, notebook.__name__, notebook)  # the compiler looks it up there
    windows, losses = training_windows(notebook, tokenizer), []
    for backend in (None, "aot_eager"):
        run = notebook.Run(make(notebook, tokenizer, trained=False), 1e-2, 0)
        if backend:
            run.stack = torch.compile(run.stack, backend=backend, fullgraph=True)
        torch.manual_seed(0)
        losses.append([notebook.train_step(run, windows, 4, 1.0).item() for _ in range(5)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[0][-1] < losses[0][0]


def test_nothing_stays_of_compiling_ahead(notebook, tokenizer):
    run, windows = notebook.Run(make(notebook, tokenizer), 1e-2, 0), training_windows(notebook, tokenizer)
    before = copy.deepcopy(notebook.run_state(run))
    notebook.compile_ahead(run, windows, 4)
    after = notebook.run_state(run)
    for part in ("model", "losses", "generator", "dropout"):
        torch.testing.assert_close(after[part], before[part], atol=0, rtol=0)
    assert after["progress"] == before["progress"] and not any(o.state for o in run.optimizers)
    assert all(parameter.grad is None for parameter in run.model.parameters())


def test_only_a_gpu_compiles(notebook):
    compiled = notebook.faster(len, torch.device("cuda"))
    assert notebook.faster(len, torch.device("cpu")) is len is not compiled


# text in


def test_tokenizer_round_trip_and_unknown_characters(notebook, tokenizer):
    assert tokenizer.decode(tokenizer.encode("¿Dónde?\n")) == "¿Dónde?\n"
    assert tokenizer.encode("漢a") == [0, tokenizer.numbers["a"]]
    assert tokenizer.decode([0]) == "\ufffd"
    once = notebook.make_tokenizer("aabbz")
    assert once.alphabet == ["a", "b"] and once.encode("z") == [0]


def test_windows_are_a_view_and_batches_are_windows(notebook):
    ids = torch.arange(100, dtype=torch.int32)
    windows = notebook.all_windows(ids, 8)
    assert windows.shape == (92, 9) and windows.data_ptr() == ids.data_ptr()
    batch = notebook.draw_batch(windows, 50, torch.Generator().manual_seed(0))
    assert batch.shape == (50, 9) and batch.dtype == torch.int64
    assert (batch - batch[:, :1]).eq(torch.arange(9)).all() and len(batch[:, 0].unique()) > 20
    assert len(notebook.all_windows(ids[:9], 8)) == 1


def test_a_corpus_shorter_than_a_context_is_refused(notebook):
    with pytest.raises(UserError, match=r"has 8 characters, a window of context = 8 needs 9"):
        notebook.all_windows(torch.arange(8), 8)


def test_empty_corpora_are_refused(notebook, model, tokenizer):
    for documents, cap in (([], 100), ([("code", "")], 100), ([("code", "x" * 50)], 10)):
        with pytest.raises(UserError, match="no training text"):
            notebook.whole_documents(documents, cap)
    with pytest.raises(UserError, match="nothing to score"):
        notebook.evaluate(model, tokenizer, [])


def test_small_domains_are_repeated_round_by_round(notebook):
    documents = [("a", "x" * 40), ("b", "y" * 10), ("a", "z" * 23), ("b", "w" * 11)]  # 63 and 21 characters
    small = [documents[1], documents[3]]
    assert notebook.balanced(documents) == documents + small + small
    assert notebook.balanced(documents[:1]) == documents[:1]


def test_documents_stay_whole_under_the_cap(notebook):
    documents = [("a", "x" * 40), ("b", "y" * 70), ("c", "z" * 20)]
    assert notebook.whole_documents(documents, 100) == [documents[0], documents[2]]


# scores


def reference_nats(model, tokenizer, text, history=0.5):
    """Every character scored alone, from the window that the rule of the notebook gives it."""
    ids = torch.tensor(tokenizer.encode("\n" + text))
    T = min(model.context, len(text))
    before = math.floor(T * history)
    starts = sorted({*range(0, len(text) - T, T - before), len(text) - T})
    nats = []
    for place in range(len(text)):
        start = next(s for s in reversed(starts) if s == 0 or s + before <= place)
        logits = model(ids[None, start : place + 1])[0, -1]
        nats.append(-logits.log_softmax(-1)[ids[place + 1]].item())
        assert place - start >= min(place, before) - 1 and place - start < T
    return torch.tensor(nats, dtype=torch.float64)


@pytest.mark.parametrize("history", [0.5, 7 / 8])
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 47, 48, 49, 100])
def test_every_character_is_scored_once_with_its_share_of_a_context(notebook, model, tokenizer, length, history):
    text = TEXT[5 : 5 + length]
    with torch.inference_mode():
        expected = reference_nats(model, tokenizer, text, history)
    for batch_size in (1, 32):
        nats = notebook.character_nats(model, tokenizer, text, history, batch_size)
        torch.testing.assert_close(nats, expected, atol=1e-4, rtol=0)


def test_unknown_characters_are_charged(notebook, model, tokenizer):
    text = TEXT[:60]
    spoiled = text[:-1] + "漢"
    nats = notebook.character_nats(model, tokenizer, spoiled)
    with torch.inference_mode():
        alone = reference_nats(model, tokenizer, spoiled)
    assert tokenizer.unknown_nats == pytest.approx(math.log(0x110000 - 0x800 - tokenizer.size + 1))
    assert nats[-1].item() == pytest.approx(alone[-1].item() + tokenizer.unknown_nats, abs=1e-4)


def test_probabilities_of_all_characters_sum_to_one(notebook, model, tokenizer):
    with torch.inference_mode():
        known = model(torch.tensor([tokenizer.encode("\nab")]))[0, -1].softmax(-1).double()
    others = known[0] * math.exp(-tokenizer.unknown_nats) * (notebook.CODE_POINTS - len(tokenizer.alphabet))
    assert known[1:].sum() + others == pytest.approx(1, abs=1e-6)


def test_domains_add_up(notebook, model, tokenizer):
    documents = [("es", "¿Dónde está?\n\n"), ("code", TEXT[-90:]), ("es", "el río\n\n")]
    scores = notebook.evaluate(model, tokenizer, documents)
    parts = scores["per_domain"]
    assert list(parts) == ["code", "es"]
    assert scores["characters"] == 112 == parts["code"]["characters"] + parts["es"]["characters"]
    nats = sum(part["val_loss"] * part["characters"] for part in parts.values())
    assert scores["val_loss"] == pytest.approx(nats / 112)
    assert scores["perplexity"] == pytest.approx(math.exp(scores["val_loss"]))
    assert scores["bits_per_char"] == pytest.approx(scores["val_loss"] / math.log(2))
    assert parts["es"]["bits_per_byte"] == pytest.approx(parts["es"]["bits_per_char"] * 22 / 26)


# generation


@pytest.mark.parametrize("prompt", ["", "¿Dónde", TEXT[:31], TEXT[:32], TEXT[:300], "漢字 a"])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_cached_generation_equals_uncached(notebook, model, tokenizer, prompt, temperature):
    length = 3 * model.context  # far enough to fill the window more than once
    cached, uncached = (
        notebook.generate(model, tokenizer, prompt, length, count=2, temperature=temperature, cached=flag)
        for flag in (True, False)
    )
    assert cached == uncached and [len(text) for text in cached] == [length, length]


def test_cached_logits_equal_uncached(notebook, model, tokenizer):
    ids = random_ids(tokenizer, 2, 20)
    cache = notebook.Cache()
    with torch.inference_mode():
        pieces = [model(ids[:, a:b], cache) for a, b in ((0, 7), (7, 8), (8, 9), (9, 15), (15, 20))]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), atol=1e-4, rtol=0)


def test_only_the_last_context_of_a_long_prompt_counts(notebook, model, tokenizer):
    long, short = TEXT[:300], TEXT[300 - model.context : 300]
    assert notebook.generate(model, tokenizer, long, 20) == notebook.generate(model, tokenizer, short, 20)


def test_an_empty_prompt_is_a_line_break(notebook, model, tokenizer):
    assert notebook.generate(model, tokenizer, "", 20) == notebook.generate(model, tokenizer, "\n", 20)
    assert notebook.generate(model, tokenizer, "a", 0, count=2) == ["", ""]


def test_unknown_is_never_written(notebook, tokenizer):
    model = make(notebook, tokenizer, trained=False)  # untrained: all characters equally likely
    (text,) = notebook.generate(model, tokenizer, "漢", 600, temperature=1.0)
    assert "\ufffd" not in text and len(set(text)) > tokenizer.size / 2


def test_top_k_and_temperature(notebook, model, tokenizer):
    greedy = notebook.generate(model, tokenizer, "a", 30, temperature=0)
    assert notebook.generate(model, tokenizer, "a", 30, top_k=1, temperature=2.0) == greedy
    assert notebook.generate(model, tokenizer, "a", 30, top_k=10**6) == notebook.generate(model, tokenizer, "a", 30)
    one, two = notebook.generate(model, tokenizer, "a", 30, count=2, temperature=1.0)
    assert one != two
    assert notebook.generate(model, tokenizer, "a", 30, seed=1) != notebook.generate(model, tokenizer, "a", 30, seed=2)


# what is counted about samples


def test_documents_are_cut_where_the_answer_begins_and_others_are_passed_over(notebook, model, tokenizer, monkeypatch):
    notebook.model, notebook.tokenizer = model, tokenizer
    monkeypatch.setattr(notebook, "generate", lambda *a, **k: ["Where?\nand on", "Where"])
    documents = [("es", "¿Dónde?\nWhere is it?\n\n"), ("es", "no line break"), ("code", "Add.\n\ndef f(): pass\n\n")]
    assert notebook.ask(documents, "code") == []  # no method in it
    first, second = notebook.ask(documents, "es")
    assert (first["prompt"], first["wanted"], first["written"]) == ("¿Dónde?\n", "Where is it?", "Where?")
    assert first["ended"] and not second["ended"]


def test_muon_takes_the_steps_of_pytorchs(notebook):
    """PyTorch's rounds to bfloat16 inside."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((24, 8), (8, 24), (16, 16), (24, 8))]
    ours, theirs = ([torch.nn.Parameter(w.clone()) for w in start] for _ in range(2))
    settings = {"lr": 0.1, "momentum": 0.95, "nesterov": True, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}
    optimizers = notebook.Muon(ours, 0.1), torch.optim.Muon(theirs, **settings)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        assert (one - other).norm() < 0.02 * (one - before).norm()


def test_an_orthogonalized_matrix_is_about_as_strong_in_all_directions(notebook):
    matrix = torch.randn(40, 12, generator=torch.Generator().manual_seed(1)) * torch.logspace(-2, 0, 12)
    assert torch.linalg.svdvals(matrix).max() > 50 * torch.linalg.svdvals(matrix).min()
    # beside one a thousand times as large
    strengths = torch.linalg.svdvals(notebook.orthogonalized(torch.stack([matrix, 1000 * matrix])))  # (2, 12)
    assert strengths.min() > 0.3 and strengths.max() < 1.3
    assert notebook.orthogonalized(torch.zeros(2, 3, 2)).abs().sum() == 0
