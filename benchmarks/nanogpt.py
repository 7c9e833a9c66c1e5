"""nanoGPT, trained by its own train.py in a temporary copy of a checkout, and scored by notebook 01's rule."""

import importlib.util
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from char_gpt_runs import CURVE_POINTS, Documents, final_scores, tokenizer_and_text

from llmft_helpers.errors import UserError

RECIPES = {
    "cpu": {"block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4, "n_embd": 128, "dropout": 0.0},
    "gpu": {"block_size": 128, "batch_size": 16, "n_layer": 6, "n_head": 6, "n_embd": 192, "dropout": 0.2},
}
CALIBRATION_STEPS = 150
# nanoGPT fixes its seed and overwrites its checkpoint; this starts its train.py with another seed and numbered files.
START = """
import runpy, sys, torch
manual_seed, save, seed = torch.manual_seed, torch.save, int(sys.argv.pop(1))
torch.manual_seed = lambda _: manual_seed(seed)
torch.save = lambda state, path: save(state, f"{path}.{state['iter_num']}")
sys.argv = ["train.py", *sys.argv[1:]]
sys.path.insert(0, ".")
runpy.run_path("train.py", run_name="__main__")
"""


class NanoGpt:
    """A checkpoint of nanoGPT behind the interface that the notebook's `character_nats` scores."""

    def __init__(self, checkout: Path, path: Path):
        spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        saved = torch.load(path, map_location="cpu")
        self.model = module.GPT(module.GPTConfig(**saved["model_args"]))
        self.model.load_state_dict(saved["model"])
        self.context = saved["model_args"]["block_size"]
        self.head = self.model.lm_head

    def eval(self) -> "NanoGpt":
        self.model.eval()
        return self

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:  # (B, T)
        # with targets, which it wants contiguous, it returns the logits of every position
        return self.model(ids, ids.contiguous())[0]  # (B, T, V)

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())


def train_nanogpt(gpt, checkout: Path, recipe: str, seconds: float, seed: int, texts: dict[str, Documents]) -> dict:
    """Train nanoGPT by a recipe for about `seconds`; same result as `train_ours`."""
    tokenizer, text = tokenizer_and_text(gpt, texts)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "nanoGPT"
        shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".git", "data", "assets"))
        prepare(folder / "data" / "ours", tokenizer, text, "".join(text for _, text in texts["validation"]))
        times = run_nanogpt(folder, RECIPES[recipe], CALIBRATION_STEPS, CALIBRATION_STEPS, seed)
        every = max(1, round(seconds / statistics.median(times[CALIBRATION_STEPS // 3 :]) / CURVE_POINTS))
        times = run_nanogpt(folder, RECIPES[recipe], CURVE_POINTS * every, every, seed)
        typical = statistics.median(times)
        # the iteration after a validation is logged with the validation's time in it
        clock = numpy.cumsum([typical if step % every == 0 else spent for step, spent in enumerate(times)])
        curve = []
        for step in range(every, CURVE_POINTS * every + 1, every):
            bits = gpt.evaluate(checkpoint(folder, step), tokenizer, texts["validation"])["bits_per_char"]
            curve.append((float(clock[step - 1]), bits))
        best = min(range(CURVE_POINTS), key=lambda point: curve[point][1])
        model = checkpoint(folder, (best + 1) * every)
        return {
            "name": f"nanoGPT, {recipe} recipe",
            "seed": seed,
            "curve": curve,
            "seconds": float(clock[-2]),
            "steps": CURVE_POINTS * every,
            "parameters": model.parameters(),
            **final_scores(gpt, model, tokenizer, texts),
        }


def checkpoint(folder: Path, step: int) -> NanoGpt:
    return NanoGpt(folder, folder / "out" / f"ckpt.pt.{step}")


def prepare(folder: Path, tokenizer, train_text: str, validation_text: str) -> None:
    """nanoGPT's data folder, with our alphabet."""
    folder.mkdir(parents=True)
    for name, text in (("train", train_text), ("val", validation_text)):
        numpy.array(tokenizer.encode(text), dtype=numpy.uint16).tofile(folder / f"{name}.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": tokenizer.size}))


def run_nanogpt(folder: Path, recipe: dict, steps: int, every: int, seed: int) -> list[float]:
    """Seconds of every iteration of one run of train.py, which leaves out/ckpt.pt.<iteration>."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    flags = recipe | {
        "dataset": "ours", "out_dir": "out", "device": "cpu", "compile": False, "log_interval": 1,
        "eval_iters": 1, "eval_interval": every, "always_save_checkpoint": True, "max_iters": steps,
        "lr_decay_iters": steps,
    }  # fmt: skip
    command = [sys.executable, "-c", START, str(seed), "config/train_shakespeare_char.py"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    if done.returncode:
        raise UserError(f"nanoGPT's train.py failed:\n{done.stdout[-500:]}\n{done.stderr[-1500:]}")
    return [float(ms) / 1000 for ms in re.findall(r"^iter \d+: .* time ([\d.]+)ms", done.stdout, re.MULTILINE)]
