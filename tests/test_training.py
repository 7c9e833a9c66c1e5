"""Training: only completions are scored, only LoRA moves, the same seed gives the same run, killed or not."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llmft_helpers.data.prompts import TranslationTask, training_rows
from llmft_helpers.errors import UserError
from llmft_helpers.models import loading as models
from llmft_helpers.profiles import TrainSettings, load_profile
from llmft_helpers.runs import ROOT, cache_dir
from llmft_helpers.storage import write_json
from llmft_helpers.training import delete_checkpoints, mask_check
from llmft_helpers.training import fine_tuning as training

SETTINGS = TrainSettings(epochs=2.0, learning_rate=5e-3, batch_size=2, evaluations=2)


@pytest.fixture(scope="module")
def rows(pairs):
    return training_rows(TranslationTask(), pairs)


def make(fresh, profile, rows, folder, settings=SETTINGS):
    model, tokenizer = fresh
    model = models.add_lora(model, profile.lora, profile.seed)
    return training.make_trainer(model, tokenizer, rows, rows[:2], settings, 256, folder, profile.seed)


def test_only_completion_and_end_token_are_scored(fresh, profile, rows, tmp_path):
    trainer = make(fresh, profile, rows, tmp_path)
    tokenizer = trainer.processing_class
    seen = set()
    for batch in trainer.get_train_dataloader():
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            scored = tokenizer.decode(ids[labels != -100])
            prompt = tokenizer.decode(ids[labels == -100]).replace("<pad>", "")
            seen.add((prompt, scored))
    assert seen == {(row["prompt"], row["completion"] + "<end>") for row in rows}


def test_lora_moves_the_base_does_not_and_the_loss_falls(fresh, profile, rows, tmp_path):
    trainer = make(fresh, profile, rows, tmp_path, dataclasses.replace(SETTINGS, epochs=20.0))
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    result = training.fine_tune(trainer)
    for name, parameter in trainer.model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == ("lora_" in name), name
    losses = [entry["validation_loss"] for entry in result["history"] if "validation_loss" in entry]
    assert losses[-1] < losses[0]
    assert result["steps"] == 20 * 3
    per_epoch = sum(token_count(trainer.processing_class, row) for row in rows)
    assert result["tokens"] == pytest.approx(20 * per_epoch)


def token_count(tokenizer, row: dict) -> int:
    """Of the whole text, and its end token."""
    return len(tokenizer(row["prompt"] + row["completion"]).input_ids) + 1


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])


def test_in_the_validation_loss_every_token_weighs_the_same(fresh, profile, rows, tmp_path):
    known, unknown = rows[0] | {"completion": " a" * 30}, rows[1]
    settings = dataclasses.replace(SETTINGS, epochs=20.0, learning_rate=2e-2, batch_size=1, evaluations=1)
    model = models.add_lora(fresh[0], profile.lora, profile.seed)
    trainer = training.make_trainer(model, fresh[1], [known], [known, unknown], settings, 256, tmp_path, profile.seed)
    history = training.fine_tune(trainer)["history"]
    losses, counts = [], []
    for row in (known, unknown):
        prompt, answer = (fresh[1](row[key], return_tensors="pt").input_ids for key in ("prompt", "completion"))
        ids = torch.cat([prompt, answer, torch.tensor([[fresh[1].eos_token_id]])], dim=1)
        labels = ids.masked_fill(torch.arange(ids.shape[1]) < prompt.shape[1], -100)
        with torch.no_grad():
            losses.append(model.eval()(input_ids=ids, labels=labels).loss.item())
        counts.append(answer.shape[1] + 1)
    wanted = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert history[-1]["validation_loss"] == pytest.approx(wanted, rel=1e-2)
    assert sum(losses) / len(losses) > 1.2 * wanted  # a mean over rows, or over batches of one, is something else


def test_same_seed_same_run(profile, rows, tmp_path):
    results = []
    for _ in range(2):
        trainer = make(models.load_base_model(profile.model), profile, rows, tmp_path)
        training.fine_tune(trainer)
        results.append(weights(trainer))
    assert torch.equal(*results)


# Three epochs of three batches with checks after steps 4 and 9, so that a run goes on in the middle of an epoch;
# dropout makes the state of the random number generator matter.
INTERRUPTED = TrainSettings(epochs=3.0, learning_rate=5e-3, batch_size=2, evaluations=2)
KILLED = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_training import interrupted
from transformers import TrainerCallback
from llmft_helpers.training import fine_tuning as training

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)

trainer = interrupted(json.loads(sys.argv[2]), Path(sys.argv[3]))
trainer.add_callback(Kill())
training.fine_tune(trainer)
"""


def interrupted(rows, folder):
    profile = load_profile("tiny")
    model, tokenizer = models.load_base_model(profile.model)
    model = models.add_lora(model, dataclasses.replace(profile.lora, dropout=0.2), profile.seed)
    return training.make_trainer(model, tokenizer, rows, rows[:2], INTERRUPTED, 256, folder, profile.seed)


def test_a_killed_run_goes_on_and_ends_like_an_undisturbed_one(rows, tmp_path, capsys):
    whole = interrupted(rows, tmp_path / "whole")
    expected = training.fine_tune(whole)
    assert expected["resumed_from"] == 0 and expected["steps"] == 9

    environment = dict(os.environ, PYTHONPATH=str(ROOT), LLMFT_OUTPUTS=str(cache_dir().parent))
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), json.dumps(rows), str(folder)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-4"]

    resumed = interrupted(rows, folder)
    torch.rand(5)  # another past of the global generator
    result = training.fine_tune(resumed)
    assert result["resumed_from"] == 4 and "going on from step 4" in capsys.readouterr().out
    assert torch.equal(weights(resumed), weights(whole))
    for name in ("history", "steps", "kept_step", "tokens", "rows_too_long"):
        assert result[name] == expected[name], name

    # Killed again after training, before the adapter was saved: what was trained last is not lost.
    again = training.fine_tune(interrupted(rows, folder))
    assert again["resumed_from"] == 4 and again["history"] == expected["history"]
    delete_checkpoints(resumed)
    assert not list(folder.glob("checkpoint-*"))


def test_only_a_whole_checkpoint_of_the_same_run_is_gone_on_with(fresh, profile, rows, tmp_path):
    trainer = make(fresh, profile, rows, tmp_path)
    key = trainer.checks.key
    marked = {"key": key, "files": ["weights"]}
    for step, mark in ((2, marked), (10, marked), (11, marked | {"files": ["deleted"]}),
                       (12, marked | {"key": "of other data"}), (14, None)):  # fmt: skip
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "weights").touch()
        if mark:
            write_json(tmp_path / f"checkpoint-{step}" / training.MARK, mark | {"step": step})
    assert training.last_checkpoint(tmp_path, key) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]
    keys = {key}
    other = dataclasses.replace(SETTINGS, learning_rate=1e-3)
    for arguments in ((rows[1:], rows[:2], SETTINGS, 256, 1), (rows, rows, SETTINGS, 256, 1),
                      (rows, rows[:2], other, 256, 1), (rows, rows[:2], SETTINGS, 255, 1),
                      (rows, rows[:2], SETTINGS, 256, 2)):  # fmt: skip
        keys.add(training._run_key(trainer.model, *arguments))
    trainer.model.active_peft_config.lora_alpha += 1
    keys.add(training._run_key(trainer.model, rows, rows[:2], SETTINGS, 256, 1))
    trainer.model.loftq = True
    keys.add(training._run_key(trainer.model, rows, rows[:2], SETTINGS, 256, 1))
    trainer.model.int8_products = True
    keys.add(training._run_key(trainer.model, rows, rows[:2], SETTINGS, 256, 1))
    trainer.model.precision = "4-bit but v_proj"
    keys.add(training._run_key(trainer.model, rows, rows[:2], SETTINGS, 256, 1))
    assert len(keys) == 10


def overfitted(profile, rows, folder):
    """A trainer whose validation rows have other answers to the same questions: what is learned makes them unlikely."""
    model, tokenizer = models.load_base_model(profile.model)
    model = models.add_lora(model, profile.lora, profile.seed)
    answers = [row["completion"] for row in rows]
    wrong = [row | {"completion": answer[::-1]} for row, answer in zip(rows, answers[1:] + answers[:1], strict=True)]
    settings = TrainSettings(epochs=40.0, learning_rate=2e-2, batch_size=2, evaluations=20)
    return training.make_trainer(model, tokenizer, rows, wrong, settings, 256, folder, profile.seed)


def adapter_types(model) -> set[torch.dtype]:
    return {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}


def test_training_stops_when_the_validation_loss_rises_and_keeps_the_best_adapter(profile, rows, tmp_path):
    from transformers import TrainerCallback

    trainer = overfitted(profile, rows, tmp_path / "whole")
    assert adapter_types(trainer.model) == {torch.float32}  # small steps would be lost in 16 bits
    result = training.fine_tune(trainer)
    checks = {entry["step"]: entry["validation_loss"] for entry in result["history"] if "validation_loss" in entry}
    steps = sorted(checks)
    assert result["steps"] == steps[-1] < 40 * 3
    assert result["kept_step"] == min(checks, key=checks.get) == steps[-1 - training.PATIENCE]
    assert trainer.evaluate()["eval_loss"] == checks[result["kept_step"]]
    assert adapter_types(trainer.model) == {trainer.model.dtype}

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == steps[-2] + 1:
                raise KeyboardInterrupt

    # Interrupted after the first of the two checks without a new lowest: the count goes on, the best one is found.
    stopped = overfitted(profile, rows, tmp_path / "stopped")
    stopped.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        training.fine_tune(stopped)
    resumed = overfitted(profile, rows, tmp_path / "stopped")
    again = training.fine_tune(resumed)
    assert again["resumed_from"] == steps[-2]
    assert (again["history"], again["kept_step"]) == (result["history"], result["kept_step"])
    assert torch.equal(weights(resumed), weights(trainer))


def test_a_loss_that_is_no_number_stops_at_its_step_with_advice(fresh, profile, rows, tmp_path):
    from transformers import TrainerCallback

    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            if state.global_step == 2:
                with torch.no_grad():
                    next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))

    trainer = make(fresh, profile, rows, tmp_path)
    trainer.add_callback(Poison())
    with pytest.raises(UserError, match="the loss became nan at step 3: lower learning_rate"):
        training.fine_tune(trainer)
    assert trainer.state.global_step == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_while_a_checkpoint_is_written_is_one_line(fresh, profile, rows, tmp_path):
    from transformers import TrainerCallback

    class Full(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            torch.save(torch.zeros(100_000), "/dev/full")

    trainer = make(fresh, profile, rows, tmp_path)
    trainer.add_callback(Full())
    with pytest.raises(UserError, match="cannot write a checkpoint in .*: free some space and run again"):
        training.fine_tune(trainer)


def test_the_mask_check_shows_whole_examples_padded_or_one_after_the_other(fresh, profile, rows, tmp_path):
    trainer = make(fresh, profile, rows, tmp_path)
    padded = next(iter(trainer.get_train_dataloader()))
    shown = mask_check(trainer, 2).splitlines()
    scored = {repr(row["completion"] + "<end>"): row for row in rows}
    assert len(scored.keys() & shown) == 2 and "<pad>" not in "".join(shown)
    kept = padded["attention_mask"].bool()
    lengths = kept.sum(1)
    flat = {"input_ids": padded["input_ids"][kept][None], "labels": padded["labels"][kept][None]}
    filled = {name: torch.nn.functional.pad(values, (0, 3)) for name, values in flat.items()}
    trainer.get_train_dataloader = lambda: [filled | {"packed_seq_lengths": lengths}]
    assert mask_check(trainer, 2).splitlines() == shown


def test_prompt_tokens_are_scored_on_demand(fresh, profile, rows, tmp_path):
    trainer = make(fresh, profile, rows, tmp_path, dataclasses.replace(SETTINGS, loss_on_prompt=True))
    batch = next(iter(trainer.get_train_dataloader()))
    assert torch.equal(batch["labels"] != -100, batch["attention_mask"] == 1)


def test_both_directions_train_on_every_pair_twice(fresh, profile, pairs, tmp_path):
    trainer = make(fresh, profile, training_rows(TranslationTask("both"), pairs), tmp_path)
    tokenizer = trainer.processing_class
    seen = {tokenizer.decode(ids).replace("<pad>", "") for batch in trainer.get_train_dataloader()
            for ids in batch["input_ids"]}  # fmt: skip
    for pair in pairs:
        assert f"Spanish: {pair['es']}\nEnglish: {pair['en']}<end>" in seen
        assert f"English: {pair['en']}\nSpanish: {pair['es']}<end>" in seen
    assert len(seen) == 2 * len(pairs)
    assert training.fine_tune(trainer)["steps"] == 2 * len(pairs)  # two epochs of pairs x 2 / 2 batches


def test_rows_that_do_not_fit_are_counted_and_left_out(fresh, profile, rows, tmp_path):
    model, tokenizer = fresh
    shortest = min(rows, key=lambda row: token_count(tokenizer, row))
    limit = token_count(tokenizer, shortest)
    kept, fit = training.examples(tokenizer, rows, False, limit)
    assert [len(one["input_ids"]) for one in kept] == [limit] and fit == [shortest]
    tuned = models.add_lora(model, profile.lora, 1)
    trainer = training.make_trainer(tuned, tokenizer, rows, rows, SETTINGS, limit, tmp_path, 1)
    assert trainer.rows_too_long == len(rows) - 1 and trainer.validation_rows == [shortest]
    with pytest.raises(UserError, match="raise it in the profile"):
        training.make_trainer(model, tokenizer, rows, rows, SETTINGS, 5, tmp_path, 1)


def test_number_of_steps():
    assert training.total_steps(33, SETTINGS) == 34  # two epochs of 17 batches
    assert training.total_steps(33, dataclasses.replace(SETTINGS, max_steps=7)) == 7


def test_a_batch_in_parts_is_the_same_batch(profile, rows, tmp_path, monkeypatch):
    histories = []
    for cells in (training.ATTENTION_CELLS, 1):
        monkeypatch.setattr(training, "ATTENTION_CELLS", cells)
        trainer = make(models.load_base_model(profile.model), profile, rows, tmp_path)
        assert trainer.args.gradient_accumulation_steps == (1 if cells > 1 else SETTINGS.batch_size)
        histories.append([e["validation_loss"] for e in training.fine_tune(trainer)["history"] if len(e) == 2
                          and "validation_loss" in e])  # fmt: skip
    assert len(histories[0]) == len(histories[1]) == SETTINGS.evaluations
    assert histories[0] == pytest.approx(histories[1], rel=0.01)


def test_long_rows_make_smaller_parts():
    assert training.batch_parts(16, 120) == 1
    assert training.batch_parts(4, 512) == 1
    assert training.batch_parts(6, 512) == 2
    assert training.batch_parts(4, 1000) == 4
    assert training.batch_parts(3, 5000) == 3
