"""Cells of notebook 04 that meet what other runs leave: unfinished ablations, problems with fewer columns."""

import json

import nbformat
import pytest

from llmft_helpers import reports, runs, storage
from llmft_helpers.reports import comparisons, selection
from llmft_helpers.runs import ROOT

CELLS = {cell.id: cell.source for cell in nbformat.read(ROOT / "notebooks" / "04_compare_models.ipynb", 4).cells}
NUMBERS = {"everyday only": (20.0, 5.0), "formal only": (8.0, 15.0), "reference": (18.0, 14.0)}


def run_cells(folder, *ids, **names):
    """The cells' names after running them in order, and what they displayed."""
    seen = []
    space = {"folder": folder, "runs": runs, "storage": storage, "reports": reports}
    space |= {"comparisons": comparisons, "selection": selection}
    space |= {"display": seen.append, "say": seen.append} | names
    for name in ids:
        exec(compile(CELLS[name], name, "exec"), space)
    return space, seen


def ablated(name):
    """A row of ablations.json whose intervals are one point wide to either side."""
    parts = {source: {"bleu": bleu, "bleu_ci95": [bleu - 1, bleu + 1]}
             for source, bleu in zip(("everyday", "formal"), NUMBERS[name], strict=True)}  # fmt: skip
    return {"name": name, "group": "reference" if name == "reference" else "register", "per_source": parts}


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_ablations_are_shown_as_far_as_they_are(done, tmp_path):
    names = ["reference", "everyday only", "formal only"][:done]
    if done:
        document = {"rows": [*map(ablated, names), {"name": "alpha 32", "group": "alpha", "validation_loss": 1.0}]}
        if done == 3:
            document["contraction_difference_on_everyday_rows"] = {"difference": -0.35, "ci95": [-0.47, -0.23]}
        train = {"translation": {"train": {"batch_size": 16}}}
        profile = {"model": {"name": "a"}, "lora": {"rank": 64}} | train
        document["provenance"] = {"profile": profile}
        storage.write_json(tmp_path / "ablations" / "ablations.json", document)
    lora = {"rank": 64, "loftq": True} if done == 2 else {"rank": 64}
    batch_size = 8 if done == 2 else 16
    space, seen = run_cells(tmp_path / "comparison", "d95e7f21", "a3e81d57", "5f27c8b6",
                            translation={"provenance": {"profile": {
                                "model": {"name": "a"}, "lora": lora,
                                "translation": {"train": {"batch_size": batch_size}}}}})  # fmt: skip
    assert list(space["registers"]) == [*names[1:], "merged"][: done or -1]
    if not done:
        assert seen == [""] and "not measured in this profile" in space["tone"]
        return
    if done == 2:
        assert "before the profile changed its `lora.loftq`, `train.batch_size`: these scores" in seen.pop(0)
    every, registers, findings = seen
    assert list(every.index) == [*names, "alpha 32"]
    assert list(registers.loc["merged"]) == ["18.0 (17.0 to 19.0)", "14.0 (13.0 to 15.0)"]
    if done < 3:
        assert "not measured in this profile" in space["tone"]
        assert all("merged **" in text and text.endswith("trained yet.") for text in findings.split("\n\n"))
        return
    assert space["tone"].endswith("-35% (95%: -47% to -23%)")
    for text, shown in zip(findings.split("\n\n"), ("everyday **20.0**, formal **8.0**, merged **18.0**",
                                                     "everyday **5.0**, formal **15.0**, merged **14.0**"),
                           strict=True):  # fmt: skip
        assert shown in text and "register's interval lies above the other's" in text


def test_problems_need_no_difficulty(tmp_path):
    graded = {arm: {"tests_passed": 1, "tests_total": 2} for arm in reports.ARMS}
    rows = [{"task_id": "mine"} | graded, {"task_id": "empty", "difficulty": None} | graded,
            {"task_id": "theirs", "difficulty": "Easy"} | graded]  # fmt: skip
    (tmp_path / "leetcode").mkdir()
    (tmp_path / "leetcode" / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    space, _ = run_cells(tmp_path / "comparison", "51979b31")
    unrated = ["mine (no difficulty given)", "empty (no difficulty given)"]
    assert sorted(space["grid"].index) == sorted([*unrated, "theirs (Easy)"])
