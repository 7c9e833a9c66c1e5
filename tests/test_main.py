"""The command line as a user meets it: answers in order, and one clear line for every mistake."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import SafetensorError

from llmft_helpers import __main__ as command_line
from llmft_helpers import answering
from llmft_helpers.__main__ import main
from llmft_helpers.models import generation
from llmft_helpers.models import loading as models
from llmft_helpers.runs import ROOT


def standard_input(text: str, locale: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding=locale)


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
        (
            ["grade", "--input", "{empty}", "--problems", "{earlier}", "--output", "{earlier}"],
            "is the input: name another file",
        ),
        (
            ["grade", "--input", "{empty}", "--problems", "{empty}", "--output", "{folder}"],
            "is a folder: name a file in",
        ),
        (["translate", "--base", "--input", "{utf16}", "--output", "{earlier}"], "iconv -f utf-16 -t utf-8"),
        (["translate", "--adapter", "{foreign}"], "was not trained by this suite (llmft.json is missing)"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, says, adapter, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", standard_input("Hola."))
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
    files["utf16"] = tmp_path / "utf16.txt"
    files["utf16"].write_text("¿Qué?\n", encoding="utf-16")
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


def test_a_full_card_anywhere_is_one_line(monkeypatch, capsys):
    def fail(_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(command_line, "doctor", fail)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.startswith("error: the GPU's memory is full: nvidia-smi shows")


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied"), SafetensorError("invalid header"), RuntimeError("a fault of ours")],
)
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


def test_translate_reads_and_writes_utf8_whatever_the_locale(profile, monkeypatch, capsysbinary):
    asked = []
    generate = generation.generate
    monkeypatch.setattr(generation, "generate", lambda *a: asked.extend(a[2]) or generate(*a))
    monkeypatch.setattr(
        "sys.stdin", standard_input("\ufeff¿Qué?\r\nUno\rdos\u2028tres\u0085\n\x0c\n\nA\u00f1o", "ascii")
    )
    monkeypatch.setattr(generation, "_cut", lambda *_: generation.Generated(" Añó\u2028.", 3, True))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(sys.stdout.buffer, encoding="ascii"))
    assert main(["translate", "--base", "--profile", "tiny"]) == 0
    written = capsysbinary.readouterr().out.decode()
    assert sorted(asked) == [f"Spanish: {line}\nEnglish:" for line in ("Año", "Uno dos tres", "¿Qué?")]
    assert written == "Añó\u2028.\nAñó\u2028.\n\n\nAñó\u2028.\n"


@pytest.mark.parametrize("closed", ["stdin", "stdout"])
def test_a_closed_stream_is_one_line(closed, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", standard_input("Hola."))
    monkeypatch.setattr(f"sys.{closed}", None)
    assert main(["translate", "--base", "--profile", "tiny"]) == 2
    end = (
        "input is closed: name a file with --input" if closed == "stdin" else "output is closed: name a file with --out"
    )
    assert f"error: standard {end}" in capsys.readouterr().err


def test_with_standard_error_closed_messages_do_not_come_among_the_answers(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", None)
    assert main(["run", "--profile", "nope"]) == 2
    assert capsys.readouterr().out == ""


def test_a_line_beyond_the_context_is_named_and_the_others_are_answered(tmp_path, capsys):
    (tmp_path / "in.txt").write_text(f"Hola.\n\n{'palabra ' * 1000}\nAdiós.\n", encoding="utf-8")
    options = ["--profile", "tiny", "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out.txt")]
    assert main(["translate", "--base", *options]) == 2
    (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    # characters are tokens here: 8 x 1000 - 1 and the template's; of 2,048 positions 12 are the answer's
    assert said == "error: line 3: 8,017 tokens, 2,036 fit: shorten it (not answered)"
    first, empty, refused, last, end = (tmp_path / "out.txt").read_text(encoding="utf-8").split("\n")
    assert first and last and not empty and not refused and not end


def test_a_problem_beyond_the_context_is_named_and_the_others_are_answered(tmp_path, capsys):
    problem = {"task_id": "a", "problem_description": "Add.", "starter_code": "class Solution:"}
    rows = [problem | {"problem_description": "Add. " * 1000}, problem]
    (tmp_path / "in.jsonl").write_text("\ufeff" + "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ["--profile", "tiny", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert main(["solve", "--base", *options]) == 2
    assert "error: row 1: 5,0" in capsys.readouterr().err
    solutions = [json.loads(line)["solution"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert solutions[0] == "" and solutions[1]


def test_batches_hold_no_more_attention_than_one_longest_prompt(profile):
    lengths = {"a": 10, "b": 4000, "c": 1000, "d": 2000, "e": 900, "f": 11, "g": 12, "h": 13, "i": 14, "j": 15}
    lengths |= {f"short {i}": 9 - i for i in range(9)}
    batches = list(answering._batches(lengths, profile.translation))
    assert [name for batch in batches for name in batch] == sorted(lengths, key=lambda name: -lengths[name])
    assert max(map(len, batches)) == profile.translation.evaluation_batch_size
    for batch in batches:
        assert len(batch) * max(lengths[name] for name in batch) ** 2 <= answering.LONGEST**2


def verb_in_a_process(body: str, **options) -> subprocess.Popen:
    """The command line in a process of its own, with a verb that runs `body`."""
    program = f"import os, signal, sys, time\nimport llmft_helpers.__main__ as c\ndef doctor(_):\n    {body}\n"
    program += "c.doctor = doctor\nsys.exit(c.main(['doctor']))"
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)


def test_a_reader_that_has_seen_enough_ends_it_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    verb = verb_in_a_process("print('x')", stdout=writing)  # refused when flushed
    os.close(writing)
    assert verb.communicate(timeout=60)[1] == "" and verb.returncode == 128 + signal.SIGPIPE


def test_a_full_disk_under_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        verb = verb_in_a_process("print('x' * 100_000)", stdout=full)  # refused when written
    assert verb.communicate(timeout=60)[1] == "error: no space left on the disk: free some, and run again\n"
    assert verb.returncode == 2


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "ended by SIGTERM")],
)
def test_a_signal_is_one_line(number, said):
    verb = verb_in_a_process(f"os.kill(os.getpid(), {int(number)}); time.sleep(30)", stdout=subprocess.PIPE)
    assert verb.communicate(timeout=60) == ("", f"{said}\n") and verb.returncode == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_grade_that_is_ended_leaves_no_folders(number, tmp_path):
    loop = {"task_id": "a", "solution": "class Solution:\n    def f(self):\n        while True: pass"}
    problem = {"task_id": "a", "entry_point": "Solution().f", "tests": [{"args": [], "expected": 1}]}
    (tmp_path / "solutions.jsonl").write_text(json.dumps(loop) + "\n")
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    (tmp_path / "tmp").mkdir()
    files = ["--input", str(tmp_path / "solutions.jsonl"), "--problems", str(tmp_path / "problems.jsonl")]
    verb = subprocess.Popen(
        [sys.executable, "-m", "llmft_helpers", "grade", *files], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
    )  # fmt: skip
    assert verb.stderr.readline().startswith("isolation: ")
    while len(list((tmp_path / "tmp").iterdir())) < 2:  # its bytecode, and a worker's folder
        time.sleep(0.05)
    verb.send_signal(number)
    verb.communicate(timeout=60)
    assert verb.returncode == 128 + number and list((tmp_path / "tmp").iterdir()) == []


def test_without_the_requirements_it_is_said_what_to_do():
    """As after `pip install .` alone."""
    bare = subprocess.run(
        [sys.executable, "-S", "-m", "llmft_helpers", "run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert bare.returncode == 1 and bare.stderr.count("\n") == 1
    assert re.match(r"error: the package \w+ is not installed: .*pip install -r requirements.txt", bare.stderr)


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
