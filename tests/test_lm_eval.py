"""docs/lm-eval: the task files ask what our tasks ask, and both sides' scores are compared row by row."""

import sys

import jinja2
import pytest
import yaml
from test_evaluation import PROBLEM
from test_prompts import Joining

from llmft_helpers.data.corpora import Corpus
from llmft_helpers.data.prompts import LeetcodeTask, TranslationTask
from llmft_helpers.profiles import load_profile
from llmft_helpers.runs import ROOT
from llmft_helpers.training import Experiment

sys.path.insert(0, str(ROOT / "benchmarks"))
import lm_eval_check  # noqa: E402

TASKS = {"translation": TranslationTask(), "leetcode": LeetcodeTask()}


@pytest.fixture
def experiment(request, profile, pairs):
    one = Experiment(profile, request.param)
    one.task = TASKS[request.param]
    one.corpus = Corpus({"test": pairs if request.param == "translation" else [PROBLEM]})
    return one


@pytest.mark.parametrize("experiment", TASKS, indirect=True)
def test_task_files_ask_what_our_task_asks(experiment, base):
    name, task = experiment.name, experiment.task
    settings = yaml.safe_load((lm_eval_check.TASKS / f"llmft_{name}.yaml").read_text(encoding="utf-8"))
    # as lm_eval.utils renders it
    harness = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    for row, written in zip(experiment.corpus.test, lm_eval_check.rows_of(experiment, base[1]), strict=True):
        assert harness.from_string(settings["doc_to_text"]).render(written) == task.prompt(row)
        assert harness.from_string(settings["doc_to_target"]).render(written) == task.completion(row)
    asked = settings["generation_kwargs"]
    assert asked["until"] == list(task.stop) and asked["do_sample"] is False
    assert asked["max_gen_toks"] == getattr(load_profile("demo"), name).max_new_tokens
    assert settings["task"] == f"llmft_{name}"
    assert settings["dataset_kwargs"]["data_files"] == {"test": f"outputs/lm-eval/{name}.jsonl"}


@pytest.mark.parametrize("experiment", ["leetcode"], indirect=True)
def test_rows_ask_with_the_line_break_that_the_tokenizer_wants(experiment):
    (row,), (written,) = experiment.corpus.test, lm_eval_check.rows_of(experiment, Joining())
    task = experiment.task
    assert written["prompt"] == task.prompt(row) + "\n" and written["prompt"].endswith('"""\n')
    assert written["prompt"] + written["completion"] == task.prompt(row) + task.completion(row)


@pytest.mark.parametrize("experiment", ["translation"], indirect=True)
def test_translations_are_compared_row_by_row(experiment):
    results = {"results": {"llmft_translation": {"bleu,none": 30.5, "chrf,none": 50.0}}}
    texts = [f" {row['en']}" for row in experiment.corpus.test]
    ours = [{"text": row["en"]} for row in experiment.corpus.test[:-1]] + [{"text": "No."}]
    found = lm_eval_check.compare(experiment, {"bleu": 30.0, "chrf": 51.0}, ours, results, texts)
    assert found["difference"] == {"bleu": 0.5, "chrf": -1.0} and (found["rows"], found["same_answers"]) == (5, 4)
    assert found["different"] == [{"ours": "No.", "lm_eval": "I do not want to go without you."}]


@pytest.mark.parametrize("experiment", ["leetcode"], indirect=True)
def test_the_harnesss_answers_to_problems_are_run_here(experiment):
    ours = [{"text": PROBLEM["completion"].rstrip()}]
    metrics = {"pass_at_1": 1.0, "tests_passed_rate": 1.0}
    right = lm_eval_check.compare(experiment, metrics, ours, {}, ["\n        return 2 * n\n"])
    assert right["difference"] == {"pass_at_1": 0.0, "tests_passed_rate": 0.0}
    wrong = lm_eval_check.compare(experiment, metrics, ours, {}, ["\n        return n"])
    assert wrong["lm_eval"] == {"pass_at_1": 0.0, "tests_passed_rate": pytest.approx(1 / 3)}
