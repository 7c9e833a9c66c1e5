"""Tables, plots and side-by-side texts. Everything here reads metrics; nothing computes them.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; arms also differ in hatching, so that
the plots survive black-and-white print.
"""

import difflib
import html
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy
import pandas
from IPython.display import HTML, Markdown, display

ARMS = ("base", "base_few_shot", "tuned")
ARM_NAMES = {"base": "base", "base_few_shot": "base, few-shot", "tuned": "tuned"}
COLOURS = {"base": "#999999", "base_few_shot": "#E69F00", "tuned": "#0072B2"}
INTERVALS = {"bleu": "bleu_ci95", "pass_at_1": "pass_at_1_ci95", "tests_passed_rate": "tests_passed_ci95"}
HATCHES = {"base": "", "base_few_shot": "//", "tuned": ".."}

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
    """A p-value in words; resampling a thousand times can give none below 0.001."""
    return "p ≤ 0.001" if p <= 0.001 else f"p = {p:.2g}"


def arms_table(metrics: dict, columns: dict[str, str]) -> pandas.DataFrame:
    """One row an arm, one column a metric, ready to display."""
    rows = {ARM_NAMES[arm]: {title: _shown(key, metrics[arm][key]) for key, title in columns.items()} for arm in ARMS}
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


def save_figure(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.show()
    plt.close(figure)


def plot_losses(history: list[dict], path: Path) -> None:
    """Training and validation loss (nats a completion token) over steps."""
    figure, axes = plt.subplots(figsize=(6.4, 3.4))
    for key, colour, style in (("loss", "#56B4E9", "-"), ("validation_loss", "#D55E00", "o--")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        axes.plot(*zip(*points, strict=True), style, color=colour, label=key.replace("_", " "))
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def plot_arms(
    panels: dict[str, tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]], path: Path
) -> None:
    """Grouped bars, one panel a metric: `{title: (values, intervals)}`, both group -> arm -> number(s)."""
    figure, all_axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.6), squeeze=False)
    for axes, (title, (values, intervals)) in zip(all_axes[0], panels.items(), strict=True):
        _grouped_bars(axes, values, intervals)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    arms = all_axes[0][0].get_legend_handles_labels()
    figure.legend(*arms, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(ARMS), frameon=False, fontsize=8)
    save_figure(figure, path)


def _grouped_bars(axes, values: dict[str, dict[str, float]], intervals: dict[str, dict[str, list[float]]]) -> None:
    width = 0.8 / len(ARMS)
    for index, arm in enumerate(ARMS):
        places = [group + (index - 1) * width for group in range(len(values))]
        heights = [by_arm[arm] for by_arm in values.values()]
        axes.bar(
            places,
            heights,
            width * 0.95,
            color=COLOURS[arm],
            hatch=HATCHES[arm],
            edgecolor="white",
            label=ARM_NAMES[arm],
        )
        for place, height, group in zip(places, heights, values, strict=True):
            low, high = intervals.get(group, {}).get(arm, (height, height))
            if high > low:
                axes.vlines(place, max(0, low), high, color="black", linewidth=1)
            axes.annotate(f"{height:.3g}", (place, max(high, height)), ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(values)), list(values), fontsize=8)
    axes.set_ylim(0, None)


CELL = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere;max-width:28em"
SCROLL = "max-height:22em;overflow:auto"  # a model that repeats itself to the limit fills pages


def side_by_side(rows: Iterable[dict], columns: dict[str, str], reference: str | None = None) -> None:
    """A table of texts; `columns`: key of a row (dots reach into it) -> heading. White space is kept.

    With `reference`, the key of the wanted text, words of `*.text` columns that differ from it are marked.
    """
    head = "".join(f"<th style='text-align:left'>{html.escape(title)}</th>" for title in columns.values())
    lines = []
    for row in rows:
        cells = [f"<td style='{CELL}'><div style='{SCROLL}'>{_cell(row, key, reference)}</div></td>" for key in columns]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    display(HTML(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"))


def _cell(row: dict, key: str, reference: str | None) -> str:
    value: object = row
    for part in key.split("."):
        value = value[part]
    if reference and key.endswith(".text"):
        return marked_words(value, row[reference])
    return f"{value:.1f}" if isinstance(value, float) else html.escape(str(value))


def marked_words(answer: str, reference: str) -> str:
    """HTML of `answer`, words that the reference does not have at that place in bold underline."""
    words, wanted = answer.split(), reference.split()
    marked = []
    for tag, start, end, _, _ in difflib.SequenceMatcher(None, words, wanted, autojunk=False).get_opcodes():
        text = html.escape(" ".join(words[start:end]))
        if text:
            marked.append(text if tag == "equal" else f"<b style='color:#D55E00'><u>{text}</u></b>")
    return " ".join(marked)


def plot_grid(table: pandas.DataFrame, path: Path) -> None:
    """A cell a problem and arm, darker the larger its share of passed tests; solved ones carry a tick."""
    figure, axes = plt.subplots(figsize=(4.5, 0.6 + 0.17 * len(table)))
    axes.imshow(table.to_numpy(), cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
    axes.set_xticks(range(table.shape[1]), [ARM_NAMES[arm] for arm in table.columns], fontsize=8)
    axes.set_yticks(range(len(table)), table.index, fontsize=6)
    for place, value in numpy.ndenumerate(table.to_numpy()):
        if value == 1:
            axes.annotate("✓", place[::-1], ha="center", va="center", fontsize=8)
    axes.set_title("share of tests passed", fontsize=9)
    save_figure(figure, path)


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


def failures_table(answers: dict[str, list[dict]]) -> list[dict]:
    """A row a failure class, most frequent first: `failure`, `count` by arm, and `example`, one answer's own words.

    `answers`: arm -> answers with `failure` ("" if solved), `detail` and `text`; the last arm lends its example first.
    """
    classes = Counter(a["failure"] for some in answers.values() for a in some if a["failure"])
    rows = []
    for name, _ in classes.most_common():
        alike = [a for some in reversed(answers.values()) for a in some if a["failure"] == name]
        counts = {ARM_NAMES[arm]: sum(a["failure"] == name for a in some) for arm, some in answers.items()}
        rows.append({"failure": name, **counts, "detail": alike[0]["detail"], "example": alike[0]["text"][:300]})
    return rows


def plot_changes(values: pandas.DataFrame, path: Path) -> None:
    """Bits per byte by model (rows, the untuned one first) and text (columns); colour shows the change in percent.

    Purple is worse and orange better, which colour-blind readers can tell apart; the signs say it in print.
    """
    changes = (100 * (values / values.iloc[0] - 1)).to_numpy()
    limit = max(abs(changes).max(), 5)  # a change of a percent stays pale
    figure, axes = plt.subplots(figsize=(1.25 * values.shape[1] + 1.5, 0.65 * len(values) + 1.2))
    image = axes.imshow(changes, cmap="PuOr", vmin=-1.3 * limit, vmax=1.3 * limit, aspect="auto")
    for (row, column), change in numpy.ndenumerate(changes):
        text = f"{values.iloc[row, column]:.2f}" + (f"\n{change:+.1f}%" if row else "")
        colour = "white" if abs(change) > 0.8 * limit else "black"
        axes.annotate(text, (column, row), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(values.shape[1]), values.columns, fontsize=8)
    axes.set_yticks(range(len(values)), values.index, fontsize=8)
    figure.colorbar(image, label="change against the base (%)")
    axes.set_title("bits per byte: less is better", fontsize=10)
    save_figure(figure, path)
