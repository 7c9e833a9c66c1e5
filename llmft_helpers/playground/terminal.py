"""`compare`: a question a line, answered by base, few-shot base and tuned, typed in a terminal or from a pipe."""

import argparse
import contextlib
import sys
import textwrap
import unicodedata
from collections.abc import Iterator

from ..answering import direction, load, trained_task
from ..data.cleaning import tidy
from ..data.corpora import load_pairs, load_problems
from ..data.prompts import LeetcodeTask, Task, TranslationTask
from ..errors import Terminated, UserError
from ..reports.tables import ARM_NAMES
from ..storage import read_jsonl, read_object
from ..streams import (
    arriving_lines,
    read_text,
    refuse_closed_input,
    refuse_closed_output,
    refuse_row,
    split_lines,
    write_answers,
)
from .arms import Answer, Arms, marked

PROBLEM = ("problem_description", "starter_code")
BOLD, PLAIN = "\033[1m", "\033[0m"


def compare_lines(options: argparse.Namespace) -> int:
    """Answers to every question, each as it comes. Status 2 if one was refused; the others are answered."""
    refuse_closed_output(None, "open it, the answers go there")
    code = trained_task(options) == "leetcode"
    task = LeetcodeTask() if code else TranslationTask(direction(options))
    questions, typed = _questions(options, task)  # a file that cannot be read is told before minutes of loading
    profile, model, tokenizer = load(options)
    with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to the answers
        train = (load_problems if code else load_pairs)(profile).train
    arms = Arms(model, tokenizer, task, profile.leetcode if code else profile.translation, train)
    answered = [_compare(arms, name, question, typed) for name, question in questions if question]
    return 0 if all(answered) else 2


def _questions(options: argparse.Namespace, task: Task) -> tuple[Iterator[tuple[str, str | dict]], bool]:
    """((name, line or row) of each question, whether somebody types them)."""
    if options.input and isinstance(task, LeetcodeTask):
        return ((f"row {number}", row) for number, row in enumerate(read_jsonl(options.input), 1)), False
    if not options.input:
        refuse_closed_input()
    typed = not options.input and sys.stdin.isatty()
    lines = split_lines(read_text(options.input)) if options.input else _typed() if typed else arriving_lines()
    return ((f"line {number}", line.strip()) for number, line in enumerate(lines, 1)), typed


def _typed() -> Iterator[str]:
    """Lines from a terminal, after a prompt, until Ctrl-D; Ctrl-C throws the line away."""
    with contextlib.suppress(ImportError):  # not in every build of Python
        import readline  # noqa: F401  input() edits with it, and knows earlier lines
    print("A question a line. Ctrl-C stops an answer, Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            with contextlib.redirect_stdout(sys.stdout if sys.stdout.isatty() else sys.stderr):
                line = input("> ")
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt as error:
            if isinstance(error, Terminated):
                raise
            print(file=sys.stderr)
            continue
        yield line


def _compare(arms: Arms, name: str, question: str | dict, typed: bool) -> bool:
    """Whether the question was answered; why not is told on standard error."""
    try:
        row = _row(arms.task, name, question)
        if fault := arms.fault(row):
            raise UserError(f"{name}: {fault}")
        answers = arms.ask(row)
    except UserError as error:
        print(f"error: {error} (not answered)", file=sys.stderr)
        return False
    except KeyboardInterrupt as error:
        if not typed or isinstance(error, Terminated):
            raise
        print("stopped", file=sys.stderr)
        return True
    title = "" if typed else f"{name}: {_title(arms.task, row)}\n"
    write_answers(None, title + block(answers, sys.stdout.isatty()) + "\n")
    return True


def _row(task: Task, name: str, question: str | dict) -> dict:
    if isinstance(task, TranslationTask):
        return {task.source: tidy(question)}
    row = read_object(question, name) if isinstance(question, str) else question
    refuse_row(name, row, *PROBLEM)
    return row


def _title(task: Task, row: dict) -> str:
    if isinstance(task, TranslationTask):
        return row[task.source]
    return str(row.get("task_id") or task.statement(row).split("\n")[0])


def block(answers: dict[str, Answer], bold: bool) -> str:
    """An arm's answer after its name and seconds, or, if that is a program, indented below; new words in bold."""
    lines = []
    for arm, pieces in marked(answers).items():
        text = "".join(f"{BOLD}{_visible(piece)}{PLAIN}" if new and bold else _visible(piece) for piece, new in pieces)
        head = f"  {ARM_NAMES[arm]:<15}{answers[arm].seconds:6.1f} s  "
        several = "\n" in text or answers[arm].verdict
        lines.append(f"{head}{answers[arm].verdict}\n{textwrap.indent(text, '    ')}" if several else head + text)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _visible(text: str) -> str:
    """Without control characters: a model could move the cursor, or change the terminal's title."""
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)
