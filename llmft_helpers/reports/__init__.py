"""Tables, plots and sentences made of metrics, and the running of notebooks. Nothing here computes a score.

May use `runs` and what is below.
"""

from .plots import plot_arms, plot_changes, plot_grid, plot_losses, save_figure
from .tables import (
    ARM_NAMES,
    ARMS,
    LEETCODE_COLUMNS,
    TRANSLATION_COLUMNS,
    ablation_table,
    arms_table,
    drops_table,
    failures_table,
    markdown,
    marked_words,
    p_text,
    register_table,
    say,
    side_by_side,
    with_interval,
)

__all__ = [
    "ARMS",
    "ARM_NAMES",
    "LEETCODE_COLUMNS",
    "TRANSLATION_COLUMNS",
    "ablation_table",
    "arms_table",
    "drops_table",
    "failures_table",
    "markdown",
    "marked_words",
    "p_text",
    "plot_arms",
    "plot_changes",
    "plot_grid",
    "plot_losses",
    "register_table",
    "save_figure",
    "say",
    "side_by_side",
    "with_interval",
]
