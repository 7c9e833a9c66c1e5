"""What is exported as GGUF is the merged model: weight by weight, token by token, and asked as it was trained."""

import json
import struct

import gguf
import jinja2
import pytest
import tiny_gguf
import torch
from test_gguf import FIGURES, read_tokenizer
from test_models import small_files
from test_prompts import Joining
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

from llmft_helpers.__main__ import main
from llmft_helpers.data.prompts import LeetcodeTask, TranslationTask
from llmft_helpers.errors import UserError
from llmft_helpers.models import gguf_export
from llmft_helpers.models.boundary import after_docstring
from llmft_helpers.models.exporting import merged_in_float32
from llmft_helpers.models.gguf_files import gguf_model
from llmft_helpers.models.ollama import chat_template, modelfile

BYTE_LEVEL = [name for name, (_, kind) in tiny_gguf.FILES.items() if kind not in ("sentencepiece", "gemma")]
CASES = [*((name, "file") for name in tiny_gguf.FILES), *((name, "folder") for name in BYTE_LEVEL)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function of name and source: (tiny file, profile, adapter, folder of the export), each made once."""
    root, done = tmp_path_factory.mktemp("exports"), {}

    def export(name: str, source: str):
        if (name, source) not in done:
            file = tiny_gguf.write(root / f"{name}-{source}.gguf", name)
            base = file if source == "file" else gguf_model(file, root / "cache")
            profile, adapter = tiny_gguf.shaken_adapter(base, root / f"{name}-{source}")
            output = root / f"{name}-{source}" / "exported"
            assert main(["export", "--adapter", str(adapter), "--format", "gguf", "--output", str(output)]) == 0
            done[name, source] = (file, profile, adapter, output)
        return done[name, source]

    return export


def fields(path) -> dict:
    reader = gguf.GGUFReader(path)
    return {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}


def as_stored(merged) -> None:
    """Matrices through float16, and everything through bfloat16, as reading the file back rounds it."""
    for parameter in merged.parameters():
        rounded = parameter.data.half() if parameter.ndim > 1 else parameter.data
        parameter.data = rounded.bfloat16().float()


@pytest.mark.parametrize(("name", "source"), CASES)
def test_the_16_bit_file_is_the_merged_model(name, source, exported, tmp_path):
    """Read by our own reader, whose logits are llama.cpp's."""
    _, profile, adapter, output = exported(name, source)
    merged, tokenizer = merged_in_float32(profile, adapter)
    untuned = AutoModelForCausalLM.from_pretrained(gguf_model(exported(name, "file")[0], tmp_path / "untuned"))
    as_stored(merged)
    back = AutoModelForCausalLM.from_pretrained(gguf_model(output / "model-f16.gguf", tmp_path), dtype=torch.float32)
    weights, written = merged.state_dict(), back.state_dict()
    assert weights.keys() == written.keys()
    assert not [key for key in weights if not torch.equal(weights[key], written[key])]
    ids = tokenizer(FIGURES["prompts"]["tiny"][0], return_tensors="pt").input_ids
    with torch.no_grad():
        ours, theirs, before = (model(input_ids=ids).logits for model in (merged, back, untuned))
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    assert (before - ours).std() > 0.05 * ours.std()  # the adapter is in it


@pytest.mark.parametrize("name", tiny_gguf.FILES)
def test_tokenizer_and_description_of_a_gguf_base_are_taken_over(name, exported):
    file, _, _, output = exported(name, "file")
    taken = {key: value for key, value in fields(file).items() if not key.startswith("general.")}
    for kind in ("f16", "q8_0"):
        written = fields(output / f"model-{kind}.gguf")
        assert {key: written[key] for key in taken} == taken
        added = {key for key in written if not key.startswith("general.")} - set(taken)
        assert added == {"tokenizer.chat_template"}
        assert written["general.name"] == "exported"
        assert written["general.file_type"] == {"f16": 1, "q8_0": 7}[kind]


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_tokenizer_and_description_of_a_folder_are_written_as_a_gguf_file_has_them(name, exported, tmp_path):
    file, _, _, output = exported(name, "folder")
    wanted, written = fields(file), fields(output / "model-f16.gguf")
    pad = "tokenizer.ggml.padding_token_id"  # ours is never the end token
    described = {key for key in wanted if not key.startswith("general.") and key != pad}
    assert {key: written[key] for key in described} == {key: wanted[key] for key in described}
    assert written["tokenizer.ggml.add_bos_token"] == (name in ("llama-bpe", "llama3-rope"))
    assert {tensor.name for tensor in gguf.GGUFReader(output / "model-f16.gguf").tensors} == {
        tensor.name for tensor in gguf.GGUFReader(file).tensors
    }
    tokenizer = read_tokenizer(gguf_model(output / "model-f16.gguf", tmp_path))
    assert [tokenizer(text).input_ids for text in FIGURES["texts"]["tiny"]] == [
        read_tokenizer(gguf_model(file, tmp_path))(text).input_ids for text in FIGURES["texts"]["tiny"]
    ]


def test_a_block_of_8_bit_weights_by_hand(exported):
    """ggml's Q8_0: 32 weights share a scale, the largest of them / 127 in float16."""
    _, profile, adapter, output = exported("qwen2", "file")
    merged, _ = merged_in_float32(profile, adapter)
    weights = merged.model.layers[0].mlp.gate_proj.weight[0].tolist()  # a row of 32: one block
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(output / "model-q8_0.gguf").tensors}
    scale, *rounded = struct.unpack("<e32b", tensors["blk.0.ffn_gate.weight"].data[0].tobytes())
    largest = max(map(abs, weights))
    assert scale == struct.unpack("<e", struct.pack("<e", largest / 127))[0]
    assert rounded == [round(weight * 127 / largest) for weight in weights] and 127 in map(abs, rounded)


def test_vectors_stay_in_float32_and_rows_that_fill_no_block_in_float16(exported):
    tensors = {
        t.name: t.tensor_type.name for t in gguf.GGUFReader(exported("qwen2", "file")[3] / "model-q8_0.gguf").tensors
    }
    assert tensors["blk.0.attn_norm.weight"] == tensors["blk.0.attn_q.bias"] == "F32"
    assert tensors["blk.0.ffn_down.weight"] == "F16"  # rows of 48
    assert tensors["token_embd.weight"] == tensors["output.weight"] == tensors["blk.1.attn_k.weight"] == "Q8_0"


def test_a_tied_head_is_left_out(exported):
    names = {tensor.name for tensor in gguf.GGUFReader(exported("gemma3", "file")[3] / "model-f16.gguf").tensors}
    assert "token_embd.weight" in names and "output.weight" not in names


def test_modelfile_of_a_translator():
    assert modelfile(TranslationTask(), ["<eos>", "<end_of_turn>"], 32_768, 48) == (
        "# half the size, other words now and then: FROM ./model-q8_0.gguf\n"
        "FROM ./model-f16.gguf\n"
        'TEMPLATE "{{ range $i, $message := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}'
        "Spanish: {{ $message.Content }}\n"
        'English:{{ end }}{{ end }}"\n'
        "PARAMETER temperature 0\n"
        "PARAMETER repeat_penalty 1\n"
        "PARAMETER num_ctx 4096\n"
        "PARAMETER num_predict 48\n"
        'PARAMETER stop "<eos>"\n'
        'PARAMETER stop "<end_of_turn>"\n'
        'PARAMETER stop "\n"\n'
    )


def commands(text: str) -> list[tuple[str, str]]:
    """(name, value) of each command as Ollama's parser (parser/parser.go) reads them: a value goes on over line breaks
    until its marks are closed, and nothing in it is escaped."""
    found, value = [], ""
    for line in text.removesuffix("\n").split("\n"):
        if not value and line.startswith("#"):
            continue
        value += line if not value else f"\n{line}"
        name, _, quoted = value.removeprefix("PARAMETER ").partition(" ")
        mark = next((mark for mark in ('"""', '"') if quoted.startswith(mark)), "")
        if not mark or (len(quoted) >= 2 * len(mark) and quoted.endswith(mark)):
            found.append((name, quoted[len(mark) : len(quoted) - len(mark)]))
            value = ""
    assert not value
    return found


def test_ollama_reads_the_modelfile_of_a_programmer_as_it_is_meant(exported):
    _, _, _, output = exported("llama-smollm", "file")
    assert commands((output / "Modelfile").read_text())[-2:] == [("stop", "<|end|>"), ("stop", "\n")]
    assert commands((output / "Modelfile").read_text())[0] == ("FROM", "./model-f16.gguf")
    read = commands(modelfile(LeetcodeTask(), ["<|end_of_text|>"], 2048, 160))
    assert [value for name, value in read if name == "stop"] == ["<|end_of_text|>", *LeetcodeTask.stop]
    assert dict(read)["TEMPLATE"].endswith("1 }}{{ $message.Content }}{{ end }}{{ end }}")
    assert (dict(read)["num_ctx"], dict(read)["num_predict"]) == ("2048", "160")


@pytest.mark.parametrize(
    ("task", "typed", "asked"),
    [
        (TranslationTask("es-en"), "Hola.", TranslationTask("es-en").prompt({"es": "Hola."})),
        (TranslationTask("en-es"), "Hello.", TranslationTask("en-es").prompt({"en": "Hello."})),
        (LeetcodeTask(), "def total(numbers):\n    pass", "def total(numbers):\n    pass"),
    ],
)
def test_a_chat_asks_the_last_message_in_our_prompt(task, typed, asked):
    messages = [{"role": "user", "content": "Adiós."}, {"role": "assistant", "content": "Bye."}]
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(chat_template(task))
    assert template.render(messages=[*messages, {"role": "user", "content": typed}]) == asked


def test_a_chat_puts_the_line_break_behind_a_docstring_where_the_tokenizer_wants_it():
    asked, after = 'def total(numbers):\n    """Sum."""', after_docstring(Joining())
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        chat_template(LeetcodeTask(), after)
    )
    assert template.render(messages=[{"role": "user", "content": asked}]) == asked + "\n"
    read = dict(commands(modelfile(LeetcodeTask(), [], 2048, 160, after)))
    assert read["TEMPLATE"].endswith("{{ $message.Content }}\n{{ end }}{{ end }}")
    translator = chat_template(TranslationTask("es-en"), after)
    assert translator == chat_template(TranslationTask("es-en"))


@pytest.mark.parametrize("name", ["gemma3", "llama-sentencepiece"])
def test_a_tokenizer_that_is_not_written_is_one_line(name, tmp_path, capsys):
    base = gguf_model(tiny_gguf.write(tmp_path / "base.gguf", name), tmp_path / "cache")
    _, adapter = tiny_gguf.shaken_adapter(base, tmp_path / "results")
    capsys.readouterr()
    assert main(["export", "--adapter", str(adapter), "--format", "gguf", "--output", str(tmp_path / "new")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        line.startswith("error: this model's tokenizer is not written as GGUF here") and "train on a GGUF file" in line
    )
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".new*"))


def test_architectures_and_positions_that_are_not_written_are_named():
    with pytest.raises(UserError, match="type 'mistral' is not written as GGUF here; these are: llama, qwen2, qwen3"):
        gguf_export._architecture(MistralConfig())
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    with pytest.raises(UserError, match="kind 'yarn' are not written"):
        gguf_export._describe(gguf.GGUFWriter(None, "llama"), LlamaConfig(rope_parameters=rope))
    sliding = LlamaConfig(layer_types=["sliding_attention"], num_hidden_layers=1)
    with pytest.raises(UserError, match="a sliding window is not written as GGUF for llama: export --format merged"):
        gguf_export._describe(gguf.GGUFWriter(None, "llama"), sliding)


@pytest.mark.parametrize("room", [10_000, 60_000], ids=["within the tokens", "within the weights"])
def test_a_disk_that_takes_no_gguf_file_is_one_line(room, exported, tmp_path, capsys):
    _, _, adapter, _ = exported("qwen2", "file")
    with small_files(room):
        assert main(["export", "--adapter", str(adapter), "--format", "gguf", "--output", str(tmp_path / "new")]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    words = "File too large; 4 bytes a parameter have to fit on the disk"
    assert message == f"error: cannot write {tmp_path / 'new'}: {words}"
    assert list(tmp_path.iterdir()) == []


def test_card_of_a_gguf_export_says_how_to_use_it(exported, tmp_path):
    from test_exporting import METRICS, SOURCE

    _, _, adapter, _ = exported("qwen2", "file")
    (adapter.parent / "manifest.json").write_text(json.dumps({"sources": {"everyday": SOURCE}}))
    (adapter.parent / "metrics.json").write_text(json.dumps(METRICS))
    assert main(["export", "--adapter", str(adapter), "--format", "gguf", "--output", str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "model-f16.gguf", "model-q8_0.gguf", "Modelfile", "README.md"
    }  # fmt: skip
    card = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert "library_name: gguf" in card and "ollama create tuned -f Modelfile" in card and "from_pretrained" not in card
    assert "Spanish: ¿Dónde está la estación?\nEnglish:\n```" in card and "merged and written as GGUF" in card
