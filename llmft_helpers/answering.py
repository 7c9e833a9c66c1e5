"""The model that a command line names: the untuned one, an adapter, or a merged model; and the profile it goes with."""

import os
import sys
from argparse import Namespace
from dataclasses import replace

from .errors import UserError
from .profiles import Profile, is_local, load_profile


def _note(options: Namespace) -> dict:
    """What the adapter or merged model says of its training; {} for the untuned model."""
    from .models.exporting import read_merged_note
    from .models.loading import read_adapter_note

    if getattr(options, "model", None) is not None:
        return read_merged_note(options.model)
    return read_adapter_note(options.adapter) if options.adapter is not None else {}


def refuse_other_task(options: Namespace, task: str) -> None:
    """UserError if adapter or merged model was trained for another task than `task`."""
    trained = _note(options).get("task", task)
    if trained != task:
        raise UserError(f"{options.adapter or options.model} was trained for the task {trained}, not {task}")


def trained_profile(options: Namespace) -> Profile:
    """The chosen profile, or the one that adapter or merged model was trained with."""
    from .models.notes import noted_profile

    note = {} if options.profile else _note(options)
    return noted_profile(note, options.adapter or options.model) if note else load_profile(options.profile)


def _profile_for(options: Namespace) -> Profile:
    """The profile to answer with; a merged model takes its model's place."""
    profile = trained_profile(options)
    if options.model is None:
        return profile
    merged = replace(profile.model, name=str(options.model), load_in_4bit=False, revision=None)
    return replace(profile, model=merged)


def stay_offline_if_local(profile: Profile) -> None:
    """Hub look-ups that cannot find anything cost seconds each."""
    if is_local(profile):
        os.environ["HF_HUB_OFFLINE"] = "1"


def load(options: Namespace):
    """(profile, model, tokenizer) to answer with; what libraries print goes to standard error."""
    from .models.loading import load_for_inference

    profile = _profile_for(options)
    stay_offline_if_local(profile)
    # Libraries greet on standard output, which belongs to the answers.
    saved, sys.stdout = sys.stdout, sys.stderr
    try:
        return profile, *load_for_inference(profile, options.adapter)
    finally:
        sys.stdout = saved


def direction(options: Namespace) -> str:
    """The direction asked for, else the one trained or the profile's; UserError if it was not trained."""
    trained = _note(options).get("direction")
    if trained and options.direction and trained not in (options.direction, "both"):
        raise UserError(
            f"{options.adapter or options.model} was trained {trained}, not {options.direction}: "
            f'leave --direction out, or train one with direction = "both"'
        )
    return options.direction or trained or load_profile(options.profile).translation.direction
