"""Notebook 04's box: a worked example as HTML, and beside it, where somebody can type, widgets that answer."""

import html

import ipywidgets
from IPython import get_ipython
from IPython.display import HTML, display

from ..data.cleaning import tidy
from ..data.prompts import LANGUAGES
from ..errors import UserError
from ..reports.tables import ARM_NAMES, marked_pieces, text_table
from ..reports.unshown import is_shown
from .arms import Answer, Arms, marked
from .typed_tests import with_typed_test

LABELS = LANGUAGES | {"problem_description": "problem", "starter_code": "signature", "test": "test"}
WIDE = ipywidgets.Layout(width="50em", height="auto")


def try_it(arms: Arms, question: dict[str, str]) -> None:
    """Answer `question` as a table that any page can show, and display a box to ask others in, if somebody can.

    `question`: {"es": ...}, or {"problem_description", "starter_code"} and, to be graded, "test": lines with asserts.
    """
    display(HTML(page(question, arms.ask(asked(question)))))
    if has_frontend():
        display(Box(arms, question))


def has_frontend() -> bool:
    """Whether somebody can type into what the running cell displays.

    A widget needs a kernel for every click, so that in a saved page it is dead: a box that does nothing, or the text
    "Box(children=...". What tells a person's frontend is the request to run the cell: JupyterLab, Notebook and VS Code
    offer to answer `input()` (allow_stdin of Jupyter's messaging protocol); nbclient, under `run`, nbconvert and
    papermill, does not. An environment variable would not do: plain nbconvert sets none.
    The example is displayed for all alike, and not as the box's fallback: nbconvert prefers a widget to HTML when it
    holds its state, and JupyterLab shows an error where the kernel that made it is gone.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent().get("content", {}).get("allow_stdin"))


def asked(question: dict[str, str]) -> dict:
    """The row to ask for what stands in the fields; UserError if one is empty or the test is no Python."""
    row = {key: tidy(text) if key in LANGUAGES else text for key, text in question.items() if key != "test"}
    empty = [LABELS[key] for key, text in row.items() if not text.strip()]
    if empty:
        raise UserError(f"{empty[0]}: type something first")
    return with_typed_test(row, question["test"]) if question.get("test", "").strip() else row


def page(question: dict[str, str], answers: dict[str, Answer]) -> str:
    """HTML: the question, the three answers next to each other with differing words marked, seconds and verdicts."""
    given = [f"<b>{LABELS[key]}</b>: {_text(key, html.escape(text))}" for key, text in question.items() if text]
    kind = list(question)[-1]
    cells = [
        _text(kind, marked_pieces(pieces)) if is_shown(answers[arm].text) else "(not shown)"
        for arm, pieces in marked(answers).items()
    ]
    told = [f"{one.seconds:.1f} s<br>{html.escape(one.verdict)}" for one in answers.values()]
    table = text_table([ARM_NAMES[arm] for arm in answers], [cells, told])
    return "".join(f"<div style='white-space:pre-wrap'>{one}</div>" for one in given) + table


def _text(key: str, marked_up: str) -> str:
    """Code in letters of one width, on lines of its own."""
    return f"<div style='font-family:monospace'>{marked_up}</div>" if key in ("starter_code", "test") else marked_up


class Box(ipywidgets.VBox):
    """A field for each part of the question, a button, and under it the answers to what was asked last."""

    def __init__(self, arms: Arms, question: dict[str, str]):
        self.arms = arms
        self.fields = {key: _field(key, text) for key, text in question.items()}
        self.button = ipywidgets.Button(description="Compare", button_style="primary")
        self.status, self.answers = ipywidgets.Label(), ipywidgets.HTML()
        self.button.on_click(self.compare)
        line = ipywidgets.HBox([self.button, self.status])
        super().__init__([*self.fields.values(), line, self.answers])

    def compare(self, _) -> None:
        """Answer what stands in the fields. What goes wrong is said beside the button: no cell shows it."""
        self.button.disabled, self.status.value = True, "reading"
        try:
            question = {key: field.value for key, field in self.fields.items()}
            row = asked(question)
            if fault := self.arms.fault(row):
                raise UserError(fault)
            self.answers.value = page(question, self.arms.ask(row, self._say))
            self.status.value = ""
        except UserError as error:
            self.status.value = str(error)
        except KeyboardInterrupt:
            self.status.value = "stopped"
        except Exception as error:
            self.status.value = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.button.disabled = False

    def _say(self, arm: str) -> None:
        self.status.value = f"{arm} answers ..."


def _field(key: str, text: str) -> ipywidgets.Textarea:
    rows = max(2, text.count("\n") + 1)
    return ipywidgets.Textarea(text, description=LABELS[key], rows=rows, layout=WIDE)
