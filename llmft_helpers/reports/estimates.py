"""How long a notebook will take: as long as its last executed copy did, cell by cell, scaled to this machine."""

from datetime import datetime
from pathlib import Path

import nbformat

from ..device import device_description, shortest_seconds

TIMED = "llmft"  # in an executed copy's metadata: which machine it ran on, and how fast that multiplies


def this_machine() -> dict:
    """`{"device", "dtype", "product_seconds"}`: of a product of two 1,024 x 1,024 matrices, the shortest of 12."""
    import torch

    matrix = torch.ones(1024, 1024, device="cuda" if torch.cuda.is_available() else "cpu")

    def product() -> None:
        matrix.mm(matrix)[0, 0].item()  # waits for a card

    return {**device_description(), "product_seconds": shortest_seconds(product)[0]}


class Estimate:
    """What is known of a notebook's time; `seconds` is None where nothing is."""

    def __init__(self, copy: Path, machine: dict):
        notebook = _read(copy)
        ran_on = notebook.metadata.get(TIMED, machine)
        self.elsewhere = ran_on["device"] if ran_on["device"] != machine["device"] else None
        scale = machine["product_seconds"] / ran_on["product_seconds"] if self.elsewhere else 1.0
        self.cells = {cell.id: scale * cell_seconds(cell) for cell in notebook.cells if cell.cell_type == "code"}
        self.seconds = sum(self.cells.values()) or None

    def left(self, cells: list[str]) -> float | None:
        """Seconds that the cells with these ids took; None without an earlier copy."""
        return sum(self.cells.get(cell, 0.0) for cell in cells) if self.seconds else None


def _read(copy: Path):
    """An empty notebook for a copy that is missing or torn: then nothing is known."""
    try:
        return nbformat.read(copy, as_version=4)
    except (FileNotFoundError, nbformat.reader.NotJSONError):
        return nbformat.v4.new_notebook()


def cell_seconds(cell) -> float:
    """As nbclient noted it; 0 for a cell that was not run."""
    times = cell.metadata.get("execution", {})
    if "iopub.execute_input" not in times or "shell.execute_reply" not in times:
        return 0.0
    started, ended = (datetime.fromisoformat(times[name]) for name in ("iopub.execute_input", "shell.execute_reply"))
    return (ended - started).total_seconds()


def announce(estimates: dict[str, Estimate]) -> str:
    """Which notebooks will run, and for how long."""
    known = [one.seconds for one in estimates.values() if one.seconds]
    names = "notebooks " + ", ".join(estimates) if len(estimates) > 1 else f"notebook {next(iter(estimates))}"
    if not known:
        return f"{names}; how long it takes is known after the first run"
    without = [name for name, one in estimates.items() if not one.seconds]
    elsewhere = sorted({one.elsewhere for one in estimates.values() if one.elsewhere})
    notes = [f"scaled from a run on {' and '.join(elsewhere)}"] if elsewhere else ["as long as the last run took"]
    notes += [f"without {', '.join(without)}, not run before"] if without else []
    return f"{names}: about {in_words(sum(known))} ({'; '.join(notes)})"


def in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"
