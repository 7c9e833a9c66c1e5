"""Ablations: every run differs in one thing, nothing is run twice, and the page says what the file says."""

import dataclasses
import sys

import pytest

from llmft_helpers.errors import UserError
from llmft_helpers.profiles import LoraSettings, load_profile
from llmft_helpers.reports.tables import holm
from llmft_helpers.runs import ROOT
from llmft_helpers.storage import read_json, read_jsonl

sys.path.insert(0, str(ROOT / "benchmarks"))
import ablation_report
import ablations

POOL = [{"source": "everyday" if i % 4 else "formal", "es": f"es {i}", "en": f"en {i}"} for i in range(80)]


@pytest.fixture(scope="module")
def plan(profile):
    return ablations.planned_runs(profile, POOL, 16)


def test_every_run_differs_from_the_reference_in_one_thing(profile):
    lora = dataclasses.replace(profile.lora, loftq=True, int8_products=True)  # every group has a run
    profile = dataclasses.replace(profile, lora=lora)
    plan = ablations.planned_runs(profile, POOL, 16)
    reference = plan[0]
    assert (reference.lora, reference.train, reference.model) == (
        profile.lora,
        profile.translation.train,
        profile.model,
    )
    settings = ("model", "lora", "train", "rows")
    for run in plan[1:]:
        changed = [name for name in settings if getattr(run, name) != getattr(reference, name)]
        assert len(changed) == 1, run.name
        if changed != ["rows"]:
            before, after = (dataclasses.asdict(getattr(r, changed[0])) for r in (reference, run))
            differing = {key for key in before if before[key] != after[key]}
            assert len(differing) == 1 or differing == {"rank", "alpha"}
    assert {run.group for run in plan} == set(ablation_report.TITLES)


def test_registers_are_compared_at_equal_numbers_of_rows_and_sizes_are_nested(plan, profile):
    by_name = {run.name: {POOL[i]["source"] for i in run.rows} for run in plan}
    rows = {run.name: set(run.rows) for run in plan}
    assert by_name["everyday only"] == {"everyday"} and by_name["formal only"] == {"formal"}
    mixed = [POOL[i]["source"] for i in plan[0].rows]
    assert mixed.count("everyday") == mixed.count("formal") == 8
    assert len(rows["everyday only"]) == len(rows["formal only"]) == len(rows["reference"]) == 16
    assert rows["4 rows"] < rows["reference"] < rows["all 80 rows"]
    with pytest.raises(UserError, match="'formal' has 20 training rows: lower --rows"):
        ablations.planned_runs(profile, POOL, 21)


@pytest.mark.parametrize(
    ("lora", "rank", "alpha"),
    [(LoraSettings(64, 64), 8, 8), (LoraSettings(64, 128), 8, 16), (LoraSettings(64, 32, use_rslora=True), 16, 16)],
)
def test_matched_scale(lora, rank, alpha):
    assert ablations.matched_alpha(lora, rank) == alpha


def test_tone_is_measured_by_contractions_and_letters_a_word():
    texts = ["I don't know, it's late.", "The committee's report is ready."]
    measured = ablations.tone(texts)
    assert measured["contraction_rate"] == 0.5  # a possessive is none
    assert measured["characters_per_word"] == pytest.approx((1 + 3 + 1 + 4 + 2 + 1 + 4 + 3 + 9 + 1 + 6 + 2 + 5) / 13)


def test_echo_and_tone_are_compared_on_the_same_rows(profile):
    test = [{"source": source, "es": f"¿Vienes con el número {i}?", "en": "Don't you come today, my friend?"}
            for i, source in enumerate(["everyday"] * 4 + ["formal"] * 2)]  # fmt: skip
    plain, tied = "Do you not come today, my friend?", "Don't you come today, my friend?"
    texts = {
        "reference": [tied] * 6,
        "prompt in the loss": [row["es"] for row in test[:3]] + [tied] * 3,
        "formal only": [plain] * 6,
        "everyday only": [tied] * 3 + [plain] * 3,
    }
    rows = [{"name": name, "bleu": number, "answers": answers, "per_source": {"everyday": {}, "formal": {}}}
            for number, (name, answers) in enumerate(texts.items())]  # fmt: skip
    document = ablations.summary(rows, profile, test)
    assert document["prompt_echo_difference"]["difference"] == 0.5
    assert document["contraction_difference_on_everyday_rows"]["difference"] == -0.75
    low, high = document["contraction_difference_on_everyday_rows"]["ci95"]
    assert -1 <= low < -0.75 < high <= 0
    measured = document["rows"][3]["per_source"]
    assert measured["everyday"]["contraction_rate"] == 0.75 and measured["formal"]["contraction_rate"] == 0
    assert measured["formal"]["length_ratio"] == 7 / 6 and document["references"]["formal"]["contraction_rate"] == 1


def test_what_is_never_scored_is_left_out():
    sources = load_profile("demo").translation.sources
    assert [source.name for source in ablations.scored_sources(sources)] == ["everyday", "formal"]
    published = (dataclasses.replace(sources[0], split="test"), *sources[1:])
    assert ablations.scored_sources(published) == list(published)


def test_runs_are_written_at_once_and_not_repeated(outputs, tmp_path, monkeypatch, capsys):
    measured, measure = [], ablations.measure

    def counted(run, *arguments):
        measured.append(run.name)
        return measure(run, *arguments)

    monkeypatch.setattr(ablations, "measure", counted)
    command = ["--profile", "tiny", "--rows", "16", "--docs", str(tmp_path / "page.md")]
    ablations.main([*command, "--only", "learning_rate", "--minutes", "0.00001"])
    assert measured == ["reference"]
    assert "run the command again to go on with 'learning rate 0.00025'" in capsys.readouterr().out
    ablations.main([*command, "--only", "register"])
    ablations.main([*command, "--only", "register"])
    assert measured == ["reference", "everyday only", "formal only"]

    folder = outputs / "tiny" / "ablations"
    document, kept = read_json(folder / "ablations.json"), read_jsonl(folder / "rows.jsonl")
    assert [row["name"] for row in document["rows"]] == measured == [row["name"] for row in kept]
    assert not any("answers" in row for row in document["rows"]) and all(len(row["answers"]) == 12 for row in kept)
    for row in document["rows"]:
        assert {"train_rows", "steps", "seconds", "validation_loss", "bleu", "bleu_ci95", "chrf", "perplexity",
                "prompt_echo_rate", "eos_rate", "length_ratio"} <= set(row)  # fmt: skip
        assert set(row["per_source"]) == {"everyday", "formal"} == set(document["references"])
    # The random model answers nothing in every run: no difference must not be called significant.
    assert [row["bleu"] for row in document["rows"]] == [0, 0, 0]
    assert [row.get("p_against_reference") for row in document["rows"]] == [None, 1, 1]
    assert "contraction_difference_on_everyday_rows" in document and "attention only" in document["missing"]
    assert document["left_out"] == []  # every source of the profile is scored
    assert (folder / "ablations.png").stat().st_size > 5000
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "benchmarks/ablations.py --profile tiny --rows 16 " in page and "Not run yet: prompt in the loss" in page
    for row in document["rows"]:
        low, high = row["bleu_ci95"]
        assert f"{row['validation_loss']:.3f}" in page and f"{row['bleu']:.1f} ({low:.1f} to {high:.1f})" in page


def test_sweeps_never_see_a_test_row(profile, plan, monkeypatch):
    splits = {"validation": POOL[:2], "test": POOL[2:4]}
    others = splits | {"test": POOL[4:6]}
    for run in plan:
        same = ablations.run_key(run, POOL, splits, profile) == ablations.run_key(run, POOL, others, profile)
        assert same == (run.group in ablations.SWEEPS), run.name
    with pytest.raises(UserError, match="--only: no group 'size '; there are: loss, rank"):
        ablations.chosen_groups(plan, "loss,size ")


def test_p_values_are_adjusted_for_their_number():
    # 3 x 0.01, then 2 x 0.02, then the larger of 0.04 and 1 x 0.03 (Holm 1979)
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.6]) == [1.0, 1.0] and holm([]) == []
