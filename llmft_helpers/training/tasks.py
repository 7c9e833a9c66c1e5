"""`train TASK`: what notebooks 02 and 03 compute, without the looking, in one process or in one a GPU."""

from pathlib import Path

from .. import processes
from ..data import corpora, prompts
from ..grading import execution
from ..models.loading import adapters_off, add_lora, load_base_model, model_path, save_adapter
from ..models.model_card import ARMS, write_model_card
from ..models.notes import adapter_note
from ..profiles import Profile
from ..runs import Stages, provenance, run_dir, save_metrics, write_json, write_jsonl
from ..scoring import evaluation
from . import fine_tuning as training


def train_task(profile: Profile, name: str) -> Path:
    """Fine-tune on "translation" or "leetcode", score base, few-shot base and tuned, save; the task's folder.

    Under a launcher every process takes its share of each batch (`batch_size` stays the whole) and of the test
    rows, and rank 0 writes. A sharded model (FSDP) is trained and saved only: it cannot answer row by row.
    """
    processes.start_processes()
    stages, settings = Stages(), getattr(profile, name)
    with stages("data"), processes.main_first():
        task, corpus, facts = _task_and_corpus(profile, name)
        model_path(profile.model)
    with stages("load model"):
        base, tokenizer = load_base_model(profile.model)
        model = add_lora(base, profile.lora, profile.seed)
    trainer = training.make_trainer(
        model,
        tokenizer,
        prompts.training_rows(task, corpus.train),
        prompts.training_rows(task, corpus.validation),
        settings.train,
        profile.model.max_length,
        run_dir(profile, name) / "trainer",
        profile.seed,
    )
    processes.fill_last_batch(trainer)
    sharded, scored = trainer.is_fsdp_enabled, {}

    def score(arm: str, shots: list[dict] = (), asked: prompts.Task = task) -> None:
        with stages(f"evaluate {arm}"):
            scored[arm] = evaluation.evaluate_task(model, tokenizer, asked, corpus.test, settings, shots, label=arm)

    if not sharded:
        with adapters_off(model):
            score("base")
            score("base_few_shot", few_shot_rows(task, corpus.train, settings.shots))
    with stages("training"):
        trained = training.fine_tune(trainer)
    if not sharded:
        score("tuned")
        if len(task.trained()) > 1:  # "both" is measured es-en; the way back once, tuned
            score("tuned_en_es", asked=prompts.TranslationTask("en-es"))
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if processes.is_main():
        write_json(run_dir(profile, name) / "manifest.json", corpus.manifest)
        save_adapter(model, run_dir(profile, name) / "adapter", adapter_note(profile, name), weights)
        if scored:
            facts |= _comparison(task, corpus.test, scored) | {"training": trained}
            _save_results(profile, name, corpus, scored, facts, stages)
    training.delete_checkpoints(trainer)
    processes.wait_for_all()
    return run_dir(profile, name)


def _task_and_corpus(profile: Profile, name: str) -> tuple[prompts.Task, corpora.Corpus, dict]:
    """(task, rows, what the metrics say of them: problems left out because their own reference fails, isolation)."""
    if name == "translation":
        return prompts.TranslationTask(profile.translation.direction), corpora.load_pairs(profile), {}
    corpus = corpora.load_problems(profile)
    corpus.splits["test"], broken = evaluation.drop_broken_problems(corpus.test)
    facts = {"left_out": [one["task_id"] for one in broken], "isolation": execution.isolation_level()}
    return prompts.LeetcodeTask(), corpus, facts


def few_shot_rows(task: prompts.Task, train: list[dict], shots: int) -> list[dict]:
    """Training rows to show before a question: the first ones, of problems the shortest."""
    if isinstance(task, prompts.LeetcodeTask):
        train = sorted(train, key=lambda row: len(task.prompt(row) + task.completion(row)))
    return train[:shots]


def _comparison(task: prompts.Task, rows: list[dict], scored: dict[str, tuple]) -> dict:
    """Base against tuned: the p-values, and what they are to be read with."""
    base, tuned = scored["base"][1], scored["tuned"][1]
    if isinstance(task, prompts.LeetcodeTask):
        constant = evaluation.best_constant_share(rows)
        return {"pass_p_value": evaluation.paired_code_p_value(base, tuned), "best_constant_share": constant}
    references = [row[task.target] for row in rows]
    return {
        "bleu_p_value": evaluation.paired_translation_p_value(base, tuned, references, "bs"),
        "bleu_p_value_ar": evaluation.paired_translation_p_value(base, tuned, references, "ar"),
        "bleu_p_value_few_shot": evaluation.paired_translation_p_value(scored["base_few_shot"][1], tuned, references),
        "reference_language": evaluation.language_shares(task, references),
    }


def _save_results(
    profile: Profile, name: str, corpus: corpora.Corpus, scored: dict[str, tuple], facts: dict, stages: Stages
) -> None:
    """The files of notebooks 02 and 03; `scored`: (metrics, answers) by arm, `facts`: what else is known of the run."""
    folder = run_dir(profile, name)
    answers = {arm: scored[arm][1] for arm in ARMS}
    write_jsonl(folder / "predictions.jsonl", evaluation.merge_predictions(corpus.test, answers))
    metrics = {arm: values for arm, (values, _) in scored.items()} | facts
    metrics |= {
        "rows": {split: len(rows) for split, rows in corpus.splits.items()},
        "provenance": provenance(profile, stages, corpus.manifest["fingerprints"]) | {"processes": processes.count()},
    }
    save_metrics(profile, name, metrics)
    write_model_card(folder)
