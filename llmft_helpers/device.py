"""What this machine computes with: the number type that it is fast in, its name, and the memory that a run takes."""

import ctypes
import functools
import gc
import logging
import os
import platform
import resource
import sys
import time
from collections.abc import Callable

# bitsandbytes asks for an optional package that would compute the same; here, as all that import it import this.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def give_memory_back() -> None:
    """Hand what was freed to the system: glibc keeps it, more than 1 GB after a training or an evaluation."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim:
        trim(0)


def peak_memory_gb() -> dict[str, float]:
    """Peak resident memory of this process and, with CUDA, peak allocated memory of the device (GB = 1e9 bytes)."""
    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    memory = {"host": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)}
    if torch.cuda.is_available():
        memory["cuda"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return memory


def has_card() -> bool:
    """Whether a CUDA device computes here: where models are loaded and trained otherwise than on a CPU."""
    import torch

    return torch.cuda.is_available()


@functools.cache
def compute_dtype():
    """The torch.dtype of this device's matrix products: bfloat16 where it is fast, else float16 on a card, which then
    only emulates bfloat16 (before Ampere), and float32 on a CPU. UNSLOTH_CPU_BF16 = 0 or 1 decides it for a CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    wanted = os.environ.get("UNSLOTH_CPU_BF16", "").strip().lower()
    fast = wanted in ("1", "true", "yes", "on") if wanted else bf16_is_fast_on_cpu()
    return torch.bfloat16 if fast else torch.float32


def bf16_is_fast_on_cpu() -> bool:
    """Whether a bfloat16 product takes less time here than a float32 one. Timed, as flags do not say it: without AMX
    a Xeon that has `avx512_bf16` multiplies bfloat16 at half the speed of float32."""
    import torch

    x, weight = torch.ones(256, 576), torch.ones(576, 576)
    half, half_weight = x.bfloat16(), weight.bfloat16()
    linear = torch.nn.functional.linear
    wide, narrow = shortest_seconds(lambda: linear(x, weight), lambda: linear(half, half_weight))
    return narrow < wide


def shortest_seconds(*tasks: Callable[[], object]) -> list[float]:
    """Of each task, of 12 runs in turns: a busy moment hits all alike, and the shortest time counts."""
    seconds = [[] for _ in tasks]
    for _ in range(12):
        for task, times in zip(tasks, seconds, strict=True):
            start = time.perf_counter()
            task()
            times.append(time.perf_counter() - start)
    return [min(times) for times in seconds]


def device_description() -> dict[str, str]:
    """Name and compute dtype of the device that a run uses."""
    import torch

    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        name = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
        device = f"{name} CPU, {torch.get_num_threads()} threads"
    return {"device": device, "dtype": str(compute_dtype()).removeprefix("torch.")}
