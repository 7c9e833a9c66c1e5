"""Notebook 01's GPT against nanoGPT: same text, threads and wall-clock, same evaluation.

    git clone https://github.com/karpathy/nanoGPT /elsewhere/nanoGPT
    python benchmarks/char_gpt.py --nanogpt /elsewhere/nanoGPT --seconds 300 --seeds 1,2,3

nanoGPT is trained by its own train.py, in a temporary copy of the checkout, by two recipes: `cpu`, the one its
README gives for a laptop, and `gpu`, the shape of its Shakespeare recipe scaled down to such a budget. Its number of
iterations is set from a short calibration, so that its learning rate decays within the budget, and ours then
gets the seconds that the better recipe really took. Neither clock counts validation or saving. Both are scored
on the whole validation text, every character once, with at least half a context (the model's own) before it.
"""

import argparse
import importlib.util
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from lifting import lift  # noqa: E402

from llmft_helpers import corpora, plain_text  # noqa: E402
from llmft_helpers.errors import UserError  # noqa: E402
from llmft_helpers.profiles import CharGptSettings, load_profile  # noqa: E402
from llmft_helpers.runs import device_description, write_json  # noqa: E402

Documents = list[tuple[str, str]]

RECIPES = {
    "cpu": {"block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4, "n_embd": 128},
    "gpu": {"block_size": 128, "batch_size": 16, "n_layer": 6, "n_head": 6, "n_embd": 192},
}
CURVE_POINTS = 20
CALIBRATION_STEPS = 30
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


def load_texts(options: argparse.Namespace) -> tuple[Documents, Documents]:
    """(training, validation) documents: the notebook's, or a file's first nine tenths and its last."""
    if options.text is None:
        gpt, profile = lift("01_char_gpt"), load_profile(options.profile)
        everything = gpt.without_weights(profile)
        pairs, problems = corpora.load_pairs(everything), corpora.load_problems(everything)
        train, validation = (
            plain_text.character_documents(pairs, problems, split) for split in ("train", "validation")
        )
        return gpt.whole_documents(train, profile.char_gpt.characters), validation
    text = options.text.read_text(encoding="utf-8")
    cut = len(text) * 9 // 10
    return [("text", text[:cut])], [("text", text[cut:])]


def train_ours(gpt, settings: CharGptSettings, seed: int, train: Documents, validation: Documents) -> dict:
    """Train the lifted GPT as the notebook does; returns scores, parameters, `curve` of (seconds, bits a character)."""
    text = "".join(text for _, text in gpt.balanced(train))
    tokenizer = gpt.CharTokenizer.from_text(text)
    windows = gpt.all_windows(torch.tensor(tokenizer.encode(text), dtype=torch.int32), settings.context)
    torch.manual_seed(seed)
    model = gpt.GPT(tokenizer.size, settings.layers, settings.heads, settings.width, settings.context)
    run, curve = gpt.Run(model, settings.learning_rate, seed), []

    def check(run) -> None:
        bits = gpt.evaluate(model, tokenizer, validation)["bits_per_char"]
        curve.append((run.progress["seconds"], bits))

    gpt.train(run, windows, settings, check)
    return {
        "name": "ours",
        "seed": seed,
        "curve": curve,
        "seconds": run.progress["seconds"],
        "steps": run.progress["step"],
        "parameters": sum(p.numel() for p in model.parameters()),
        **gpt.evaluate(model, tokenizer, validation),
    }


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

    def eval(self) -> None:
        self.model.eval()

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:  # (B, T)
        # with targets, which it wants contiguous, it returns the logits of every position
        return self.model(ids, ids.contiguous())[0]  # (B, T, V)

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())


def train_nanogpt(
    gpt, checkout: Path, recipe: str, seconds: float, seed: int, train: Documents, validation: Documents
) -> dict:
    """Train nanoGPT by a recipe for about `seconds`; same result as `train_ours`."""
    text = "".join(text for _, text in gpt.balanced(train))
    tokenizer = gpt.CharTokenizer.from_text(text)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "nanoGPT"
        shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".git", "data", "assets"))
        prepare(folder / "data" / "ours", tokenizer, text, "".join(text for _, text in validation))
        times = run_nanogpt(folder, RECIPES[recipe], CALIBRATION_STEPS, CALIBRATION_STEPS, seed)
        every = max(1, round(seconds / statistics.median(times[5:]) / CURVE_POINTS))
        times = run_nanogpt(folder, RECIPES[recipe], CURVE_POINTS * every, every, seed)
        typical = statistics.median(times)
        # the iteration after a validation is logged with the validation's time in it
        clock = numpy.cumsum([typical if step % every == 0 else spent for step, spent in enumerate(times)])
        curve = []
        for step in range(every, CURVE_POINTS * every + 1, every):
            model = NanoGpt(folder, folder / "out" / f"ckpt.pt.{step}")
            scores = gpt.evaluate(model, tokenizer, validation)
            curve.append((float(clock[step - 1]), scores["bits_per_char"]))
        return {
            "name": f"nanoGPT, {recipe} recipe",
            "seed": seed,
            "curve": curve,
            "seconds": float(clock[-2]),
            "steps": CURVE_POINTS * every,
            "parameters": model.parameters(),
            **scores,
        }


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
        "dataset": "ours", "out_dir": "out", "device": "cpu", "compile": False, "dropout": 0.0, "log_interval": 1,
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


def seconds_to_reach(curve: list[tuple[float, float]], bits: float) -> float | None:
    """When the curve first falls to `bits`, between its points on a straight line; None if it never does."""
    for (before, high), (after, low) in zip(curve[:1] + curve, curve, strict=False):  # the first with itself
        if low <= bits:
            return before if high <= bits else before + (after - before) * (high - bits) / (high - low)
    return None


def compare(theirs: dict, ours: dict) -> dict:
    reached = seconds_to_reach(ours["curve"], theirs["bits_per_char"])
    return {
        "seed": ours["seed"],
        "against": theirs["name"],
        "bits_ratio": ours["bits_per_char"] / theirs["bits_per_char"],
        "seconds_to_their_loss": reached,
        "time_ratio": None if reached is None else reached / theirs["seconds"],
    }


def show(results: list[dict], comparisons: list[dict]) -> None:
    print(f"{'':<24}{'seed':>5}{'parameters':>12}{'seconds':>9}{'steps':>8}{'bits/char':>11}{'perplexity':>12}")
    for r in results:
        print(
            f"{r['name']:<24}{r['seed']:>5}{r['parameters']:>12,}{r['seconds']:>9.0f}{r['steps']:>8,}"
            f"{r['bits_per_char']:>11.3f}{r['perplexity']:>12.2f}"
        )
    for c in comparisons:
        reached = "never reached their loss"
        if c["time_ratio"] is not None:
            reached = f"their final loss after {c['seconds_to_their_loss']:.0f} s ({c['time_ratio']:.2f} of their time)"
        print(f"seed {c['seed']}: {1 - c['bits_ratio']:.1%} fewer bits than {c['against']}; {reached}")
    if len(comparisons) > 1:
        gains = [1 - c["bits_ratio"] for c in comparisons]
        print(f"fewer bits over seeds: {min(gains):.1%} to {max(gains):.1%}")


def plot(results: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    names = sorted({r["name"] for r in results}, reverse=True)
    for r in results:
        kind = names.index(r["name"])
        label = f"{r['name']}, {r['parameters'] / 1e6:.1f}M" if r["seed"] == results[0]["seed"] else None
        axes.plot(*zip(*r["curve"], strict=True), ("-", "--", ":")[kind], color=f"C{kind}", label=label)
    axes.set(xlabel="seconds of training", ylabel="validation bits a character")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--seconds", type=float, default=300.0, help="of training, each (default 300)")
    parser.add_argument("--text", type=Path, help="a UTF-8 file; default: the profile's corpora")
    parser.add_argument("--profile", help="whose shape and corpora to use (default: LLMFT_PROFILE, or by device)")
    parser.add_argument("--recipes", default="cpu,gpu", help="nanoGPT's, comma-separated (default cpu,gpu)")
    parser.add_argument("--seeds", default="1", help="comma-separated (default 1)")
    parser.add_argument("--json", type=Path, help="write what is printed, and the curves")
    parser.add_argument("--plot", type=Path, help="write the curves as a PNG")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if not (options.nanogpt / "train.py").is_file():
        raise UserError(f"--nanogpt {options.nanogpt}: no train.py there; point it to a checkout of nanoGPT")
    gpt = lift("01_char_gpt")
    gpt.CHECKS = CURVE_POINTS
    gpt.Linear.compute = torch.bfloat16 if device_description()["dtype"] == "bfloat16" else torch.float32
    settings = load_profile(options.profile).char_gpt
    train, validation = load_texts(options)
    settings = replace(settings, max_steps=10**9)
    results, comparisons = [], []
    for seed in map(int, options.seeds.split(",")):
        theirs = [
            train_nanogpt(gpt, options.nanogpt, recipe, options.seconds, seed, train, validation)
            for recipe in options.recipes.split(",")
        ]
        best = min(theirs, key=lambda result: result["bits_per_char"])
        ours = train_ours(gpt, replace(settings, seconds=best["seconds"]), seed, train, validation)
        results += [*theirs, ours]
        comparisons.append(compare(best, ours))
    characters = sum(len(text) for _, text in gpt.balanced(train))
    print(f"{device_description()['device']}; {characters:,} characters of training text")
    show(results, comparisons)
    if options.json:
        write_json(options.json, {"threads": torch.get_num_threads(), "results": results, "comparisons": comparisons})
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
