"""Which numbers and which rows of a run's files a table or a plot shows."""

from collections.abc import Iterable

import pandas

from .tables import ARMS


def panel(
    metrics: dict, values: dict[str, str], intervals: dict[str, str] | None = None, arms: Iterable[str] = ARMS
) -> tuple[dict, dict]:
    """(values, intervals) of a `plot_arms` panel; both map a bar group's title to a key of each arm's metrics."""
    return tuple(
        {title: {arm: metrics[arm][key] for arm in arms} for title, key in names.items()}
        for names in (values, intervals or {})
    )


def parts(metrics: dict, by: str, value: str, interval: str) -> tuple[dict, dict]:
    """(values, intervals) of a `plot_arms` panel with a bar group a part: a corpus, a difficulty."""
    names = metrics["tuned"][by]
    return tuple(
        {name: {arm: metrics[arm][by][name][key] for arm in ARMS} for name in names} for key in (value, interval)
    )


def by_gain(predictions: list[dict]) -> list[dict]:
    """Rows with `gain`, tuned against base in chrF, the largest first."""
    rows = [row | {"gain": row["tuned"]["chrf"] - row["base"]["chrf"]} for row in predictions]
    return sorted(rows, key=lambda row: -row["gain"])


def best_middle_worst(rows: list[dict], count: int) -> list[dict]:
    """The first, the middle and the last `count` rows, none twice."""
    middle = (len(rows) - count) // 2
    places = [*range(count), *range(middle, middle + count), *range(len(rows) - count, len(rows))]
    return [rows[place] for place in sorted({place for place in places if 0 <= place < len(rows)})]


def tests_passed(solutions: list[dict]) -> pandas.DataFrame:
    """Share of tests passed, a row a problem, a column an arm; the tuned model's best first."""
    shares = {arm: [row[arm]["tests_passed"] / row[arm]["tests_total"] for row in solutions] for arm in ARMS}
    names = [f"{row['task_id']} ({row.get('difficulty') or 'no difficulty given'})" for row in solutions]
    return pandas.DataFrame(shares, index=names).sort_values("tuned", ascending=False)


def best_solution(solutions: list[dict]) -> dict:
    """The problem on which the tuned model passes the largest share of tests."""
    return max(solutions, key=lambda row: row["tuned"]["tests_passed"] / row["tuned"]["tests_total"])


def solved_then_failed(solutions: list[dict], count: int) -> list[dict]:
    """Up to `count` problems that the tuned model solved, then as many that it did not."""
    kinds = ([row for row in solutions if row["tuned"]["passed"] == passed][:count] for passed in (True, False))
    return [row for kind in kinds for row in kind]


def figure_of(table: dict[str, dict[str, dict]], key: str) -> dict[str, dict[str, float]]:
    """One of the figures in each cell of a table of rows and columns."""
    return {name: {column: figures[key] for column, figures in row.items()} for name, row in table.items()}


def registers(ablations: list[dict]) -> dict[str, dict[str, dict]]:
    """Scores by test source of the ablation runs that differ in the register trained on; "merged" comes last."""
    return {
        "merged" if row["group"] == "reference" else row["name"]: row["per_source"]
        for row in ablations[1:] + ablations[:1]
        if row["group"] in ("register", "reference")
    }


def changed_settings(now: dict, then: dict) -> list[str]:
    """The keys of the base, of LoRA and of the translation's training that differ between profiles of `provenance`."""
    flat = [
        {f"model.{key}": value for key, value in profile["model"].items()}
        | {f"lora.{key}": value for key, value in profile["lora"].items()}
        | {f"train.{key}": value for key, value in profile["translation"]["train"].items()}
        for profile in (now, then)
    ]
    return [key for key in flat[0] if flat[0][key] != flat[1].get(key)]
