"""Presets are valid; a mistake in a profile is answered with its file and key."""

import dataclasses
import gzip
import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

from llmft_helpers.data.corpora import PAIR_COLUMNS, PROBLEM_COLUMNS
from llmft_helpers.data.sources import read_source
from llmft_helpers.errors import UserError
from llmft_helpers.profiles import (
    PRESETS,
    CharGptSettings,
    FromTestsSettings,
    LoraSettings,
    ModelSettings,
    Profile,
    Source,
    TaskSettings,
    TrainSettings,
    load_profile,
)
from llmft_helpers.runs import ROOT

SETTINGS = (
    Profile,
    ModelSettings,
    LoraSettings,
    TaskSettings,
    TrainSettings,
    Source,
    CharGptSettings,
    FromTestsSettings,
)
TINY = (PRESETS / "tiny.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["tiny", "demo", "long", "coder", "full"])
def test_presets_are_valid_and_their_local_files_exist(name):
    profile = load_profile(name)
    assert profile.name == name and profile.description
    for task in (profile.translation, profile.leetcode):
        assert all(source.licence for source in task.sources)
        for source in task.sources:
            assert (source.hub is None) == (name != "full")
            assert source.hub or (ROOT / source.path).is_file()
    assert profile == load_profile(str(PRESETS / f"{name}.toml"))


def test_long_differs_from_the_demo_in_how_much_and_in_what_numbers_it_trains_alone():
    demo, long = load_profile("demo"), load_profile("long")

    def trained_alike(profile):
        tasks = {name: getattr(profile, name) for name in ("translation", "leetcode")}
        for name, task in tasks.items():
            train = dataclasses.replace(task.train, evaluations=4, epochs=1.0, scored_rows=50)
            sources = tuple(dataclasses.replace(source, weight=1.0) for source in task.sources)
            tasks[name] = dataclasses.replace(task, train_rows=0, sources=sources, train=train)
        lora = dataclasses.replace(profile.lora, int8_products=False)
        asked = dataclasses.replace(profile.from_tests, problems=0)
        return dataclasses.replace(profile, name="", description="", lora=lora, from_tests=asked, **tasks)

    assert trained_alike(demo) == trained_alike(long)
    assert demo.translation.train_rows and not long.translation.train_rows


@pytest.mark.parametrize("name", ["local-corpora", "tatoeba"])
def test_the_examples_load_and_find_files_of_their_columns_beside_them(name, tmp_path, monkeypatch):
    """As their first lines say: a copy of the profile, files of these names and columns next to it."""
    (tmp_path / "mine").mkdir()
    example = tmp_path / "mine" / f"{name}.toml"
    example.write_text((ROOT / "docs" / example.name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    pairs = load_profile(str(example)).translation.sources
    for source in pairs:
        row: dict = {}
        for ours, theirs in source.columns.items():
            outer, *inner = theirs.split(".")
            row[outer] = {**row.get(outer, {}), inner[0]: f"in {ours}"} if inner else f"in {ours}"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), example.parent / source.path)
    problem = {column: "x" for column in PROBLEM_COLUMNS} | {"test": "def check(candidate): ..."}
    (example.parent / "leetcode_train.jsonl.gz").write_bytes(gzip.compress(json.dumps(problem).encode()))
    (example.parent / "leetcode_test.jsonl.gz").write_bytes(gzip.compress(json.dumps(problem).encode()))
    profile = load_profile(str(example))
    assert profile.name == name and profile.model.name == "smollm2-135m-instruct"
    for source in profile.translation.sources:
        assert Path(source.path).parent == example.parent and source.licence != "unknown"
        [(_, row)] = read_source(source, PAIR_COLUMNS)
        assert row == {"es": "in es", "en": "in en"}
    for source in profile.leetcode.sources:
        assert list(read_source(source, PROBLEM_COLUMNS)) and source.licence != "unknown"


def test_the_environment_chooses_by_name_or_path_and_the_device_otherwise(monkeypatch, tmp_path):
    own = tmp_path / "mine.toml"
    own.write_text(TINY.replace("seed = 1", "seed = 7"), encoding="utf-8")
    for chosen, name, seed in (("tiny", "tiny", 1), (f" {own} ", "mine", 7)):
        monkeypatch.setenv("LLMFT_PROFILE", chosen)
        assert (load_profile().name, load_profile().seed) == (name, seed)
    assert load_profile("demo").name == "demo"  # what is asked for by name comes first
    monkeypatch.delenv("LLMFT_PROFILE")
    for visible, name in ((True, "full"), (False, "demo")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda visible=visible: visible)
        assert load_profile().name == name


def test_data_beside_a_profile_is_found_from_any_working_folder(monkeypatch, tmp_path):
    (tmp_path / "home").mkdir()
    for name in ("mine.jsonl", "a.es", "a.en"):
        (tmp_path / "home" / name).touch()
    sources = '[{ name = "a", path = "mine.jsonl" }, { name = "b", path = ["a.es", "a.en"] }]'
    text = re.sub(r"sources = \[\n.*?\n\]", f"sources = {sources}", TINY, count=1, flags=re.DOTALL)
    (tmp_path / "home" / "own.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    first, second = load_profile("home/own.toml").translation.sources
    assert first.path == str(tmp_path / "home" / "mine.jsonl")
    assert second.path == (str(tmp_path / "home" / "a.es"), str(tmp_path / "home" / "a.en"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed = 1", "seed = 1\nsede = 2", r"sede: unknown key"),
        ("seed = 1", 'seed = 1\nfile = "a.toml"', "file: unknown key"),
        ("rank = 4", "rank = 4\nranks = 4", r"lora.ranks: unknown key"),
        ("rank = 4", 'rank = "4"', r"lora.rank: .*valid integer.*'4'"),
        ("rank = 4", "rank = 0", r"lora.rank: .*greater than 0.*0"),
        ("seed = 1", "", "seed: missing"),
        ("seed = 1", "seed = 2026-01-01", "seed: "),
        ("seed = 1", "seed = 1.5", "seed: "),
        ("learning_rate = 1e-3", "learning_rate = nan", r"train.learning_rate: "),
        ("batch_size = 8, evaluations", "batch_size = 0, evaluations", "translation.train.batch_size: "),
        ("shots = 2", 'shots = 2\ndirection = "es-fr"', "translation.direction: .*'es-en', 'en-es' or 'both'.*'es-fr'"),
        ("limit = 200", "limit = 200, weight = 1.5", "translation.sources.0.weight: .*less than or equal to 1"),
        ("limit = 200", "limit = 0", "translation.sources.0.limit: "),
        ("limit = 200", 'split = "dev"', "translation.sources.0.split: .*'train' or 'test'"),
        ("limit = 200", 'colums = { es = "x" }', "translation.sources.0.colums: unknown key"),
        ("limit = 200", "columns = { es = 3 }", "translation.sources.0.columns.es: "),
        ('path = "data/es_en/everyday.jsonl"', 'path = ["only.es"]', r"translation.sources.0.path"),
        ("[lora]", "[lora", r"not valid TOML: .*line \d+"),
        ("[char_gpt]", "[chargpt]", "char_gpt: missing; chargpt: unknown key"),
    ],
)
def test_mistake_in_a_profile_names_file_and_key(old, new, said, tmp_path):
    assert old in TINY
    path = tmp_path / "mine.toml"
    path.write_text(TINY.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=said) as raised:
        load_profile(str(path))
    assert str(path) in str(raised.value)


def test_a_profile_that_is_not_there_or_no_text():
    with pytest.raises(
        UserError, match="unknown profile 'huge': use one of coder, demo, full, long, tiny, or the path of a .toml"
    ):
        load_profile("huge")
    with pytest.raises(UserError, match="profile no/such.toml: cannot be read"):
        load_profile("no/such.toml")


def test_a_byte_order_mark_is_no_part_of_a_profile(tmp_path):
    (tmp_path / "mine.toml").write_text(TINY, encoding="utf-8-sig")
    assert load_profile(str(tmp_path / "mine.toml")).seed == 1


def test_latin1_profile_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(TINY.replace("tests:", "año:").encode("latin-1"))
    with pytest.raises(UserError, match=f"profile {path}: cannot be read"):
        load_profile(str(path))


def fields(kind: type) -> set[str]:
    """Names of all keys of a settings class, of its parts too."""
    names = set()
    for field in dataclasses.fields(kind):
        names.add(field.name)
        if dataclasses.is_dataclass(field.type):
            names |= fields(field.type)
    return names


def test_every_key_is_read_by_the_package_or_a_notebook():
    from llmft_helpers.profiles import Source, TrainSettings

    keys = fields(Profile) | fields(TaskSettings) | fields(TrainSettings) | fields(Source)
    assert {"rank", "warmup_ratio", "hub_split", "context", "max_new_tokens"} <= keys
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder, pattern in (("llmft_helpers", "**/*.py"), ("notebooks", "*.ipynb"))
        for path in sorted((ROOT / folder).glob(pattern))
    )
    assert [key for key in sorted(keys) if not re.search(rf'\w[\])]*\.{key}\b|\\"{key}\\"', code)] == []


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [("demo", "", "it would overwrite the results of the preset demo: rename it"),
     ("mine", 'name = "tiny"\n', "it would overwrite the results of the preset tiny"),
     ("mine", 'name = "../elsewhere"\n', "name: '../elsewhere' must be the name of a folder")],
)  # fmt: skip
def test_a_copy_may_not_write_over_other_results(name, line, says, tmp_path):
    (tmp_path / f"{name}.toml").write_text(line + TINY, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(says)):
        load_profile(str(tmp_path / f"{name}.toml"))


def test_the_page_of_keys_names_them_all():
    page = (ROOT / "docs" / "profiles.md").read_text(encoding="utf-8")
    described = set(re.findall(r"`\[?(\w+)\]?`", page))
    keys = {field.name for kind in SETTINGS for field in dataclasses.fields(kind)} - {"file"}
    assert keys - described == set()
