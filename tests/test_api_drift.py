"""Every keyword that we hand to a fast-moving library still exists there.

The GPU paths of Unsloth cannot be imported without a GPU, so their signatures are read from the source file.
"""

import ast
import importlib.util
import inspect
import json
import pkgutil
from pathlib import Path

import pytest

from llmft_helpers.runs import ROOT


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


def passed(module, callee: str) -> set[str]:
    """Keywords with which a module of ours calls `callee`, those in `**({...} if ... else {...})` included."""
    names = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == callee:
            names |= {keyword.arg for keyword in node.keywords if keyword.arg}
            for keyword in node.keywords:
                if keyword.arg is None:
                    dictionaries = [part for part in ast.walk(keyword.value) if isinstance(part, ast.Dict)]
                    names |= {key.value for part in dictionaries for key in part.keys}
    return names


def test_unsloth_cpu_and_gpu_take_what_we_pass():
    from unsloth import FastLanguageModel

    from llmft_helpers.models import loading as models

    load = passed(models, "FastLanguageModel.from_pretrained")
    lora = passed(models, "FastLanguageModel.get_peft_model")
    assert {"load_in_4bit", "use_exact_model_name", "attn_implementation"} <= load and "use_rslora" not in load
    assert {"r", "lora_alpha", "use_gradient_checkpointing"} <= lora
    # On the CPU the loader takes some of them through **kwargs, and drops them there.
    dropped = {"use_exact_model_name"}
    assert dropped <= dropped_on_cpu() and not accepts(FastLanguageModel.from_pretrained, *load - dropped)
    assert not accepts(FastLanguageModel.get_peft_model, *lora)
    gpu = gpu_signature("models/loader.py", "FastLanguageModel", "from_pretrained")
    assert gpu >= load - {"attn_implementation"}  # which we pass on a CPU only
    assert gpu_signature("models/llama.py", "FastLlamaModel", "get_peft_model") >= lora
    patch = gpu_signature("models/llama.py", "FastLlamaModel", "patch_peft_model")
    assert patch >= passed(models, "FastLlamaModel.patch_peft_model") == {"use_gradient_checkpointing"}


def dropped_on_cpu() -> set[str]:
    from unsloth_zoo.cpu import loader

    return {node.value for node in ast.walk(ast.parse(inspect.getsource(loader))) if isinstance(node, ast.Constant)}


OURS = [
    *(ROOT / "llmft_helpers").rglob("*.py"),
    *(ROOT / "benchmarks").glob("*.py"),
    *(ROOT / "notebooks").glob("*.ipynb"),
]


def source_of(path: Path) -> str:
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def calls(prefixes: tuple[str, ...]) -> list[tuple[str, set[str], str]]:
    """(callee, keywords, file) of every call of ours to a name with one of these prefixes."""
    found = []
    for path in OURS:
        for node in ast.walk(ast.parse(source_of(path))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(prefixes):
                found.append((ast.unparse(node.func), {k.arg for k in node.keywords if k.arg}, path.name))
    return found


def test_every_cuda_and_process_call_exists_with_its_keywords():
    """Branches that need a card or several processes: found in the source, not listed by hand."""
    found = calls(("torch.cuda.", "torch.version.", "distributed."))
    assert {"torch.cuda.is_bf16_supported", "torch.cuda.mem_get_info", "distributed.all_gather_object"} <= {
        name for name, _, _ in found
    }
    for name, keywords, file in found:
        path = name if name.startswith("torch") else f"torch.{name}"
        assert not accepts(pkgutil.resolve_name(path), *keywords), (file, name)


def test_no_branch_for_a_card_calls_what_is_not_checked():
    """Whatever runs only where CUDA is must be a call that another test here resolves, or one of torch's."""
    for path in OURS:
        for branch in ast.walk(ast.parse(source_of(path))):
            if isinstance(branch, ast.If | ast.IfExp) and ast.unparse(branch.test) in ASKED:
                body = branch.body if isinstance(branch.body, list) else [branch.body]
                inside = [node for part in body for node in ast.walk(part) if isinstance(node, ast.Call)]
                for node in inside:
                    name = ast.unparse(node.func)
                    known = name in CHECKED or (name.startswith("torch.") and pkgutil.resolve_name(name))
                    assert known, (path.name, ast.unparse(node))


ASKED = {"torch.cuda.is_available()", "has_card()"}
# Ours run on a CPU in test_doctor_gpu.py and test_cuda_path.py.
CHECKED = {"Finding", "round", "_compiler", "memory_finding", "context", "take_fused_kernels"}


def test_sft_config_takes_our_training_arguments(tmp_path):
    import unsloth  # noqa: F401  before trl
    from trl import SFTConfig, SFTTrainer

    from llmft_helpers.training import fine_tuning as training

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
        ("accelerate.PartialState", []),
        ("accelerate.Accelerator.get_state_dict", ["model"]),
        ("huggingface_hub.auth_check", ["repo_id"]),
        ("transformers.PreTrainedModel.dequantize", ["dtype"]),
        ("transformers.PreTrainedModel.save_pretrained", ["state_dict"]),
        ("peft.PeftModel.save_pretrained", []),
        ("peft.PeftModel.from_pretrained", ["model", "model_id", "adapter_name"]),
        ("peft.PeftModel.load_adapter", ["adapter_name"]),
        ("peft.PeftModel.disable_adapter", []),
        ("peft.PeftModel.set_adapter", ["adapter_name"]),
        ("datasets.load_dataset", ["path", "name", "split", "revision", "streaming"]),
        ("datasets.Dataset.from_list", ["mapping"]),
        ("sacrebleu.BLEU.corpus_score", ["hypotheses", "references", "n_bootstrap"]),
        ("sacrebleu.significance:PairedTest", ["named_systems", "metrics", "references", "test_type", "n_samples"]),
        ("nbclient.NotebookClient.execute", []),
        ("transformers.DynamicCache.batch_repeat_interleave", ["repeats"]),
        ("charset_normalizer.from_bytes", ["cp_isolation"]),
        ("scipy.sparse.csgraph.connected_components", ["directed"]),
    ],
)
def test_other_libraries(path, names):
    assert not accepts(pkgutil.resolve_name(path), *names)


def test_generate_takes_our_settings():
    from transformers import GenerationConfig, GenerationMixin, LlamaForCausalLM

    from llmft_helpers.models import generation

    call = next(
        node
        for node in ast.walk(ast.parse(inspect.getsource(generation)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "model.generate"
    )
    settings = [keyword.arg for keyword in call.keywords if keyword.arg]
    assert len(settings) == 10
    for name in ("input_ids", "attention_mask", "past_key_values"):  # the model's own
        settings.remove(name)
        assert name in inspect.signature(LlamaForCausalLM.forward).parameters
    for name in ("logits_processor", "stopping_criteria"):  # arguments of generate() itself
        settings.remove(name)
        assert name in inspect.signature(GenerationMixin.generate).parameters
    assert all(hasattr(GenerationConfig(), name) for name in settings)


def test_offline_metrics_need_no_script():
    from llmft_helpers.scoring.metrics import Bleu

    assert Bleu().compute(predictions=["a b c d"], references=["a b c d"])["score"] == pytest.approx(100)
