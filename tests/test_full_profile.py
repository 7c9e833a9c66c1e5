"""What profile `full` meets on a GPU instance, as far as it can be checked without one."""

import dataclasses
import sys
from types import SimpleNamespace

import pytest
import torch

from llmft_helpers import device
from llmft_helpers.data import corpora
from llmft_helpers.data.prompts import TranslationTask, few_shot_prompt, training_rows
from llmft_helpers.errors import UserError
from llmft_helpers.grading import execution
from llmft_helpers.models import loading as models
from llmft_helpers.profiles import LoraSettings, ModelSettings, TrainSettings, load_profile
from llmft_helpers.runs import ROOT
from llmft_helpers.scoring import metrics
from llmft_helpers.training import fine_tuning as training

sys.path.insert(0, str(ROOT / "benchmarks"))
from hub_stand_ins import write_stand_ins  # noqa: E402
from llama_layout import LLAMA_3_2_1B, llama_tokenizer, special_tokens, write_random_llama  # noqa: E402

SETTINGS = TrainSettings(epochs=1.0, learning_rate=5e-3, batch_size=2, evaluations=1)
SMALL = {"vocab_size": 1024, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}  # fmt: skip


@pytest.fixture(scope="module")
def small_llama(tmp_path_factory, pairs):
    """Folder of a Llama with Llama 3.2's RoPE scaling, tying and special-token layout, but small."""
    folder = tmp_path_factory.mktemp("small") / "llama"
    write_random_llama(folder, [row["es"] + row["en"] for row in pairs], LLAMA_3_2_1B | SMALL)
    return folder


@pytest.fixture(scope="module")
def llama(small_llama):
    return models.load_base_model(ModelSettings(name=str(small_llama), max_length=256))


def test_special_tokens_have_the_ids_of_llama_3_2():
    tokens = special_tokens()
    assert len(tokens) == len(set(tokens)) == 256
    ids = {token: 128_000 + place for place, token in enumerate(tokens)}
    # from the published tokenizer_config.json
    published = {"<|begin_of_text|>": 128000, "<|end_of_text|>": 128001, "<|reserved_special_token_0|>": 128002,
                 "<|finetune_right_pad_id|>": 128004, "<|reserved_special_token_2|>": 128005, "<|eot_id|>": 128009,
                 "<|reserved_special_token_3|>": 128011, "<|reserved_special_token_247|>": 128255}  # fmt: skip
    assert {token: ids[token] for token in published} == published


def test_tokenizer_keeps_text_and_places_special_tokens_last(pairs):
    tokenizer = llama_tokenizer([row["es"] for row in pairs], 1024)
    assert len(tokenizer) == 1024 and tokenizer.convert_tokens_to_ids("<|begin_of_text|>") == 768
    text = "¿Qué? def f(x):\n\treturn 1234  # 漢字"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_one_begin_token_padding_is_not_the_end_and_the_end_is_learned(llama, pairs, tmp_path, monkeypatch):
    model, tokenizer = llama
    begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    assert tokenizer.convert_ids_to_tokens([begin, end, pad]) == [
        "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"]  # fmt: skip
    task = TranslationTask()
    assert tokenizer(few_shot_prompt(task, pairs[0], pairs[1:3])).input_ids.count(begin) == 1
    tuned = models.add_lora(models.load_base_model(ModelSettings(name=model.name_or_path))[0], LoraSettings(rank=4), 1)
    rows = training_rows(task, pairs)
    trainer = training.make_trainer(tuned, tokenizer, rows, rows[:2], SETTINGS, 256, tmp_path, 1)
    batches = list(trainer.get_train_dataloader())
    for batch in batches:
        for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
            assert ids[0] == begin and ids.count(begin) == 1
            assert ids.count(end) == 1 and labels[ids.index(end)] == end  # scored
            assert set(ids[ids.index(end) + 1 :]) <= {pad}
    # The same tokens as evaluation scores.
    encoded = []
    monkeypatch.setattr(metrics, "_nats", lambda *arguments: encoded.extend(arguments[2]) or [0.0])
    metrics.completion_nats(model, tokenizer, rows[:1])
    metrics.completion_nats(model, tokenizer, [{"prompt": "", "completion": "x"}])
    (ids, prompt_length), (bare, _) = encoded
    trained = [row[: row.index(end) + 1] for batch in batches for row in batch["input_ids"].tolist()]
    assert ids in trained and ids[prompt_length - 1] != end
    assert bare == [*tokenizer("x").input_ids, end] and bare[0] == begin


def test_prequantised_and_on_the_fly_4_bit_are_the_same_model(llama, small_llama, tmp_path):
    model, tokenizer = llama
    folder = tmp_path / "llama-bnb-4bit"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    again, _ = models.load_base_model(ModelSettings(name=str(folder), max_length=256))
    assert models.is_4bit(again)
    ids = tokenizer("Spanish: Hola.", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(again.eval()(ids).logits, model.eval()(ids).logits)


def test_rank_64_on_the_full_shape_has_the_published_number_of_parameters():
    """Counted on PEFT's own layers over a Llama of exactly this configuration, without memory for the weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = load_profile("full").lora
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_3_2_1B))
        assert sum(parameter.numel() for parameter in model.parameters()) == 1_235_814_400  # published, tied head
        lora = LoraConfig(r=settings.rank, target_modules=list(settings.target_modules), task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 45_088_768


def test_a_step_is_worth_a_cards_while_and_the_learning_rate_follows_the_rule():
    full = load_profile("full")
    assert 4000 <= 40 * full.translation.train.batch_size <= 8000  # mean tokens of a row: docs/full-profile.md
    assert 4000 <= 450 * full.leetcode.train.batch_size <= 8000
    rule = 10 * 5e-5 * (2000 / LLAMA_3_2_1B["hidden_size"]) ** 0.781
    assert full.translation.train.learning_rate == pytest.approx(rule, rel=0.01)
    assert all(getattr(full, task).train.batch_size % cards == 0 for task in ("translation", "leetcode")
               for cards in (2, 4))  # fmt: skip


def test_rehearsal_profile_differs_from_full_in_sizes_and_sources_alone():
    full, rehearsal = load_profile("full"), load_profile(str(ROOT / "docs" / "full-rehearsal.toml"))
    assert rehearsal.lora == full.lora and rehearsal.seed == full.seed
    assert dataclasses.replace(rehearsal.model, name=full.model.name) == full.model
    for task in ("translation", "leetcode"):
        ours, theirs = getattr(rehearsal, task), getattr(full, task)
        for mine, real in zip(ours.sources, theirs.sources, strict=True):
            assert (mine.name, mine.columns, mine.register, mine.split, mine.weight) == (
                real.name, real.columns, real.register, real.split, real.weight)  # fmt: skip
        assert (ours.shots, ours.direction) == (theirs.shots, theirs.direction)
        assert ours.train.learning_rate == theirs.train.learning_rate


def test_a_model_folder_beside_the_profile_is_found_from_any_working_folder(small_llama, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "full-rehearsal.toml").read_text().replace('name = "model"', f'name = "{small_llama.name}"')
    (small_llama.parent / "mine.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert load_profile(str(small_llama.parent / "mine.toml")).model.name == str(small_llama.resolve())
    assert load_profile("full").model.name == "unsloth/Llama-3.2-1B"


def test_stand_ins_have_the_hub_columns_and_pass_their_own_tests(tmp_path, monkeypatch):
    write_stand_ins(tmp_path / "data")
    (tmp_path / "mine.toml").write_text((ROOT / "docs" / "full-rehearsal.toml").read_text())
    profile = load_profile(str(tmp_path / "mine.toml"))
    pairs, problems = corpora.load_pairs(profile), corpora.load_problems(profile)
    assert (len(pairs.train), len(pairs.test), len(problems.train), len(problems.test)) == (16, 4, 4, 2)
    assert {row["register"] for row in pairs.train} == {"everyday", "formal"}
    assert all(row["entry_point"].startswith("Solution().") and "def check" in row["test"] for row in problems.test)
    assert all(graded["passed"] for graded in execution.grade([r["completion"] for r in problems.test], problems.test))


def test_test_problems_after_the_knowledge_cutoff_are_counted():
    rows = [{"estimated_date": "2023-12-31"}, {"estimated_date": "2024-01-01"}, {"estimated_date": None}, {}]
    assert corpora.count_after(rows, "2023-12-31") == 1
    assert load_profile("full").model.knowledge_cutoff == "2023-12-31"


@pytest.mark.parametrize(("major", "bf16"), [(7, False), (8, True), (9, True)])
def test_cards_before_ampere_train_in_float16(major, bf16, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major, minor=0))
    monkeypatch.setattr(device, "compute_dtype", device.compute_dtype.__wrapped__)  # this process has asked before
    assert device.compute_dtype() == (torch.bfloat16 if bf16 else torch.float16)
    assert device.device_description()["dtype"] == ("bfloat16" if bf16 else "float16")


def test_out_of_memory_in_training_says_what_to_lower_with_this_runs_numbers(llama, pairs, tmp_path, monkeypatch):
    model = models.add_lora(
        models.load_base_model(ModelSettings(name=llama[0].name_or_path))[0], LoraSettings(rank=4), 1
    )
    rows = training_rows(TranslationTask(), pairs)
    trainer = training.make_trainer(model, llama[1], rows, rows[:2], SETTINGS, 256, tmp_path, 1)

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "training_step", full)
    trainer.args.max_length = None  # as Unsloth leaves it on a card, where it pads nothing
    order = r"gradient_checkpointing = true.*batch_size = 1 \(was 2\).*max_length = 128 \(was 256.*rank = 2 \(was 4\)"
    with pytest.raises(UserError, match=f"out of memory in training step 1.*{order}"):
        training.fine_tune(trainer)


def test_gradient_checkpointing_is_on_in_training_and_changes_no_gradient(llama, pairs, tmp_path):
    rows = training_rows(TranslationTask(), pairs)
    gradients = []
    for checkpointing in (False, True):
        base, tokenizer = models.load_base_model(ModelSettings(name=llama[0].name_or_path, max_length=256))
        model = models.add_lora(base, LoraSettings(rank=4, gradient_checkpointing=checkpointing), seed=1)
        trainer = training.make_trainer(model, tokenizer, rows, rows[:2], SETTINGS, 256, tmp_path, 1)
        assert trainer.model.is_gradient_checkpointing == checkpointing
        model.train()
        batch = next(iter(trainer.get_train_dataloader()))
        trainer.compute_loss(model, dict(batch)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError("You are trying to access a gated repo.\nMake sure to have access to it"), "gated.*HF_TOKEN"),
        (OSError("429 Client Error: Too Many Requests for url"), "limits requests.*HF_TOKEN"),
        (OSError(28, "No space left on device"), "disk is full.*HF_HOME"),
        (OSError("We couldn't connect to 'https://huggingface.co'"), "without a network"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_model_that_cannot_be_loaded_says_why(error, advice, wrapped, monkeypatch):
    """Unsloth's CPU loader lets the error through, its GPU loader wraps it."""
    from unsloth import FastLanguageModel

    def fail(*_, **__):
        if wrapped:
            raise RuntimeError("Unsloth: Failed to load model.") from error
        raise error

    monkeypatch.setattr(FastLanguageModel, "from_pretrained", fail)
    with pytest.raises(UserError, match=f"'meta-llama/Llama-3.2-1B' could not be loaded.*{advice}"):
        models.load_base_model(ModelSettings(name="meta-llama/Llama-3.2-1B"))


def test_other_runtime_errors_are_not_dressed_up(monkeypatch):
    from unsloth import FastLanguageModel

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FastLanguageModel, "from_pretrained", fail)
    with pytest.raises(torch.OutOfMemoryError):
        models.load_base_model(ModelSettings(name="unsloth/Llama-3.2-1B"))
