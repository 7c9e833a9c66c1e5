"""Questions of a reader's own: three arms by one function, in a box and in a terminal."""

import io
import json
import os
import select
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from types import SimpleNamespace

import psutil
import pytest
import torch
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager

from llmft_helpers import data, models, playground, streams
from llmft_helpers.__main__ import main
from llmft_helpers.errors import Terminated, UserError
from llmft_helpers.grading import grade
from llmft_helpers.models.notes import adapter_note
from llmft_helpers.playground import box, terminal
from llmft_helpers.playground.arms import Answer, Arms, marked
from llmft_helpers.playground.typed_tests import with_typed_test
from llmft_helpers.reports import ARMS, unshown
from llmft_helpers.runs import ROOT

PROBLEM = {
    "problem_description": "Return the sum of the even numbers.",
    "starter_code": "class Solution:\n    def sumOfEvens(self, nums: List[int]) -> int:",
}
TEST = "assert Solution().sumOfEvens([1, 2, 4]) == 6\nassert Solution().sumOfEvens([]) == 0"
RIGHT = "class Solution:\n    def sumOfEvens(self, nums):\n        return sum(n for n in nums if n % 2 == 0)"


@pytest.fixture(scope="module")
def tuned(profile):
    """(model, tokenizer) with an adapter that moves every answer."""
    model, tokenizer = models.load_base_model(profile.model)
    model = models.add_lora(model, profile.lora, 1)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    return model, tokenizer


@pytest.fixture(scope="module")
def adapters(tuned, profile, tmp_path_factory):
    """Folders of the adapter as one of each task."""
    folder = tmp_path_factory.mktemp("adapters")
    for task in ("translation", "leetcode"):
        models.save_adapter(tuned[0], folder / task, adapter_note(profile, task))
    return folder


@pytest.fixture(scope="module")
def pair_arms(tuned, profile):
    train = data.load_pairs(profile).train
    return Arms(*tuned, data.TranslationTask(), profile.translation, train)


@pytest.fixture(scope="module")
def code_arms(tuned, profile):
    return Arms(*tuned, data.LeetcodeTask(), profile.leetcode, data.load_problems(profile).train)


def answers(**texts):
    return {arm: Answer(texts[arm], 1.25, {}) for arm in ARMS}


def test_each_arm_is_asked_as_the_notebooks_ask_it(pair_arms, tuned, profile):
    model, tokenizer = tuned
    heard = []
    given = pair_arms.ask({"es": "Hola."}, heard.append)
    first, second = data.load_pairs(profile).train[:2]
    shots = "".join(f"Spanish: {row['es']}\nEnglish: {row['en']}\n\n" for row in (first, second))
    bare = "Spanish: Hola.\nEnglish:"

    def written(prompt):
        return models.generate(model, tokenizer, [prompt], 12, ("\n",))[0].text.strip().split("\n")[0].strip()

    with models.adapters_off(model):
        assert (given["base"].text, given["base_few_shot"].text) == (written(bare), written(shots + bare))
    assert given["tuned"].text == written(bare) != given["base"].text
    assert heard == ["base", "base, few-shot", "tuned"] and all(0 < one.seconds < 60 for one in given.values())


def test_untuned_words_are_held_against_the_tuned_and_tuned_against_the_base():
    pieces = marked(answers(base="the red cat", base_few_shot="a black cat", tuned="the black cat"))
    new = {arm: [text for text, differs in some if differs] for arm, some in pieces.items()}
    assert new == {"base": ["red"], "base_few_shot": ["a"], "tuned": ["black"]}


@pytest.mark.parametrize(
    ("program", "passed", "detail"),
    [
        (RIGHT, 2, ""),
        (RIGHT.replace("== 0", "== 1"), 1, "assert Solution().sumOfEvens([1, 2, 4]) == 6; got 1"),
        ("class Solution:\n    def other(self): pass", 0, "the code defines no Solution.sumOfEvens"),
    ],
)
def test_a_typed_test_grades_programs(program, passed, detail):
    (graded,) = grade([program], [with_typed_test(PROBLEM, TEST)])
    assert (graded["tests_passed"], graded["tests_total"]) == (passed, 2) and detail in graded["detail"]


@pytest.mark.parametrize(
    ("starter", "program", "typed"),
    [
        (PROBLEM["starter_code"], RIGHT, "made = Solution()\nfor n in (0, 2):\n    assert made.sumOfEvens([n]) == n"),
        ("def double(n: int) -> int:", "def double(n): return 2 * n", 'assert double("""a\nb""") == "a\\nba\\nb"'),
        ("import math\n\nclass Solution:\n    def _own(self): ...\n    def f(self):",
         "class Solution:\n    def f(self): return 1", "# a note\nassert Solution().f() == 1"),
    ],
)  # fmt: skip
def test_a_typed_test_may_use_solution_as_it_likes(starter, program, typed):
    (graded,) = grade([program], [with_typed_test(PROBLEM | {"starter_code": starter}, typed)])
    assert graded["passed"] and graded["tests_total"] == 1, graded


@pytest.mark.parametrize(
    ("starter", "typed", "says"),
    [
        ("", "assert Solution().sumOfEvens([1]) == 0\nassert Solution(.f", "your test, line 2: "),
        ("", "assert '\0'", "your test"),
        ("", "Solution().sumOfEvens([1])\nassert True", "asserts nothing: write lines such as assert Solution().sumOf"),
        ("class Solution:", TEST, "the starter code opens no method"),
        ("def a(n):\n    pass\ndef b(n):", TEST, "the starter code opens no method, or several"),
    ],
)
def test_a_wrong_test_is_told_to_its_reader(starter, typed, says):
    with pytest.raises(UserError, match="^(your test|the starter)") as told:
        with_typed_test(PROBLEM | ({"starter_code": starter} if starter else {}), typed)
    assert says in str(told.value) and "\n" not in str(told.value)


def test_a_page_escapes_what_models_and_readers_write():
    nasty = "<script>alert(1)</script>"
    page = box.page({"es": nasty}, answers(base=nasty, base_few_shot=f"{nasty} a", tuned="fine"))
    assert "<script" not in page and page.count("&lt;script&gt;") == 3
    graded = {"passed": False, "tests_passed": 0, "tests_total": 1, "verdict": "error", "detail": nasty}
    page = box.page(PROBLEM, {arm: Answer("x", 1.0, graded) for arm in ARMS})
    assert "<script" not in page and page.count("0 of 1 tests passed, error: &lt;script") == 3


def test_a_page_keeps_a_programs_lines_and_shows_no_slur(monkeypatch):
    monkeypatch.setattr(unshown, "WORDS", frozenset([unshown._mark("slur")]))
    page = box.page({"es": "a"}, answers(base="a Slur", base_few_shot="def f():\n    pass", tuned="def f():\n    ok"))
    assert "Slur" not in page and "(not shown)" in page and "white-space:pre-wrap" in page
    assert "def f():\n    <b style='color:#D55E00'><u>pass</u></b>" in page and "1.2 s" in page


def test_the_box_answers_what_stands_in_its_field(pair_arms):
    made = box.Box(pair_arms, {"es": "Hola."})
    made.fields["es"].value = "¿Dónde está\n la <b>estación</b>? "
    said = []
    made.status.observe(lambda change: said.append((change["new"], made.button.disabled)), "value")
    made.button.click()
    given = pair_arms.ask({"es": "¿Dónde está la <b>estación</b>?"})
    for arm, name in zip(ARMS, ("base", "base, few-shot", "tuned"), strict=True):
        assert f">{name}</th>" in made.answers.value and box.marked_pieces(marked(given)[arm]) in made.answers.value
    assert "la &lt;b&gt;estación&lt;/b&gt;? " in made.answers.value and not made.button.disabled
    assert said == [("reading", True), ("base answers ...", True), ("base, few-shot answers ...", True),
                    ("tuned answers ...", True), ("", True)]  # fmt: skip


def test_the_box_grades_against_the_typed_test(code_arms):
    made = box.Box(code_arms, PROBLEM | {"test": ""})
    made.button.click()
    assert "tests passed" not in made.answers.value and made.status.value == ""
    made.fields["test"].value = TEST
    made.button.click()
    assert made.answers.value.count("0 of 2 tests passed, error: ") == 3
    made.fields["test"].value = "assert Solution("
    before = made.answers.value
    made.button.click()
    assert made.status.value == "your test, line 1: '(' was never closed" and made.answers.value == before


@pytest.mark.parametrize(
    ("text", "says"), [("  \n", "Spanish: type something first"), ("palabra " * 1000, "tokens, 2,036 fit: shorten it")]
)
def test_the_box_says_what_is_wrong_with_a_question(text, says, pair_arms):
    made = box.Box(pair_arms, {"es": text})
    made.button.click()
    assert says in made.status.value and made.answers.value == "" and not made.button.disabled


def test_the_box_can_be_used_after_an_interruption_and_after_a_fault(pair_arms, monkeypatch):
    made = box.Box(pair_arms, {"es": "Hola."})
    for error in (KeyboardInterrupt(), RuntimeError("broken")):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(pair_arms, "ask", fail)
        if isinstance(error, RuntimeError):
            with pytest.raises(RuntimeError):
                made.compare(None)
            assert made.status.value == "RuntimeError: broken"
        else:
            made.button.click()
            assert made.status.value == "stopped"
        assert not made.button.disabled


@pytest.mark.parametrize("live", [False, True])
def test_a_cell_always_shows_the_example_and_the_box_where_somebody_types(live, pair_arms, monkeypatch):
    displayed = []
    monkeypatch.setattr(box, "display", displayed.append)
    monkeypatch.setattr(box, "has_frontend", lambda: live)
    playground.try_it(pair_arms, {"es": "Hola."})
    assert "<b>Spanish</b>: Hola." in displayed[0].data
    assert [type(one) for one in displayed[1:]] == [box.Box] * live


def test_only_a_request_that_could_answer_input_comes_from_somebody():
    """JupyterLab and VS Code send allow_stdin, nbclient (`run`, nbconvert) does not: `kc.allow_stdin = False`."""
    manager = KernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    manager.start_kernel(env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        seen = []
        for allow in (True, False, True):
            client.execute_interactive(
                "from llmft_helpers.playground.box import has_frontend\nprint(has_frontend())", allow_stdin=allow,
                timeout=60, output_hook=lambda message: seen.append(message["content"].get("text", "")),
            )  # fmt: skip
        shown = "".join(seen).split()
        assert [word for word in shown if word in ("True", "False")] == ["True", "False", "True"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_outside_of_a_notebook_nobody_can_type():
    assert not box.has_frontend()


@pytest.fixture
def loaded(tuned, profile, monkeypatch):
    """`compare` in this process takes the model that is there; the tests in processes of their own load theirs."""
    monkeypatch.setattr(terminal, "load", lambda options: (profile, *tuned))


def piped(monkeypatch, content: bytes):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))


def blocks(text: str) -> list[list[str]]:
    return [part.split("\n") for part in text.removesuffix("\n").removesuffix("\n").split("\n\n")]


def test_compare_answers_from_a_pipe_whatever_the_locale(adapters, pair_arms, loaded, monkeypatch, capsysbinary):
    long = "palabra " * 1000
    piped(monkeypatch, f"\ufeff¿Qué?\r\n\n{long}\n  \nUno\u2028dos".encode())
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(sys.stdout.buffer, encoding="ascii"))
    assert main(["compare", "--adapter", str(adapters / "translation")]) == 2
    written = capsysbinary.readouterr()
    first, second = blocks(written.out.decode())
    assert first[0] == "line 1: ¿Qué?" and second[0] == "line 5: Uno dos"
    for question, lines in (("¿Qué?", first), ("Uno dos", second)):
        given = pair_arms.ask({"es": question})
        assert [line[:17].strip() for line in lines[1:]] == ["base", "base, few-shot", "tuned"]
        assert [line[27:] for line in lines[1:]] == [given[arm].text.rstrip() for arm in ARMS]
        assert all(line[17:27].strip().endswith(" s") for line in lines[1:]) and "\033" not in "".join(lines)
    (said,) = (line for line in written.err.decode().splitlines() if line.startswith("error: "))
    assert said.startswith("error: line 3: 8,") and said.endswith("tokens, 2,036 fit: shorten it (not answered)")


def test_a_line_that_is_not_utf8_ends_it_after_what_came_before(adapters, loaded, monkeypatch, capsys):
    piped(monkeypatch, b"Hola.\n" + "¿Qué?\n".encode("latin1"))
    assert main(["compare", "--adapter", str(adapters / "translation")]) == 2
    written = capsys.readouterr()
    assert len(blocks(written.out)) == 1
    assert "error: standard input, line 2: not UTF-8 (byte 0); convert it, e.g. iconv -f cp1252" in written.err


def test_standard_input_that_breaks_off_is_one_line(monkeypatch):
    def broken():
        yield b"Hola.\n"
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=broken()))
    lines = streams.arriving_lines()
    assert next(lines) == "Hola."
    with pytest.raises(UserError, match=r"^standard input: cannot be read \(Input/output error\)"):
        next(lines)


def test_compare_takes_problems_and_grades_those_with_tests(adapters, code_arms, loaded, monkeypatch, capsys):
    rows = [PROBLEM, PROBLEM | {"task_id": "mine", "tests": [{"args": [[2]], "expected": 2}]}]
    broken = [{"task_id": "a"}, PROBLEM | {"task_id": "odd", "tests": [1]}]
    piped(monkeypatch, "\n".join([*map(json.dumps, [*rows, *broken]), "{"]).encode())
    assert main(["compare", "--adapter", str(adapters / "leetcode")]) == 2
    written = capsys.readouterr()
    first, second = written.out.split("line 2: ")
    assert first.startswith("line 1: Return the sum of the even numbers.\n  base ") and "tests passed" not in first
    assert second.startswith("mine\n") and second.count("0 of 1 tests passed, error: ") == 3
    for answer in code_arms.ask(PROBLEM).values():
        assert f"\n    {terminal._visible(answer.text.splitlines()[0])}\n" in second
    errors = [line for line in written.err.splitlines() if line.startswith("error: ")]
    assert [error[:38] for error in errors] == ["error: line 3 has no 'problem_descript",
                                                "error: problem odd: cannot read its te",
                                                "error: line 5: not valid JSON (Expecti"]  # fmt: skip


def test_compare_reads_problems_from_a_file_as_solve_does(adapters, loaded, tmp_path, capsys):
    path = tmp_path / "problems.jsonl"
    path.write_text(f"\n{json.dumps(PROBLEM)}\n", encoding="utf-8")
    assert main(["compare", "--adapter", str(adapters / "leetcode"), "--input", str(path)]) == 0
    assert capsys.readouterr().out.startswith("row 1: Return the sum")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--adapter", "nowhere"], "holds no adapter"),
        (["--adapter", "{adapter}", "--input", "nowhere.txt"], "nowhere.txt does not exist"),
        (["--adapter", "{adapter}", "--direction", "en-es"], "was trained es-en, not en-es"),
    ],
)
def test_a_mistake_is_told_before_anything_is_loaded(arguments, says, adapters, monkeypatch, capsys):
    monkeypatch.setattr(terminal, "load", None)
    assert main(["compare", *(word.format(adapter=adapters / "translation") for word in arguments)]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["stdin", "stdout"])
def test_a_closed_stream_is_one_line(closed, adapters, monkeypatch, capsys):
    piped(monkeypatch, b"Hola.")
    monkeypatch.setattr(f"sys.{closed}", None)
    assert main(["compare", "--adapter", str(adapters / "translation")]) == 2
    assert f"error: standard {closed[3:]}put is closed: " in capsys.readouterr().err


def test_ctrl_c_stops_an_answer_at_a_terminal_and_everything_elsewhere(pair_arms, monkeypatch, capsys):
    def interrupted(error):
        def ask(_):
            raise error

        return ask

    monkeypatch.setattr(pair_arms, "ask", interrupted(KeyboardInterrupt()))
    assert terminal._compare(pair_arms, "line 1", "Hola.", typed=True)
    assert capsys.readouterr().err == "stopped\n"
    with pytest.raises(KeyboardInterrupt):
        terminal._compare(pair_arms, "line 1", "Hola.", typed=False)
    monkeypatch.setattr(pair_arms, "ask", interrupted(Terminated(15)))
    with pytest.raises(Terminated):
        terminal._compare(pair_arms, "line 1", "Hola.", typed=True)


def test_differing_words_are_bold_at_a_terminal_and_nothing_moves_its_cursor():
    given = answers(base="the \033[2J cat", base_few_shot="the cat", tuned="the cat")
    assert terminal.block(given, bold=True).split("\n")[0].endswith("the \033[1m\ufffd[2J\033[0m cat")
    assert terminal.block(given, bold=False).split("\n")[0] == "  base              1.2 s  the \ufffd[2J cat"


def command(adapters, **options) -> subprocess.Popen:
    words = [sys.executable, "-m", "llmft_helpers", "compare", "--adapter", str(adapters / "translation")]
    return subprocess.Popen(words, cwd=ROOT, **options)


def test_answers_come_line_by_line_and_a_reader_may_leave(adapters):
    pipe = subprocess.PIPE
    with command(adapters, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) as verb:
        verb.stdin.write(b"Hola.\n")
        first = b"".join(verb.stdout.readline() for _ in range(5)).decode()  # standard input is still open
        assert first.startswith("line 1: Hola.\n  base ") and first.endswith("\n\n")
        verb.stdout.close()
        verb.stdin.write("Adiós.\n".encode())
        verb.stdin.close()
        assert verb.wait(timeout=60) == 128 + 13 and b"Traceback" not in verb.stderr.read()


def read_until(master: int, wanted: str) -> str:
    text, end = "", time.monotonic() + 100
    while wanted not in text:
        assert select.select([master], [], [], end - time.monotonic())[0], text
        text += os.read(master, 4096).decode(errors="replace")
    return text


def wait_until_it_waits(process: subprocess.Popen) -> None:
    """Until the process sleeps: CPython loses a Ctrl-C that comes while readline still handles the key before it."""
    end = time.monotonic() + 100
    while psutil.Process(process.pid).status() != psutil.STATUS_SLEEPING:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_at_a_terminal_one_types_line_after_line(adapters):
    master, slave = os.openpty()
    verb = command(
        adapters, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=os.environ | {"TERM": "dumb"},
        preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    try:
        read_until(master, "A question a line. Ctrl-C stops an answer, Ctrl-D ends.\r\n> ")
        os.write(master, "¿Qué?\n".encode())
        told = read_until(master, "\n> ")
        assert "line 1" not in told and "\033[1m" in told
        assert all(told.count(f"  {name} ") == 1 for name in ("base", "base, few-shot", "tuned"))
        os.write(master, b"thrown away")
        read_until(master, "thrown away")  # Ctrl-C flushes what was not read yet, and readline would wait for it
        wait_until_it_waits(verb)
        os.write(master, b"\x03")
        assert "tuned" not in read_until(master, "\n> ")
        os.write(master, b"\x04")
        assert verb.wait(timeout=60) == 0
    finally:
        verb.kill()
        verb.wait()
        os.close(master)
