"""Answers and scores while a model trains, and the trackers that are told of them."""

import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sacrebleu
import torch
from transformers import TrainerCallback

from llmft_helpers.data.prompts import LeetcodeTask, TranslationTask, training_rows
from llmft_helpers.errors import UserError
from llmft_helpers.models import loading as models
from llmft_helpers.models.generation import Generated, generate
from llmft_helpers.profiles import load_profile
from llmft_helpers.reports import plots
from llmft_helpers.runs import ROOT, outputs_root
from llmft_helpers.training import fine_tuning, tracking, watching
from llmft_helpers.training.watching import Watch


def settings_for(profile, **changes):
    train = dataclasses.replace(profile.translation.train, epochs=2.0, batch_size=2, scored_rows=4, **changes)
    return dataclasses.replace(profile.translation, train=train)


def make(profile, pairs, folder, watch=Watch, tracking_keys=None, **changes):
    settings = settings_for(profile, **changes)
    model, tokenizer = models.load_base_model(profile.model)
    model = models.add_lora(model, profile.lora, profile.seed)
    rows = training_rows(TranslationTask(), pairs)
    watched = watch and watch(TranslationTask(), pairs, settings)
    return fine_tuning.make_trainer(
        model, tokenizer, rows, rows[:2], settings.train, 256, folder, profile.seed, watched, tracking_keys
    )


def adapter_of(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for name, p in trainer.model.named_parameters() if "lora_" in name])


def test_the_score_is_sacrebleus_of_the_first_rows(base, profile, pairs):
    model, tokenizer = base
    settings, task = settings_for(profile), TranslationTask()
    seen = Watch(task, pairs, settings).look(model, tokenizer)
    prompts = [f"Spanish: {pair['es']}\nEnglish:" for pair in pairs[:4]]
    texts = [g.text.strip() for g in generate(model, tokenizer, prompts, settings.max_new_tokens, ("\n",))]
    assert seen["score"] == sacrebleu.corpus_bleu(texts, [[pair["en"] for pair in pairs[:4]]]).score
    assert seen["samples"] == [f"{pair['es']} -> {text}" for pair, text in zip(pairs[:3], texts, strict=False)]


def test_of_code_the_score_is_the_mean_share_of_tests_passed(profile, monkeypatch):
    rows = [
        {"task_id": str(n), "title": f"Double {n}", "entry_point": "double", "starter_code": "def double(n):\n",
         "problem_description": "Return twice n.", "completion": "def double(n):\n    return 2 * n",
         "tests": [{"args": [0], "expected": 0}, {"args": [2], "expected": 4}]}
        for n in (1, 2)
    ]  # fmt: skip
    written = [Generated("\n    return 2 * n", 8, True), Generated("\n    return 0", 4, True)]
    monkeypatch.setattr(watching, "answer_rows", lambda *_: written)
    seen = Watch(LeetcodeTask(), rows, profile.leetcode).look(None, None)
    assert seen["score"] == 0.75  # two of two tests, and one of two
    assert seen["samples"][1].split("\n")[0] == "Double 2: 1 of 2 tests"
    assert "    return 0" in seen["samples"][1]
    untitled = [{key: value for key, value in row.items() if key != "title"} for row in rows]  # as on the hub
    seen = Watch(LeetcodeTask(), untitled, profile.leetcode).look(None, None)
    assert seen["samples"][1].split("\n")[0] == "2: 1 of 2 tests"


def test_watching_changes_nothing_and_is_seen(profile, pairs, tmp_path, capsys):
    alone = make(profile, pairs, tmp_path / "alone", watch=None)
    expected = fine_tuning.fine_tune(alone)
    assert expected["samples"] == [] and not any("bleu" in entry for entry in expected["history"])
    capsys.readouterr()
    watched = make(profile, pairs, tmp_path / "watched")
    result = fine_tuning.fine_tune(watched)
    assert torch.equal(adapter_of(watched), adapter_of(alone))
    assert [entry for entry in result["history"] if "bleu" not in entry] == expected["history"]
    checks = [entry["step"] for entry in result["history"] if "validation_loss" in entry]
    assert [entry["step"] for entry in result["history"] if "bleu" in entry] == checks
    assert [look["step"] for look in result["samples"]] == checks
    assert all(look["seconds"] > 0 and len(look["samples"]) == 3 for look in result["samples"])
    printed = capsys.readouterr().out
    assert all(sample in printed for look in result["samples"] for sample in look["samples"])
    assert "BLEU=" in printed and "validation=" in printed


class Rising(Watch):
    """Scores 30, then 20, while the loss falls."""

    def look(self, model, tokenizer) -> dict:
        scores = {0: 30.0}
        self.rows.append(None)
        return {"score": scores.get(len(self.rows) - 1, 20.0), "samples": [], "seconds": 0.0}


@pytest.mark.parametrize(("keep", "kept_check"), [("loss", 1), ("score", 0)])
def test_the_kept_adapter_has_the_lowest_loss_or_the_best_score(profile, pairs, tmp_path, keep, kept_check):
    def rising(task, rows, settings):
        return Rising(task, [], settings)

    trainer = make(profile, pairs, tmp_path, watch=rising, keep=keep, learning_rate=5e-3)
    result = fine_tuning.fine_tune(trainer)
    losses = {entry["step"]: entry["validation_loss"] for entry in result["history"] if "validation_loss" in entry}
    steps = sorted(losses)
    assert losses[steps[1]] < losses[steps[0]]
    assert result["kept_step"] == steps[kept_check]


def test_keeping_by_score_needs_rows_to_score(profile, pairs, tmp_path):
    settings = settings_for(profile, keep="score")
    train = dataclasses.replace(settings.train, scored_rows=0)
    with pytest.raises(UserError, match=r"train\.scored_rows above 0"):
        fine_tuning.make_trainer(
            None, None, [], [], train, 256, tmp_path, 1, Watch(TranslationTask(), pairs, settings)
        )  # fmt: skip


def test_a_run_that_goes_on_keeps_what_was_seen_before(profile, pairs, tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                raise InterruptedError

    whole = fine_tuning.fine_tune(make(profile, pairs, tmp_path / "whole"))
    stopped = make(profile, pairs, tmp_path / "stopped")
    stopped.add_callback(Stop())
    with pytest.raises(InterruptedError):
        fine_tuning.fine_tune(stopped)
    result = fine_tuning.fine_tune(make(profile, pairs, tmp_path / "stopped"))
    assert result["resumed_from"] == 3
    assert [look["samples"] for look in result["samples"]] == [look["samples"] for look in whole["samples"]]
    assert result["history"] == whole["history"]


def test_the_score_is_a_panel_below_the_losses():
    history = [{"step": 2, "loss": 2.0}, {"step": 2, "validation_loss": 1.6}]
    assert len(plots.loss_figure(history).axes) == 1
    for name, label in (("bleu", "BLEU"), ("tests_passed", "tests passed")):
        axes = plots.loss_figure([*history, {"step": 2, name: 0.5}, {"step": 4, name: 0.75}]).axes[1]
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", label)
        assert [list(line.get_ydata()) for line in axes.lines] == [[0.5, 0.75]]


@pytest.mark.parametrize(
    ("written", "trackers"),
    [('"none"', ()), ('"trackio"', ("trackio",)), ('["wandb", "tensorboard"]', ("wandb", "tensorboard"))],
)
def test_report_to_is_none_a_name_or_a_list(tmp_path, written, trackers):
    text = (ROOT / "llmft_helpers" / "profiles" / "tiny.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(f"report_to = {written}\n{text}", encoding="utf-8")
    assert load_profile(str(tmp_path / "mine.toml")).report_to == trackers


def test_an_unknown_tracker_and_a_missing_one_are_named(profile, tmp_path, monkeypatch):
    text = (ROOT / "llmft_helpers" / "profiles" / "tiny.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(f'report_to = "clearml"\n{text}', encoding="utf-8")
    with pytest.raises(UserError, match="report_to.*tensorboard.*clearml"):
        load_profile(str(tmp_path / "mine.toml"))
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="the package wandb is not installed: pip install wandb"):
        tracking.tracking_arguments(dataclasses.replace(profile, report_to=("wandb",)), "translation")


def test_tensorboard_files_hold_losses_and_scores(profile, pairs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    keys = tracking.tracking_arguments(dataclasses.replace(profile, report_to=("tensorboard",)), "translation")
    result = fine_tuning.fine_tune(make(profile, pairs, tmp_path, tracking_keys=keys))
    [file] = tmp_path.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    for tag, name in (("train/loss", "loss"), ("eval/loss", "validation_loss"), ("eval/bleu", "bleu")):
        logged = [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]
        assert logged == [(entry["step"], entry[name]) for entry in result["history"] if name in entry], tag


TRACKED = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_watching import make
from llmft_helpers.profiles import load_profile
from llmft_helpers.training import fine_tuning, tracking
import dataclasses
import json

profile = dataclasses.replace(load_profile("tiny"), report_to=("trackio",))
keys = tracking.tracking_arguments(profile, "translation")
trainer = make(profile, json.loads(sys.argv[2]), Path(sys.argv[3]), tracking_keys=keys)
Path(sys.argv[4]).write_text(json.dumps(fine_tuning.fine_tune(trainer)["history"]))
"""


def test_trackio_holds_losses_and_scores(pairs, tmp_path):
    environment = dict(
        os.environ, PYTHONPATH=str(ROOT), LLMFT_OUTPUTS=str(outputs_root()), TRACKIO_DIR=str(tmp_path / "trackio")
    )
    saved = tmp_path / "history.json"
    command = [
        sys.executable,
        "-c",
        TRACKED,
        str(Path(__file__).parent),
        json.dumps(pairs),
        str(tmp_path),
        str(saved),
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    [file] = (tmp_path / "trackio").glob("llmft_helpers*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("select run_name, metrics from metrics order by id").fetchall()
    assert {run for run, _ in rows} == {"tiny-translation"}
    logged = [json.loads(metrics) for _, metrics in rows]
    for key, name in (("train/loss", "loss"), ("eval/loss", "validation_loss"), ("eval/bleu", "bleu")):
        found = [(values["train/global_step"], pytest.approx(values[key])) for values in logged if key in values]
        history = json.loads(saved.read_text())
        assert found == [(entry["step"], entry[name]) for entry in history if name in entry], key
