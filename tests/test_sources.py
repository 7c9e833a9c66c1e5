"""Every reader gives the same rows; every broken source is named with file, line and remedy."""

import csv
import gzip
import io
import json
import re
import zipfile
from datetime import date, datetime
from decimal import Decimal

import datasets
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from llmft_helpers.data import sources
from llmft_helpers.errors import UserError
from llmft_helpers.profiles import Source

SIDES = ("es", "en")


def read_source(*arguments, **options) -> list[tuple[str, dict]]:
    return list(sources.read_source(*arguments, **options))


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
    some = [row for _, row in read_source(Source("a", limit=2, **given), SIDES)]
    assert len(some) == 2 and all(row in ROWS for row in some)


def test_paths_are_relative_to_the_working_folder_or_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_source(Source("a", path="data/es_en/everyday.jsonl", limit=1), SIDES)
    write_jsonl(tmp_path)
    assert read_source(Source("a", path="a.jsonl"), SIDES)


LATIN1 = '{"es": "x", "en": "y"}\n{"es": "año", "en": "year"}\n'.encode("latin-1")
MAC = "es\ten\naño\tyear\nLa canción está aquí.\tThe song.\n".encode("mac-roman")
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
        ("a.jsonl", LATIN1, "a.jsonl:2", r'not UTF-8 \(byte 0xf1\); .* like cp1252 \("año"\): .*encoding = "cp1252"'),
        ("a.jsonl", GOOD + jsonl([{"es": "x", "English": "y"}]), "a.jsonl:2", r"no column 'en' \(there are: es, Eng"),
        ("a.jsonl", jsonl([{"es": {"text": "x"}, "en": "y"}]), "a.jsonl:1", "'es' holds a dict, not text; name"),
        ("a.jsonl.gz", b"plain text", "a.jsonl.gz", "broken gzip file .*download it again"),
        ("a.jsonl.gz", COMPRESSED[:-500], "a.jsonl.gz", "broken gzip file"),
        ("a.jsonl.gz", FLIPPED, "a.jsonl.gz", "broken gzip file"),
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
        ("a.txt", GOOD, "a.txt", "not one of .jsonl, .ndjson, .json, .csv, .tsv, .parquet .*set separator"),
        ("a.csv", b"Hola.,Hello.\nQue tal.,Hi.\n", "a.csv:2", "first line was taken as the header: if .*header = "),
        ("a.tsv", "es\ten\naño\tyear\n".encode("utf-16-le"), "a.tsv:1", "looks like utf-16-le .*set encoding"),
        ("a.tsv", MAC, "a.tsv:2", 'looks like mac-roman .*"año"'),
        ("a.json", b'{"data": [{"es": "x", "en": "y"}]}', "a.json:1", 'rows are the list .data., set field = "data"'),
        ("a.json", b'{\n"data": [\n{"es": "x", "en": "y"}]}', "a.json", r'one object and no list .*there are: data'),
        ("a.json", b'[{"es": "x", "en": "y"}, 3]', "a.json:row 2", "found a int, not an object"),
        ("a.zip", b"PK no zip", "a.zip", "broken zip file"),
        ("a.jsonl", b'{"es": ' + b"[" * 100_000, "a.jsonl:1", "nested too deeply"),
        ("a.jsonl", b'{"es": ' + b"9" * 5000 + b', "en": "x"}\n', "a.jsonl:1", "4300 digits"),
    ],
)  # fmt: skip
def test_broken_file_is_named_with_line_and_remedy(name, content, place, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as raised:
        read_source(Source("mine", path=str(tmp_path / name)), SIDES, ("id",))
    assert re.search(rf"{re.escape(str(tmp_path))}/{place}\b", str(raised.value)), raised.value


QUOTED = [
    {"es": 'Llueve a "cántaros", dicen.', "en": "It rains\tcats"},
    {"es": "Hola.", "en": "Hello."},
    {"es": "x" * 200_000, "en": "A field longer than the csv module allows."},
]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("rows", [QUOTED, ROWS])
def test_a_quoted_tsv_as_pandas_writes_it_loses_its_quotes(quoting, rows, tmp_path):
    pandas.DataFrame(rows).to_csv(tmp_path / "a.tsv", sep="\t", index=False, quoting=quoting)
    assert [row for _, row in read_source(Source("a", path=str(tmp_path / "a.tsv")), SIDES)] == rows


def test_bare_quotes_of_a_tsv_stay(tmp_path):
    rows = [{"es": '"Hola", dijo.', "en": '"Hello," he said.'}, {"es": '"Sí."', "en": '"Yes."'}]
    (tmp_path / "a.tsv").write_text("es\ten\n" + "".join(f"{r['es']}\t{r['en']}\r\n" for r in rows), newline="")
    assert [row for _, row in read_source(Source("a", path=str(tmp_path / "a.tsv")), SIDES)] == rows
    (tmp_path / "b.tsv").write_text('es\ten\n"Sí."\t"Yes."\n')
    assert read_source(Source("a", path=str(tmp_path / "b.tsv")), SIDES)[0][1] == rows[1]


def table(rows, separator=",", head=True, end="\n") -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=end)
    writer.writerows([["es", "en"]] * head + [[row["es"], row["en"]] for row in rows])
    return out.getvalue().encode()


def zipped(name: str, content: bytes, *others: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for other in others:
            archive.writestr(other, "x")
        archive.writestr(name, content)
    return out.getvalue()


def marked(place: int, value: int) -> bytes:
    """A zip whose two headers hold `value` as flags (6) or as kind of compression (8)."""
    content = bytearray(zipped("a.jsonl", GOOD))
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    content[local + place] = content[central + place + 2] = value
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("a.JSONL", jsonl(ROWS), {}),
        ("a.ndjson", jsonl(ROWS), {}),
        ("a.json", jsonl(ROWS), {}),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(ROWS, indent=1).encode(), {}),
        ("a.jsonl", json.dumps(ROWS).encode(), {}),
        ("a.json", json.dumps({"version": 1, "rows": {"train": ROWS}}).encode(), {"field": "rows.train"}),
        ("a.Csv.GZ", gzip.compress(table(ROWS)), {}),
        ("a.tsv.gz", gzip.compress(b"es\ten\n" + table(ROWS, "\t", head=False)), {}),
        ("a.csv", table(ROWS, end="\r\n"), {}),
        ("a.csv", table(ROWS, ";"), {"separator": ";"}),
        ("a.txt", table(ROWS, "|"), {"separator": "|"}),
        ("a.csv", table(ROWS, head=False), {"header": ("es", "en")}),
        ("a.tsv", table(ROWS, "\t").decode().encode("utf-16"), {}),
        ("a.csv", table(ROWS).decode().encode("cp1252"), {"encoding": "cp1252"}),
        ("a.csv", table(ROWS).decode().encode("utf-16-le"), {"encoding": "utf-16-le"}),
        ("a.parquet.gz", gzip.compress(PARQUET), {}),
        ("a.PARQUET", PARQUET, {}),
        ("a.zip", zipped("inner.jsonl", jsonl(ROWS), "__MACOSX/._inner.jsonl", "folder/"), {}),
        ("a.csv.zip", zipped("inner.csv", table(ROWS)), {}),
    ],
)
def test_files_as_people_have_them(name, content, settings, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert [row for _, row in read_source(Source("a", path=str(tmp_path / name), **settings), SIDES)] == ROWS


@pytest.mark.parametrize(
    ("name", "content", "settings", "said"),
    [
        ("a.zip", zipped("a.jsonl", GOOD, "b.txt"), {}, r"a.zip: holds 2 files \(b.txt, a.jsonl\): unpack"),
        ("a.csv", GOOD, {"encoding": "latin-17"}, "encoding 'latin-17' is not known to Python"),
        ("a.csv", "es,en\naño,x\n".encode("latin-1"), {"encoding": "ascii"}, "a.csv:2: not ascii"),
        ("a.csv", b"es,en\n" + b"a,b\n" * 55 + b"\x81,b\n", {"encoding": "cp1252"}, "a.csv:57: not cp1252"),
        ("a.csv", b"es,en\na,b\n\xff,b\n", {"encoding": "utf-8"}, "a.csv:3: not utf-8"),
        ("a.zip", marked(6, 1), {}, "a.zip: .* is encrypted, password required for extraction: unpack it and name"),
        ("a.zip", marked(8, 9), {}, "a.zip: That compression method is not supported: unpack it and name"),
        ("a.json", json.dumps({"rows": {"a": 1}}).encode(), {"field": "rows.b"}, "no list of rows at field 'rows.b'"),
        ("a.csv", b"a,b,c\n", {"header": ("es", "en")}, r"a.csv:1: 3 fields where the header has 2 \(es, en\)"),
    ],
)
def test_a_wrong_setting_of_a_source_is_named(name, content, settings, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_source(Source("a", path=str(tmp_path / name), **settings), SIDES)


def test_a_name_with_a_dot_comes_before_a_path_and_a_number_is_a_place_in_a_list(tmp_path):
    chat = {"messages": [{"content": "Hola."}, {"content": "Hello."}], "text.es": "Hola."}
    (tmp_path / "a.jsonl").write_bytes(jsonl([chat]))
    path = str(tmp_path / "a.jsonl")
    for spanish in ("messages.0.content", "text.es"):
        columns = {"es": spanish, "en": "messages.1.content"}
        assert read_source(Source("a", path=path, columns=columns), SIDES)[0][1] == {"es": "Hola.", "en": "Hello."}
    with pytest.raises(UserError, match="no column 'messages.2.content'"):
        read_source(Source("a", path=path, columns={"es": "messages.2.content", "en": "text.es"}), SIDES)


def test_limit_draws_from_the_whole_file_by_the_seed_alone(tmp_path):
    rows = [{"es": f"e{n}", "en": f"i{n}"} for n in range(1000)]
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows))
    (tmp_path / "b.jsonl").write_bytes(jsonl(rows[::-1]))

    def drawn(name, seed):
        return [row for _, row in read_source(Source("a", path=str(tmp_path / name), limit=100), SIDES, seed=seed)]

    numbers = [int(row["es"][1:]) for row in drawn("a.jsonl", 1)]
    assert len(numbers) == 100 and numbers == sorted(numbers)
    assert 350 < sum(numbers) / 100 < 650 and max(numbers) > 900
    assert drawn("b.jsonl", 1)[::-1] == drawn("a.jsonl", 1) != drawn("a.jsonl", 2)


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


def test_what_only_parquet_holds_becomes_what_json_can(tmp_path):
    row = {"es": b"A\xc3\xb1o.", "en": date(2024, 2, 29), "id": Decimal("1.50"), "register": [datetime(2024, 1, 2, 3)]}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    (read,) = read_source(Source("a", path=str(tmp_path / "a.parquet")), SIDES, ("id", "register"))
    assert read[1] == {"es": "Año.", "en": "2024-02-29", "id": "1.50", "register": ["2024-01-02 03:00:00"]}
    json.dumps(read[1])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row | {"es": b"\xff"}]), tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match="a.parquet:row 1: column 'es' holds bytes that are not UTF-8: store it as text"
    ):
        read_source(Source("a", path=str(tmp_path / "a.parquet")), SIDES)


def test_a_missing_column_of_a_packed_file_in_the_repository_is_told_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(zipped("a.jsonl", GOOD))
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"a.zip:1: no column 'fr' \(there are: es, en\)"):
        read_source(Source("a", path="a.zip"), ("es", "fr"))


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
