"""The notebooks, executed headless in `tiny`, and what a failing one leaves behind."""

import ast
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from llmft_helpers import __main__ as command_line
from llmft_helpers.__main__ import main
from llmft_helpers.errors import UserError
from llmft_helpers.models.notes import adapter_note
from llmft_helpers.profiles import PRESETS, load_profile
from llmft_helpers.reports import notebooks
from llmft_helpers.runs import MORE_TASKS, ROOT, TASKS

README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def own_profile(tmp_path_factory):
    """A user's profile file, which is a preset in all but its name."""
    path = tmp_path_factory.mktemp("mine") / "own.toml"
    path.write_text((PRESETS / "tiny.toml").read_text(encoding="utf-8"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def reports(own_profile):
    profile = load_profile(str(own_profile))
    return [notebooks.run_notebook(path, profile, str(own_profile)) for path in NOTEBOOKS]


def test_the_kernel_gets_large_pages_beside_the_users_own_allocator_settings(profile, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert notebooks.kernel_environment(profile, "tiny")["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
    wanted = "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"
    assert notebooks.kernel_environment(profile, "tiny")["GLIBC_TUNABLES"] == wanted


def test_all_run_and_fill_the_results_contract(reports, outputs):
    assert [report.name for report in reports] == [path.with_suffix(".html").name for path in NOTEBOOKS]
    assert all("<html" in report.read_text(encoding="utf-8")[:500].lower() for report in reports)
    results = json.loads((outputs / "own" / "results.json").read_text())
    assert list(results) == [*TASKS, *MORE_TASKS]
    scores = {"perplexity", "bits_per_byte", "bleu", "eos_rate", "prompt_echo_rate"}
    translation = {"bleu_01", "chrf", "bleu_signature", "bleu_ci95", "length_ratio", "per_source", "answer_language"}
    code = {"pass_at_1", "pass_at_1_ci95", "tests_passed_rate", "parses_rate", "defines_entry_point_rate"}
    code |= {"type_hints_rate", "code_only_rate"}
    for arm in ("base", "base_few_shot", "tuned"):
        assert scores | translation <= set(results["translation"][arm])
        assert scores | code <= set(results["leetcode"][arm])
    assert {"val_loss", "perplexity", "bits_per_char", "bits_per_byte", "per_domain", "parameters", "seconds",
            "tokens_per_second"} <= set(results["char_gpt"])  # fmt: skip
    assert {"bleu_p_value", "bleu_p_value_ar", "bleu_p_value_few_shot", "reference_language"} <= set(
        results["translation"]
    )
    assert 0 < results["leetcode"]["best_constant_share"] <= 1
    compared = results["comparison"]
    assert list(compared["bits_per_byte"]) == ["character GPT", "base", "translation adapter", "leetcode adapter"]
    assert all(set(row) == {"everyday", "formal", "code"} for row in compared["bits_per_byte"].values())
    kinds = {"translations", "solutions", "Spanish", "English", "everyday", "formal", "code"}
    assert all(set(row) == kinds for row in compared["forgetting"].values()) and len(compared["forgetting"]) == 3
    learned = results["from_tests"]  # a random model solves nothing: the notebook says so and goes on
    assert learned["rounds"][0]["passed"] == 0 and learned["p_values"] == {} and set(learned["other_texts"]) == {
        "base", "references"}  # fmt: skip
    for task in results:
        provenance = results[task]["provenance"]
        assert {"versions", "device", "dtype", "profile", "seed", "data", "git_commit", "seconds"} <= set(provenance)


def test_runs_leave_plots_predictions_and_adapters(reports, own_profile, outputs):
    root = outputs / "own"
    for task in ("translation", "leetcode"):
        note = json.loads((root / task / "adapter" / "llmft.json").read_text(encoding="utf-8"))
        assert note == adapter_note(load_profile(str(own_profile)), task) | {"precision": "4-bit"}
        assert note["profile"] == str(own_profile)
        assert (root / task / "adapter" / "adapter_config.json").is_file()
        rows = [json.loads(line) for line in (root / task / "predictions.jsonl").read_text().splitlines()]
        assert len(rows) == json.loads((root / task / "metrics.json").read_text())["rows"]["test"]
        assert all(arm in row for row in rows for arm in ("base", "base_few_shot", "tuned"))
    for task in (*TASKS, *MORE_TASKS):
        assert list((root / task).glob("*.png"))
    answers = (root / "from_tests" / "round_1" / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(answers) == 4 * 3 and {"text", "code", "passed", "verdict"} <= set(json.loads(answers[0]))
    assert (root / "char_gpt" / "sample.txt").read_text().strip()


def test_a_report_shows_worked_examples_and_no_box_that_nobody_answers(reports):
    (report,) = (report for report in reports if report.stem == "04_compare_models")
    cells = nbformat.read(report.with_suffix(".ipynb"), as_version=4).cells
    sentence, problem = (cell for cell in cells if "playground.try_it" in cell.source)
    for cell, asked in ((sentence, "<b>Spanish</b>: Mi abuela"), (problem, "<b>problem</b>: Given a list")):
        (shown,) = (output.data for output in cell.outputs if output.output_type == "display_data")
        assert asked in shown["text/html"] and "base, few-shot</th>" in shown["text/html"]
        assert asked in report.read_text(encoding="utf-8")
        assert not any("widget" in kind for kind in shown)
    assert problem.outputs[-1].data["text/html"].count("of 2 tests passed") == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs_and_in_short_cells(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3" and "widgets" not in notebook.metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            assert not cell.outputs and cell.execution_count is None
            assert len(lines) <= 20 and max(map(len, lines)) <= 100, cell.source[:80]
            assert long_texts(cell.source) == [], cell.source[:80]


def long_texts(source):
    """f-strings over more than one line: prose that belongs into reports."""
    strings = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr)]
    return [ast.unparse(node) for node in strings if node.end_lineno > node.lineno]


def test_an_f_string_over_two_lines_is_found():
    assert long_texts('print(\n    f"{1}"\n    f"{2}"\n)') == ["f'{1}{2}'"]
    assert long_texts('print(f"{1}")\nprint(f"{2}")') == []


def other_calls(source, reports):
    """Calls in a cell that are none of `reports`, of reading a run's file or of displaying."""
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    allowed = reports | {"display", "trainable_parameters", "share_in_4bit", "storage.read_json", "storage.read_jsonl"}
    return [call for call in calls if call.split(".")[0] not in allowed and call not in allowed]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_that_only_speak_are_folded_and_do_nothing_else(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    imports = [node for cell in cells for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.ImportFrom)]
    reports = {alias.name for node in imports if node.module == "llmft_helpers.reports" for alias in node.names}
    folded = [cell for cell in cells if "hide-input" in cell.metadata.get("tags", [])]
    assert len(folded) >= 5
    for cell in folded:
        assert cell.metadata["jupyter"] == {"source_hidden": True}
        assert other_calls(cell.source, reports | {"reports"}) == [], cell.source[:80]


def test_a_call_that_computes_is_found_in_a_folded_cell():
    assert other_calls("say(sentences.training(fine_tune(model)))", {"say", "sentences"}) == ["fine_tune"]


def test_reports_fold_the_source_of_cells_that_only_speak(tmp_path, outputs):
    cells = [nbformat.v4.new_code_cell(f"print('out' 'put {name}')") for name in ("open", "folded")]
    cells[1].metadata.tags = ["hide-input"]
    pointer = nbformat.v4.new_markdown_cell("[Executed copy](fold.ipynb)", metadata={"tags": ["source-only"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[pointer, *cells]), tmp_path / "fold.ipynb")
    page = notebooks.run_notebook(tmp_path / "fold.ipynb", load_profile("tiny"), "tiny").read_text(encoding="utf-8")
    fold = re.findall(r'<details class="folded-source">.*?</details>', page, re.DOTALL)
    assert len(fold) == 1 and "folded" in fold[0] and "output folded" not in fold[0] and "output open" in page
    assert "Executed copy" not in page
    executed = nbformat.read(outputs / "tiny" / "reports" / "fold.ipynb", as_version=4)
    assert [cell.outputs[0].text for cell in executed.cells] == ["output open\n", "output folded\n"]


def test_plain_nbconvert_folds_the_same(tmp_path):
    cell = nbformat.v4.new_code_cell("1", metadata={"tags": ["hide-input"]})
    pointer = nbformat.v4.new_markdown_cell("[Executed copy](fold.ipynb)", metadata={"tags": ["source-only"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[pointer, cell]), tmp_path / "fold.ipynb")
    (line,) = re.findall(r"^ +\.venv/bin/jupyter (nbconvert .*) --execute notebooks", README, re.MULTILINE)
    command = [sys.executable, "-m", *line.split(), "--output-dir", str(tmp_path), str(tmp_path / "fold.ipynb")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    page = (tmp_path / "fold.html").read_text(encoding="utf-8")
    assert '<details class="folded-source">' in page and "Executed copy" not in page


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_points_to_its_executed_copy(path):
    cells = nbformat.read(path, as_version=4).cells
    (pointer,) = (cell.source for cell in cells if "source-only" in cell.metadata.get("tags", []))
    (link,) = re.findall(r"\]\(([^)]+)\)", pointer)
    copy = (path.parent / link).resolve()
    if path.name[:2] in notebooks.ON_REQUEST and not copy.is_file():
        pytest.skip("not yet run in the demo")
    assert copy.name == path.name and copy.stat().st_size < 1e6
    executed = [cell for cell in nbformat.read(copy, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in executed) and any(cell.outputs for cell in executed)


@pytest.mark.parametrize("name", ["02_translation_lora", "03_leetcode_lora"])
def test_a_run_that_fails_leaves_the_results_of_the_last_one_together(name):
    """Manifest, adapter and metrics are written by one step, after training: never one of them beside older others."""
    cells = [c.source for c in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
    steps = [place for text in ("experiment.train(", "experiment.score_tuned(", "experiment.save(")
             for place, cell in enumerate(cells) if text in cell]  # fmt: skip
    assert len(steps) == 3 and steps == sorted(steps)
    writes = re.compile(r"\.(write_json|write_jsonl|save_metrics|write_text|save_pretrained)\(|save_adapter\(")
    assert not any(writes.search(cell) for cell in cells)


def test_the_character_model_is_saved_together_with_its_scores():
    cells = [c.source for c in nbformat.read(ROOT / "notebooks" / "01_char_gpt.ipynb", 4).cells]
    (place,) = (i for i, cell in enumerate(cells) if "runs.save_metrics(" in cell)
    assert [i for i, cell in enumerate(cells) if 'validation}, folder / "model.pt")' in cell] == [place]


def test_a_failing_cell_is_shown_and_the_partial_copy_kept(profile, tmp_path, monkeypatch, outputs):
    broken = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("print('so far')"), nbformat.v4.new_code_cell("1 / 0  # the culprit")]
    )
    nbformat.write(broken, tmp_path / "09_broken.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"09_broken.ipynb failed(.|\n)*the culprit(.|\n)*ZeroDivisionError"):
        notebooks.run_notebook(tmp_path / "09_broken.ipynb", profile, "tiny")
    partial = outputs / "tiny" / "reports" / "09_broken.partial.ipynb"
    assert "so far" in nbformat.read(partial, as_version=4).cells[0].outputs[0].text
    assert not partial.with_name("09_broken.html").exists()


def test_a_kernel_that_dies_is_one_message_and_the_partial_copy_kept(profile, tmp_path, monkeypatch, outputs):
    dying = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    cells = [nbformat.v4.new_code_cell("print('so far')"), nbformat.v4.new_code_cell(dying)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "08_dying.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    with pytest.raises(
        UserError, match=r"08_dying.ipynb failed \(its kernel died, most likely out of mem.* is .*ipynb$"
    ):
        notebooks.run_notebook(tmp_path / "08_dying.ipynb", profile, "tiny")
    partial = outputs / "tiny" / "reports" / "08_dying.partial.ipynb"
    assert "so far" in nbformat.read(partial, as_version=4).cells[0].outputs[0].text


def test_after_a_failure_only_those_run_that_do_not_need_it(tmp_path, monkeypatch, capsys, outputs):
    for name, code in (("01_a", "print(1)"), ("02_b", "1 / 0"), ("03_c", "print(3)"), ("04_d", "print(4)")):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    assert main(["run", "--profile", "tiny"]) != 0
    shown = capsys.readouterr()
    assert [Path(line).stem for line in shown.out.splitlines()] == ["01_a", "03_c"]
    assert "02_b.ipynb failed" in shown.err and "ZeroDivisionError" in shown.err
    assert "04_d.ipynb is left out: it reads the results of notebook 02" in shown.err
    assert main(["run", "01", "04", "--profile", "tiny"]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_notebook_is_one_line_and_the_partial_copy_kept(
    number, tmp_path, monkeypatch, outputs, capsys, caplog
):
    """The cell sees a KeyboardInterrupt, as in JupyterLab, and its kernel ends."""
    waiting = (
        "import os, time\nprint('so far', flush=True)\nopen('pid', 'w').write(str(os.getpid()))\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    open('interrupted', 'w').close()\n    raise"
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(waiting)]), tmp_path / "07_waiting.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)

    def interrupt():
        while not (tmp_path / "pid").is_file():
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    assert command_line.main(["run", "07", "--profile", "tiny"]) == 128 + number
    partial = outputs / "tiny" / "reports" / "07_waiting.partial.ipynb"
    first = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"{first}; the partial copy of 07_waiting.ipynb is {partial}; run again, training goes on where it was"
    )
    assert "so far" in nbformat.read(partial, as_version=4).cells[0].outputs[0].text
    assert (tmp_path / "interrupted").is_file()
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    gc.collect()
    # nbclient may say that its kernel died; nothing else, as "Task was destroyed but it is pending!"
    assert {record.getMessage() for record in caplog.records} <= {"Kernel died while waiting for execute reply."}


def test_the_kernel_is_this_interpreters_whatever_is_called_python3(profile, tmp_path, monkeypatch):
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    other = {"argv": ["/bin/false", "{connection_file}"], "display_name": "another", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(other))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    code = f"import sys\nassert sys.executable == {sys.executable!r}, sys.executable"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), tmp_path / "06_own.ipynb")
    assert notebooks.run_notebook(tmp_path / "06_own.ipynb", profile, "tiny").is_file()


def test_notebook_05_runs_on_request_alone():
    assert [path.name[:2] for path in notebooks.find_notebooks([])] == ["01", "02", "03", "04"]
    assert [path.name[:2] for path in notebooks.find_notebooks(["3", "05"])] == ["03", "05"]


def test_without_notebooks_it_is_said_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=f"no notebooks in {tmp_path}: run it in a clone of the repository"):
        notebooks.find_notebooks([])


def test_a_report_keeps_the_last_state_of_a_progress_bar(tmp_path, monkeypatch, outputs):
    code = "import sys, time\nfor i in range(3):\n    print(f'\\rstate {i}', end='', flush=True)\n    time.sleep(0.2)"
    path = tmp_path / "bar.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    page = notebooks.run_notebook(path, load_profile("tiny"), "tiny").read_text(encoding="utf-8")
    assert "state 2" in page and "state 1" not in page
