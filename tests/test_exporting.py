"""What is taken home answers as what was measured: adapter, merged model, and the code that the card shows."""

import io
import json
import re
import shutil
import textwrap

import pytest
import torch
from safetensors.torch import load_file
from test_models import logits, shake, small_files
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmft_helpers.__main__ import main
from llmft_helpers.models import exporting, model_card
from llmft_helpers.models import loading as models
from llmft_helpers.models.model_card import write_model_card

SOURCE = {"from": "data/es_en/everyday.jsonl", "licence": "CC0-1.0", "rows_out": dict(train=32, validation=8, test=12)}
ARM = {"bleu": 12.34, "bleu_ci95": [10.0, 14.5], "chrf": 30.0, "perplexity": 6.0}
METRICS = {
    **{arm: ARM for arm in ("base", "base_few_shot", "tuned")},
    "bleu_p_value": 0.004,
    "rows": {"train": 32, "validation": 8, "test": 12},
    "training": {"steps": 4, "seconds": 60.0},
    "provenance": {
        "seed": 1,
        "device": "a CPU",
        "profile": {
            "name": "tiny",
            "lora": {"rank": 4},
            "model": {"load_in_4bit": True, "keep_16bit": []},
            "translation": {"max_new_tokens": 12},
            "leetcode": {"max_new_tokens": 24},
        },
    },
}


@pytest.fixture(scope="module")
def trained(profile, tmp_path_factory):
    """(model, tokenizer, adapter folder) of an adapter that does something, with results beside it."""
    model, tokenizer = models.load_base_model(profile.model)
    model = models.add_lora(model, profile.lora, profile.seed)
    shake(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()  # as TRL trains it
    results = tmp_path_factory.mktemp("translation")
    note = {"task": "translation", "base_model": "random", "profile": "tiny", "direction": "es-en"}
    models.save_adapter(model, results / "adapter", note)
    (results / "manifest.json").write_text(json.dumps({"sources": {"everyday": SOURCE}}))
    (results / "metrics.json").write_text(json.dumps(METRICS))
    write_model_card(results, tokenizer)
    return model.eval(), tokenizer, results / "adapter"


@pytest.fixture(scope="module")
def merged(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merged") / "model"
    assert main(["export", "--adapter", str(trained[2]), "--output", str(folder)]) == 0
    return folder


def in_float32(profile, adapter):
    """Dequantised base and adapter side by side, without any rounding to 16 bits in between."""
    base, _ = models.load_base_model(profile.model)
    return models.load_adapter(exporting._dequantised(base), adapter, profile.model).float()


def test_merged_model_is_16_bit_and_plain_transformers_loads_it(profile, trained, merged):
    weights = load_file(merged / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert not any("lora" in name or "absmax" in name for name in weights)
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert tokenizer.eos_token_id == trained[1].eos_token_id
    assert plain.generation_config.eos_token_id == [trained[1].eos_token_id]  # of several, all
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    exact = logits(in_float32(profile, trained[2]), tokenizer)
    rounded, measured = logits(plain, tokenizer) - exact, logits(trained[0], tokenizer).float() - exact
    computed = logits(in_float32(profile, trained[2]).bfloat16(), tokenizer).float() - exact
    # Storing the sum in 16 bits costs less than computing in 16 bits, which the measured model does on some CPUs.
    assert rounded.std() < computed.std() < 0.03 * exact.std()
    assert measured.std() < 0.03 * exact.std()
    untuned = logits(models.load_base_model(profile.model)[0].eval(), tokenizer).float()
    assert (untuned - exact).std() > 0.2 * exact.std()  # the adapter's own effect is far above that


def test_merging_in_float32_is_exact(profile, trained):
    model = in_float32(profile, trained[2])
    apart = logits(model, trained[1])
    torch.testing.assert_close(logits(model.merge_and_unload(), trained[1]), apart, atol=1e-4, rtol=1e-4)


def test_translate_and_solve_answer_from_the_merged_folder(merged, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("Hola.\n\nAdiós.\n".encode())))
    assert main(["translate", "--model", str(merged)]) == 0
    assert len(capsys.readouterr().out.split("\n")) == 4
    problem = {"task_id": "a", "problem_description": "Add.", "starter_code": "class Solution:"}
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    solve = ["--input", str(tmp_path / "problems.jsonl"), "--output", str(tmp_path / "solutions.jsonl")]
    assert main(["solve", "--model", str(merged), *solve]) == 2  # it was trained to translate
    assert "trained for the task translation, not leetcode" in capsys.readouterr().err
    solver = shutil.copytree(merged, tmp_path / "solver")
    note = json.loads((solver / "llmft.json").read_text()) | {"task": "leetcode"}
    (solver / "llmft.json").write_text(json.dumps(note))
    assert main(["solve", "--model", str(solver), *solve]) == 0
    assert json.loads((tmp_path / "solutions.jsonl").read_text())["task_id"] == "a"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--format", "merged_4bit"], "round base plus adapter to 4 bits again"),
        (["--format", "gguf"], "only those over bytes that cut texts as llama-bpe"),
        (["--output", "{merged}"], "exists already"),
        (["--adapter", "nowhere"], "holds no adapter"),
    ],
)
def test_what_is_refused_says_why(arguments, says, trained, merged, tmp_path, capsys):
    options = ["--adapter", str(trained[2]), "--output", str(tmp_path / "new")]
    assert main(["export", *options, *(argument.format(merged=merged) for argument in arguments)]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_disk_that_takes_no_merged_model_is_one_line(trained, tmp_path, capsys):
    with small_files(10_000):
        assert main(["export", "--adapter", str(trained[2]), "--output", str(tmp_path / "new")]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith(f"error: cannot write {tmp_path / 'new'}: File too large; 16 bits")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_merged_model_is_refused(trained, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hola.")))
    assert main(["translate", "--model", str(trained[2])]) == 2
    assert "holds no merged model" in capsys.readouterr().err


def test_card_says_data_licence_results_and_base(trained, merged):
    for folder in (trained[2], merged):
        card = re.sub(" +", " ", (folder / "README.md").read_text(encoding="utf-8"))  # columns are padded
        assert card.startswith("---\n") and "library_name: " in card
        assert "| everyday | data/es_en/everyday.jsonl | CC0-1.0 | 32 | 8 | 12 |" in card
        assert "| this model | 12.3 (10.0 to 14.5) | 30.0 | 6.0 |" in card and "p = 0.004" in card
        assert (
            "# Spanish to English" in card
            and "Made with the profile `tiny` and seed 1" in card
            and "rank-4 LoRA" in card
        )


def test_an_adapter_without_a_manifest_beside_it_goes_home_without_a_card(trained, tmp_path):
    """As GRPO leaves it: with metrics of another kind."""
    shutil.copytree(trained[2], tmp_path / "adapter")
    (tmp_path / "metrics.json").write_text('{"grpo": {}}', encoding="utf-8")
    folder = tmp_path / "model"
    assert main(["export", "--adapter", str(tmp_path / "adapter"), "--output", str(folder)]) == 0
    assert (folder / "config.json").is_file() and not (folder / "README.md").exists()


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_the_code_on_the_card_runs_and_answers_as_we_do(kind, trained, merged):
    """Plain transformers and PEFT, nothing of ours."""
    model, tokenizer, adapter = trained
    card = ({"adapter": adapter, "merged": merged}[kind] / "README.md").read_text(encoding="utf-8")
    code = textwrap.dedent(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1])
    assert "llmft" not in code.replace(str(adapter), "").replace(str(merged), "").replace("llmft-", "")
    names: dict = {}
    exec(code, names)
    theirs, ours = logits(names["model"], names["tokenizer"]).float(), logits(model, tokenizer).float()
    assert names["tokens"].shape[1] > names["inputs"].input_ids.shape[1]
    assert (theirs - ours).std() < 0.03 * ours.std()


def test_the_code_on_the_card_rounds_the_layers_that_were_rounded(trained, tmp_path):
    shutil.copytree(trained[2].parent, tmp_path, dirs_exist_ok=True)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    metrics["provenance"]["profile"]["model"]["keep_16bit"] = ["v_proj"]
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    write_model_card(tmp_path, trained[1])
    code = re.search(r"```python\n(.*?)prompt =", (tmp_path / "adapter" / "README.md").read_text(), re.DOTALL)[1]
    names: dict = {}
    exec(code, names)
    layers = {name.split(".")[-1]: type(module.base_layer).__name__ for name, module in names["model"].named_modules()
              if hasattr(module, "base_layer")}  # fmt: skip
    assert layers.pop("v_proj") == "Linear" and set(layers.values()) == {"Linear4bit"} and len(layers) == 6


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("gemma-3-270m", ["Gemma 3 270M, dequantised from gemma-3-270m-q4_k_m.gguf, with", "GEMMA_TERMS.html in the",
                          "prohibited uses", 'Notice: "Gemma is provided under and subject to']),
        ("embedded", ["SmolLM2-135M-Instruct, dequantised from", "is used under Apache-2.0; the text is LICENSE in"]),
        ("/home/me/mine.gguf", ["\nmine.gguf with rank-4 LoRA"]),
    ],
)  # fmt: skip
def test_card_says_under_which_terms_the_base_is_used(base, says, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(model_card, "model_path", lambda settings: "cache/converted")
    shutil.copytree(trained[2].parent, tmp_path, dirs_exist_ok=True)
    note = tmp_path / "adapter" / models.ADAPTER_NOTE
    note.write_text(json.dumps(json.loads(note.read_text()) | {"base_model": base}))
    write_model_card(tmp_path, trained[1])
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert not [text for text in says if text not in card]
