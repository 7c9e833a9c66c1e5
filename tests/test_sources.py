"""Every reader gives the same rows; every broken source is named with file, line and remedy."""

import csv
import gzip
import json
import re

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from llmft_helpers.data.sources import read_source
from llmft_helpers.errors import UserError
from llmft_helpers.profiles import Source

SIDES = ("es", "en")
ROWS = [
    {"es": "Llueve a «cántaros», dicen.", "en": 'It rains "cats and dogs", they say.'},
    {"es": "¿Y el pingüino?", "en": "And the penguin?"},
    {"es": "", "en": "Nothing on the left."},
]


def jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_jsonl(folder):
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + jsonl(ROWS) + b"\n")  # byte order mark, empty last line
    return {"path": str(folder / "a.jsonl")}


def write_gzip(folder):
    (folder / "a.v1.jsonl.gz").write_bytes(gzip.compress(jsonl(ROWS)))
    return {"path": str(folder / "a.v1.jsonl.gz")}


def write_csv(folder):
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "en", "es"])  # another order, one column more
        writer.writeheader()
        writer.writerows({"id": number, **row} for number, row in enumerate(ROWS))
    return {"path": str(folder / "a.csv")}


def write_tsv(folder):
    lines = ["es\ten", *(f"{row['es']}\t{row['en']}" for row in ROWS)]  # bare quotes, as Tatoeba has them
    (folder / "a.tsv").write_text("\n".join(lines), encoding="utf-8")
    return {"path": str(folder / "a.tsv")}


def write_parquet(folder):
    table = [{"translation": {"es": row["es"] or None, "en": row["en"]}} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), folder / "a.parquet")
    return {"path": str(folder / "a.parquet"), "columns": {"es": "translation.es", "en": "translation.en"}}


def write_aligned(folder):
    for side, end in (("es", "\r\n"), ("en", "\n")):
        (folder / side).write_bytes("".join(row[side] + end for row in ROWS).encode())
    return {"path": (str(folder / "es"), str(folder / "en"))}


@pytest.mark.parametrize("write", [write_jsonl, write_gzip, write_csv, write_tsv, write_parquet, write_aligned])
def test_every_reader_gives_the_same_rows_and_keeps_the_limit(write, tmp_path):
    given = write(tmp_path)
    located = read_source(Source("a", **given), SIDES)
    assert [row for _, row in located] == ROWS
    assert all(re.search(r"[^:]+:(row )?\d+$", where) for where, _ in located)
    assert [row for _, row in read_source(Source("a", limit=2, **given), SIDES)] == ROWS[:2]


def test_paths_are_relative_to_the_working_folder_or_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_source(Source("a", path="data/es_en/everyday.jsonl", limit=1), SIDES)
    write_jsonl(tmp_path)
    assert read_source(Source("a", path="a.jsonl"), SIDES)


LATIN1 = '{"es": "x", "en": "y"}\n{"es": "año", "en": "year"}\n'.encode("latin-1")
GOOD = jsonl([{"es": "Hola.", "en": "Hello."}])
COMPRESSED = gzip.compress(jsonl([{"es": f"{n * 7919}", "en": f"{n**3}"} for n in range(2000)]))
FLIPPED = COMPRESSED[:200] + bytes(255 - byte for byte in COMPRESSED[200:600]) + COMPRESSED[600:]
TABLE = pyarrow.BufferOutputStream()
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), TABLE)
PARQUET = TABLE.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content", "place", "said"),
    [
        ("a.jsonl", b"", "a.jsonl", "holds no rows; fill it"),
        ("a.jsonl", b"\n \n", "a.jsonl", "holds no rows"),
        ("a.jsonl", GOOD + b'{"es": "Ad', "a.jsonl:2", r"not valid JSON .*cut off\? Repair"),
        ("a.jsonl", GOOD + b'["Hola.", "Hello."]\n', "a.jsonl:2", "found a list, not an object .*write one"),
        ("a.jsonl", LATIN1, "a.jsonl:2", r"not UTF-8 \(byte 0xf1\); convert .*iconv"),
        ("a.jsonl", GOOD + jsonl([{"es": "x", "English": "y"}]), "a.jsonl:2", r"no column 'en' \(there are: es, Eng"),
        ("a.jsonl", jsonl([{"es": {"text": "x"}, "en": "y"}]), "a.jsonl:1", "'es' holds a dict, not text; name"),
        ("a.jsonl", jsonl([{"id": 7} | r for r in ROWS]), "a.jsonl:2", r"id '7' .* before, at \S*a.jsonl:1; make ids"),
        ("a.jsonl", jsonl([{"id": [7]} | r for r in ROWS]), "a.jsonl:2", r"id '\[7\]' was used before"),
        ("a.jsonl.gz", b"plain text", "a.jsonl.gz:1", "broken gzip file .*download it again"),
        ("a.jsonl.gz", COMPRESSED[:-500], r"a.jsonl.gz:\d{3,}", "broken gzip file"),
        ("a.jsonl.gz", FLIPPED, r"a.jsonl.gz:\d+", "broken gzip file"),
        ("a.csv", b"", "a.csv", "holds no rows"),
        ("a.csv", b"es,en\n", "a.csv", "holds no rows"),
        ("a.csv", b"es,en\na,b\nc\n", "a.csv:3", r"1 fields where the header has 2 \(es, en\); repair .*quotes"),
        ("a.csv", b"es,en\na,b, c\n", "a.csv:2", "3 fields where the header has 2"),
        ("a.csv", b'es,en\na,b\nc,"d\n', "a.csv:3", "broken CSV .*repair"),
        ("a.csv", b"es,en,es\na,b,c\n", "a.csv:1", "twice in the header .*rename"),
        ("a.csv", b"Hola.,Hello.\nQue tal.,How are you.\n", "a.csv:2", r"no column 'es' \(there are: Hola"),
        ("a.csv", "es,en\naño,year\n".encode("latin-1"), "a.csv:2", "not UTF-8"),
        ("a.tsv", b"es\ten\na\tb\nc d\n", "a.tsv:3", "1 fields where the header has 2"),
        ("a.parquet", b"PAR1 not really", "a.parquet", "broken Parquet file after row 0"),
        ("a.parquet", PARQUET[: len(PARQUET) // 2], "a.parquet", "broken Parquet file .*download it again"),
        ("a.parquet", PARQUET[:4] + b"\x55" * 80 + PARQUET[84:], "a.parquet", "broken Parquet file"),
        ("a.txt", GOOD, "a.txt", "is not one of .jsonl, .jsonl.gz, .csv, .tsv, .parquet or two text files"),
    ],
)  # fmt: skip
def test_broken_file_is_named_with_line_and_remedy(name, content, place, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as raised:
        read_source(Source("mine", path=str(tmp_path / name)), SIDES, ("id",))
    assert re.search(rf"{re.escape(str(tmp_path))}/{place}\b", str(raised.value)), raised.value


def test_unequal_line_counts_are_found_even_below_the_limit(tmp_path):
    (tmp_path / "es").write_text("uno\ndos\n", encoding="utf-8")
    (tmp_path / "en").write_text("one\ntwo\nthree\n", encoding="utf-8")
    for order in (("es", "en"), ("en", "es")):
        source = Source("a", path=tuple(str(tmp_path / side) for side in order), limit=1)
        with pytest.raises(UserError, match=r"/en:3: no partner line: it has 3 lines and .*/es has 2; align them"):
            read_source(source, SIDES)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"path": "no/such.jsonl"}, "source 'mine': file no/such.jsonl not found .*correct its path"),
        ({"path": ("no/such.es", "no/such.en")}, "file no/such.es not found"),
        ({"path": "a.jsonl", "hub": "some/set"}, "source 'mine': set either path or hub"),
        ({}, "source 'mine': set either path or hub"),
        ({"path": "a.jsonl", "columns": {"spanish": "es"}}, "maps spanish, but ours are called es, en"),
    ],
)
def test_impossible_source_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        read_source(Source("mine", **given), SIDES)


@pytest.mark.parametrize("aligned", [False, True])
def test_a_folder_is_no_file(tmp_path, aligned):
    (tmp_path / "a.jsonl").mkdir()
    path = str(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match=f"source 'mine': {path} is a folder: name the file"):
        read_source(Source("mine", path=(path, path) if aligned else path), SIDES)


def test_a_path_that_the_system_refuses_to_look_up_is_not_found():
    """Path.is_file raises for a name that is too long, as it does for a folder that may not be searched."""
    with pytest.raises(UserError, match="source 'mine': file x+.jsonl not found"):
        read_source(Source("mine", path="x" * 300 + ".jsonl"), SIDES)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS))

    def refuse(path, *_, **__):  # tests may run as root, who reads everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match=r"a.jsonl: cannot be read \(Permission denied\)"):
        read_source(Source("mine", path=str(tmp_path / "a.jsonl")), SIDES)


def test_a_mapped_optional_column_must_exist_and_others_may_be_absent(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(jsonl([{"es": "x", "en": "y", "style": "formal", "id": None}]))
    path = str(tmp_path / "a.jsonl")
    mapped = Source("a", path=path, columns={"register": "style"})
    assert read_source(mapped, SIDES, ("id", "register"))[0][1] == {"es": "x", "en": "y", "register": "formal"}
    with pytest.raises(UserError, match="a.jsonl:1: no column 'tone'"):
        read_source(Source("a", path=path, columns={"register": "tone"}), SIDES, ("id", "register"))


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the hub: `calls` holds what load_dataset was asked, `answer` what it gives or raises."""

    class Hub:
        calls: list[dict] = []
        read = 0

        def load_dataset(self, path, name=None, **options):
            self.calls = [*self.calls, {"path": path, "name": name, **options}]
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.rows()

        def rows(self):
            for row in self.answer:
                if isinstance(row, Exception):
                    raise row
                self.read += 1
                yield row

    stand_in = Hub()
    monkeypatch.setattr(datasets, "load_dataset", stand_in.load_dataset)
    return stand_in


HUB_SOURCE = {"hub": "some/set", "config": "en-es", "hub_split": "dev", "revision": "abc123"}
NESTED = {"es": "translation.es", "en": "translation.en"}


@pytest.mark.parametrize(("limit", "streaming", "count"), [(None, False, 5), (2, True, 2)])
def test_hub_rows_are_streamed_up_to_the_limit(hub, limit, streaming, count):
    hub.answer = [{"translation": {"es": f"e{n}", "en": f"i{n}"}} for n in range(5)]
    located = read_source(Source("a", columns=NESTED, limit=limit, **HUB_SOURCE), SIDES)
    assert located == [(f"some/set:row {n + 1}", {"es": f"e{n}", "en": f"i{n}"}) for n in range(count)]
    assert hub.read == count
    assert hub.calls == [
        {"path": "some/set", "name": "en-es", "split": "dev", "revision": "abc123", "streaming": streaming}
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (DatasetNotFoundError("Dataset 'some/set' is a gated dataset"), "was renamed, or is gated: .*set HF_TOKEN"),
        (ConnectionError("Couldn't reach 'some/set' on the Hub\nOffline"), "Couldn't reach .*local file .*no network"),
        (
            ValueError("BuilderConfig 'en-es' not found. Available: ['de']"),
            "config en-es, split dev.*Available: .*check",
        ),
        (RuntimeError("Dataset scripts are no longer supported"), "scripts are no longer supported.*local file"),
        (TimeoutError(), "TimeoutError; check config"),
        ([{"es": "x", "en": "y"}, DatasetGenerationError("broken shard")], "could not be loaded: broken shard"),
        ([], "source 'mine': some/set holds no rows"),
        ([{"es": "x", "text": "y"}], r"some/set:row 1: no column 'en' \(there are: es, text\); map it"),
    ],
)
def test_hub_failures_give_one_clear_message(hub, answer, said):
    hub.answer = answer
    with pytest.raises(UserError, match=said) as raised:
        read_source(Source("mine", **HUB_SOURCE), SIDES)
    assert "some/set" in str(raised.value) and "\n" not in str(raised.value)
