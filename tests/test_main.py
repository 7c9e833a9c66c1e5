"""The command line as a user meets it: answers in order, and one clear line for every mistake."""

import io
import json
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from llmft_helpers import __main__ as command_line
from llmft_helpers.__main__ import main
from llmft_helpers.models import loading as models
from llmft_helpers.runs import ROOT


@pytest.fixture(scope="module")
def adapter(profile, tmp_path_factory):
    model, _ = models.load_base_model(profile.model)
    model = models.add_lora(model, profile.lora, 1)
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    models.save_adapter(
        model, folder, {"task": "translation", "base_model": "random", "profile": "tiny", "direction": "es-en"}
    )
    return folder


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--profile", "nope"], "unknown profile 'nope'"),
        (["run", "07", "--profile", "tiny"], "no notebook 07"),
        (["translate", "--adapter", "nowhere", "--profile", "tiny"], "holds no adapter"),
        (["translate", "--adapter", "{adapter}", "--input", "nowhere.txt"], "nowhere.txt does not exist"),
        (["translate", "--adapter", "{adapter}", "--input", "{latin1}", "--output", "{earlier}"], "not UTF-8"),
        (["translate", "--adapter", "{adapter}", "--input", "{folder}"], "cannot be read (Is a directory)"),
        (["translate", "--adapter", "{adapter}", "--profile", "{other}"], "trained on 'random'"),
        (["translate", "--adapter", "{adapter}", "--direction", "en-es"], "was trained es-en, not en-es"),
        (
            ["solve", "--adapter", "{adapter}", "--input", "{problems}", "--output", "{earlier}"],
            "was trained for the task translation, not leetcode",
        ),
        (
            ["solve", "--base", "--profile", "tiny", "--input", "{broken}", "--output", "{earlier}"],
            "broken.jsonl:2: not valid JSON",
        ),
        (
            ["solve", "--base", "--profile", "tiny", "--input", "{columns}", "--output", "{earlier}"],
            "row 1 has no 'problem_description'",
        ),
        (
            ["solve", "--base", "--profile", "tiny", "--input", "{folder}", "--output", "{earlier}"],
            "cannot be read (Is a directory)",
        ),
        (
            ["grade", "--input", "{columns}", "--problems", "{columns}", "--output", "{earlier}"],
            "row 1 has no 'solution'",
        ),
        (
            ["grade", "--input", "{empty}", "--problems", "{columns}", "--output", "{earlier}"],
            "row 1: 'solution' must be text, it is NoneType",
        ),
        (["translate", "--base", "--input", "{earlier}", "--output", "{earlier}"], "is the input: name another file"),
        (["translate", "--adapter", "{foreign}"], "was not trained by this suite (llmft.json is missing)"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, says, adapter, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Hola."))
    files = {"adapter": adapter, "latin1": tmp_path / "latin1.txt", "broken": tmp_path / "broken.jsonl"}
    files |= {"columns": tmp_path / "columns.jsonl", "other": tmp_path / "other.toml"}
    files |= {"earlier": tmp_path / "earlier.jsonl", "folder": tmp_path / "folder"}
    files["folder"].mkdir()
    files["earlier"].write_text("an earlier run's answers\n")
    files["latin1"].write_bytes("¿Qué?\n".encode("latin1"))
    files["broken"].write_text('{"task_id": "a"}\n{"task_id": \n')
    files["columns"].write_text('{"task_id": "a"}\n')
    files |= {
        "problems": tmp_path / "problems.jsonl",
        "empty": tmp_path / "empty.jsonl",
        "foreign": tmp_path / "foreign",
    }
    files["foreign"].mkdir()
    (files["foreign"] / "adapter_config.json").write_text("{}")
    files["empty"].write_text('{"task_id": "a", "solution": null}\n')
    files["problems"].write_text('{"task_id": "a", "problem_description": "Add.", "starter_code": "class Solution:"}\n')
    preset = (ROOT / "llmft_helpers" / "profiles" / "tiny.toml").read_text()
    files["other"].write_text(preset.replace('name = "random"', 'name = "smollm2-135m-instruct"'))
    there = set(tmp_path.iterdir())
    assert main([argument.format(**files) for argument in arguments]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and says in message
    assert files["earlier"].read_text() == "an earlier run's answers\n" and set(tmp_path.iterdir()) == there


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "trainer/a.bin"), "no space left on the disk (trainer/a.bin): free"),
        (OSError(28, "No space left on device"), "no space left on the disk: free some, and run again"),
        # what safetensors 0.8 says on a full tmpfs
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
         "no space left on the disk: free some, and run again"),
    ],
)  # fmt: skip
def test_a_full_disk_anywhere_is_one_line(error, says, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr(command_line, "doctor", fail)
    assert main(["doctor"]) == 2
    assert f"error: {says}" in capsys.readouterr().err


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), SafetensorError("invalid header")])
def test_other_errors_of_the_system_keep_their_traceback(error, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr(command_line, "doctor", fail)
    with pytest.raises(type(error)):
        main(["doctor"])


def test_translate_answers_line_by_line_and_keeps_empty_lines(adapter):
    done = subprocess.run(
        [sys.executable, "-m", "llmft_helpers", "translate", "--adapter", str(adapter)],
        input="¿Dónde está?\n\nHola.\n", capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert len(lines) == 4 and lines[1] == "" and lines[3] == "" and lines[0] and lines[2]


def test_translate_files_and_base(adapter, tmp_path):
    (tmp_path / "in.txt").write_text("Hola.\n\nAdiós.\n", encoding="utf-8")
    options = ["--profile", "tiny", "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out.txt")]
    assert main(["translate", "--base", *options]) == 0
    base = (tmp_path / "out.txt").read_text().split("\n")
    # B is zero in a fresh adapter, so it answers as the base does
    assert main(["translate", "--adapter", str(adapter), *options]) == 0
    assert (tmp_path / "out.txt").read_text().split("\n") == base and base[1] == "" and len(base) == 4


def test_solve_then_grade(tmp_path, capsys):
    problems = (ROOT / "data" / "leetcode" / "problems.jsonl").read_text().splitlines()[:3]
    (tmp_path / "problems.jsonl").write_text("\n".join(problems) + "\n")
    solve = ["solve", "--base", "--profile", "tiny", "--input", str(tmp_path / "problems.jsonl")]
    assert main([*solve, "--output", str(tmp_path / "solutions.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "solutions.jsonl").read_text().splitlines()]
    assert [row["task_id"] for row in rows] == [json.loads(line)["task_id"] for line in problems]
    rows[1]["solution"] = json.loads(problems[1])["completion"]
    (tmp_path / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    grade = ["grade", "--input", str(tmp_path / "solutions.jsonl"), "--problems", str(tmp_path / "problems.jsonl")]
    assert main([*grade, "--output", str(tmp_path / "graded.jsonl")]) == 0
    graded = [json.loads(line) for line in (tmp_path / "graded.jsonl").read_text().splitlines()]
    assert [row["passed"] for row in graded] == [False, True, False]
    assert set(graded[0]) == {"task_id", "passed", "verdict", "tests_passed", "tests_total", "detail"}
    output = capsys.readouterr()
    assert "1 of 3 solutions pass" in output.out and "isolation:" in output.err


def test_doctor_names_the_profile_and_advises(capsys):
    assert main(["doctor", "--profile", "tiny"]) == 0
    text = capsys.readouterr().out
    assert "tiny: tests" in text and "4-bit (NF4)" in text and "embedded model" in text
    assert main(["doctor", "--profile", "nope"]) == 0
    assert "unknown profile 'nope'" in capsys.readouterr().out
