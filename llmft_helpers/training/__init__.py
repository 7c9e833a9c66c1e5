"""LoRA fine-tuning with TRL's trainer: loss on the answer alone, resuming as if undisturbed, the best adapter kept.

May use everything but the command line.
"""

from .checkpoints import delete_checkpoints
from .fine_tuning import fine_tune, make_trainer
from .from_tests import FromTests
from .mask_check import mask_check
from .tasks import Experiment

__all__ = ["Experiment", "FromTests", "delete_checkpoints", "fine_tune", "make_trainer", "mask_check"]
