"""Tables, plots and sentences made of metrics, and the running of notebooks. Nothing here computes a score.

May use `runs` and what is below.
"""

from . import character_sentences, comparisons, from_tests, selection, sentences
from .plots import loss_figure, plot_arms, plot_bits, plot_changes, plot_grid, plot_losses, show_picture
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
    "character_sentences",
    "comparisons",
    "failures_table",
    "from_tests",
    "languages_table",
    "loss_figure",
    "plot_arms",
    "plot_bits",
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
    "show_picture",
    "side_by_side",
    "sources_table",
]
