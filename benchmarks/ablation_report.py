"""Table, forest plot and page of `ablations.py`: everything here reads what that wrote, nothing is measured."""

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas

from llmft_helpers.models.embedded import present_name
from llmft_helpers.reports.tables import holm, markdown, with_interval
from llmft_helpers.storage import write_text

COMMAND = "python benchmarks/ablations.py"
TITLES = {
    "reference": "reference", "loss": "what the loss sees", "rank": "rank at matched scale",
    "modules": "adapted modules", "precision": "precision of the base",
    "start": "where the adapter begins", "products": "products in training", "register": "training register",
    "size": "training rows", "learning_rate": "learning rate", "alpha": "scale of the update",
    "batch": "rows a step", "dropout": "dropout",
}  # fmt: skip
MARKERS = dict(zip(TITLES, "*oosDp<^vPXhd", strict=True))


def scored(document: dict) -> list[dict]:
    return [row for row in document["rows"] if "bleu" in row]


def table(document: dict) -> pandas.DataFrame:
    """One line a run that was scored on test rows."""
    lines = [
        {
            "group": TITLES[row["group"]],
            "run": row["name"],
            "rows": f"{row['train_rows']:,}",
            "seconds": f"{row['seconds']:.0f}",
            "validation loss": f"{row['validation_loss']:.3f}",
            "BLEU (95% interval)": with_interval(row, "bleu"),
            "p": f"{row['p_against_reference']:.3f}" if "p_against_reference" in row else "",
            "chrF": f"{row['chrf']:.1f}",
            "perplexity": f"{row['perplexity']:.2f}",
            "prompt echo": f"{row['prompt_echo_rate']:.1%}",
            "ends itself": f"{row['eos_rate']:.0%}",
        }
        for row in scored(document)
    ]
    return pandas.DataFrame(lines)


def swept(document: dict) -> list[dict]:
    """The reference, and the runs without a test score."""
    return [row for row in document["rows"] if row["group"] == "reference" or "bleu" not in row]


def sweep_table(document: dict) -> pandas.DataFrame:
    """The runs that were judged by validation rows alone, beside the reference."""
    return pandas.DataFrame(
        {
            "run": row["name"],
            "learning rate": f"{row['learning_rate']:g}",
            "alpha": row["alpha"],
            "rank": row["rank"],
            "rsLoRA": "yes" if row["use_rslora"] else "no",
            "rows a step": row["batch_size"],
            "dropout": f"{row['dropout']:g}",
            "tokens a second": round(row["tokens_per_second"]),
            "validation loss": f"{row['validation_loss']:.3f}",
        }
        for row in swept(document)
    )


def by_register(document: dict) -> dict[str, dict]:
    """Scores by test register of the runs that differ in their training register alone."""
    chosen = [row for row in scored(document) if row["group"] in ("register", "reference")]
    return {"merged" if row["group"] == "reference" else row["name"]: row["per_source"] for row in chosen}


def register_table(document: dict) -> pandas.DataFrame:
    """BLEU by training register and test register, every run on the same number of rows."""
    return pandas.DataFrame(
        {"trained on": name} | {f"BLEU on {source}": with_interval(part, "bleu") for source, part in parts.items()}
        for name, parts in by_register(document).items()
    )


def tone_table(document: dict) -> pandas.DataFrame:
    """Marks of tone in the answers to each test register, and in the references."""

    def line(name: str, parts: dict) -> dict:
        cells = {"trained on": name}
        for source, part in parts.items():
            cells |= {
                f"{source}: contractions": f"{part['contraction_rate']:.0%}",
                f"{source}: letters a word": f"{part['characters_per_word']:.2f}",
                f"{source}: length ratio": f"{part['length_ratio']:.2f}" if "length_ratio" in part else "1.00",
            }
        return cells

    lines = [line(name, parts) for name, parts in by_register(document).items()]
    return pandas.DataFrame([*lines, line("(references)", document["references"])])


def findings(document: dict) -> str:
    """Computed paragraphs: comparisons with the reference, prompt echo, tone, and the sweep."""
    reference = next((row for row in document["rows"] if row["group"] == "reference"), None)
    if not reference:
        return "The reference has not run yet."
    parts = [_comparison_finding(document, reference), _echo_finding(document), _register_finding(document)]
    return "\n\n".join(part for part in [*parts, _sweep_finding(document)] if part)


def _comparison_finding(document: dict, reference: dict) -> str:
    compared = [row for row in scored(document) if row["group"] not in ("reference", "register")]
    clear, unclear = [], []
    for row, p in zip(compared, holm([row["p_against_reference"] for row in compared]), strict=True):
        change = row["bleu"] - reference["bleu"]
        (clear if p < 0.05 else unclear).append(f"{row['name']} {change:+.1f} (p = {p:.3f})")
    reached = f"The reference reaches {with_interval(reference, 'bleu')} BLEU."
    if not compared:
        return reached
    return (
        f"{reached} Beyond what the choice of test rows explains (p < 0.05,"
        f" adjusted for {len(compared)} comparisons, Holm 1979), in BLEU against it: {'; '.join(clear) or 'nothing'}."
        f" Within it: {'; '.join(unclear) or 'nothing'}."
    )


def _echo_finding(document: dict) -> str:
    effect = document.get("prompt_echo_difference")
    if not effect:
        return ""
    low, high = effect["ci95"]
    return (
        f"A loss that sees the prompt changes the share of answers that restate their source by"
        f" {effect['difference']:+.1%} (95%: {low:+.1%} to {high:+.1%}): the leak that was suspected "
        + ("is there." if low > 0 else "does not show.")
    )


def _register_finding(document: dict) -> str:
    effect = document.get("contraction_difference_on_everyday_rows")
    if not effect:
        return ""
    by_name = {row["name"]: row for row in document["rows"]}
    on_everyday = {kind: by_name[f"{kind} only"]["per_source"]["everyday"] for kind in ("everyday", "formal")}
    low, high = effect["ci95"]
    shown = "shows: it answers everyday sentences more formally" if high < 0 else "does not show"
    return (
        f"On everyday test rows the model trained on formal text alone scores {on_everyday['formal']['bleu']:.1f}"
        f" BLEU, the one trained on everyday text alone {on_everyday['everyday']['bleu']:.1f}, from equally many rows;"
        f" its answers hold a contraction in {on_everyday['formal']['contraction_rate']:.0%} instead of"
        f" {on_everyday['everyday']['contraction_rate']:.0%} of the cases (difference"
        f" {effect['difference']:+.1%}, 95%: {low:+.1%} to {high:+.1%}; the references:"
        f" {document['references']['everyday']['contraction_rate']:.0%}), so that the tone effect {shown}."
    )


def _sweep_finding(document: dict) -> str:
    tried = swept(document)
    if len(tried) < 2:
        return ""
    best = min(tried, key=lambda row: row["validation_loss"])
    return (
        f"Of the {len(tried)} settings of rate, scale, batch and dropout, judged by validation rows alone,"
        f" {best['name']} has the lowest loss"
        f" ({best['validation_loss']:.3f}; the reference {tried[0]['validation_loss']:.3f})."
    )


def write_table(document: dict) -> None:
    print(table(document).to_string(index=False))
    print(sweep_table(document).to_string(index=False))
    print(findings(document))


def write_plot(document: dict, path: Path) -> None:
    """Forest plot: BLEU with its 95% interval, runs by group, the reference as a dashed line; readable in grey."""
    rows = scored(document)[::-1]
    if not rows:
        return
    figure, axes = plt.subplots(figsize=(6.8, 0.8 + 0.36 * len(rows)))
    for place, row in enumerate(rows):
        low, high = row["bleu_ci95"]
        colour = "black" if row["group"] == "reference" else "#0072B2"
        axes.hlines(place, low, high, color=colour, linewidth=1.5)
        axes.plot(row["bleu"], place, MARKERS[row["group"]], color=colour, markersize=7)
        axes.annotate(f"{row['bleu']:.1f}", (high, place), xytext=(4, 0), textcoords="offset points", va="center",
                      fontsize=8)  # fmt: skip
        if row["group"] == "reference":
            axes.axvline(row["bleu"], color="grey", linestyle="--", linewidth=0.8, zorder=0)
    labels = [row["name"] if row["group"] == "reference" else f"{TITLES[row['group']]}: {row['name']}" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.set(xlabel="BLEU on the test rows, 95% bootstrap interval", ylim=(-0.6, len(rows) - 0.4))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def write_page(document: dict, page: Path, plot: Path) -> None:
    """The Markdown page: plot, tables and one paragraph, all from the document."""
    provenance = document["provenance"]
    reference = next((row for row in document["rows"] if row["group"] == "reference"), None)
    rows = f"{reference['train_rows']:,}" if reference else "the same number of"
    asked = f" --rows {reference['train_rows']}" if reference else ""
    train, lora = provenance["profile"]["translation"]["train"], provenance["profile"]["lora"]
    minutes = sum(provenance["seconds"].values()) / 60
    settings = (
        f"learning rate {train['learning_rate']:g}, {train['batch_size']} rows a step, rank {lora['rank']}, "
        f"alpha {lora['alpha']}"
    )
    notes = "".join(
        f"\n{title}: {', '.join(names)}.\n"
        for title, names in (
            ("Sources left out, as none of their rows is scored", document["left_out"]),
            ("Not run yet", document["missing"]),
        )
        if names
    )
    base = present_name(provenance["profile"]["model"]["name"])
    passes = "once" if train["epochs"] == 1 else f"{train['epochs']:g} times"
    command = f"{COMMAND} --profile {provenance['profile']['name']}{asked} --docs docs/{page.name}"
    text = f"""# Which choices of the translation fine-tune matter

`{command}` trained these runs and wrote this page
(base {base}, {provenance["device"]}, seed {provenance["seed"]}, {minutes:.0f} minutes of training in all).
Each run differs in one thing from the reference, the profile's own settings at that time ({settings}), on {rows}
pairs, taken from the corpora in turn. It passes {passes} over its rows, keeps the adapter of its lowest
validation loss, and is scored on the same {document["splits"]["test"]} test rows. p is the paired bootstrap's against
the reference; "validation loss" counts completion tokens alone, whatever the run's own loss saw. "Matched scale" keeps
alpha / rank; rsLoRA at this alpha multiplies the adapter by sqrt(rank). A run on all rows sees more of the larger
corpus; 8-bit integers are used only by a processor that is much faster at them, elsewhere that run is the reference
once more. A single seed stands behind every line: p speaks of the choice of test rows alone.
{notes}
![BLEU with intervals]({os.path.relpath(plot, page.parent)})

{markdown(table(document))}

## What they mean

{findings(document)}

## Training register by test register

Equally many rows each; "merged" is the reference, half of it from either corpus.

{markdown(register_table(document))}

Tone: share of answers with a contraction, letters a word, words written over words wanted.

{markdown(tone_table(document))}

## Learning rate, scale, batch and dropout, by validation rows alone

No test row was translated for these. Loss in nats a completion token, end token included.

{markdown(sweep_table(document))}
"""
    write_text(page, text)
