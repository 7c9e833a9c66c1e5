"""The models of notebook 05 on more problems that none was trained on: those that the profile's splits leave over.

    python benchmarks/more_problems.py --profile coder --json outputs/coder/from_tests/more_problems.json

Forty test problems seldom tell a small difference from chance. Where `train_rows` limits the training problems, the
problems left over are as unseen as the test problems; those whose group has a training problem are left out. They are
asked greedily, as the test problems were, and counted together with them. The models are notebook 05's, and a control:
the one tuned on references, trained on with these instead of own answers. What the notebook has not done is done first.
Answers stand beside FILE, ending in .jsonl, a file for each model: a run that was stopped goes on with the next one.
"""

import argparse
import copy
import os
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import pandas
import unsloth  # noqa: F401  before transformers, peft and trl

from llmft_helpers import runs, storage
from llmft_helpers.data.corpora import load_problems
from llmft_helpers.data.prompts import LeetcodeTask
from llmft_helpers.device import device_description
from llmft_helpers.errors import UserError
from llmft_helpers.grading import isolation_level
from llmft_helpers.profiles import Profile, load_profile
from llmft_helpers.scoring import evaluation
from llmft_helpers.training import FromTests
from llmft_helpers.training.references import content

AGAIN = "again"


def left_over(profile: Profile) -> list[dict]:
    """Problems of the profile's data in no split, and in no group of a training or validation problem."""
    used = load_problems(profile).splits
    every = load_problems(replace(profile, leetcode=replace(profile.leetcode, train_rows=0)))
    groups = {row["group"] for rows in used.values() for row in rows}
    rows = [row for row in every.train if row["group"] not in groups]
    if not rows:
        raise UserError(f"profile {profile.name} trains on all that its test leaves: nothing is left over")
    return evaluation.drop_broken_problems(rows)[0]


def steps(learner: FromTests) -> None:
    """Notebook 05's, as far as its models and their answers to the test problems."""
    learner.read_data()
    learner.load_model()
    for _ in range(learner.asked.rounds):
        learner.sample()
        learner.train("both")
    learner.train("own")
    learner.score()
    if learner.own:
        train_again(learner)


def train_again(learner: FromTests) -> None:
    """A control for "both", trained by the same rules on references instead: of the same problems, each as often as an
    own answer to it was kept."""
    references = {row["task_id"]: row for row in learner.rows}
    control = copy.copy(learner)
    control.own, control.folder = [references[row["task_id"]] for row in learner.own], learner.folder / AGAIN
    control.adapters, control.trained = {"references": learner.adapters["references"]}, {}
    control.metrics, control.answers = {}, {}
    control.train("both")
    control.score()
    learner.adapters[AGAIN], learner.answers[AGAIN] = control.adapters["both"], control.answers["both"]


def answers_of(learner: FromTests, arm: str, rows: list[dict], path: Path) -> list[dict]:
    """Graded answers of one model to `rows`, from `path` where they stand there."""
    adapter = learner.adapters.get(arm)
    asked = [asdict(learner.profile.model), adapter and content(adapter), learner.settings.max_new_tokens, rows]
    run = storage.fingerprint(asked)
    kept = storage.read_jsonl(path) if path.is_file() else []
    if not kept or kept[0]["run"] != run:
        with learner.using(arm):
            written = evaluation.answer_rows(learner.model, learner.tokenizer, LeetcodeTask(), rows, learner.settings)
        _, answers = evaluation.score_answers(LeetcodeTask(), rows, written)
        kept = [{"run": run, "task_id": row["task_id"], **one} for row, one in zip(rows, answers, strict=True)]
        storage.write_jsonl(path, kept)
    return kept


def compare(tested: dict[str, list[dict]], others: dict[str, list[dict]]) -> dict:
    """Scores by model on the test problems, on the `others` and on all, and McNemar's p of each two models on all."""
    every = {arm: tested[arm] + others[arm] for arm in others}
    sets = {"test": tested, "left over": others, "all": every}
    return {
        "problems": {name: len(next(iter(answers.values()))) for name, answers in sets.items()},
        "arms": {arm: {name: evaluation.work_scores(answers[arm]) for name, answers in sets.items()} for arm in others},
        "p_values": [
            {
                "models": [one, other],
                "only_first": sum(a["passed"] > b["passed"] for a, b in zip(every[one], every[other], strict=True)),
                "only_second": sum(a["passed"] < b["passed"] for a, b in zip(every[one], every[other], strict=True)),
                "p": evaluation.paired_code_p_value(every[one], every[other]),
            }
            for one, other in combinations(every, 2)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="coder")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    profile = load_profile(options.profile)
    learner, rows = FromTests(profile), left_over(profile)
    steps(learner)
    others = {}
    for arm in learner.answers:
        path = options.json.with_name(f"{options.json.stem}_{arm}.jsonl")
        others[arm] = answers_of(learner, arm, rows, path)
        solved = sum(one["passed"] for one in others[arm])
        print(f"{arm}: {solved} of {len(rows)} left-over problems solved", flush=True)
    results = compare(learner.answers, others) | {
        "profile": profile.name,
        "model": profile.model.name,
        **device_description(),
        "isolation": isolation_level(),
        "git_commit": runs.git_commit(),
    }
    storage.write_json(options.json, results)
    shown = {arm: {name: part["pass_at_1"] for name, part in sets.items()} for arm, sets in results["arms"].items()}
    print(pandas.DataFrame.from_dict(shown, orient="index").map("{:.1%}".format).to_string())
    print(pandas.DataFrame(results["p_values"]).to_string())


if __name__ == "__main__":
    main()
