"""An adapter's note leads back to the profile, from any working folder, or says what to do."""

import json

import pytest

from llmft_helpers import runs
from llmft_helpers.__main__ import main
from llmft_helpers.errors import UserError
from llmft_helpers.models import notes
from llmft_helpers.models.notes import adapter_note, noted_profile
from llmft_helpers.profiles import PRESETS, load_profile


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "work" / "mine.toml"
    path.parent.mkdir()
    text = (PRESETS / "tiny.toml").read_text(encoding="utf-8")
    path.write_text(text.replace("seed = 1", 'seed = 7\nname = "other"'), encoding="utf-8")
    return path


def test_a_preset_is_noted_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note = adapter_note(load_profile("tiny"), "translation")
    assert note == {"task": "translation", "base_model": "random", "profile": "tiny", "direction": "es-en"}
    assert noted_profile(note, tmp_path) == load_profile("tiny")
    assert "direction" not in adapter_note(load_profile("tiny"), "leetcode")
    assert adapter_note(load_profile(str(PRESETS / "tiny.toml")), "leetcode")["profile"] == "tiny"


def test_a_file_is_noted_from_the_repository_or_as_it_is(own, tmp_path, monkeypatch):
    monkeypatch.chdir(own.parent)
    profile = load_profile("mine.toml")
    monkeypatch.chdir("/")
    for root, written in ((tmp_path, "work/mine.toml"), (tmp_path / "elsewhere", str(own))):
        for module in (notes, runs):
            monkeypatch.setattr(module, "ROOT", root)
        note = adapter_note(profile, "leetcode")
        assert note["profile"] == written
        assert noted_profile(note, tmp_path) == profile and profile.seed == 7
        assert runs.provenance(profile, runs.Stages(), {})["profile"]["file"] == written


@pytest.mark.parametrize("written", ["mine", "gone.toml", "/no/such/mine.toml"])  # the first: as notes were before
def test_a_profile_that_is_gone_is_asked_for(written, own, tmp_path, capsys):
    with pytest.raises(UserError, match=f"adapter was trained with the profile {written}, .*with --profile"):
        noted_profile({"profile": written}, tmp_path / "adapter")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "llmft.json").write_text(json.dumps({"profile": written, "base_model": "else", "direction": "es-en"}))
    words = ["translate", "--adapter", str(adapter), "--input", str(own)]
    assert main(words) == 2 and "name the file, or a copy of it, with --profile" in capsys.readouterr().err
    # with it the note's profile is not asked for: this goes on, to the next thing that is wrong
    assert main([*words, "--profile", str(own)]) == 2 and "was trained on 'else'" in capsys.readouterr().err
