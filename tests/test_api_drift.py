"""Every keyword that we hand to a fast-moving library still exists there.

The GPU paths of Unsloth cannot be imported without a GPU, so their signatures are read from the source file.
"""

import ast
import importlib.util
import inspect
import pkgutil
from pathlib import Path

import pytest


def accepts(function, *names: str) -> list[str]:
    """The names that `function` does not take by keyword."""
    parameters = inspect.signature(function).parameters
    return [name for name in names if name not in parameters]


def gpu_signature(module: str, class_name: str, method: str) -> set[str]:
    """Argument names of an Unsloth GPU method, from its source."""
    root = Path(importlib.util.find_spec("unsloth").origin).parent
    tree = ast.parse((root / module).read_text(encoding="utf-8"))
    classes = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == class_name]
    methods = [n for c in classes for n in c.body if isinstance(n, ast.FunctionDef) and n.name == method]
    assert methods, f"{class_name}.{method} is gone from {module}"
    return {a.arg for a in methods[0].args.args + methods[0].args.kwonlyargs}


LOAD = {"model_name", "max_seq_length", "dtype", "load_in_4bit", "revision", "use_gradient_checkpointing"}
LORA = {"r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "bias", "use_gradient_checkpointing",
        "random_state"}  # fmt: skip


def test_unsloth_cpu_and_gpu_take_what_we_pass():
    from unsloth import FastLanguageModel

    assert not accepts(FastLanguageModel.from_pretrained, *LOAD, "attn_implementation")
    assert not accepts(FastLanguageModel.get_peft_model, *LORA)
    assert gpu_signature("models/loader.py", "FastLanguageModel", "from_pretrained") >= LOAD
    assert gpu_signature("models/llama.py", "FastLlamaModel", "get_peft_model") >= LORA


def test_sft_config_takes_our_training_arguments(tmp_path):
    import unsloth  # noqa: F401  before trl
    from trl import SFTConfig, SFTTrainer

    from llmft_helpers import training

    call = next(
        node
        for node in ast.walk(ast.parse(inspect.getsource(training)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "SFTConfig"
    )
    keywords = [keyword.arg for keyword in call.keywords]
    assert len(keywords) > 15
    assert not accepts(SFTConfig, *keywords)
    assert not accepts(SFTTrainer.__mro__[1], "model", "args", "train_dataset", "eval_dataset", "processing_class")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("peft.PeftModel.from_pretrained", ["model", "model_id", "adapter_name"]),
        ("peft.PeftModel.load_adapter", ["adapter_name"]),
        ("peft.PeftModel.disable_adapter", []),
        ("peft.PeftModel.set_adapter", ["adapter_name"]),
        ("datasets.load_dataset", ["path", "name", "split", "revision", "streaming"]),
        ("datasets.Dataset.from_list", ["mapping"]),
        ("sacrebleu.BLEU.corpus_score", ["hypotheses", "references", "n_bootstrap"]),
        ("sacrebleu.significance:PairedTest", ["named_systems", "metrics", "references", "test_type", "n_samples"]),
        ("nbclient.NotebookClient.execute", []),
        ("datasketch.MinHash", ["num_perm", "seed", "hashfunc"]),
        ("datasketch.MinHashLSH", ["num_perm", "params"]),
    ],
)
def test_other_libraries(path, names):
    assert not accepts(pkgutil.resolve_name(path), *names)


def test_generate_takes_our_settings():
    from transformers import GenerationConfig

    from llmft_helpers import generation

    call = next(
        node
        for node in ast.walk(ast.parse(inspect.getsource(generation)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "model.generate"
    )
    settings = [keyword.arg for keyword in call.keywords if keyword.arg]
    assert len(settings) == 5
    assert all(hasattr(GenerationConfig(), name) for name in [*settings, "stop_strings"])


def test_offline_metrics_need_no_script():
    from llmft_helpers.metrics import Bleu

    assert Bleu().compute(predictions=["a b c d"], references=["a b c d"])["score"] == pytest.approx(100)
