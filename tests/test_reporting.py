"""Tables and plots read metrics; they must show them and break on nothing."""

import matplotlib
import pytest

from llmft_helpers.reports import plots
from llmft_helpers.reports import tables as reporting

matplotlib.use("Agg")


@pytest.fixture
def shown(monkeypatch):
    seen = []
    monkeypatch.setattr(reporting, "display", seen.append)
    return seen


def test_table_shows_scales_and_intervals():
    arm = dict.fromkeys(reporting.LEETCODE_COLUMNS, 0.25) | {"pass_at_1_ci95": [0.1, 0.4]}
    table = reporting.arms_table(dict.fromkeys(reporting.ARMS, arm), reporting.LEETCODE_COLUMNS)
    assert list(table.index) == ["base", "base, few-shot", "tuned"]
    assert table.loc["tuned", "pass@1"] == "25.0%" and table.loc["tuned", "95% interval"] == "10.0 to 40.0%"


def test_a_score_is_shown_with_its_interval_a_share_in_percent():
    metrics = {"bleu": 21.77, "bleu_ci95": [18.31, 24.77], "tests_passed_rate": 0.05, "tests_passed_ci95": [0.0, 0.088]}
    assert reporting.with_interval(metrics, "bleu") == "21.8 (18.3 to 24.8)"
    assert reporting.with_interval(metrics, "tests_passed_rate") == "5.0% (0.0 to 8.8%)"


def test_a_markdown_table_shows_texts_as_they_are():
    header, _, line = reporting.markdown([{"": "base", "share": "0.10"}]).splitlines()
    assert [cell.strip() for cell in header.split("|")] == ["", "", "share", ""]
    assert [cell.strip() for cell in line.split("|")] == ["", "base", "0.10", ""]


def test_differing_words_are_marked_and_text_is_escaped():
    marked = reporting.marked_words("the <b> cat sat", "the big cat sat")
    assert "<u>&lt;b&gt;</u>" in marked and marked.startswith("the ") and marked.endswith("cat sat")
    assert reporting.marked_words("same words", "same words") == "same words"


def test_side_by_side_reaches_into_rows(shown):
    rows = [{"es": "Sí & no", "en": "yes", "tuned": {"text": "yes no"}, "gain": 1.25}]
    reporting.side_by_side(rows, {"es": "source", "tuned.text": "tuned", "gain": "gain"}, reference="en")
    page = shown[0].data
    assert "Sí &amp; no" in page and "<u>no</u>" in page and "1.2" in page


def test_language_of_the_answers_is_shown_as_the_share_in_the_target_language():
    arm = dict.fromkeys(reporting.TRANSLATION_COLUMNS, 0.25) | {"bleu_ci95": [1.0, 2.0]}
    arm["answer_language"] = {"target": 0.75, "source": 0.25, "other": 0.0}
    table = reporting.arms_table(dict.fromkeys(reporting.ARMS, arm), reporting.TRANSLATION_COLUMNS)
    assert table.loc["base", "in the target language"] == "75.0%"


def test_failures_are_counted_by_class_with_an_example_of_the_last_arm():
    def answer(failure, text):
        return {"failure": failure, "detail": f"{failure} ...", "text": text}

    answers = {
        "base": [answer("SyntaxError", "a chat"), answer("SyntaxError", "more chat"), answer("", "fine")],
        "tuned": [answer("wrong", "1"), answer("SyntaxError", "cut"), answer("", "fine")],
    }
    table = reporting.failures_table(answers)
    assert [(row["failure"], row["base"], row["tuned"], row["example"]) for row in table] == [
        ("SyntaxError", 2, 1, "cut"),
        ("wrong", 0, 1, "1"),
    ]


def test_ablations_are_shown_with_intervals_and_by_register():
    part = {"bleu": 12.34, "bleu_ci95": [10.0, 14.06]}
    row = {"name": "formal only", "group": "register", "train_rows": 100, "validation_loss": 2.0, **part}
    table = reporting.ablation_table([row | {"prompt_echo_rate": 0.5}, {"name": "rank 8", "group": "rank", **part}])
    assert list(table.loc["formal only"]) == ["register", "100", "2.00", "12.34", "10.0 to 14.1", "50.0%"]
    assert table.loc["rank 8", "train rows"] == ""
    table = reporting.register_table({"formal only": {"everyday": part}})
    assert table.loc["formal only", "tested on everyday"] == "12.3 (10.0 to 14.1)"


def test_plots_are_written(tmp_path):
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}, {"step": 2, "validation_loss": 1.6}]
    plots.plot_losses(history, tmp_path / "a" / "loss.png")
    values = {"group": dict.fromkeys(reporting.ARMS, 0.5)}
    bars = {"group": dict.fromkeys(reporting.ARMS, [0.4, 0.6])}
    plots.plot_arms({"title": (values, bars), "other": (values, {})}, tmp_path / "arms.png")
    pandas = pytest.importorskip("pandas")
    grid = pandas.DataFrame(dict.fromkeys(reporting.ARMS, [0.0, 1.0]), index=["p", "q"])
    plots.plot_grid(grid, tmp_path / "grid.png")
    plots.plot_changes(pandas.DataFrame({"x": [1.0, 1.5], "y": [2.0, 1.0]}, ["base", "a"]), tmp_path / "changes.png")
    for name in ("a/loss.png", "arms.png", "grid.png", "changes.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("p", "text"), [(0.000999, "p ≤ 0.001"), (0.001, "p ≤ 0.001"), (0.0342, "p = 0.034"), (1, "p = 1")]
)
def test_a_p_value_in_words(p, text):
    assert reporting.p_text(p) == text


def test_drops_are_shown_by_reason():
    rows_out = {"train": 1200, "validation": 2, "test": 3}
    sources = {
        "a": {"rows_in": 1300, "dropped": {"language": 90, "duplicate": 5}, "unused": 0, "rows_out": rows_out},
        "b": {"rows_in": 7, "dropped": {}, "unused": 7, "rows_out": dict.fromkeys(rows_out, 0)},
    }
    table = reporting.sources_table({"sources": sources})
    assert list(table) == ["rows in", "language", "duplicate", "train", "validation", "test", "not used"]
    assert list(table.loc["a"]) == [1300, 90, 5, 1200, 2, 3, 0]
    assert list(table.loc["b"]) == [7, 0, 0, 0, 0, 0, 7]
