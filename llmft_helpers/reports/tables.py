"""Tables and side-by-side texts. Everything here reads metrics; nothing computes them."""

import difflib
import html
import re
from collections import Counter
from collections.abc import Iterable

import pandas
from IPython.display import HTML, Markdown, display

from .unshown import is_shown

ARMS = ("base", "base_few_shot", "tuned")
ARM_NAMES = {"base": "base", "base_few_shot": "base, few-shot", "tuned": "tuned"}
ARM_NAMES |= {"references": "tuned on references", "own": "on own answers", "both": "on both"}  # notebook 05
SIGNIFICANT = 0.05
INTERVALS = {
    "bleu": "bleu_ci95", "pass_at_1": "pass_at_1_ci95", "tests_passed_rate": "tests_passed_ci95",
    "parses_rate": "parses_ci95", "pass_at_k": "pass_at_k_ci95",
}  # fmt: skip

TRANSLATION_COLUMNS = {
    "perplexity": "perplexity", "bits_per_byte": "bits/byte", "bleu": "BLEU", "bleu_ci95": "95% interval",
    "bleu_01": "BLEU (0-1)", "chrf": "chrF", "length_ratio": "length ratio",
    "answer_language": "in the target language", "prompt_echo_rate": "prompt echo", "eos_rate": "ends itself",
}  # fmt: skip
LEETCODE_COLUMNS = {
    "perplexity": "perplexity", "bits_per_byte": "bits/byte", "pass_at_1": "pass@1", "pass_at_1_ci95": "95% interval",
    "tests_passed_rate": "tests passed", "parses_rate": "parses", "defines_entry_point_rate": "entry point",
    "type_hints_rate": "type hints", "code_only_rate": "code only", "prompt_echo_rate": "prompt echo",
    "eos_rate": "ends itself", "bleu": "BLEU",
}  # fmt: skip


def say(text: str) -> None:
    """Prose whose numbers are computed: shown as Markdown."""
    display(Markdown(text))


def markdown(lines: list[dict] | pandas.DataFrame) -> str:
    """A Markdown table of texts as they are, a column a key."""
    return pandas.DataFrame(lines).to_markdown(index=False, disable_numparse=True)


def with_interval(metrics: dict, key: str) -> str:
    """A score of INTERVALS and its 95% interval: "21.8 (18.3 to 24.8)", a share in percent."""
    scale, unit = (1, "") if key == "bleu" else (100, "%")
    low, high = (bound * scale for bound in metrics[INTERVALS[key]])
    return f"{metrics[key] * scale:.1f}{unit} ({low:.1f} to {high:.1f}{unit})"


def p_text(p: float) -> str:
    """A p-value in words; resampling a thousand times can give none below 0.001. Rounded to two figures, or to more
    where two would put it on the other side of SIGNIFICANT."""
    if p <= 0.001:
        return "p ≤ 0.001"
    shown = (f"{p:.{figures}g}" for figures in range(2, 18))
    return f"p = {next(text for text in shown if (float(text) < SIGNIFICANT) == (p < SIGNIFICANT))}"


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def counted(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def settings_table(profile, name: str) -> pandas.DataFrame:
    """The settings that decide a fine-tuning of `name`, "translation" or "leetcode"."""
    settings = getattr(profile, name)
    chosen = {"base model": profile.model.name, "weights": profile.model.precision}
    chosen["LoRA rank, alpha"] = f"{profile.lora.rank}, {profile.lora.alpha}"
    if name == "translation":
        chosen["direction"] = settings.direction
    chosen |= {
        "epochs": settings.train.epochs,
        "learning rate": settings.train.learning_rate,
        "batch size": settings.train.batch_size,
        "new tokens at most": settings.max_new_tokens,
        "seed": profile.seed,
    }
    return pandas.Series(chosen).to_frame("value")


def sources_table(manifest: dict) -> pandas.DataFrame:
    """What became of every row, a row a source: rows read, dropped by reason, in each split, and not used."""
    accounts = {
        name: {"rows in": entry["rows_in"], **entry["dropped"], **entry["rows_out"], "not used": entry["unused"]}
        for name, entry in manifest["sources"].items()
    }
    table = pandas.DataFrame.from_dict(accounts, orient="index").fillna(0).astype(int)
    last = [*next(iter(manifest["sources"].values()))["rows_out"], "not used"]
    return table[[column for column in table if column not in last] + last]


def runs_table(metrics: dict[str, dict]) -> pandas.DataFrame:
    """Where and when each task was measured: a row a fact, a column a task."""
    origin = {task: measured["provenance"] for task, measured in metrics.items()}
    return pandas.DataFrame(
        {
            task: {
                "commit": p["git_commit"],
                "device": p["device"],
                "minutes": f"{sum(p['seconds'].values()) / 60:.1f}",
            }
            for task, p in origin.items()
        }
    )


def languages_table(metrics: dict) -> pandas.DataFrame:
    """Shares of answers in the target language, in the source language and in neither, by arm; the references last."""
    languages = {ARM_NAMES[arm]: metrics[arm]["answer_language"] for arm in ARMS}
    languages["references"] = metrics["reference_language"]
    return pandas.DataFrame.from_dict(languages, orient="index").map("{:.1%}".format)


def bits_table(bits: dict[str, dict[str, float]]) -> pandas.DataFrame:
    """Bits per byte, a row a model, a column a kind of text."""
    return pandas.DataFrame.from_dict(bits, orient="index")


def arms_table(metrics: dict, columns: dict[str, str], arms: Iterable[str] = ARMS) -> pandas.DataFrame:
    """One row an arm, one column a metric, ready to display."""
    rows = {ARM_NAMES[arm]: {title: _shown(key, metrics[arm][key]) for key, title in columns.items()} for arm in arms}
    return pandas.DataFrame.from_dict(rows, orient="index")


def _shown(key: str, value) -> str:
    if isinstance(value, (str, int)):
        return str(value)
    if key == "answer_language":
        return f"{value['target']:.1%}"
    if isinstance(value, list):
        scale = 100 if key.startswith("pass") else 1
        return f"{value[0] * scale:.1f} to {value[1] * scale:.1f}" + ("%" if scale == 100 else "")
    if key.endswith("_rate") or key == "pass_at_1":
        return f"{value:.1%}"
    return f"{value:.3g}" if key in ("bleu_01", "bits_per_byte", "length_ratio") else f"{value:.2f}"


CELL = "text-align:left;vertical-align:top;min-width:5em;white-space:pre-wrap;overflow-wrap:anywhere;max-width:28em"
SCROLL = "max-height:22em;overflow:auto"  # a model that repeats itself to the limit fills pages


def side_by_side(rows: Iterable[dict], columns: dict[str, str], reference: str | None = None) -> None:
    """A table of texts; `columns`: key of a row (dots reach into it) -> heading. White space is kept.

    With `reference`, the key of the wanted text, words of `*.text` columns that differ from it are marked.
    """
    display(HTML(text_table(columns.values(), ([_cell(row, key, reference) for key in columns] for row in rows))))


def text_table(headings: Iterable[str], rows: Iterable[list[str]]) -> str:
    """HTML of a table whose cells are HTML already; the headings are plain text."""
    head = "".join(f"<th style='text-align:left'>{html.escape(title)}</th>" for title in headings)
    lines = []
    for row in rows:
        cells = [f"<td style='{CELL}'><div style='{SCROLL}'>{cell}</div></td>" for cell in row]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _cell(row: dict, key: str, reference: str | None) -> str:
    value: object = row
    for part in key.split("."):
        value = value[part]
    if reference and key.endswith(".text"):
        return marked_words(value, row[reference])
    return f"{value:.1f}" if isinstance(value, float) else html.escape(str(value))


def marked_words(answer: str, reference: str) -> str:
    """HTML of `answer`, words that the reference does not have at that place in bold underline."""
    return marked_pieces(differences(answer, reference))


def marked_pieces(pieces: list[tuple[str, bool]]) -> str:
    """HTML of what `differences` cut, new words in bold underline."""
    return "".join(
        f"<b style='color:#D55E00'><u>{html.escape(text)}</u></b>" if new else html.escape(text) for text, new in pieces
    )


def differences(text: str, other: str) -> list[tuple[str, bool]]:
    """`text` in pieces, each with whether `other` lacks its words at that place; white space stays as it is."""
    words, gaps = re.findall(r"\S+", text), re.split(r"\S+", text)
    new = [True] * len(words)
    matcher = difflib.SequenceMatcher(None, words, re.findall(r"\S+", other), autojunk=False)
    for start, _, size in matcher.get_matching_blocks():
        new[start : start + size] = [False] * size
    pieces = [("", False), (gaps[0], False)]
    for word, is_new, gap in zip(words, new, gaps[1:], strict=True):
        if is_new and pieces[-1] == (" ", False) and pieces[-2][1]:  # one mark for neighbours
            pieces[-2:] = [(f"{pieces[-2][0]} {word}", True)]
        else:
            pieces.append((word, is_new))
        pieces.append((gap, False))
    return [piece for piece in pieces if piece[0]]


def ablation_table(rows: list[dict]) -> pandas.DataFrame:
    """What `make ablations` measured, a row a trained adapter."""
    columns = {"group": "group", "train_rows": "train rows", "validation_loss": "validation loss", "bleu": "BLEU",
               "bleu_ci95": "95% interval", "prompt_echo_rate": "prompt echo"}  # fmt: skip
    shown = {
        row["name"]: {title: _shown(key, row[key]) for key, title in columns.items() if key in row} for row in rows
    }
    return pandas.DataFrame.from_dict(shown, orient="index").fillna("")


def register_table(registers: dict[str, dict[str, dict]]) -> pandas.DataFrame:
    """BLEU with its 95% interval by training register (rows) and test register (columns)."""
    shown = {
        name: {f"tested on {source}": with_interval(part, "bleu") for source, part in scores.items()}
        for name, scores in registers.items()
    }
    return pandas.DataFrame.from_dict(shown, orient="index")


def _example(text: str) -> str:
    return text[:300] if is_shown(text) else "(not shown)"


def failures_table(answers: dict[str, list[dict]]) -> list[dict]:
    """A row a failure class, most frequent first: `failure`, `count` by arm, and `example`, one answer's own words.

    `answers`: arm -> answers with `failure` ("" if solved), `detail` and `text`; the last arm lends its example first.
    """
    classes = Counter(a["failure"] for some in answers.values() for a in some if a["failure"])
    rows = []
    for name, _ in classes.most_common():
        alike = [a for some in reversed(answers.values()) for a in some if a["failure"] == name]
        counts = {ARM_NAMES[arm]: sum(a["failure"] == name for a in some) for arm, some in answers.items()}
        rows.append({"failure": name, **counts, "detail": alike[0]["detail"], "example": _example(alike[0]["text"])})
    return rows
