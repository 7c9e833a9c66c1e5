"""Training: only completions are scored, only LoRA moves, the same seed gives the same run."""

import dataclasses

import pytest
import torch

from llmft_helpers import models, training
from llmft_helpers.errors import UserError
from llmft_helpers.profiles import TrainSettings
from llmft_helpers.prompts import TranslationTask, training_rows

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
    trainer = make(fresh, profile, rows, tmp_path, dataclasses.replace(SETTINGS, epochs=6.0))
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    result = training.fine_tune(trainer)
    for name, parameter in trainer.model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == ("lora_" in name), name
    losses = [entry["validation_loss"] for entry in result["history"] if "validation_loss" in entry]
    assert losses[-1] < losses[0]
    assert result["steps"] == 6 * 3
    per_epoch = sum(training.token_count(trainer.processing_class, row) for row in rows)
    assert result["tokens"] == pytest.approx(6 * per_epoch)


def test_same_seed_same_run(profile, rows, tmp_path):
    results = []
    for _ in range(2):
        trainer = make(models.load_base_model(profile.model), profile, rows, tmp_path)
        training.fine_tune(trainer)
        results.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad]))
    assert torch.equal(*results)


def test_rows_that_do_not_fit_are_counted_and_left_out(fresh, profile, rows, tmp_path):
    model, tokenizer = fresh
    limit = min(training.token_count(tokenizer, row) for row in rows)
    kept, too_long = training.drop_too_long(tokenizer, rows, limit)
    assert len(kept) == 1 and too_long == len(rows) - 1
    with pytest.raises(UserError, match="raise it in the profile"):
        training.make_trainer(model, tokenizer, rows, rows, SETTINGS, 5, tmp_path, 1)


def test_a_loss_that_is_no_number_stops_with_advice():
    with pytest.raises(UserError, match="lower learning_rate"):
        training._history([{"step": 3, "loss": float("nan")}])


def test_number_of_steps():
    assert training.total_steps(33, SETTINGS) == 34  # two epochs of 17 batches
    assert training.total_steps(33, dataclasses.replace(SETTINGS, max_steps=7)) == 7
