"""What this machine can do, and one line of advice for each thing that is missing."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil

from ..device import device_description
from ..errors import UserError, reason
from ..profiles import load_profile
from ..runs import PINNED, ROOT, outputs_root
from .findings import Finding, probed
from .gpu import gpu_findings, profile_findings

NEEDS_GB = {  # model: memory of the largest notebook on a CPU in float32, disk
    "the demo": (7, 3),
    "qwen2.5-coder-1.5b-instruct": (18, 8),
}
REQUIREMENTS = ("requirements.txt", "requirements-nodeps.txt")


def examine(profile_name: str | None = None) -> list[Finding]:
    """Findings in reading order; what is missing or broken is a finding, as long as this module can be imported."""
    probes = {
        "Python": _python, "packages": _versions, "device": _device, "GPU": gpu_findings, "4-bit (NF4)": _four_bit,
        "memory available": lambda: _memory(profile_name), "disk free": lambda: _disk(profile_name),
        "embedded model": lambda: _embedded(profile_name), "model hub": _hub, "grading isolation": _isolation,
        "solutions' packages": _solution_packages,
        "profile": lambda: _profile(profile_name),
    }  # fmt: skip
    return [finding for name, probe in probes.items() for finding in probed(name, probe)]


def _python() -> Finding:
    return Finding("Python", platform.python_version())


def _versions() -> list[Finding]:
    pins, findings = {}, []
    for name in REQUIREMENTS:
        if (ROOT / name).is_file():
            pins |= dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
        else:
            findings.append(
                Finding(name, f"not in {ROOT}", "versions are not compared: run in a clone of the repository")
            )
    return findings + [_version(package, pins.get(package)) for package in PINNED]


def _version(package: str, pin: str | None) -> Finding:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        advice = "pip install -r requirements.txt, then requirements-nodeps.txt with --no-deps"
        return Finding(package, "not installed", advice)
    tested = pin is None or version.split("+")[0] == pin
    return Finding(package, version, "" if tested else f"tested with {pin}: pip install {package}=={pin}")


def _device() -> Finding:
    import torch

    described = device_description()
    advice = ""
    if not torch.cuda.is_available():
        advice = "no CUDA device: profile demo runs here; Llama 3.2 1B wants a GPU"
    elif described["dtype"] == "float16":
        advice = "a card before Ampere: training uses float16 with loss scaling, which works but is slower"
    return Finding("device", f"{described['device']}, computes in {described['dtype']}", advice)


def _four_bit() -> Finding:
    import torch

    try:
        import bitsandbytes

        device = "cuda" if torch.cuda.is_available() else "cpu"
        layer = bitsandbytes.nn.Linear4bit(128, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4").to(
            device
        )
        finite = bool(torch.isfinite(layer(torch.ones(1, 128, device=device))).all())
    except (ImportError, RuntimeError, OSError) as error:
        return Finding(
            "4-bit (NF4)",
            f"fails: {error}",
            "models load in 16 bits instead; reinstall bitsandbytes for 4-bit",
        )
    return Finding(
        "4-bit (NF4)",
        "works" if finite else "gives wrong numbers",
        "" if finite else "reinstall bitsandbytes",
    )


def _memory(profile_name: str | None) -> Finding:
    import psutil

    free, (name, need, _) = psutil.virtual_memory().available / 1e9, _needs(profile_name)
    enough = free >= need
    advice = "" if enough else f"{name} needs about {need} GB: close programs, or halve batch_size in a profile copy"
    return Finding("memory available", f"{free:.1f} GB, {os.cpu_count()} cores", advice)


def _disk(profile_name: str | None) -> Finding:
    folder, (name, _, need) = outputs_root(), _needs(profile_name)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if not os.access(existing, os.W_OK):
        return Finding("disk free", f"{existing} is not yours to write to", "set LLMFT_OUTPUTS to a folder of your own")
    return Finding(
        "disk free",
        f"{free:.1f} GB",
        "" if free >= need else f"{name} needs {need} GB: free some, or set LLMFT_OUTPUTS to another disk",
    )


def _needs(profile_name: str | None) -> tuple[str, int, int]:
    """(what needs it, GB of memory, GB of disk); where a card is, it holds the model."""
    from ..device import has_card

    asked_for = _asked_for(profile_name)
    name = asked_for if asked_for in NEEDS_GB else "the demo"
    memory, disk = NEEDS_GB[name]
    return name, NEEDS_GB["the demo"][0] if has_card() else memory, disk


def _asked_for(profile_name: str | None) -> str | None:
    """The profile's model; a profile that cannot be read is a finding of its own."""
    try:
        return load_profile(profile_name).model.name
    except UserError:
        return None


def _embedded(profile_name: str | None) -> list[Finding]:
    """Models of the requirements, which are all installed, and others, which only their profiles need."""
    from ..models.embedded import EMBEDDED, files_of

    findings = []
    for name, one in EMBEDDED.items():
        try:
            files_of(one, one.parts)
            text = f": {files_of(one, one.terms_file)[0]}" if one.terms_file else ""
            findings.append(Finding("embedded model", f"{name}, under {one.terms}{text}"))
        except UserError as error:
            if one.requirements in REQUIREMENTS or name == _asked_for(profile_name):
                findings.append(Finding("embedded model", f"{name} is missing", str(error)))
            else:
                value = f"{name} is not installed; profiles that name it need it: {one.install}"
                findings.append(Finding("embedded model", value))
    return findings


def _hub() -> Finding:
    import httpx
    from huggingface_hub.constants import ENDPOINT

    try:
        httpx.head(ENDPOINT, timeout=4, follow_redirects=True)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, ValueError, ImportError) as error:
        value = f"{ENDPOINT} cannot be asked ({reason(error)})"
        return Finding("model hub", value, "correct or unset HF_ENDPOINT, ALL_PROXY and HTTPS_PROXY")
    except httpx.HTTPError as error:
        return Finding(
            "model hub",
            f"not reachable ({type(error).__name__})",
            "fine for profile demo; full needs it, or local folders and files",
        )
    return Finding("model hub", "reachable")


def _isolation() -> Finding:
    from ..grading.execution import isolation_level

    return Finding("grading isolation", isolation_level())


def _solution_packages() -> Finding:
    from ..grading.sandbox import PACKAGES

    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return Finding(
        "solutions may import",
        "the standard library, " + ", ".join(name for name in PACKAGES if name not in missing),
        f"LeetCode offers {' and '.join(missing)}, too: pip install {' '.join(missing)}" if missing else "",
    )


def _profile(name: str | None) -> list[Finding]:
    try:
        profile = load_profile(name)
    except UserError as error:
        return [Finding("profile", "none", str(error))]
    return [Finding("profile", f"{profile.name}: {profile.description}"), *profile_findings(profile)]
