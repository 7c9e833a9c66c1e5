"""What the doctor foresees about a GPU instance and about a profile whose model comes from a hub."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from ..device import has_card
from ..profiles import Profile
from .findings import Finding, probed
from .memory import memory_finding

MODEL_DISK_GB = 4  # Llama 3.2 1B in 16 bits and the corpora of profile full


def gpu_findings() -> list[Finding]:
    """Driver, memory and compiler of the card; nothing where torch is a CPU build and no card is there."""
    import torch

    if torch.cuda.is_available():
        free, total = (value / 1e9 for value in torch.cuda.mem_get_info())
        return [
            Finding("GPU memory free", f"{free:.1f} of {total:.1f} GB, {torch.cuda.device_count()} card(s)"),
            _compiler(),
        ]
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


def _compiler() -> Finding:
    """Triton compiles its launchers with a C compiler and Python's headers at the first forward pass."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    missing = [name for name, there in (("C compiler", compiler), ("Python.h", headers.is_file())) if not there]
    if not missing:
        return Finding("compiler for Triton", f"{compiler}, {headers}")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    advice = f"without it the first forward pass fails: apt-get install gcc {version}-dev, or your system's like"
    return Finding("compiler for Triton", f"no {' and no '.join(missing)}", advice)


def profile_findings(profile: Profile) -> list[Finding]:
    """Access to the model, room for its files and, on a card, memory for its training; nothing for one that is made."""
    reach = []
    if not profile.model.is_local:
        access = probed("model access", lambda: _access(profile.model.name))
        reach = [*access, *probed("disk free for the hub", _hub_disk)]
    made = profile.model.is_local and not Path(profile.model.name).is_dir()
    return reach if made or not has_card() else [*reach, *probed("memory", lambda: memory_finding(profile))]


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
