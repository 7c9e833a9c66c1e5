"""The note beside an adapter: what it was trained for and on, and where its profile is found again."""

from pathlib import Path

from ..data.prompts import LeetcodeTask, Task, TranslationTask
from ..errors import UserError
from ..profiles import PRESETS, Profile, load_profile
from ..runs import ROOT, from_root


def adapter_note(profile: Profile, task: str) -> dict[str, str]:
    """Task, base model, profile and, of a translation, the direction, for `models.save_adapter`.

    The profile is a preset's name, or a file: relative to the repository where it lies there.
    """
    note = {"task": task, "base_model": profile.model.name, "profile": profile.name}
    if profile.file is not None:
        note["profile"] = from_root(profile.file)
    if task == "translation":
        note["direction"] = profile.translation.direction
    return note


def noted_task(note: dict[str, str]) -> Task:
    return TranslationTask(note["direction"]) if note["task"] == "translation" else LeetcodeTask()


def noted_profile(note: dict[str, str], folder: Path) -> Profile:
    """The profile in the note of `folder`, from any working folder; UserError if it is gone."""
    name = note.get("profile")
    if not name:
        raise UserError(f"{folder} does not say which profile it was trained with: name it with --profile")
    if (PRESETS / f"{name}.toml").is_file():
        return load_profile(name)
    path = ROOT / name  # an absolute one stays as it is
    if not path.is_file():
        raise UserError(
            f"{folder} was trained with the profile {name}, which is no preset and no file (any more): "
            "name the file, or a copy of it, with --profile"
        )
    return load_profile(str(path))
