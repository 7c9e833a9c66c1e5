"""The README.md beside an adapter or an exported model: data, licences, results, how to use it without this suite."""

from pathlib import Path

from ..data.prompts import LANGUAGES, LeetcodeTask, Task, TranslationTask
from ..profiles import ModelSettings
from ..reports.tables import INTERVALS, markdown, p_text, with_interval
from ..storage import read_json, write_text
from .boundary import as_asked
from .embedded import EMBEDDED, present_name, terms
from .loading import model_path, read_adapter_note
from .notes import noted_task
from .ollama import IN_USE, SMALLER

HEADLINES = {
    "translation": {"bleu": "BLEU", "chrf": "chrF", "perplexity": "perplexity"},
    "leetcode": {"pass_at_1": "pass@1", "tests_passed_rate": "tests passed", "perplexity": "perplexity"},
}
ARMS = {"base": "base", "base_few_shot": "base, few-shot", "tuned": "this model"}

LOAD_ADAPTER = """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

base = {base!r}
precision = {precision}
model = AutoModelForCausalLM.from_pretrained(base, **precision, device_map="auto")
model = PeftModel.from_pretrained(model, {folder!r})
tokenizer = AutoTokenizer.from_pretrained(base)"""
FOUR_BIT = """{
    "quantization_config": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=KEPT,
    )
}"""
SIXTEEN_BIT = '{"dtype": torch.bfloat16}'
LOAD_MERGED = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({folder!r}, dtype=torch.bfloat16, device_map="auto")
tokenizer = AutoTokenizer.from_pretrained({folder!r})"""
PYTHON = """```python
import torch
{load}
prompt = {prompt!r}
inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
tokens = model.generate(**inputs, max_new_tokens={longest}, do_sample=False)
print(tokenizer.decode(tokens[0, inputs.input_ids.shape[1] :], skip_special_tokens=True))
```"""
OLLAMA = """In this folder:

    ollama create tuned -f Modelfile
    ollama run tuned

`Modelfile` wraps what you type in the prompt below, stops where an answer ends, and takes `{weights}`. `{smaller}` is
about half as large and rounds the weights to 8 bits: now and then it finds other words. Chats of llama.cpp and LM
Studio find the prompt in either file. As a completion it is:

```
{prompt}
```"""
CARD = """{header}
# {title}

{base} with {rank}LoRA (Hu et al. 2021, arXiv 2106.09685), {merged}fine-tuned on {task}.
Made with the profile `{profile}` and seed {seed} on {device}; {training}.

## Use

{use}

The model knows this one prompt format. {limits}

## Data

{data}

## Results

On {test_rows} test rows that training did not see, all arms scored by the same code at the same precision; in
brackets the 95% interval.

{results}

{significance}

## Licences

The data's licences stand above; the licence of the base model holds for the weights.{terms}
"""
KINDS = {  # kind of folder: (library, the words between base and data)
    "adapter": ("peft", ""),
    "merged": ("transformers", "merged into 16-bit weights, "),
    "gguf": ("gguf", "merged and written as GGUF, "),
}
EXAMPLE_PROBLEM = {
    "problem_description": "Given a list of integers nums, return the sum of its even numbers.",
    "starter_code": "class Solution:\n    def sumOfEvens(self, nums: List[int]) -> int:",
}
EXAMPLE_PAIR = {"es": "¿Dónde está la estación?", "en": "Where is the station?"}


def write_model_card(results: Path, tokenizer) -> None:
    """README.md in the adapter of a task's results folder, from its manifest.json and metrics.json."""
    adapter = results / "adapter"
    card = model_card(results, read_adapter_note(adapter), str(adapter.resolve()), "adapter", tokenizer)
    write_text(adapter / "README.md", card)


def model_card(results: Path, note: dict, folder: str, kind: str, tokenizer) -> str:
    """The card's text; `results` holds manifest.json and metrics.json, `folder` is what will be loaded, `kind` one of
    KINDS; its prompt is asked as `tokenizer` wants it."""
    manifest, metrics = read_json(results / "manifest.json"), read_json(results / "metrics.json")
    provenance, training = metrics["provenance"], metrics["training"]
    settings = provenance["profile"]
    task = noted_task(note)
    rows = metrics["rows"]
    return CARD.format(
        header=_header(note, manifest, KINDS[kind][0]),
        title=_title(task),
        base=_base(note["base_model"]),
        rank=f"rank-{settings['lora']['rank']} ",
        merged=KINDS[kind][1],
        task=f"{rows['train']:,} rows of {', '.join(manifest['sources'])}",
        profile=settings["name"],
        seed=provenance["seed"],
        device=provenance["device"],
        training=f"{training['steps']:,} steps in {training['seconds'] / 60:.1f} minutes",
        use=_use(task, note["base_model"], folder, kind, settings, tokenizer),
        limits=_limits(task),
        data=_data(manifest),
        test_rows=rows["test"],
        results=_results(note["task"], metrics),
        significance=_significance(metrics),
        terms=_terms(note["base_model"]),
    )


def _use(task: Task, base: str, folder: str, kind: str, settings: dict, tokenizer) -> str:
    example = EXAMPLE_PAIR if isinstance(task, TranslationTask) else EXAMPLE_PROBLEM
    asked = {"prompt": as_asked(tokenizer, task.prompt(example)), "longest": settings[task.name]["max_new_tokens"]}
    if kind == "gguf":
        return OLLAMA.format(weights=IN_USE, smaller=SMALLER, prompt=asked["prompt"])
    if kind == "merged":
        return PYTHON.format(load=LOAD_MERGED.format(folder=folder), **asked)
    # A made or converted base has no address on a hub; its folder is what can be loaded.
    path, precision = str(model_path(ModelSettings(name=base))), _precision(settings["model"])
    return PYTHON.format(load=LOAD_ADAPTER.format(base=path, folder=folder, precision=precision), **asked)


def _terms(name: str) -> str:
    embedded = EMBEDDED.get(present_name(name))
    return f"\n{terms(name)} {embedded.passing_on}".rstrip() if embedded else ""


def _base(name: str) -> str:
    """The base in words; a GGUF file without the folders of this machine."""
    if name == "random":
        return "a random Llama that is made for tests"
    embedded = EMBEDDED.get(present_name(name))
    if embedded is None:
        return Path(name).name if name.endswith(".gguf") else name
    return f"{embedded.title}, dequantised from {embedded.file},"


def _precision(model: dict) -> str:
    """The argument of from_pretrained that rounds the same layers."""
    if not model["load_in_4bit"]:
        return SIXTEEN_BIT
    return FOUR_BIT.replace("KEPT", repr(["lm_head", *model["keep_16bit"]]))


def _header(note: dict, manifest: dict, library: str) -> str:
    from huggingface_hub import ModelCardData

    hub = [source["from"] for source in manifest["sources"].values() if isinstance(source["from"], str)]
    data = ModelCardData(
        base_model=note["base_model"] if "/" in note["base_model"] else None,
        datasets=[name for name in hub if not Path(name).suffix] or None,
        language=["es", "en"] if note["task"] == "translation" else ["en"],
        library_name=library,
        license="other",
        pipeline_tag="text-generation",
        tags=["lora", note["task"]],
    )
    return f"---\n{data.to_yaml()}\n---"


def _title(task) -> str:
    if isinstance(task, LeetcodeTask):
        return "Programming problems to Python"
    both = " and back" if len(task.trained()) > 1 else ""
    return f"{LANGUAGES[task.source]} to {LANGUAGES[task.target]}{both}"


def _limits(task) -> str:
    if isinstance(task, LeetcodeTask):
        return "Its programs are untrusted and often wrong: run them isolated, and against tests."
    return "An answer ends at the first line break. It was tested on single sentences, not on documents."


def _data(manifest: dict) -> str:
    lines = []
    for name, source in manifest["sources"].items():
        origin = source["from"] if isinstance(source["from"], str) else " and ".join(source["from"])
        line = {"source": name, "from": origin, "licence": source["licence"]}
        counts = {"train": "training", "validation": "validation", "test": "test"}
        lines.append(line | {title: f"{source['rows_out'][split]:,}" for split, title in counts.items()})
    return markdown(lines)


def _results(task: str, metrics: dict) -> str:
    return markdown(
        [
            {"": name} | {title: _cell(metrics[arm], key) for key, title in HEADLINES[task].items()}
            for arm, name in ARMS.items()
        ]
    )


def _cell(values: dict, key: str) -> str:
    return with_interval(values, key) if key in INTERVALS else f"{values[key]:.1f}"


def _significance(metrics: dict) -> str:
    if "bleu_p_value" in metrics:
        return f"BLEU against the base: {p_text(metrics['bleu_p_value'])} (paired bootstrap)."
    return f"Problems solved against the base: {p_text(metrics['pass_p_value'])} (McNemar)."
