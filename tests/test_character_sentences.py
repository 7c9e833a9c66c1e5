"""What notebook 01 says, branch by branch."""

import math

import pytest

from llmft_helpers.reports import character_sentences as sentences
from llmft_helpers.reports import plots


def test_alphabet_names_unknown_characters_or_none():
    counts = {
        "alphabet": 98,
        "rest_of_unicode": 1_111_966,
        "training": {"characters": 40_000, "unknown": 12},
        "validation": {"characters": 5_000, "unknown": 3},
        "examples": ["x", "\n"],
    }
    text = sentences.alphabet(counts)
    assert "**98** characters" in text and "In training 12 of 40,000 characters are unknown" in text
    assert r"in validation **3** of 5,000 ('x', '\n')" in text
    assert "ln(1,111,966) = 13.9 nats" in text and round(math.log(1_111_966), 1) == 13.9
    assert "of 5,000 (none)." in sentences.alphabet(counts | {"examples": []})


def test_parameters_and_training():
    shape = {"vocabulary": 97, "width": 128, "layers": 4}
    text = sentences.parameters(shape, 131_071, {"parameters": 17_592_192, "multiplied_parameters": 798_848})
    assert "V = 97 characters, C = 128 channels, L = 4 blocks" in text and "R = 131,071 rows" in text
    assert "**17,592,192** parameters" in text and "Only 798,848 of them" in text
    characters = {"read": 3_119_104, "text": 2_079_403}
    text = sentences.training({"step": 1523, "seconds": 150.04, "best": 1.0856}, characters)
    assert text.startswith("1,523 steps in 150 s read 3,119,104 characters (20,788 a second)")
    assert "1.5 times over. Best validation loss **1.086**." in text


def test_perplexity_stands_beside_that_of_the_earlier_study_and_its_range():
    parts = {"code": {"bits_per_char": 1.5, "perplexity": 2.83}, "es": {"bits_per_char": 2, "perplexity": 4.0}}
    validation = {"perplexity": 3.2, "bits_per_char": 1.68, "characters": 35_049, "per_domain": parts}
    text = sentences.perplexity(validation, {"perplexity": 3.1})
    assert "**3.20** a character, 1.68 bits, on 35,049 unseen characters (test: 3.10)" in text
    assert "2.5, which is 1.32 bits" in text and "code: 1.50 bits against 1.32; es: 2.00 bits against 1.32" in text
    assert text.endswith("from 2.83 to 4.00.")


def domain(copied, **code):
    model = {"known_words": 0.5, "longest_copy": len(copied), "median_copy": 2, "copied": copied} | code
    human = {"known_words": 0.9, "longest_copy": 30, "median_copy": 9, "copied": "..."} | code
    return {"model": model, "human": human, "samples": 25, "ended": 0.4}


def test_faults_are_a_line_a_domain_and_only_code_parses():
    es, code = sentences.faults({"es": domain("the"), "code": domain("def f", parses=0.25, texts=20)}).split("\n")
    assert es.startswith("- **es** (25 samples): 50% of the words exist in the training text (human documents: 90%)")
    assert "longest run copied from it 3 characters, median 2 (human: 30 and 9)" in es and "parse" not in es
    assert es.endswith("; 40% come to an end by themselves.")
    assert "of 20 different answers **25%** parse, cut at 700 characters (human, whole: 25%)" in code


def test_the_longest_copy_and_the_way_from_the_start():
    assert sentences.copied({"es": domain("the"), "code": domain("a\n  b")}) == r"The longest copied run: `'a\n  b'`."
    metrics = {"start_loss": 4.575, "val_loss": 1.0856, "seconds": 150.04, "parameters": 17_592_192}
    text = sentences.progress(metrics)
    assert text.startswith("From 4.58 nats a character the model came to **1.09** in 150 s with 17,592,192 parameters.")


def variant(name, change, spread=None):
    return {"variant": name, "bits_per_char": 1.9769, "spread": spread, "parameters": 17_592_192, "steps": 1425,
            "ms_per_step": 70.59, "change": change}  # fmt: skip


def test_ablations_name_what_is_not_worse():
    rows = [variant("as in the notebook", 0.0, 0.01), variant("GELU", 0.02), variant("no warm-up", -0.004)]
    text = sentences.ablation({"setting": "30 s of training each", "rows": rows})
    assert text.endswith("30 s of training each. Not worse than the notebook's choice: no warm-up (-0.4%).")
    cells = [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]]
    assert cells == ["as in the notebook", "1.977", "+0.0%", "0.010", "17,592,192", "1,425", "70.6"]
    assert [cell.strip() for cell in text.splitlines()[3].split("|")][4] == ""  # one seed has no spread
    assert sentences.ablation({"setting": "s", "rows": rows[:2]}).endswith("choice: none.")
    assert "benchmarks/char_gpt_ablation.py" in sentences.ablation(None)


def test_nanogpt_is_reached_or_never():
    result = {"name": "ours", "seed": 1, "parameters": 17_592_192, "seconds": 309.4, "steps": 9120,
              "bits_per_char": 1.6359, "perplexity": 3.108, "test": {"bits_per_char": 1.5279}}  # fmt: skip
    compared = {"seed": 1, "against": "nanoGPT", "bits_ratio": 0.85, "test_bits_ratio": 0.9, "time_ratio": 0.2}
    rows = [compared, compared | {"seed": 2, "time_ratio": None}]
    text = sentences.nanogpt({"results": [result], "comparisons": rows})
    line, never = text.splitlines()[-2:]
    assert line == "- seed 1: 15.0% fewer bits than nanoGPT (test 10.0%); its best loss is reached in 20% of its time"
    assert never.endswith("its best loss is never reached")
    cells = [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]]
    assert cells == ["ours", "1", "17,592,192", "309", "9,120", "1.636", "3.108", "1.528"]
    assert "benchmarks/char_gpt.py" in sentences.nanogpt(None)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ((200.4, 250.0, 260.6), "reached here after 200 to 261 s, and"),
        ((None, 250.0, None), "after 250 s (1 of 3 runs)"),
        ((None, None, None), "reached here in no run, and 1.88"),
    ],
)
def test_the_yardstick_is_told_by_both_rules_and_with_what_is_published(seconds, words):
    rows = [
        {
            "name": "ours",
            "random_windows": {"val_loss": 1.4 + place / 100},
            "val_loss": 1.39,
            "seconds_to_published": one,
        }
        for place, one in enumerate(seconds)
    ]
    measured = {"setting": "300 s of training each", "results": [{"name": "nanoGPT (cpu)", "val_loss": 1.9}, *rows]}
    text = sentences.yardstick(measured)
    assert "Tiny Shakespeare, 300 s of training each, 3 seeds: **1.400 to 1.420** nats a character" in text
    assert "rule, 1.390 by the rule above" in text and words in text
    assert "benchmarks/char_gpt.py" in sentences.yardstick(None)


def test_pictures_of_the_character_model(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", shown.append)
    history = [{"seconds": 1.0, "loss": 2.0}, {"seconds": 2.0, "loss": 1.5}, {"seconds": 2.0, "validation_loss": 1.6}]
    axes = plots.loss_figure(history, "seconds", "character").axes[0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[1.0, 2.0], [2.0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("seconds of training", "loss (nats a character)")
    assert plots.loss_figure([]).axes[0].get_xlabel() == "step"  # before the first entry
    scores = {"bits_per_byte": 1.8, "per_domain": {"code": {"bits_per_byte": 1.5}, "es": {"bits_per_byte": 2.0}}}
    plots.plot_bits(scores, tmp_path / "bits.png")
    plots.show_picture(tmp_path / "bits.png")
    plots.show_picture(tmp_path / "missing.png")
    assert len(shown) == 1 and shown[0].data == (tmp_path / "bits.png").read_bytes()
