"""What a GPU will run, run on a CPU: Unsloth's CUDA code above its kernels, which are torch formulas here.

Scores and texts are held against transformers and PEFT without Unsloth. Kernels, speed and memory take a card.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmft_helpers.data.prompts import TranslationTask, training_rows
from llmft_helpers.runs import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from llama_layout import LLAMA_3_2_1B, write_random_llama  # noqa: E402

HERE = Path(__file__).parent
SMALL = {"vocab_size": 1024, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "initializer_range": 0.1}  # fmt: skip
LONG = {"prompt": f"Spanish: {' '.join(['No quiero ir.'] * 12)}\nEnglish:", "completion": " I do not want to go." * 4}


def start(script: str, folder: Path, result: Path) -> dict:
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
        "UNSLOTH_COMPILE_LOCATION": str(folder / "compiled"),
    }
    command = [sys.executable, str(HERE / script), str(folder), str(result)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    return json.loads(result.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows(pairs):
    return training_rows(TranslationTask(), pairs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pairs, rows):
    folder = tmp_path_factory.mktemp("card")
    write_random_llama(folder / "llama", [row["es"] + row["en"] for row in pairs], LLAMA_3_2_1B | SMALL)
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "long.json").write_text(json.dumps([LONG]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def card(folder):
    return start("card_checks.py", folder, folder / "card.json")


@pytest.fixture(scope="module")
def reference(card, folder):
    return start("card_reference.py", folder, folder / "reference.json")


def test_scores_are_those_of_transformers_also_beyond_the_rows_trained_on(card, reference):
    assert card["nats_base"] == pytest.approx(reference["nats_base"], rel=1e-4)
    assert card["long_tokens"] > 48  # the profile's max_length


def test_texts_of_batches_padded_on_the_left_are_those_of_single_prompts_and_of_transformers(card, reference):
    assert card["texts_batched"] == card["texts_single"] == reference["texts_base"]


def test_adapters_on_off_and_switched(card, reference):
    for name in ("first", "second"):
        assert card[f"nats_{name}"] == pytest.approx(reference[f"nats_{name}"], rel=1e-4)
        assert card[f"texts_{name}"] == reference[f"texts_{name}"]
        assert card[f"nats_{name}"] != pytest.approx(reference["nats_base"], rel=1e-2)
    assert card["nats_off"] == pytest.approx(reference["nats_base"], rel=1e-4)


def test_a_reloaded_adapter_is_computed_by_the_kernels_of_the_trained_one(card):
    assert card["nats_reloaded_16"] == card["nats_trained_16"]
    assert card["texts_reloaded_16"] == card["texts_trained_16"]


def test_a_prompt_that_the_model_cannot_hold_is_one_message(card):
    assert "prompt 2 of 2 has" in card["too_long"] and "more than the 100 that the model can hold" in card["too_long"]


def test_the_loss_of_a_batch_without_padding_is_that_of_its_rows(card):
    assert card["padding_free"] and card["batch_rows"] == 1 and len(card["batch_texts"]) == 3
    assert card["batch_loss"] == pytest.approx(card["rows_loss"], rel=1e-4)


def test_the_mask_check_shows_example_by_example(card, rows):
    shown = card["mask_check"].splitlines()
    assert len(shown) >= 6 and any("·" in line for line in shown)
    known = {repr(f"{row['completion']}<|end_of_text|>") for row in rows}
    assert sum(line in known for line in shown) == 3


def test_rows_are_drawn_at_random_where_nothing_is_padded(card, rows):
    first, other, again, *more = card["drawn_lengths"]
    assert first == again != other and sorted(first) == sorted(other) and len(first) == len(rows)
    assert any(order[0] != max(first) for order in (first, other, *more))  # by length the longest would begin


def test_out_of_memory_names_the_profiles_length(card):
    assert card["args_max_length"] is None
    assert "model.max_length = 24 (was 48" in card["advice"] and "train.batch_size = 1 (was 3)" in card["advice"]


def test_activations_take_what_the_doctor_calculates(card):
    """Beside what only a CPU keeps: keys and values for all heads, and the turns of the formula."""
    repeated = 2 * 2 * (SMALL["num_attention_heads"] - SMALL["num_key_value_heads"]) * SMALL["head_dim"]
    turns = 2 * 2 * SMALL["head_dim"]
    assert card["kept_bytes"] == card["calculated_bytes"] + SMALL["num_hidden_layers"] * (repeated + turns)
    assert card["adapter_types"] == ["torch.float32"]


def test_a_stopped_run_goes_on_from_its_checkpoint_and_ends_alike(card):
    assert card["steps"] == 4 and card["moved_by"] > 1e-3
    assert card["resumed_from"] == 2 and card["resumed_differs_by"] == 0


def test_nothing_is_fetched_to_count_users(card):
    assert card["statistics"] == []
