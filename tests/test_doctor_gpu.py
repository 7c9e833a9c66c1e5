"""What the doctor foresees about a GPU instance: drivers, small and busy cards, gated and missing models, limits."""

import re
from types import SimpleNamespace

import httpx
import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from llmft_helpers.doctor import gpu as doctor_gpu
from llmft_helpers.profiles import load_profile


def response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("error", "value", "advice"),
    [
        (GatedRepoError("no", response=response(403)), "gated", "accept its terms.*HF_TOKEN"),
        (RepositoryNotFoundError("no", response=response(404)), "not found", "correct model.name"),
        (HfHubHTTPError("Too Many Requests", response=response(429)), "Too Many", "set HF_TOKEN, or wait"),
        (HfHubHTTPError("Bad Gateway", response=response(502)), "Bad Gateway", "later"),
        (OfflineModeIsEnabled("offline"), "offline", "unset HF_HUB_OFFLINE"),
        (httpx.ConnectError("no route"), "not reachable", "local folder"),
        (None, "granted", ""),
    ],
)
def test_access_to_the_model_is_foreseen(error, value, advice, monkeypatch):
    def check(name):
        assert name == "unsloth/Llama-3.2-1B"
        if error:
            raise error

    monkeypatch.setattr(huggingface_hub, "auth_check", check)
    access, disk = doctor_gpu.profile_findings(load_profile("full"))
    assert value in access.value
    assert bool(access.advice) == bool(advice)
    if advice:
        assert re.search(advice, access.advice)
    assert disk.name == "disk free for the hub"


def test_a_made_model_needs_no_hub():
    assert doctor_gpu.profile_findings(load_profile("tiny")) == []


@pytest.mark.parametrize(
    ("free", "total", "advice"),
    [(30, 32, ""), (14, 16, "gradient_checkpointing = true"), (3, 32, "another program holds memory")],
)
def test_small_and_busy_cards_get_advice(free, total, advice, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free * 1e9, total * 1e9))
    (finding,) = doctor_gpu.gpu_findings()
    assert advice in finding.advice and bool(advice) == bool(finding.advice)


@pytest.mark.parametrize(
    ("built_for", "smi", "advice"),
    [(None, None, None), (None, "/usr/bin/nvidia-smi", "CPU build"), ("13.0", None, "built for CUDA 13.0.*driver")],
)
def test_a_driver_too_old_or_a_cpu_build_is_told_apart(built_for, smi, advice, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "version", SimpleNamespace(cuda=built_for))
    monkeypatch.setattr(doctor_gpu.shutil, "which", lambda _: smi)
    findings = doctor_gpu.gpu_findings()
    assert bool(findings) == bool(advice)
    if advice:
        assert re.search(advice, findings[0].advice)
