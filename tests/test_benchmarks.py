"""What the benchmarks compute and write from their measurements, on hand-made ones."""

import copy
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from llmft_helpers import device
from llmft_helpers.data.corpora import load_problems
from llmft_helpers.data.prompts import TranslationTask, training_rows
from llmft_helpers.reports import from_tests
from llmft_helpers.runs import ROOT
from llmft_helpers.scoring.metrics import completion_nats, total

sys.path.insert(0, str(ROOT / "benchmarks"))
import char_gpt  # noqa: E402
import full_fine_tuning  # noqa: E402
import gpu_full  # noqa: E402
import grading  # noqa: E402
import lora_throughput  # noqa: E402
import more_problems  # noqa: E402
import readme_table  # noqa: E402
import result_sections  # noqa: E402
import rounding  # noqa: E402
import test_from_tests_sentences  # noqa: E402

CURVE = [(10.0, 3.0), (20.0, 2.0), (30.0, 2.5), (40.0, 1.5)]  # seconds, bits


@pytest.mark.parametrize(
    ("bits", "seconds"),
    [(3.5, 10), (3.0, 10), (2.75, 12.5), (2.0, 20), (1.75, 37.5), (1.5, 40), (1.4, None)],
)
def test_seconds_to_reach_a_loss_are_read_off_the_straight_lines(bits, seconds):
    assert char_gpt.seconds_to_reach(CURVE, bits) == seconds


def test_a_loss_that_was_there_and_went_is_reached_all_the_same():
    assert char_gpt.seconds_to_reach([(10.0, 2.0), (20.0, 2.5), (30.0, 1.9)], 2.2) == 10
    assert char_gpt.seconds_to_reach([(10.0, 2.0)], 2.0) == 10


def test_ours_against_theirs():
    theirs = {"name": "nanoGPT, cpu recipe", "bits_per_char": 1.8, "seconds": 40.0, "test": {"bits_per_char": 2.0},
              "curve": [(10.0, 3.0), (30.0, 2.0), (40.0, 2.25)]}  # fmt: skip
    ours = {"seed": 3, "curve": CURVE, "bits_per_char": 1.35, "test": {"bits_per_char": 1.0}}
    assert char_gpt.compare(theirs, ours) == {
        "seed": 3, "against": "nanoGPT, cpu recipe", "bits_ratio": 0.75, "test_bits_ratio": 0.5,
        "seconds_to_their_loss": 20.0, "time_ratio": 0.5,
    }  # fmt: skip
    never = char_gpt.compare(theirs | {"curve": [(40.0, 1.0)]}, ours)
    assert never["seconds_to_their_loss"] is never["time_ratio"] is None


def test_throughput_is_summed_up_by_medians_and_by_the_median_of_each_rounds_ratio():
    def run(speed, loss):
        same = {"generated_tokens_per_second": 10.0, "peak_memory_gb": 2.0, "seconds_per_epoch": 600 / speed}
        return same | {"tokens_per_second": speed, "validation_loss": loss}

    rounds = [
        {"vendor": run(10.0, 4.0), "ours": run(30.0, 2.0), "int8": run(40.0, 4.0)},  # 3 and 4 times as fast
        {"vendor": run(20.0, 4.0), "ours": run(40.0, 3.0), "int8": run(40.0, 4.0)},  # 2 and 2
        {"vendor": run(60.0, 5.0), "ours": run(60.0, 5.0), "int8": run(90.0, 5.0)},  # 1 and 1.5
    ]
    table = lora_throughput.summary(rounds)
    assert table["vendor"] == run(20.0, 4.0) and table["ours"] == run(40.0, 3.0) and table["int8"] == run(40.0, 4.0)
    assert table["ours / vendor"] == {
        "tokens_per_second": 2.0,
        "generated_tokens_per_second": 1.0,
        "validation_loss": 0.75,
        "peak_memory_gb": 1.0,
        "seconds_per_epoch": 0.5,
    }
    assert table["int8 / vendor"]["tokens_per_second"] == 2.0 and table["int8 / vendor"]["validation_loss"] == 1.0


def gpu_run(speed: float, memory: float) -> dict:
    return {"tokens_per_second": speed, "peak_memory_gb": memory, "generated_tokens_per_second": 1.0,
            "validation_loss": 2.0, "device": "NVIDIA A100", "frozen_parameters": 10**9,
            "trainable_parameters": 10**7}  # fmt: skip


def test_recipes_on_a_card_are_compared_with_the_plain_one_that_keeps_activations_alike():
    one = {"ours": gpu_run(4.0, 8.0), "plain": gpu_run(2.0, 16.0), "ours-checkpointing": gpu_run(3.0, 2.0),
           "plain-checkpointing": gpu_run(1.0, 4.0), "vendor-offloading": gpu_run(2.0, 1.0)}  # fmt: skip
    table = gpu_full.summary([one])
    ratios = {name: (row["speed_against_plain"], row["memory_against_plain"]) for name, row in table.items()}
    assert ratios == {"ours": (2, 0.5), "plain": (1, 1), "ours-checkpointing": (3, 0.5),
                      "plain-checkpointing": (1, 1), "vendor-offloading": (2, 0.25)}  # fmt: skip
    assert "speed_against_plain" not in gpu_full.summary([{"ours": gpu_run(4.0, 8.0)}])["ours"]
    assert set(one) == set(gpu_full.RECIPES)


def test_a_card_without_bfloat16_leaves_out_what_cannot_run_there_and_says_why(monkeypatch):
    assert gpu_full.left_out() == {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "compute_dtype", lambda: torch.float16)
    assert set(gpu_full.left_out()) == {"plain", "plain-checkpointing"}
    assert all("bfloat16" in reason for reason in gpu_full.left_out().values())


def test_the_tables_are_those_of_the_committed_results(tmp_path, monkeypatch):
    folders = ("outputs/demo", "outputs/long", "outputs/coder")
    changed = subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain", "--", *folders], capture_output=True)
    if changed.returncode or changed.stdout:
        pytest.skip(f"{' or '.join(folders)} holds another run than the committed one")
    committed = {path: (ROOT / path).read_text(encoding="utf-8") for path in ("README.md", "docs/results.md")}
    readme, page = tmp_path / "README.md", tmp_path / "results.md"
    readme.write_text(committed["README.md"], encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["readme_table.py", "--readme", str(readme), "--page", str(page)])
    readme_table.main()
    assert readme.read_text(encoding="utf-8") == committed["README.md"], "older than the results: make figures"
    assert page.read_text(encoding="utf-8") == committed["docs/results.md"], "older than the results: make figures"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


def table(text: str) -> dict[str, list[str]]:
    """First cell of each line of a Markdown table -> its other cells."""
    return {cells(line)[0]: cells(line)[1:] for line in text.splitlines() if line.startswith("| ")}


@pytest.fixture
def runs():
    """Results of a demo and of a long run: those that are committed, with Gemma's name and figures that stand out."""
    demo = json.loads((ROOT / "outputs" / "demo" / "results.json").read_text(encoding="utf-8"))
    demo["translation"]["provenance"]["profile"]["model"]["name"] = "gemma-3-270m"
    part = {"problems": 40, "pass_at_1_ci95": [0.1, 0.35], "tests_passed_rate": 0.5, "tests_passed_ci95": [0.4, 0.6]}
    for arm, warm_up in (("base", 0.05), ("base_few_shot", 0.1), ("tuned", 0.2)):
        hard = part | {"problems": 7, "pass_at_1": 0.0}
        demo["leetcode"][arm]["per_difficulty"] = {"Warm-up": part | {"pass_at_1": warm_up}, "Hard": hard}
    long = copy.deepcopy(demo)
    long["translation"]["tuned"]["bleu"], long["translation"]["rows"]["train"] = 99.0, 12_345
    for one in long.values():
        one["provenance"]["seconds"] = {"training": 600.0}
        one["provenance"]["peak_memory_gb"]["host"] = 3.0
    return {"demo": demo, "long": long}


def test_the_tables_show_longer_training_beside_the_demo_and_what_either_cost(runs):
    alone, both = (table(readme_table.gains(some)) for some in ({"demo": runs["demo"]}, runs))
    assert both["translation: BLEU"][:-1] == alone["translation: BLEU"]
    assert both["translation: BLEU"][-1].startswith("99.0 (")
    cost = table(readme_table.costs(runs))["`long`"]
    assert "12,345 pairs" in cost[0] and cost[1:3] == ["40 minutes", "3.0 GB"]


def test_the_readme_shows_warm_up_problems_apart_and_the_page_every_tier(runs):
    short, whole = table(readme_table.summary(runs, {})), table(readme_table.gains(runs))
    solved = [f"{share} (10.0 to 35.0%)" for share in ("5.0%", "10.0%", "20.0%", "20.0%")]
    assert short["code: solved of 40 Warm-up"] == whole["code: solved of 40 Warm-up"] == solved
    assert "code: solved of 7 Hard" in whole and "code: solved of 7 Hard" not in short
    assert "The base is Gemma 3 270M;" in readme_table.summary(runs, {})
    for run in runs.values():
        for arm in ("base", "base_few_shot", "tuned"):
            run["leetcode"][arm]["per_difficulty"] = {}  # problems that do not say how difficult they are
    assert set(table(readme_table.summary(runs, {}))) == set(short) - {"code: solved of 40 Warm-up"}


def test_the_model_that_solves_problems_has_a_table_of_its_own(runs, tmp_path):
    assert readme_table.in_short_of_coder(tmp_path) == ""  # not run
    code = runs["long"]["leetcode"]
    code["provenance"]["profile"]["model"]["name"] = "qwen2.5-coder-1.5b-instruct"
    saved(tmp_path, "results.json", {"leetcode": code})
    short, whole = readme_table.in_short_of_coder(tmp_path), result_sections.coder({"leetcode": code})
    solved = [f"{share} (10.0 to 35.0%)" for share in ("5.0%", "10.0%", "20.0%")]
    assert table(short)["code: solved of 40 Warm-up"] == table(whole)["code: solved of 40 Warm-up"] == solved
    assert "code: solved of 7 Hard" in table(whole) and "code: solved of 7 Hard" not in table(short)
    for text in (short, whole):
        assert "is Qwen2.5-Coder-1.5B-Instruct; 80 problems" in text and "took 10 minutes (" in text
    arms = {
        arm: {"pass_at_1": share, "pass_at_1_ci95": [0.25, 0.75]}
        for arm, share in (("base", 0.5), ("base, few-shot", 0.25), ("base, as published", 0.75), ("tuned", 0.45))
    }
    measured = {"rows": 40, "model": "qwen2.5-coder-1.5b-instruct", "arms": arms}
    saved(tmp_path, "leetcode/humaneval.json", measured)
    line = table(readme_table.in_short_of_coder(tmp_path))["code: solved of HumanEval's first 40"]
    assert line == [f"{share} (25.0 to 75.0%)" for share in ("50.0%", "25.0%", "45.0%")]
    saved(tmp_path, "leetcode/humaneval.json", measured | {"model": "gemma-3-270m"})
    assert "HumanEval" not in readme_table.in_short_of_coder(tmp_path)


def saved(folder, file: str, content: dict) -> None:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(content), encoding="utf-8")


def test_what_was_not_measured_or_is_of_another_base_or_other_rows_is_left_out(runs, tmp_path):
    def bleu(score: float) -> dict:
        return {"bleu": score, "bleu_ci95": [score - 1, score + 1]}

    def shown() -> dict[str, list[str]]:
        elsewhere = readme_table.measured_elsewhere(folders, runs)
        return table(readme_table.beyond(runs, elsewhere) or "")

    folders = {name: tmp_path / name for name in runs}
    assert shown() == {}
    long = {"rows": 500, "model": "gemma-3-270m", "base": bleu(7), "tuned": bleu(40)}
    saved(folders["long"], "translation/tatoeba.json", long)
    title = "translation: BLEU on 500 random Tatoeba pairs"
    assert shown()[title] == ["7.0 (6.0 to 8.0)", "–", "40.0 (39.0 to 41.0)"]
    saved(folders["demo"], "translation/tatoeba.json", {"rows": 500, "model": "gemma-3-270m", "tuned": bleu(30)})
    assert shown()[title] == ["7.0 (6.0 to 8.0)", "30.0 (29.0 to 31.0)", "40.0 (39.0 to 41.0)"]
    saved(folders["demo"], "translation/tatoeba.json", {"rows": 500, "tuned": bleu(30)})  # the base was not noted
    assert shown()[title] == ["7.0 (6.0 to 8.0)", "–", "40.0 (39.0 to 41.0)"]
    saved(folders["demo"], "translation/tatoeba.json", {"rows": 100, "model": "gemma-3-270m", "tuned": bleu(30)})
    assert "translation: BLEU on 100 random Tatoeba pairs" in shown() and title not in shown()
    arms = {arm: {"pass_at_1": 0.5, "pass_at_1_ci95": [0.4, 0.6]} for arm in ("base", "base, as published", "tuned")}
    saved(folders["long"], "leetcode/humaneval.json", {"rows": 164, "model": "gemma-3-270m", "arms": arms})
    half = "50.0% (40.0 to 60.0%)"
    assert shown()["code: solved of HumanEval's first 164"] == [half, half, "–", half]


@pytest.mark.parametrize("change", ["another base", "other test rows", "a notebook missing"])
def test_a_run_that_cannot_stand_beside_the_first_is_left_out(runs, tmp_path, change):
    folders = {name: tmp_path / name for name in runs}
    for name, folder in folders.items():
        saved(folder, "results.json", runs[name])
    assert readme_table.comparable_runs(folders) == runs
    match change:
        case "another base":
            runs["long"]["translation"]["provenance"]["profile"]["model"]["name"] = "embedded"
        case "other test rows":
            runs["long"]["leetcode"]["provenance"]["data"]["test"] = "0123456789ab"
        case _:
            del runs["long"]["comparison"]
    saved(folders["long"], "results.json", runs["long"])
    assert list(readme_table.comparable_runs(folders)) == ["demo"]


def test_the_rounding_table_shows_the_runs_that_the_profile_has():
    model = {"name": "gemma-3-270m", "keep_16bit": []}
    row = {"validation_loss": 1.5, "bleu": 20.0, "bleu_ci95": [18.0, 22.0], "train_rows": 1000, "batch_size": 8}
    rows = [row | {"name": name} for name in ("reference", "rank 8", "16-bit base")]
    ablations = {"rows": rows, "provenance": {"profile": {"name": "demo", "model": model}}}
    text = result_sections.beginnings(ablations)
    assert list(table(text)) == ["rounding", "as in the profile then", "the whole base unrounded"]
    assert "Gemma 3 270M, profile `demo`. 1,000 pairs" in text
    assert result_sections.beginnings(ablations | {"rows": rows[:2]}) is None


def test_the_other_harness_stands_beside_ours():
    about = {"rows": 120, "profile": "demo", "lm_eval_version": "0.4.13", "dtype": "float32", "git_commit": "abc"}
    measured = {
        "translation": about | {"ours": {"bleu": 34.674}, "lm_eval": {"bleu": 34.7}, "same_answers": 119},
        "leetcode": about
        | {"ours": {"tests_passed_rate": 0.1}, "lm_eval": {"tests_passed_rate": 0}, "same_answers": 1},
    }
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result_sections.harness(measured).split("\n")]
    assert lines[2] == ["translation: BLEU", "34.67", "34.70", "119 of 120"]
    assert lines[3] == ["code: tests passed", "10.0%", "0.0%", "1 of 120"]


def test_every_weight_stands_beside_the_adapter_at_the_rate_that_was_chosen():
    run = {"arm": "LoRA, rank 64", "learning_rate": 3e-4, "trainable_parameters": 1_234_567, "seconds": 99.6,
           "memory_gb": 2.25, "validation_loss": 1.2345, "bleu": 30.0, "bleu_ci95": [28.0, 32.0]}  # fmt: skip
    other = run | {"arm": full_fine_tuning.FULL, "learning_rate": 1e-4 / 3, "bleu": 31.0}
    runs = [run | {"learning_rate": rate} for rate in (1e-4, 9e-4)] + [run, other, other | {"learning_rate": 1e-4}]
    about = {"rows": 120, "model": "gemma-3-270m", "device": "a CPU", "git_commit": "abc", "runs": runs}
    text = result_sections.every_weight(about | {"best": [run, other]})
    assert table(text)["LoRA, rank 64"] == ["1,234,567", "0.0003", "1.234", "30.0 (28.0 to 32.0)", "100 s", "2.2 GB"]
    assert table(text)["all weights"][1] == "3.33e-05" and "Gemma 3 270M, 120 pairs" in text and "best of 3" in text
    assert "At the edge of what was tried: all weights. A better" in text
    assert "edge" not in result_sections.every_weight(about | {"best": [run]})


def test_the_results_page_has_a_line_for_every_model_of_notebook_05():
    intervals = {"pass_at_1_ci95": [0.0, 0.05], "tests_passed_ci95": [0.05, 0.15]}
    measured = test_from_tests_sentences.metrics()
    measured |= {arm: measured[arm] | intervals for arm in ("base", "references", "own", "both")}
    measured["kept"] = {"answers": 3, "problems": 2, "as_reference": 1}
    measured["provenance"] = {"profile": {"from_tests": {"kept": 4}}}
    text = result_sections.own_answers(measured)
    lines = table(text)
    assert [*lines][1:] == ["base", "tuned on references", "on own answers", "on both"]
    assert lines["on both"] == ["10.0% (0.0 to 5.0%)", "5.0% (1.0 to 17.0%)", "10.0% (5.0 to 15.0%)", "95%"]
    assert "Of 160 answers to 20 training problems **4** passed every test" in text and "at most 4 to each" in text


def test_the_readme_shows_speed_as_a_ratio_to_the_vendors():
    def run(speed, loss):
        return {"tokens_per_second": speed, "generated_tokens_per_second": 9.0, "peak_memory_gb": 2.0,
                "validation_loss": loss}  # fmt: skip

    ratio = run(3.84, 0.9984)
    table = {"vendor": run(50.0, 2.5), "ours": run(192.0, 2.496), "ours / vendor": ratio}
    one_round = {"vendor": {"dtype": "bfloat16"}, "ours": {"dtype": "float32"}, "int8": {"int8_products": False}}
    text = result_sections.throughput({"table": table, "rounds": [one_round], "device": "a CPU", "git_commit": "abc"})
    assert "192 (3.8x)" in text and "2.496 (0.998x)" in text and "int8_products" not in text
    assert "alone makes" not in text
    rounds = [
        {"vendor": {"dtype": "bfloat16"}, "library": {"dtype": "float32"} | run(100.0, 2.5)}
        | {"ours": {"dtype": "float32", "tokens_per_second": speed, "generated_tokens_per_second": 27.0}}
        for speed in (150.0, 200.0, 160.0)
    ]
    table |= {"library": run(100.0, 2.5), "library / vendor": run(2.0, 1.0)}
    text = result_sections.throughput({"table": table, "rounds": rounds, "device": "a CPU", "git_commit": "abc"})
    assert "| this suite without `llmft_helpers.cpu` |" in text and "100 (2.0x)" in text
    assert text.endswith("`llmft_helpers.cpu` alone makes training 1.6 and generation 3.0 times as fast.")


def test_the_hostile_suite_counts_what_stays_behind(tmp_path, monkeypatch):
    import test_hostile_solutions as suite

    right = {"right": suite.HONEST["right"]}
    monkeypatch.setattr(suite, "CHEATS", {"empty": suite.CHEATS["empty"]})
    monkeypatch.setattr(suite, "HONEST", right)
    counted = grading.measure_hostile()
    assert (counted["cheats"], counted["forged_passes"], counted["unexpected_verdicts"]) == (1, 0, [])
    assert counted["honest_passed"] == "1 of 1" and counted["survivors_and_files"] == []
    monkeypatch.setattr(suite, "TARGETS", (str(tmp_path),))
    (tmp_path / suite.MARK).touch()
    assert grading.measure_hostile()["survivors_and_files"] == [str(tmp_path / suite.MARK)]


def test_held_out_rows_are_spread_over_both_corpora():
    train, held_out = lora_throughput.split_rows(100)
    assert len(train) == 100 and len(held_out) == lora_throughput.HELD_OUT
    texts = [row["prompt"] for row in lora_throughput.rows_of(100 + lora_throughput.HELD_OUT)]
    places = sorted(texts.index(row["prompt"]) for row in held_out)
    assert max(b - a for a, b in zip(places, places[1:], strict=False)) <= 3 and places[-1] >= len(texts) - 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU keeps no unpacked weights")
def test_layers_left_unrounded_answer_like_those_never_rounded_and_are_put_back(fresh, profile, pairs, tmp_path):
    from llmft_helpers.models import loading as models

    kept = replace(profile.model, keep_16bit=("v_proj",))
    rows = training_rows(TranslationTask(), pairs)
    model, tokenizer = models.add_lora(fresh[0], replace(profile.lora, loftq=True), 1).eval(), fresh[1]
    wanted, _ = models.load_base_model(kept)
    wanted = models.add_lora(wanted, replace(profile.lora, loftq=True), 1).eval()
    before = [parameter.clone() for parameter in model.parameters()]
    with safe_open(models.model_path(profile.model) / "model.safetensors", framework="pt") as weights:
        table = rounding.measure(model, tokenizer, rows, weights, ["v_proj"]).set_index("in 16 bits")
    nats = total(completion_nats(wanted, tokenizer, rows))
    assert table["loss"]["v_proj"] == pytest.approx(nats.nats / nats.tokens, rel=1e-5) != table["loss"]["none"]
    assert table["won"]["v_proj"] == table["loss"]["none"] - table["loss"]["v_proj"]
    single = [f"model.layers.{i}.self_attn.v_proj" for i in (0, 1)]
    assert len(table) == 1 + 7 + 2 and table["share"]["v_proj"] == table["share"][single].sum()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_full_fine_tuning_moves_every_weight_and_an_adapter_its_own(profile, pairs, tmp_path):
    corpus = full_fine_tuning.corpora.Corpus({"train": pairs, "validation": pairs[:1], "test": pairs[:1]}, {})
    steps = replace(profile.translation.train, batch_size=1)  # the first one's rate is zero
    profile = replace(profile, translation=replace(profile.translation, train=steps))
    adapter, _, everything = full_fine_tuning.planned(profile)
    assert everything.name == full_fine_tuning.FULL and everything.rates[1] == pytest.approx(adapter.rates[1] / 10)
    for arm in (adapter, everything):
        untouched, _ = full_fine_tuning.load(profile, arm.lora)
        model, _, seconds = full_fine_tuning.train(profile, arm, 0.01, corpus, tmp_path)
        before = dict(untouched.named_parameters())
        moved = {name for name, now in model.named_parameters() if not torch.equal(now, before[name].to(now.dtype))}
        assert moved == {name for name in before if "lora_" in name or arm.lora is None} and seconds > 0


def test_the_readme_says_what_own_answers_were_worth():
    measured = test_from_tests_sentences.metrics()
    measured["kept"] = {"answers": 3, "problems": 2, "as_reference": 1}
    measured["provenance"] = {"profile": {"from_tests": {"samples": 8, "answered_by": "base"}}}
    text = result_sections.own_in_short(measured, None)
    assert text.startswith("Notebook 05 goes on from there: the untuned base answers 20 training problems 8 times each")
    assert "8 times each, 4 answers pass their tests, and 3 of these, all different, are what it learns from." in text
    assert "- on both: **10.0%** of the unseen problems solved" in text
    arms = {arm: answered("10" if arm == "base" else "11") for arm in from_tests.ARMS}
    others = {arm: answered("1111111" if arm == "both" else "0000001") for arm in from_tests.ARMS}
    text = result_sections.own_in_short(measured, more_problems.compare(arms, others))
    lines = table(text)
    assert lines["untuned base"] == ["50.0% (1.3 to 98.7%)", "22.2% (2.8 to 60.0%)"]
    assert lines["tuned on references, then on own answers that pass"][1].startswith("100.0% (")
    assert "7 of the unseen problems are those that the splits leave over. On all 9, by McNemar's test" in text
    assert "then again on references" not in text  # the control was not run
    arms, others = (some | {"again": some["own"]} for some in (arms, others))
    again = result_sections.own_in_short(measured, more_problems.compare(arms, others))
    assert table(again)["tuned on references, then again on references"][0].startswith("100.0% (")
    assert again.endswith("references of the same problems, by the same rules; the last model against it: p = 0.031.")
    said = text.rpartition("for the number of new models: ")[2].split("; ")
    before = "against tuned on references {}, against untuned base {}"
    assert said == [
        f"{result_sections.IN_WORDS['both']}, {before.format('p = 0.062', 'p = 0.031')}",  # 2 / 2^6, 2 / 2^7; of two
        f"{result_sections.IN_WORDS['own']}, {before.format('p = 1', 'p = 1')}.",
    ]


def answered(passed: str) -> list[dict]:
    """An answer a character, "1" for one that passes."""
    return [{"passed": one == "1", "tests_passed": int(one), "tests_total": 2} for one in passed]


def test_models_are_compared_on_test_problems_and_on_those_left_over_together():
    tested = {"base": answered("10"), "own": answered("11")}
    others = {"base": answered("0010000"), "own": answered("1101111")}
    measured = more_problems.compare(tested, others)
    assert measured["problems"] == {"test": 2, "left over": 7, "all": 9}
    assert {name: one["pass_at_1"] for name, one in measured["arms"]["own"].items()} == {
        "test": 1.0, "left over": pytest.approx(6 / 7), "all": pytest.approx(8 / 9)}  # fmt: skip
    assert measured["arms"]["base"]["all"]["tests_passed_rate"] == pytest.approx(1 / 9)
    [pair] = measured["p_values"]
    assert pair["models"] == ["base", "own"] and (pair["only_first"], pair["only_second"]) == (1, 7)
    assert pair["p"] == pytest.approx(2 * (1 + 8) / 2**8)  # of 8 coins, one or none on one side, twice
    text = result_sections.more_problems(measured | {"device": "a CPU", "git_commit": "abc"})
    assert "(`benchmarks/more_problems.py`, a CPU, commit abc)" in text
    assert table(text)["tuned on own answers that pass"][-1].startswith("88.9% (") and "| of all 9 " in text
    said = "- untuned base / tuned on own answers that pass: the first alone solves 1, the second alone 7, p = 0.07."
    assert said in text


def test_problems_are_left_over_that_share_no_group_with_a_split(profile):
    limited = replace(profile, leetcode=replace(profile.leetcode, train_rows=4))
    rows = more_problems.left_over(limited)
    used = load_problems(limited).splits
    whole = load_problems(replace(profile, leetcode=replace(profile.leetcode, train_rows=0))).splits
    groups = {row["group"] for part in used.values() for row in part}
    expected = {row["task_id"] for row in whole["train"] if row["group"] not in groups}
    assert {row["task_id"] for row in rows} == expected and len(used["train"]) == 4
    assert 0 < len(rows) < len(whole["train"]) - 3
