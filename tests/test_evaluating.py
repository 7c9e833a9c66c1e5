"""The verb `evaluate`: the notebooks' numbers, of whatever model and whatever rows a command names."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from test_evaluation import PROBLEM
from test_models import shake

from llmft_helpers.__main__ import main
from llmft_helpers.data.prompts import LeetcodeTask, TranslationTask, few_shot_rows
from llmft_helpers.models import loading as models
from llmft_helpers.models.generation import Generated
from llmft_helpers.scoring import evaluation
from llmft_helpers.training import Experiment

PAIRS = [("¿Dónde  está la estación?", "Where is the station?"), ("Hola.", "Hello."), ("Hola.", "Hello.")]


@pytest.fixture(scope="module")
def adapter(profile, tmp_path_factory):
    """The folder of a translation adapter that does something."""
    model, _ = models.load_base_model(profile.model)
    model = models.add_lora(model, profile.lora, 1)
    shake(model)
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    note = {"task": "translation", "base_model": "random", "profile": "tiny", "direction": "es-en"}
    models.save_adapter(model, folder, note)
    return folder


@pytest.fixture(scope="module")
def merged(adapter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merged") / "model"
    assert main(["export", "--adapter", str(adapter), "--output", str(folder)]) == 0
    return folder


def scored(tmp_path, *arguments) -> tuple[dict, list[dict]]:
    """(what --output holds, what --predictions holds)."""
    files = tmp_path / "scores.json", tmp_path / "predictions.jsonl"
    assert main(["evaluate", *map(str, arguments), "--output", str(files[0]), "--predictions", str(files[1])]) == 0
    rows = [json.loads(line) for line in files[1].read_text(encoding="utf-8").splitlines()]
    return json.loads(files[0].read_text(encoding="utf-8")), rows


def experiment(profile, name, adapter=None) -> Experiment:
    """What a notebook has when it scores."""
    one = Experiment(profile, name)
    one.read_data()
    one.model, one.tokenizer = models.load_for_inference(profile, adapter)
    return one


def same(metrics: dict, others: dict) -> bool:
    """All but the speed."""
    timed = {"generated_tokens_per_second": 0}
    return metrics | timed == others | timed


def planted(monkeypatch, texts):
    monkeypatch.setattr(evaluation, "generate", lambda *_, **__: [Generated(text, 5, True) for text in texts])


def sacrebleus_own(metric: str, texts: list[str], references: list[str], tmp_path) -> float:
    """By sacrebleu's command line."""
    (tmp_path / "texts").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (tmp_path / "references").write_text("\n".join(references) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(tmp_path / "references"), "-i", str(tmp_path / "texts")]
    done = subprocess.run([*command, "-m", metric, "-b", "-w", "6"], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_adapter_merged_model_and_base_score_as_in_the_notebook(profile, adapter, merged, tmp_path, capsys):
    found = {
        "adapter": scored(tmp_path, "--adapter", adapter)[0],
        "merged": scored(tmp_path, "--model", merged)[0],
        "base": scored(tmp_path, "translation", "--base", "--profile", "tiny")[0],
    }
    printed = capsys.readouterr().out
    of_merged = replace(profile, model=replace(profile.model, name=str(merged), load_in_4bit=False))
    wanted = {
        "adapter": experiment(profile, "translation", adapter).score("tuned"),
        "merged": experiment(of_merged, "translation").score("tuned"),
        "base": experiment(profile, "translation").score("base"),
    }
    for name, results in found.items():
        assert same(results["metrics"], wanted[name])
        assert results["rows"] == 12 and results["rows_of"] == "the test rows of profile tiny"
        assert f"{results['model']}, 12 rows" in printed and f"perplexity   {wanted[name]['perplexity']:.2f}" in printed
    assert found["adapter"]["metrics"]["perplexity"] != found["base"]["metrics"]["perplexity"]
    assert found["merged"]["metrics"]["perplexity"] == pytest.approx(wanted["adapter"]["perplexity"], rel=0.02)
    data = experiment(profile, "translation").corpus.manifest["fingerprints"]["test"]
    assert found["base"]["provenance"]["data"] == {"test": data}
    assert found["merged"]["provenance"]["profile"]["model"]["name"] == str(merged)


def test_solved_examples_and_the_way_back_are_those_of_the_notebook(profile, tmp_path):
    one = experiment(profile, "translation")
    shown = few_shot_rows(one.task, one.corpus.train, 2)
    results, _ = scored(tmp_path, "translation", "--base", "--shots", "2", "--profile", "tiny")
    assert same(results["metrics"], one.score("base_few_shot", shown)) and results["shots"] == 2
    results, rows = scored(tmp_path, "translation", "--base", "--direction", "en-es", "--profile", "tiny")
    assert same(results["metrics"], one.score("tuned_en_es", asked=TranslationTask("en-es")))
    assert results["direction"] == "en-es" and rows[0]["prompt"] == f"English: {rows[0]['en']}\nSpanish:"


def test_scores_are_those_of_sacrebleus_own_command(profile, tmp_path, monkeypatch, capsys):
    references = [row["en"] for row in experiment(profile, "translation").corpus.test]
    planted(monkeypatch, [f" {text.replace('the', 'a')}\nSpanish:" for text in references])
    results, rows = scored(tmp_path, "translation", "--base", "--profile", "tiny")
    texts = [row["text"] for row in rows]
    assert texts == [text.replace("the", "a") for text in references] and [row["en"] for row in rows] == references
    bleu = sacrebleus_own("bleu", texts, references, tmp_path)
    assert 0 < bleu < 100 and results["metrics"]["bleu"] == pytest.approx(bleu, abs=1e-5)
    assert results["metrics"]["chrf"] == pytest.approx(sacrebleus_own("chrf", texts, references, tmp_path), abs=1e-5)
    low, high = results["metrics"]["bleu_ci95"]
    assert f"  BLEU         {bleu:.1f} ({low:.1f} to {high:.1f})\n" in capsys.readouterr().out


def test_code_is_run_and_graded_as_by_the_verb_grade(profile, tmp_path, monkeypatch, capsys):
    one, task = experiment(profile, "leetcode"), LeetcodeTask()
    rows = one.corpus.test
    planted(monkeypatch, [task.completion(row) if i % 2 else "\n        return (" for i, row in enumerate(rows)])
    results, predictions = scored(tmp_path, "leetcode", "--base", "--profile", "tiny")
    assert same(results["metrics"], one.score("base"))
    solutions = [{"task_id": row["task_id"], "solution": row["text"]} for row in predictions]
    (tmp_path / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in solutions))
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    files = ["--input", str(tmp_path / "solutions.jsonl"), "--problems", str(tmp_path / "problems.jsonl")]
    assert main(["grade", *files]) == 0
    assert capsys.readouterr().out.startswith("3 of 6 solutions pass")
    assert results["metrics"]["pass_at_1"] == results["metrics"]["parses_rate"] == 0.5 and results["isolation"]


@pytest.mark.parametrize("ending", ["tsv", "jsonl"])
def test_a_file_of_pairs_is_scored_whole(ending, adapter, profile, tmp_path):
    path = tmp_path / f"mine.{ending}"
    lines = {
        "tsv": ["es\ten", *map("\t".join, PAIRS)],
        "jsonl": [json.dumps({"es": es, "en": en}) for es, en in PAIRS],
    }
    path.write_text("\n".join(lines[ending]) + "\n", encoding="utf-8")
    results, rows = scored(tmp_path, "--adapter", adapter, "--input", path)
    assert [(row["es"], row["en"]) for row in rows] == [(" ".join(es.split()), en) for es, en in PAIRS]
    assert rows[0]["prompt"] == "Spanish: ¿Dónde está la estación?\nEnglish:"
    one = experiment(profile, "translation", adapter)
    one.corpus.splits["test"] = [{"es": " ".join(es.split()), "en": en, "source": path.name} for es, en in PAIRS]
    assert same(results["metrics"], one.score("tuned"))
    assert [answer["text"] for answer in one.answers["tuned"]] == [row["text"] for row in rows]


def test_problems_whose_reference_fails_are_told_and_left_out(tmp_path, monkeypatch, capsys):
    wrong = PROBLEM | {"task_id": "wrong", "completion": PROBLEM["completion"].replace("2 * n", "n")}
    (tmp_path / "mine.jsonl").write_text(json.dumps(wrong) + "\n" + json.dumps(PROBLEM) + "\n")
    planted(monkeypatch, ["\n        return n + n"])
    results, rows = scored(tmp_path, "leetcode", "--base", "--profile", "tiny", "--input", tmp_path / "mine.jsonl")
    assert results["left_out"] == ["wrong"] and results["rows"] == 1 and results["metrics"]["pass_at_1"] == 1.0
    assert [(row["task_id"], row["passed"]) for row in rows] == [("double-it", True)]
    output = capsys.readouterr()
    assert "left out: wrong: its reference fails its tests" in output.err and "left out" not in output.out
    assert "  solved       100.0% (2.5 to 100.0%)\n  tests passed 100.0%" in output.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["leetcode", "--adapter", "{adapter}"], "was trained for the task translation, not leetcode"),
        (["--base", "--profile", "tiny"], "has no task of its own: evaluate translation --base, or leetcode"),
        (["--adapter", "{adapter}", "--direction", "en-es"], "was trained es-en, not en-es"),
        (["leetcode", "--base", "--direction", "en-es"], "--direction is of translations"),
        (["--adapter", "{adapter}", "--input", "nowhere.tsv"], "file nowhere.tsv not found"),
        (["--adapter", "{adapter}", "--input", "{empty}"], "holds no rows"),
        (["--adapter", "{adapter}", "--input", "{other}"], "other.jsonl:1: no column 'en' (there are: es, english)"),
        (["--adapter", "{adapter}", "--input", "{gap}"], "gap.jsonl:2: column 'en' is empty; fill it or remove the"),
        (["leetcode", "--base", "--input", "{other}"], "other.jsonl:1: no column 'task_id'"),
        (["leetcode", "--base", "--input", "{untested}"], "has neither `tests` nor `test`"),
        (["leetcode", "--base", "--input", "{failing}"], "none of the 1 test problems' references passes"),
        (["--adapter", "{adapter}", "--input", "{gap}", "--output", "{gap}"], "--output {gap} is the input"),
        (["--adapter", "{adapter}", "--input", "{gap}", "--predictions", "{gap}"], "--predictions {gap} is the input"),
        (["--adapter", "{adapter}", "--output", "a.json", "--predictions", "a.json"], "are both a.json: name two"),
        (["--adapter", "{adapter}", "--output", "{folder}"], "--output {folder} is a folder"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_is_loaded(arguments, says, adapter, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(models, "load_base_model", None)
    monkeypatch.setenv("LLMFT_PROFILE", "tiny")
    untested = {key: value for key, value in PROBLEM.items() if key != "tests"}
    contents = {
        "empty": [], "other": [{"es": "Hola.", "english": "Hello."}], "untested": [untested],
        "gap": [{"es": "Hola.", "en": "Hello."}, {"es": "Hola.", "en": " "}],
        "failing": [PROBLEM | {"completion": PROBLEM["completion"].replace("2 * n", "n")}],
    }  # fmt: skip
    files = {"adapter": adapter, "folder": tmp_path} | {name: tmp_path / f"{name}.jsonl" for name in contents}
    for name, rows in contents.items():
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["evaluate", *(argument.format(**files) for argument in arguments)]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and says.format(**files) in message
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_task_that_there_is_not_is_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "poetry", "--base"])
    assert "invalid choice: 'poetry'" in capsys.readouterr().err
