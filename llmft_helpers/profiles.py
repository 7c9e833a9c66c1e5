"""Profiles: which model, data, budget and evaluation size a run uses.

Presets are the TOML files beside this module; a user copies one, edits it and names the
copy. `LLMFT_PROFILE` (a preset's name or a path) chooses; without it, `full` where a CUDA
device is visible and `demo` elsewhere.
"""

import dataclasses
import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from .errors import UserError

PRESETS = Path(__file__).parent / "profiles"
MISSING = ("missing", "missing_argument")
STRICT = ConfigDict(extra="forbid", strict=True)

Count = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Tracker = Literal["tensorboard", "trackio", "wandb"]


def _as_trackers(value: object) -> object:
    """`report_to` as users of the library write it: "none", a name, or a list of names."""
    named = [] if value == "none" else value
    return (named,) if isinstance(named, str) else tuple(named) if isinstance(named, list) else named


@dataclass(frozen=True, config=STRICT)
class ModelSettings:
    """`name`: an embedded model ("gemma-3-270m" or another of models/embedded.py), "random", the path of a GGUF file or
    of a folder, or a hub repository.
    """

    name: str
    load_in_4bit: bool = True
    keep_16bit: tuple[str, ...] = ()  # layers, by the end of their name, that are not rounded to 4 bits
    revision: str | None = None
    max_length: PositiveInt = 512  # tokens, prompt and completion together
    knowledge_cutoff: str | None = None  # year-month-day of the newest text it was pretrained on

    @property
    def is_local(self) -> bool:
        """Whether no hub is asked, whose repositories are called owner/name."""
        return "/" not in self.name or self.name.endswith(".gguf") or Path(self.name).is_dir()

    @property
    def precision(self) -> str:
        """What an adapter has to find again in its base."""
        kept = f" but for {', '.join(self.keep_16bit)}" if self.keep_16bit else ""
        return f"4-bit{kept}" if self.load_in_4bit else "16-bit"


@dataclass(frozen=True, config=STRICT)
class LoraSettings:
    rank: PositiveInt = 64
    alpha: PositiveInt = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    use_rslora: bool = False  # scale alpha / sqrt(rank) (arXiv 2312.03732) instead of alpha / rank
    loftq: bool = False  # begin at what 4-bit rounding lost (arXiv 2310.08659) instead of at zero
    int8_products: bool = False  # on a CPU that is much faster at them, in training alone
    gradient_checkpointing: bool = False  # compute activations twice: slower, for small cards
    target_modules: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip


@dataclass(frozen=True, config=STRICT)
class Source:
    """One corpus. `path` (a file, or two aligned text files) or `hub` (a repository), not both.

    `columns` maps our names (`es`, `en`; for problems `completion`, ...) to the source's, with
    dots into nested columns (`translation.es`, `messages.1.content`). How a file is read follows from its name and
    content; `separator`, `encoding`, `header` (the columns' names, if the first line is a row) and `field` (the list of
    rows in one JSON object) say what does not. `limit` caps the rows read, `weight` is the share of
    the source's training rows kept, `split` fixes the rows' split: "test" where a test set is published,
    "train" for rows that are never scored.
    """

    name: str
    path: str | tuple[str, str] | None = None
    hub: str | None = None
    config: str | None = None
    hub_split: str = "train"
    revision: str | None = None
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    encoding: str | None = None
    header: tuple[str, ...] = ()
    field: str | None = None
    register: str | None = None
    licence: str = "unknown"
    limit: PositiveInt | None = None
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    split: Literal["train", "test"] | None = None


@dataclass(frozen=True, config=STRICT)
class TrainSettings:
    epochs: PositiveFloat
    learning_rate: PositiveFloat
    batch_size: PositiveInt
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_steps: PositiveInt | None = None
    evaluations: PositiveInt = 4  # validation losses and checkpoints during the run, the last one at its end
    loss_on_prompt: bool = False  # score the prompt's tokens too
    scored_rows: Count = 50  # validation rows that are answered and scored at every check
    keep: Literal["loss", "score"] = "loss"  # which adapter: the lowest validation loss, or the best of those scores


@dataclass(frozen=True, config=STRICT)
class TaskSettings:
    """Rows are counted after cleaning; `train_rows = 0` means all that remain."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    train: TrainSettings
    validation_rows: PositiveInt
    test_rows: PositiveInt
    train_rows: Count = 0
    max_new_tokens: PositiveInt = 96
    evaluation_batch_size: PositiveInt = 32
    shots: Count = 3
    direction: Literal["es-en", "en-es", "both"] = "es-en"  # translation only; "both" is measured es-en


@dataclass(frozen=True, config=STRICT)
class CharGptSettings:
    layers: PositiveInt
    heads: PositiveInt
    width: PositiveInt
    context: PositiveInt
    batch_size: PositiveInt
    seconds: PositiveFloat  # wall-clock training budget
    max_steps: PositiveInt
    learning_rate: PositiveFloat
    characters: PositiveInt  # cap on the merged text


@dataclass(frozen=True, config=STRICT)
class FromTestsSettings:
    """Notebook 05 and `train leetcode-grpo`."""

    problems: Count = 0  # training problems that are asked, those with the shortest solutions first; 0: all
    answered_by: Literal["references", "base"] = "references"  # in the first round: the model that was tuned on them
    samples: Annotated[int, Field(ge=2)] = 8  # answers to each
    temperature: PositiveFloat = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    kept: PositiveInt = 4  # passing answers to a problem that are trained on, at most
    rounds: PositiveInt = 1  # of sampling and training
    grpo_steps: PositiveInt = 100
    grpo_learning_rate: PositiveFloat = 1e-5


@dataclass(frozen=True, config=STRICT)
class Profile:
    name: str
    description: str
    seed: int
    model: ModelSettings
    lora: LoraSettings
    translation: TaskSettings
    leetcode: TaskSettings
    char_gpt: CharGptSettings
    from_tests: FromTestsSettings = FromTestsSettings()
    report_to: Annotated[tuple[Tracker, ...], BeforeValidator(_as_trackers)] = ()  # trackers told of the fine-tunes
    file: str | None = None  # no key: where `load_profile` read it; None for a preset


def default_name() -> str:
    """`LLMFT_PROFILE` if set, else `full` where CUDA is visible and `demo` elsewhere."""
    chosen = os.environ.get("LLMFT_PROFILE", "").strip()
    if chosen:
        return chosen
    import torch

    return "full" if torch.cuda.is_available() else "demo"


def load_profile(name: str | None = None) -> Profile:
    """Read and validate a preset's name or a TOML file's path; UserError names the file and the key."""
    name = name or default_name()
    path = PRESETS / f"{name}.toml"
    if not path.is_file():
        path = Path(name)
        if path.suffix != ".toml":
            presets = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
            raise UserError(f"unknown profile {name!r}: use one of {presets}, or the path of a .toml file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"profile {path}: cannot be read ({error})") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"profile {path}: not valid TOML: {error}") from error
    if "file" in values:
        raise UserError(f"profile {path}: file: unknown key")
    values.setdefault("name", path.stem)
    profile = _validate(values, path)
    if path.resolve().parent != PRESETS.resolve() and (PRESETS / f"{profile.name}.toml").is_file():
        raise UserError(f"profile {path}: it would overwrite the results of the preset {profile.name}: rename it")
    if Path(profile.name).name != profile.name:
        raise UserError(f"profile {path}: name: {profile.name!r} must be the name of a folder")
    beside = path.parent / profile.model.name
    model = profile.model
    if (beside / "config.json").is_file() or (beside.suffix == ".gguf" and beside.is_file()):
        model = replace(model, name=str(beside.resolve()))
    return replace(
        profile,
        file=None if path.resolve().parent == PRESETS.resolve() else str(path.resolve()),
        model=model,
        translation=_resolve_beside(profile.translation, path.parent),
        leetcode=_resolve_beside(profile.leetcode, path.parent),
    )


def _resolve_beside(task: TaskSettings, folder: Path) -> TaskSettings:
    """Data files named beside a user's profile are found from any working folder."""

    def resolved(name: str) -> str:
        return str((folder / name).resolve()) if (folder / name).is_file() else name

    def with_path(source: Source) -> Source:
        if source.path is None:
            return source
        path = resolved(source.path) if isinstance(source.path, str) else tuple(resolved(name) for name in source.path)
        return replace(source, path=path)

    return replace(task, sources=tuple(with_path(source) for source in task.sources))


def _validate(values: dict, path: Path) -> Profile:
    try:
        # TOML has arrays where the dataclasses have tuples: JSON mode converts just that.
        return TypeAdapter(Profile).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {_explain(e)}" for e in error.errors()]
        raise UserError(f"profile {path}: " + "; ".join(lines)) from error


def _explain(error: dict) -> str:
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return "unknown key"
    return f"{error['msg']} (got {error['input']!r})" if error["type"] not in MISSING else "missing"


def is_local(profile: Profile) -> bool:
    """Whether neither the model nor any source comes from a hub."""
    sources = (*profile.translation.sources, *profile.leetcode.sources)
    return profile.model.is_local and not any(source.hub for source in sources)
