"""Pictures of metrics. Everything here reads metrics; nothing computes them.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; arms also differ in hatching, so that
the plots survive black-and-white print.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy
import pandas
from IPython.display import Image, display
from matplotlib.figure import Figure

from .tables import ARM_NAMES

COLOURS = {"base": "#999999", "base_few_shot": "#E69F00", "tuned": "#0072B2"}
COLOURS |= {"references": "#0072B2", "own": "#E69F00", "both": "#009E73"}
HATCHES = {"base": "", "base_few_shot": "//", "tuned": "..", "references": "..", "own": "//", "both": "xx"}
SCORES = {"bleu": "BLEU", "tests_passed": "tests passed"}  # of a history, beside its losses


def save_figure(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.show()
    plt.close(figure)


def plot_losses(history: list[dict], path: Path, over: str = "step", unit: str = "token") -> None:
    """Training and validation loss (nats a `unit`) over `over`, a key of the history's entries; a score below."""
    save_figure(_draw_losses(history, over, unit), path)


def loss_figure(history: list[dict], over: str = "step", unit: str = "token") -> Figure:
    """The same as a picture that is shown where the caller wants it, such as in place of the one before."""
    figure = _draw_losses(history, over, unit)
    plt.close(figure)
    return figure


def _draw_losses(history: list[dict], over: str, unit: str) -> Figure:
    scores = [name for name in SCORES if any(name in entry for entry in history)]
    figure, panels = plt.subplots(
        1 + len(scores), sharex=True, squeeze=False, figsize=(6.4, 3.4 + 1.8 * len(scores)),
        height_ratios=[2, *(1 for _ in scores)],
    )  # fmt: skip
    axes = panels[0, 0]
    _curve(axes, history, over, "loss", "-", "#56B4E9")
    _curve(axes, history, over, "validation_loss", "o--", "#D55E00")
    axes.set_ylabel(f"loss (nats a {unit})")
    axes.legend(frameon=False)
    for name, below in zip(scores, panels[1:, 0], strict=True):
        _curve(below, history, over, name, "o-", COLOURS["tuned"])
        highest = max(entry.get(name, 0.0) for entry in history)
        below.set(ylabel=SCORES[name], ylim=(0, 1.15 * highest or 1))  # a marker at the top stays whole
    panels[-1, 0].set_xlabel("seconds of training" if over == "seconds" else over)
    return figure


def _curve(axes, history: list[dict], over: str, key: str, style: str, colour: str) -> None:
    entries = [entry for entry in history if key in entry]
    x, y = [entry[over] for entry in entries], [entry[key] for entry in entries]
    axes.plot(x, y, style, color=colour, label=key.replace("_", " "))
    axes.spines[["top", "right"]].set_visible(False)


def plot_bits(scores: dict, path: Path) -> None:
    """Bits a byte of unseen documents: a bar a domain, a line for all of them."""
    bits = {domain: part["bits_per_byte"] for domain, part in scores["per_domain"].items()}
    together = scores["bits_per_byte"]
    figure, axes = plt.subplots(figsize=(5.4, 2.6))
    bars = axes.bar(list(bits), list(bits.values()), 0.6, color=COLOURS["tuned"])
    axes.bar_label(bars, fmt="%.2f")
    axes.axhline(together, color="#D55E00", linestyle="--", label=f"all: {together:.2f}")
    axes.set(ylabel="bits a byte", title="Unseen documents, by domain", ylim=(0, None))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def show_picture(path: Path) -> None:
    """A picture that a benchmark saved, where it was run."""
    if path.is_file():
        display(Image(path))


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
    figure.legend(*arms, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(arms[0]), frameon=False, fontsize=8)
    save_figure(figure, path)


def _grouped_bars(axes, values: dict[str, dict[str, float]], intervals: dict[str, dict[str, list[float]]]) -> None:
    arms = list(next(iter(values.values())))
    width = 0.8 / len(arms)
    for index, arm in enumerate(arms):
        places = [group + (index - (len(arms) - 1) / 2) * width for group in range(len(values))]
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
            label = f"{height:.{2 if height < 10 else 1}f}"
            axes.annotate(label, (place, max(high, height)), ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(values)), list(values), fontsize=8)
    axes.set_ylim(0, None)


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
