"""Tables, plots and sentences made of metrics, and the running of notebooks. Nothing here computes a score.

May use `runs` and what is below.
"""

from . import comparisons, selection, sentences
from .plots import plot_arms, plot_changes, plot_grid, plot_losses
from .tables import (
    ARM_NAMES,
    ARMS,
    LEETCODE_COLUMNS,
    TRANSLATION_COLUMNS,
    ablation_table,
    arms_table,
    bits_table,
    failures_table,
    languages_table,
    register_table,
    runs_table,
    say,
    settings_table,
    side_by_side,
    sources_table,
)
from .unshown import shown

__all__ = [
    "ARMS",
    "ARM_NAMES",
    "LEETCODE_COLUMNS",
    "TRANSLATION_COLUMNS",
    "ablation_table",
    "arms_table",
    "bits_table",
    "comparisons",
    "failures_table",
    "languages_table",
    "plot_arms",
    "plot_changes",
    "plot_grid",
    "plot_losses",
    "register_table",
    "runs_table",
    "say",
    "selection",
    "sentences",
    "settings_table",
    "shown",
    "side_by_side",
    "sources_table",
]
