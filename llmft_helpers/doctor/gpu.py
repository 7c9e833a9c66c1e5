"""What the doctor foresees about a GPU instance and about a profile whose model comes from a hub."""

import os
import shutil
from pathlib import Path

from ..profiles import Profile
from .findings import Finding

MODEL_DISK_GB = 4  # Llama 3.2 1B in 16 bits and the corpora of profile full
CARD_MEMORY_GB = 26  # profile full without gradient checkpointing, by calculation


def gpu_findings() -> list[Finding]:
    """Driver and memory of the card; nothing where torch is a CPU build and no card is there."""
    import torch

    if torch.cuda.is_available():
        free, total = (value / 1e9 for value in torch.cuda.mem_get_info())
        small = "" if total >= CARD_MEMORY_GB else "set lora.gradient_checkpointing = true in a copy of the profile"
        if total >= CARD_MEMORY_GB > free:
            small = "another program holds memory of the card: end it (nvidia-smi lists them)"
        return [Finding("GPU memory free", f"{free:.1f} of {total:.1f} GB, {torch.cuda.device_count()} card(s)", small)]
    if torch.version.cuda is None:
        if shutil.which("nvidia-smi") is None:
            return []
        advice = "this torch is a CPU build: uninstall torch, and install requirements.txt without an extra index"
        return [Finding("CUDA", "a card, but no CUDA in torch", advice)]
    advice = (
        f"torch was built for CUDA {torch.version.cuda}: no card is there, or its driver is too old (nvidia-smi shows "
        "the newest CUDA it serves): update the driver, or install the pinned torch built for an older CUDA "
        "(https://pytorch.org/get-started/previous-versions lists the indexes)"
    )
    return [Finding("CUDA", f"built for {torch.version.cuda}, no usable device", advice)]


def profile_findings(profile: Profile) -> list[Finding]:
    """Access to the profile's model and room for its files; nothing for a model that is made or local."""
    return [] if profile.model.is_local else [_access(profile.model.name), _hub_disk()]


def _access(name: str) -> Finding:
    import httpx
    from huggingface_hub import auth_check
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        auth_check(name)
    except GatedRepoError:
        advice = f"accept its terms at https://huggingface.co/{name} and set HF_TOKEN, or use an ungated copy"
        return Finding("model access", f"{name}: gated", advice)
    except RepositoryNotFoundError:
        return Finding("model access", f"{name}: not found", "correct model.name, or set HF_TOKEN if it is private")
    except OfflineModeIsEnabled:
        return Finding("model access", f"{name}: offline", "unset HF_HUB_OFFLINE, unless the model is in the cache")
    except HfHubHTTPError as error:
        limited = error.response is not None and error.response.status_code == 429
        advice = "it limits requests: set HF_TOKEN, or wait some minutes" if limited else "try again later"
        return Finding("model access", f"{name}: {str(error).splitlines()[0]}", advice)
    except (OSError, httpx.HTTPError) as error:
        return Finding(
            "model access", f"{name}: not reachable ({type(error).__name__})", "use a local folder as model.name"
        )
    token = "with a token" if os.environ.get("HF_TOKEN") else "without a token"
    return Finding("model access", f"{name}: granted, {token}")


def _hub_disk() -> Finding:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    advice = "" if free >= MODEL_DISK_GB else f"free {MODEL_DISK_GB} GB, or set HF_HOME to a folder on another disk"
    return Finding("disk free for the hub", f"{free:.1f} GB in {folder}", advice)
