"""How time and memory of preparing sentence pairs grow with their number, on templated and on real text.

    python benchmarks/data_growth.py --rows 10000 100000 1000000 --parquet tatoeba_en_es.parquet --json growth.json

Each size is prepared in a process of its own, without the cache. Templated text: seven templates filled with 1,000
names, 1,000 numbers and 24 hours, so that most rows nearly repeat others. Real text: a Parquet file's pairs (columns
`english`, `non_english`), repeated with a word changed until there are enough.
"""

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from llmft_helpers.data import corpora  # noqa: E402
from llmft_helpers.profiles import Source, load_profile  # noqa: E402

TEMPLATES = (
    ("La temperatura en {a} es de {n} grados a las {h}.", "The temperature in {a} is {n} degrees at {h}."),
    ("El tren a {a} sale a las {h} de la vía {n}.", "The train to {a} leaves at {h} from platform {n}."),
    ("{a} compró {n} libros y volvió a casa a las {h}.", "{a} bought {n} books and came home at {h}."),
    ("¿Cuántas personas de {a} vinieron a las {h}, {n} o más?", "How many people from {a} came at {h}, {n} or more?"),
    ("A las {h} había {n} coches delante del hotel de {a}.", "At {h} there were {n} cars in front of {a}'s hotel."),
    ("Envíe el formulario {n} a {a} antes de las {h}.", "Please send form {n} to {a} before {h}."),
    ("La sesión número {n} de {a} empieza hoy a las {h}.", "Session number {n} of {a} begins today at {h}."),
)  # fmt: skip


def name(chance: random.Random) -> str:
    return "".join(chance.choice("bdfglmnprst") + chance.choice("aeiou") for _ in range(3)).capitalize()


def templated(count: int, _: Path | None) -> Iterator[dict]:
    chance = random.Random(1)
    names = [name(chance) for _ in range(1000)]
    for _ in range(count):
        spanish, english = chance.choice(TEMPLATES)
        filling = {"a": chance.choice(names), "n": chance.randrange(1000), "h": chance.randrange(24)}
        yield {"es": spanish.format(**filling), "en": english.format(**filling)}


def real(count: int, parquet: Path) -> Iterator[dict]:
    """The file's pairs; from the second round on each with a new name in front, the same on both sides."""
    chance = random.Random(1)
    table = pandas.read_parquet(parquet, columns=["non_english", "english"])
    pairs = list(table.itertuples(index=False, name=None))
    for number in range(count):
        spanish, english = pairs[number % len(pairs)]
        front = f"{name(chance)} {name(chance)}: " if number >= len(pairs) else ""
        yield {"es": front + spanish, "en": front + english}


def measure(kind: str, count: int, parquet: Path | None, found: multiprocessing.Queue) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for row in {"templated": templated, "real": real}[kind](count, parquet):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        profile = load_profile("demo")
        settings = replace(profile.translation, sources=(Source("rows", path=file.name),), train_rows=0)
        start = time.perf_counter()
        splits, manifest = corpora._make_pairs(settings, profile.seed)
        seconds = time.perf_counter() - start
    found.put({
        "text": kind, "rows": count, "seconds": round(seconds, 1), "cpu_seconds": round(time.process_time(), 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "kept": sum(map(len, splits.values())), "dropped": manifest["sources"]["rows"]["dropped"],
        "groups": len({row["group"] for part in splits.values() for row in part}),
    })  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--parquet", type=Path, help="measure on this file's text too")
    parser.add_argument("--text", choices=("templated", "real"), nargs="+", default=["templated", "real"])
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results = []
    for kind in options.text:
        for count in options.rows if kind == "templated" or options.parquet else ():
            found = context.Queue()
            process = context.Process(target=measure, args=(kind, count, options.parquet, found))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{kind}, {count:,} rows: the process ended with {process.exitcode}")
            results.append(found.get())
            print(json.dumps(results[-1]), flush=True)
    print(pandas.DataFrame(results).to_markdown(index=False))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
