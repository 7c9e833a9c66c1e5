"""Quality report on data/: what is there, what is repeated, how strong the problems' tests are.

Prints tables and exits with status 1 if a limit is broken. Duplicates are found exactly (prefix filtering,
Chaudhuri et al. 2006), not by the MinHash that cleans the training data, so that the two check each other.
"""

import argparse
import contextlib
import io
import itertools
import json
import multiprocessing
import random
import re
import resource
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean, median

import pandas

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import mutants  # noqa: E402
import overlap  # noqa: E402

from llmft_helpers.data.cleaning import five_grams, normalise  # noqa: E402
from llmft_helpers.data.prompts import LeetcodeTask  # noqa: E402
from llmft_helpers.grading import execution  # noqa: E402
from llmft_helpers.grading.comparison import COMPARE  # noqa: E402
from llmft_helpers.grading.values import encode  # noqa: E402
from llmft_helpers.storage import read_jsonl  # noqa: E402

PAIR_FILES = {name: f"es_en/{name}.jsonl" for name in ("everyday", "formal", "vocabulary")}
PROBLEM_FILES = "leetcode/*.jsonl"
MUTANT_SECONDS = 0.5  # of CPU time, all tests of a problem together
MUTANT_MEMORY = 2 << 30
DIFFICULTIES = {"Easy": 0.50, "Medium": 0.35, "Hard": 0.15}
# One-sentence problems are a tier of their own: the mix of difficulties and all other limits are without them.
WARM_UP = "Warm-up"
# name: (smallest, largest) allowed
LIMITS = {
    "everyday pairs": (4000, None), "formal pairs": (2000, None), "vocabulary pairs": (2000, None),
    "problems": (300, None),
    "topics": (80, None), "tags": (25, None), "exact duplicates": (0, 0), "near duplicates": (0, 0),
    "tasks told twice": (0, 0), "references that pass": (1.0, 1.0), "mutants killed": (0.92, 1.0),
    "median tests a problem": (12, None), "fewest tests of a problem": (10, None),
    "Warm-up problems": (240, None), "Warm-up mutants killed": (0.92, 1.0),
    "Warm-up median tests a problem": (12, None), "Warm-up fewest tests of a problem": (12, None),
    "six-word runs of HumanEval or MBPP": (0, 0),
    "largest deviation of a difficulty": (0, 0.1), "seconds": (0, 300),
}  # fmt: skip


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def describe_pairs(rows: list[dict]) -> dict:
    """Counts, lengths in words, vocabulary, distinct 4-gram ratio and topic balance of one file."""
    facts: dict = {"rows": len(rows)}
    for side in ("es", "en"):
        texts = [words(row[side]) for row in rows]
        lengths = sorted(map(len, texts))
        grams = [tuple(text[i : i + 4]) for text in texts for i in range(len(text) - 3)]
        facts[f"{side} words"] = sum(lengths)
        facts[f"{side} words a row: mean"] = round(mean(lengths), 1)
        facts[f"{side} words a row: 5th, 50th, 95th percentile"] = [
            lengths[int(share * (len(lengths) - 1))] for share in (0.05, 0.5, 0.95)
        ]
        facts[f"{side} vocabulary"] = len({word for text in texts for word in text})
        facts[f"{side} distinct 4-gram ratio"] = round(len(set(grams)) / max(1, len(grams)), 3)
    topics = Counter(row["topic"] for row in rows)
    facts["topics"] = len(topics)
    facts["rows a topic: min, median, max"] = [min(topics.values()), median(topics.values()), max(topics.values())]
    return facts


def near_duplicates(texts: list[str]) -> list[tuple[int, int]]:
    """All pairs whose 5-gram sets have a Jaccard index of at least 0.8, exact copies included.

    Two such sets share one of the rarest n - ceil(0.8 n) + 1 = n // 5 + 1 grams of each, so only those are indexed.
    """
    sets = [five_grams(text) for text in texts]
    frequency = Counter(gram for grams in sets for gram in grams)
    index: dict[str, list[int]] = defaultdict(list)
    found = []
    for later, grams in enumerate(sets):
        prefix = sorted(grams, key=lambda gram: (frequency[gram], gram))[: len(grams) // 5 + 1]
        for earlier in sorted({other for gram in prefix for other in index[gram]}):
            other = sets[earlier]
            if 5 * len(grams & other) >= 4 * len(grams | other):
                found.append((earlier, later))
        for gram in prefix:
            index[gram].append(later)
    return found


def repeats(named: list[tuple[str, str]]) -> dict:
    """Exact (normalised) and near-duplicate pairs among (id, text), within and across files."""
    keys = [normalise(text) for _, text in named]
    pairs = near_duplicates([text for _, text in named])
    exact = [(named[a][0], named[b][0]) for a, b in pairs if keys[a] == keys[b]]
    near = [(named[a][0], named[b][0]) for a, b in pairs if keys[a] != keys[b]]
    return {"texts": len(named), "exact": exact, "near": near}


def describe_problems(rows: list[dict]) -> dict:
    statement = [len(words(LeetcodeTask.statement(row))) for row in rows]
    difficulty = Counter(row["difficulty"] for row in rows)
    return {
        "rows": len(rows),
        "families": len({row["family"] for row in rows}),
        "statement words: median": median(statement),
        "solution lines: median": median(row["completion"].strip().count("\n") + 1 for row in rows),
        "tests a problem: min, median, max": [f(len(row["tests"]) for row in rows) for f in (min, median, max)],
        "difficulty": {name: round(count / len(rows), 3) for name, count in difficulty.items()},
        "tags": dict(Counter(tag for row in rows for tag in row["tags"]).most_common()),
    }


def by_tier(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of the two tiers; "" is Easy to Hard."""
    tiers = defaultdict(list)
    for row in rows:
        tiers[WARM_UP if row["difficulty"] == WARM_UP else ""].append(row)
    return dict(tiers)


def count_mutants(scores: list[dict]) -> dict[str, dict[str, int]]:
    """{kind: {"made", "killed"}} over many problems."""
    made, killed = (sum((Counter(score[key]) for score in scores), Counter()) for key in ("made", "killed"))
    return {kind: {"made": made[kind], "killed": killed[kind]} for kind in mutants.KINDS if made[kind]}


def tier_figures(facts: dict, counts: dict[str, dict[str, int]]) -> dict:
    made, killed = (sum(count[key] for count in counts.values()) for key in ("made", "killed"))
    fewest, middle, _ = facts["tests a problem: min, median, max"]
    figures = {"problems": facts["rows"], "median tests a problem": middle, "fewest tests of a problem": fewest}
    return figures | ({"mutants killed": round(killed / made, 4)} if made else {})


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MUTANT_MEMORY, MUTANT_MEMORY))
    sys.setrecursionlimit(5000)


def passes(source: str, row: dict, seconds: float = MUTANT_SECONDS) -> bool:
    """Whether a solution gives every expected value; anything else kills it, an endless loop too."""
    same = COMPARE[row["compare"]]
    got = mutants.run(source, row["entry_point"], [test["args"] for test in row["tests"]], seconds)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return all(same(test["expected"], encode(value)) for test, value in zip(row["tests"], got, strict=True))
    except (Exception, SystemExit, mutants.Timeout):  # whatever a broken program does
        return False


def kill_mutants(row: dict) -> dict:
    """How many mutants of one problem's reference its tests kill, by kind, and which survive."""
    if not passes(row["completion"], row, seconds=10 * MUTANT_SECONDS):
        raise RuntimeError(f"{row['task_id']}: the reference fails its own tests, so that its mutants prove nothing")
    made, killed, alive = Counter(), Counter(), []
    for mutant in mutants.mutants(row["completion"]):
        made[mutant.kind] += 1
        if passes(mutant.source, row):
            alive.append([mutant.kind, mutant.line])
        else:
            killed[mutant.kind] += 1
    return {"task_id": row["task_id"], "made": dict(made), "killed": dict(killed), "survivors": alive}


def solved_by(row: dict, others: list[dict]) -> list[str]:
    """Which problems' tests the reference of `row` passes."""
    arguments = len(row["tests"][0]["args"])
    return [
        other["task_id"]
        for other in others
        if len(other["tests"][0]["args"]) == arguments
        and passes(row["completion"], other | {"entry_point": row["entry_point"]})
    ]


def same_tasks(rows: list[dict], solved: list[list[str]]) -> list[tuple[str, str]]:
    """Pairs of problems of different families whose references each pass the other's tests: one task told twice."""
    family = {row["task_id"]: row["family"] for row in rows}
    passed = {(row["task_id"], other) for row, found in zip(rows, solved, strict=True) for other in found}
    return sorted((a, b) for a, b in passed if a < b and (b, a) in passed and family[a] != family[b])


def survey(folder: Path, problems_sampled: int | None, workers: int, seed: int, mbpp: Path | None) -> dict:
    """Everything that the report shows, as plain data."""
    start = time.perf_counter()
    files = {name: read_jsonl(folder / path) for name, path in PAIR_FILES.items()}
    problems = [row for path in sorted(folder.glob(PROBLEM_FILES)) for row in read_jsonl(path)]
    tiers = by_tier(problems)
    both = [row for rows in files.values() for row in rows]
    report: dict = {
        "pairs": {name: describe_pairs(rows) for name, rows in files.items() if rows},
        "problems": {tier: describe_problems(rows) for tier, rows in tiers.items()},
        "repeats": {
            "es": repeats([(row["id"], row["es"]) for row in both]),
            "en": repeats([(row["id"], row["en"]) for row in both]),
            "statement": repeats([(row["task_id"], LeetcodeTask.statement(row)) for row in problems]),
            "solution": repeats([(row["task_id"], row["completion"]) for row in problems]),
        },
    }
    statements = {row["task_id"]: LeetcodeTask.statement(row) for row in problems}
    report["six-word runs"] = overlap.shared_runs(statements, overlap.published(mbpp))
    graded = execution.grade([row["completion"] for row in problems], problems, workers=workers)
    report["references that fail"] = [[g["task_id"], g["verdict"], g["detail"]] for g in graded if not g["passed"]]
    sound = [row for row, grade in zip(problems, graded, strict=True) if grade["passed"]]
    sample = sound
    if problems_sampled and problems_sampled < len(sound):
        sample = random.Random(seed).sample(sound, problems_sampled)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=limit_memory) as pool:
        solved = list(pool.map(solved_by, sound, itertools.repeat(sound)))
        report["mutation"] = list(pool.map(kill_mutants, sample))
    report["one task told twice"] = same_tasks(sound, solved)
    scores = {score["task_id"]: score for score in report["mutation"]}
    report["mutants"] = {
        tier: count_mutants([scores[row["task_id"]] for row in rows if row["task_id"] in scores])
        for tier, rows in tiers.items()
    }
    shares = report["problems"][""]["difficulty"]
    report["figures"] = {
        **{f"{name} pairs": len(rows) for name, rows in files.items()},
        **{
            f"{tier} {name}".strip(): value
            for tier, facts in report["problems"].items()
            for name, value in tier_figures(facts, report["mutants"][tier]).items()
        },
        "topics": len({row["topic"] for row in both}),
        "tags": len(report["problems"][""]["tags"]),
        "exact duplicates": sum(len(found["exact"]) for found in report["repeats"].values()),
        "near duplicates": sum(len(found["near"]) for found in report["repeats"].values()),
        "tasks told twice": len(report["one task told twice"]),
        "references that pass": len(sound) / len(problems),
        "six-word runs of HumanEval or MBPP": len(report["six-word runs"]),
        "largest deviation of a difficulty": round(
            max(abs(shares.get(name, 0) - share) for name, share in DIFFICULTIES.items()), 3
        ),
        "seconds": round(time.perf_counter() - start, 1),
    }
    report["broken"] = broken(report["figures"])
    return report


def broken(figures: dict) -> list[str]:
    """Names of the figures outside their limits, or not there at all."""
    out = []
    for name, (smallest, largest) in LIMITS.items():
        figure = figures.get(name)
        if figure is None or figure < smallest or (largest is not None and figure > largest):
            out.append(name)
    return out


def show(report: dict) -> None:
    print("Sentence pairs\n" + pandas.DataFrame(report["pairs"]).astype(str).to_string())
    tiers = {tier or "Easy to Hard": facts for tier, facts in report["problems"].items()}
    facts = {tier: {k: v for k, v in facts.items() if k != "tags"} for tier, facts in tiers.items()}
    print("\nProblems\n" + pandas.DataFrame(facts).astype(str).to_string())
    for tier, facts in tiers.items():
        print(f"\n{tier}: problems with each tag\n" + ", ".join(f"{tag} {n}" for tag, n in facts["tags"].items()))
    print("\nRepeats (pairs of rows, inside and across files)")
    for side, found in report["repeats"].items():
        print(f"{side:10} {found['texts']:6,} texts, {len(found['exact'])} exact, {len(found['near'])} near")
        for kind in ("exact", "near"):
            for first, second in found[kind][:20]:
                print(f"    {kind}: {first} and {second}")
    for first, second in report["one task told twice"]:
        print(f"one task told twice, in two families: {first} and {second}")
    for task, other, run in report["six-word runs"]:
        print(f"six words of {other} in {task}: {run}")
    for task, verdict, detail in report["references that fail"]:
        print(f"reference fails: {task}: {verdict}: {detail}")
    scored = report["mutation"]
    total = sum(facts["rows"] for facts in tiers.values())
    print(f"\nMutants of {len(scored)} of {total} references, killed by the problem's tests")
    for tier, counts in report["mutants"].items():
        for kind, count in counts.items():
            share = count["killed"] / count["made"]
            print(f"{tier or 'Easy to Hard':12} {kind:15} {count['killed']:6,} of {count['made']:6,} = {share:.1%}")
    weakest = sorted(scored, key=lambda m: -len(m["survivors"]) / sum(m["made"].values()))[:10]
    print(
        "weakest tests: "
        + ", ".join(f"{m['task_id']} {len(m['survivors'])}/{sum(m['made'].values())}" for m in weakest)
    )
    print("\nLimits")
    for name, (smallest, largest) in LIMITS.items():
        allowed = f">= {smallest}" if largest is None else f"{smallest} to {largest}"
        mark = "BROKEN" if name in report["broken"] else "kept"
        print(f"{name:34} {report['figures'].get(name, 'none'):>10} {allowed:>12}  {mark}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--problems", type=int, metavar="N", help="mutate a seeded sample of N problems, not all")
    parser.add_argument("--mbpp", type=Path, metavar="FILE", help="MBPP's mbpp.jsonl, to look for its statements too")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = survey(options.data, options.problems, options.workers, options.seed, options.mbpp)
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(1 if report["broken"] else 0)


if __name__ == "__main__":
    main()
