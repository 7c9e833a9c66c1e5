"""How long a run will take, told from the copy that the last one left."""

import nbformat
import pytest

from llmft_helpers.reports import estimates
from llmft_helpers.reports.estimates import Estimate, announce

HERE = {"device": "here", "dtype": "float32", "product_seconds": 0.02}


def executed(path, seconds: dict[str, float], machine: dict | None = None):
    """A copy whose cells took so many seconds, as nbclient writes it."""
    notebook = nbformat.v4.new_notebook(metadata={"llmft": machine} if machine else {})
    for name, took in seconds.items():
        cell = nbformat.v4.new_code_cell("1", id=name)
        end = f"2026-11-29T21:{int(took // 60):02}:{took % 60:09.6f}Z"
        cell.metadata["execution"] = {"iopub.execute_input": "2026-11-29T21:00:00.000000Z", "shell.execute_reply": end}
        notebook.cells.append(cell)
    notebook.cells += [nbformat.v4.new_code_cell("2", id="never-run"), nbformat.v4.new_markdown_cell("text")]
    nbformat.write(notebook, path)
    return path


def test_the_same_machine_takes_as_long_and_what_is_left_shrinks(tmp_path):
    estimate = Estimate(executed(tmp_path / "a.ipynb", {"load": 20.0, "train": 300.5}, HERE), HERE)
    assert estimate.seconds == pytest.approx(320.5) and estimate.elsewhere is None
    assert estimate.left(["train", "never-run", "new"]) == pytest.approx(300.5)
    assert announce({"02": estimate}) == "notebook 02: about 5 minutes (as long as the last run took)"


def test_another_machine_is_scaled_by_the_time_of_a_product(tmp_path):
    fast = HERE | {"device": "a fast one", "product_seconds": 0.005}
    estimate = Estimate(executed(tmp_path / "a.ipynb", {"train": 20.0}, fast), HERE)
    assert estimate.seconds == pytest.approx(80.0)
    assert announce({"02": estimate}) == "notebook 02: about 80 s (scaled from a run on a fast one)"


def test_without_an_earlier_copy_nothing_is_claimed(tmp_path):
    (tmp_path / "torn.ipynb").write_text('{"cells": [', encoding="utf-8")
    nothing = [Estimate(tmp_path / name, HERE) for name in ("none.ipynb", "torn.ipynb")]
    assert [one.seconds for one in nothing] == [None, None] and nothing[0].left(["train"]) is None
    assert announce({"01": nothing[0]}) == "notebook 01; how long it takes is known after the first run"
    known = Estimate(executed(tmp_path / "a.ipynb", {"train": 240.0}), HERE)  # run by nbconvert: no machine is named
    assert announce({"01": nothing[0], "02": known}) == (
        "notebooks 01, 02: about 4 minutes (as long as the last run took; without 01, not run before)"
    )


def test_the_machine_is_named_and_timed():
    machine = estimates.this_machine()
    assert set(machine) == {"device", "dtype", "product_seconds"} and 0 < machine["product_seconds"] < 10
