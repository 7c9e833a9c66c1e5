"""Trackers that a fine-tune reports to: their curves of loss and score, beside the files that every run writes."""

from importlib.util import find_spec

from ..errors import UserError
from ..profiles import Profile

PROJECT = "llmft_helpers"  # under which trackio and wandb list the runs; tensorboard reads the run's folder


def tracking_arguments(profile: Profile, task: str) -> dict:
    """What TRL's SFTConfig is told of `profile.report_to`; UserError for a tracker that is not installed."""
    for name in profile.report_to:
        if find_spec(name) is None:
            raise UserError(
                f'report_to: the package {name} is not installed: pip install {name}, or report_to = "none"'
            )
    return {"report_to": list(profile.report_to) or "none", "run_name": f"{profile.name}-{task}"}
