"""Two processes train as one does: every row once, the same model and metrics, and rank 0 alone writes."""

import ast
import json
import os
import subprocess
import sys
from collections import Counter

import nbformat
import pytest
import torch
from safetensors.torch import load_file

from llmft_helpers import processes
from llmft_helpers.__main__ import main
from llmft_helpers.data.corpora import load_problems
from llmft_helpers.data.prompts import LeetcodeTask
from llmft_helpers.errors import UserError
from llmft_helpers.profiles import PRESETS, load_profile
from llmft_helpers.runs import ROOT


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    """(batches come out even, the last batch is short); the short one in its own outputs."""
    folder = tmp_path_factory.mktemp("profiles")
    text = (PRESETS / "tiny.toml").read_text(encoding="utf-8")
    (folder / "even.toml").write_text(text, encoding="utf-8")
    (folder / "uneven.toml").write_text(text.replace("train_rows = 12", "train_rows = 9"), encoding="utf-8")
    return folder / "even.toml", folder / "uneven.toml"


@pytest.fixture(scope="module")
def two(profiles, tmp_path_factory):
    """(outputs, what rank 0 and rank 1 noted) of `train translation` and `train leetcode` in two processes."""
    folder = tmp_path_factory.mktemp("two")
    even, uneven = map(str, profiles)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [str(ROOT / "tests" / "launched.py"), str(folder), "train", "translation", even]
    done = subprocess.run(
        [*launch, *script, "train", "leetcode", uneven],
        env=dict(os.environ, LLMFT_OUTPUTS=str(folder / "outputs"), OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)),
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "outputs", [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one(profiles, outputs):
    """Outputs of `train translation` in this process."""
    assert main(["train", "translation", "--profile", str(profiles[0])]) == 0
    return outputs / "even" / "translation"


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory, outputs):
    """Results of `train translation` in both directions, on few rows, in this process."""
    path = tmp_path_factory.mktemp("both") / "both.toml"
    text = (PRESETS / "tiny.toml").read_text(encoding="utf-8").replace("train_rows = 32", "train_rows = 4")
    path.write_text(text.replace("shots = 2", 'shots = 2\ndirection = "both"'), encoding="utf-8")
    assert main(["train", "translation", "--profile", str(path)]) == 0
    return outputs / "both" / "translation"


ARMS = {"base", "base_few_shot", "tuned"}
RUN = {"training", "rows", "provenance"}
TRANSLATION = {*ARMS, *RUN, "bleu_p_value", "bleu_p_value_ar", "bleu_p_value_few_shot", "reference_language"}
CODE = {*ARMS, *RUN, "pass_p_value", "best_constant_share", "left_out", "isolation"}


@pytest.mark.parametrize("name", ["02_translation_lora", "03_leetcode_lora"])
def test_notebooks_take_the_steps_that_train_takes(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(cells)) if isinstance(node, ast.Call)]
    steps = ("read_data", "load_model", "make_trainer", "score_untuned", "train", "score_tuned", "save")
    assert {f"experiment.{step}" for step in steps} <= set(calls)


def test_one_process_and_two_save_the_metrics_of_the_contract(two, one, both_ways):
    def saved(folder) -> dict:
        return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))

    assert set(saved(both_ways)) == {*TRANSLATION, "tuned_en_es"}
    assert set(saved(one)) == set(saved(two[0] / "even" / "translation")) == TRANSLATION
    assert set(saved(two[0] / "uneven" / "leetcode")) == CODE
    forth, back = saved(both_ways)["tuned"], saved(both_ways)["tuned_en_es"]
    assert set(back) == set(forth) and back["perplexity"] != forth["perplexity"]  # other questions


def test_an_adapter_finds_the_profile_file_it_was_trained_with(one, profiles, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LLMFT_PROFILE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("Hola.\n\nAdiós.\n", encoding="utf-8")
    adapter, merged, text = str(one / "adapter"), str(tmp_path / "merged"), str(tmp_path / "in.txt")
    assert json.loads((one / "adapter" / "llmft.json").read_text())["profile"] == str(profiles[0])
    assert main(["export", "--adapter", adapter, "--output", merged]) == 0
    capsys.readouterr()
    for model in (["--adapter", adapter], ["--model", merged]):
        assert main(["translate", *model, "--input", text]) == 0
        assert len(capsys.readouterr().out.split("\n")) == 4


def test_every_row_is_trained_on_once(two, profiles):
    _, ranks = two
    task, train = LeetcodeTask(), load_problems(load_profile(str(profiles[1]))).train
    texts = [(task.prompt(row), task.completion(row)) for row in train]
    # one token a character, and the end token
    expected = Counter(f"{completion}<end>" for prompt, completion in texts if len(prompt + completion) < 1024)
    seen = Counter(text for rank in ranks for batch in rank["batches"]["leetcode"] for text in batch)
    assert seen.pop("") == -len(expected) % 4 > 0  # what fills the last batch of four is not scored
    assert seen == expected and len(expected) > 4
    for rank in ranks:
        assert [len(batch) for batch in rank["batches"]["translation"]] == [4] * 4  # half of 32 rows in batches of 8


def test_the_same_adapter_and_losses_as_one_process(two, one):
    folder = two[0] / "even" / "translation"
    ours, theirs = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (one, folder))
    assert ours.keys() == theirs.keys()
    moved = torch.cat([ours[key].float().flatten() for key in ours if "lora_B" in key])  # B starts at zero
    apart = torch.cat([(ours[key].float() - theirs[key].float()).flatten() for key in ours if "lora_B" in key])
    assert apart.norm() < 0.02 * moved.norm()
    first, second = (json.loads((path / "metrics.json").read_text()) for path in (one, folder))
    assert second["training"]["tokens"] == first["training"]["tokens"]
    for ours, theirs in zip(first["training"]["history"], second["training"]["history"], strict=True):
        assert theirs == pytest.approx(ours, rel=2e-3)


def test_metrics_cover_all_test_rows_once(two, one):
    folder = two[0] / "even" / "translation"
    first, second = (json.loads((path / "metrics.json").read_text()) for path in (one, folder))
    assert second["provenance"]["processes"] == 2 and first["provenance"]["processes"] == 1
    speed = "generated_tokens_per_second"
    for arm in ("base", "base_few_shot"):  # the untrained model is the same one: so are its numbers
        assert {k: v for k, v in second[arm].items() if k != speed} == {
            k: pytest.approx(v, rel=1e-6) if isinstance(v, float) else v for k, v in first[arm].items() if k != speed
        }
    assert second["tuned"]["perplexity"] == pytest.approx(first["tuned"]["perplexity"], rel=2e-3)
    rows = [[json.loads(line)["id"] for line in (path / "predictions.jsonl").open()] for path in (one, folder)]
    assert rows[0] == rows[1] and len(set(rows[0])) == 12
    code = json.loads((two[0] / "uneven" / "leetcode" / "metrics.json").read_text())
    assert sum(code["tuned"]["verdicts"].values()) == code["rows"]["test"]


def test_rank_0_alone_writes(two):
    _, (main_rank, other) = two
    names = {path.rsplit("/", 1)[-1] for path in main_rank["written"]}
    assert {"metrics.json", "predictions.jsonl", "manifest.json", "adapter"} <= names
    assert other["written"] == []


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr(processes, "count", lambda: 3)
    trainer = SimpleNamespace(args=SimpleNamespace(per_device_train_batch_size=8))
    with pytest.raises(UserError, match="batch_size = 8 cannot be shared by 3 processes"):
        processes.fill_last_batch(trainer)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_accelerate_takes_the_example_configurations(name):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    path = str(ROOT / "docs" / f"accelerate-{name}.yaml")
    config = load_config_from_file(path)
    words = ["--config_file", path, "-m", "llmft_helpers", "train", "translation"]
    options, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert options.module and options.num_processes == config.num_processes == 2
    assert options.use_fsdp == (name == "fsdp") and options.multi_gpu == (name == "ddp")
