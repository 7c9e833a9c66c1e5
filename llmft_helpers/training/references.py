"""What tuning on references (notebook 03) left, from which notebook 05 and GRPO go on: its scores and its adapter."""

from pathlib import Path

from ..data.corpora import Corpus
from ..errors import UserError
from ..models.loading import read_adapter_note, refuse_other_base
from ..profiles import Profile
from ..runs import run_dir
from ..storage import file_digest, read_json
from .checkpoints import restore_adapter

LORA = {"r": "rank", "lora_alpha": "alpha", "use_rslora": "use_rslora", "target_modules": "target_modules"}


def saved_scores(profile: Profile, corpus: Corpus) -> dict:
    """metrics.json of notebook 03; UserError if it is missing, or of other problems, answers of another length or
    another adapter than those of now."""
    folder = run_dir(profile, "leetcode")
    read_adapter_note(folder / "adapter")  # a clone has the scores alone
    saved = read_json(folder / "metrics.json")
    if saved["provenance"]["data"] != corpus.manifest["fingerprints"]:
        raise UserError(f"{folder} is of other problems than this profile's: run notebook 03 again")
    then, now = saved["provenance"]["profile"]["leetcode"]["max_new_tokens"], profile.leetcode.max_new_tokens
    if then != now:
        raise UserError(
            f"{folder} is of answers of at most leetcode.max_new_tokens = {then}, this profile says {now}: run "
            "notebook 03 again"
        )
    written = content(folder / "adapter")
    if saved["provenance"].get("adapter", written) != written:  # not noted by earlier versions
        raise UserError(f"{folder}/metrics.json is of another adapter than the one beside it: run notebook 03 again")
    return saved


def put_in_place(model, adapter: Path, profile: Profile) -> None:
    """An adapter's weights in the LoRA parameters of `model`; UserError if another base or another LoRA was trained."""
    refuse_other_base(model, adapter, profile.model)
    then, now = read_json(adapter / "adapter_config.json"), model.active_peft_config
    for key, name in LORA.items():
        was, wanted = _plain(then[key]), _plain(getattr(now, key))
        if was != wanted:
            raise UserError(
                f"{adapter} was trained with lora.{name} = {was}, this profile says {wanted}: run notebook 03 again, "
                "or choose the profile it was trained with"
            )
    restore_adapter(model, adapter)


def _plain(value):
    return value if value is None or isinstance(value, str | int | float) else sorted(value)


def content(adapter: Path) -> str:
    """Fingerprint of an adapter's weights."""
    return file_digest(adapter / "adapter_model.safetensors")
