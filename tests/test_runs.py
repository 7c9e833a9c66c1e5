"""Files are written whole or not at all, and say how they came to be."""

import ctypes
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llmft_helpers import device, runs, storage
from llmft_helpers.errors import UserError


def test_a_failing_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "metrics.json"
    storage.write_json(path, {"bleu": 1.5, "name": "año"})
    before = path.read_bytes()
    assert "año" in before.decode("utf-8")

    def full(self, text, encoding):
        with self.open("w", encoding=encoding) as file:
            file.write(text[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(UserError, match=f"cannot write {path}: No space left on device; free some space"):
            storage.write_json(path, {"bleu": 2.0})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with pytest.raises(UserError, match="Permission denied"):
            storage.write_jsonl(path, [{"a": 1}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(path, {"perplexity": float("nan")})
    assert path.read_bytes() == before and os.listdir(path.parent) == ["metrics.json"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    storage.write_jsonl(path, [{"n": 1}])
    program = (
        "import os, pathlib, sys\n"
        "from llmft_helpers import storage\n"
        "storage.os.replace = lambda *_: os._exit(9)\n"
        "storage.write_jsonl(pathlib.Path(sys.argv[1]), [{'n': 2}] * 1000)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=runs.ROOT, check=False)
    assert done.returncode == 9
    assert storage.read_jsonl(path) == [{"n": 1}]


def test_a_pipe_is_written_through(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")), daemon=True)
    reader.start()
    storage.write_text(pipe, "año\n")
    reader.join(10)
    assert read == ["año\n"] and stat.S_ISFIFO(pipe.lstat().st_mode) and list(tmp_path.iterdir()) == [pipe]


def test_a_device_is_written_through():
    terminal, other = os.openpty()
    name = Path(os.ttyname(other))
    storage.write_text(name, "año\n")
    assert os.read(terminal, 100).decode() == "año\r\n" and name.is_char_device()
    os.close(terminal)
    os.close(other)


@pytest.mark.parametrize("name", ["/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_by_name_goes_on_where_it_was(name, tmp_path):
    """Also where it is a file: a rename, or an opening of its own, would drop what stands before or comes after.

    /dev/stdout is such a link; here it is one of our own, for a fault run by root would replace the system's.
    """
    if name == "link":
        (tmp_path / name).symlink_to("/proc/self/fd/1")
    program = (
        "import pathlib, sys\nfrom llmft_helpers import storage\nprint('before', flush=True)\n"
        "storage.write_text(pathlib.Path(sys.argv[1]), 'between\\n')\nprint('after')"
    )
    with (tmp_path / "out.txt").open("w") as out:
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / name)], cwd=runs.ROOT, stdout=out, check=True, timeout=60
        )
    assert (tmp_path / "out.txt").read_text() == "before\nbetween\nafter\n"


def test_process_substitution_is_written_through(tmp_path):
    program = (
        "import pathlib, sys; from llmft_helpers import storage; "
        "storage.write_text(pathlib.Path(sys.argv[1]), 'a\\nb\\n')"
    )
    line = 'exec 3>&1; "$1" -c "$2" >(tail -n 1 >&3) | cat'
    done = subprocess.run(
        ["bash", "-c", line, "bash", sys.executable, program], cwd=runs.ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "b\n" and not done.stderr


def test_a_link_stays_and_its_file_gets_the_text(tmp_path):
    (tmp_path / "far").mkdir()
    for name in ("old.txt", "new.txt"):
        (tmp_path / name).symlink_to(Path("far") / name)
    (tmp_path / "far" / "old.txt").write_text("old")
    for name in ("old.txt", "new.txt"):  # the second leads nowhere yet
        storage.write_text(tmp_path / name, "text")
        assert (tmp_path / name).is_symlink() and (tmp_path / "far" / name).read_text() == "text"
    assert sorted(os.listdir(tmp_path / "far")) == ["new.txt", "old.txt"]


def test_a_file_keeps_its_mode_and_a_new_one_follows_the_umask(tmp_path):
    path = tmp_path / "secret.txt"
    path.touch()
    path.chmod(0o640)
    storage.write_text(path, "text")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 and path.read_text() == "text"
    before = os.umask(0o027)
    try:
        storage.write_text(tmp_path / "new.txt", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.txt").stat().st_mode) == 0o640


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_a_file_keeps_its_owner(tmp_path):
    path = tmp_path / "theirs.txt"
    path.touch()
    os.chown(path, 1234, 4321)
    storage.write_text(path, "text")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


@pytest.mark.parametrize("kind", ["folder", "socket"])
def test_what_cannot_be_written_to_is_named_and_stays(kind, tmp_path):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
    before = path.stat().st_mode
    with pytest.raises(UserError, match=f"cannot write {path}: "):
        storage.write_text(path, "text")
    assert path.stat().st_mode == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_folders_files_are_for_whom_the_umask_says(tmp_path, umask, mode):
    previous = os.umask(umask)
    try:
        with storage.whole_folder(tmp_path / "adapter") as partial:
            save_file({"weight": torch.ones(1)}, partial / "model.safetensors")
    finally:
        os.umask(previous)
    assert (tmp_path / "adapter" / "model.safetensors").stat().st_mode & 0o777 == mode


def test_a_folder_that_is_replaced_may_be_a_link_and_is_never_missing(tmp_path, monkeypatch):
    (tmp_path / "disk" / "adapter").mkdir(parents=True)
    (tmp_path / "disk" / "adapter" / "old").touch()
    (tmp_path / "adapter").symlink_to(tmp_path / "disk" / "adapter")

    with storage.whole_folder(tmp_path / "adapter") as partial:
        (partial / "new").touch()
    assert (tmp_path / "adapter").is_symlink() and os.listdir(tmp_path / "disk" / "adapter") == ["new"]
    assert sorted(os.listdir(tmp_path)) == ["adapter", "disk"] and os.listdir(tmp_path / "disk") == ["adapter"]

    replace = os.replace

    def refuse(source, target):
        if Path(source).suffix == ".part":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"), storage.whole_folder(tmp_path / "adapter") as partial:
        (partial / "newer").touch()
    assert os.listdir(tmp_path / "disk" / "adapter") == ["new"] and os.listdir(tmp_path / "disk") == ["adapter"]


def test_what_a_killed_process_left_of_a_folder_goes_and_what_a_living_one_writes_stays(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, living = tmp_path / f".a[1].{ended.pid}.part", tmp_path / f".a[1].{os.getppid()}.part"
    fresh, other = tmp_path / f".a[1].{ended.pid + 1}.part", tmp_path / ".a[1].draft.part"
    for folder in (left, living, fresh, other):
        (folder / "weights").mkdir(parents=True)
        if folder != fresh:
            os.utime(folder, (0, 0))
    with storage.whole_folder(tmp_path / "a[1]") as partial:
        (partial / "new").touch()
    assert set(tmp_path.iterdir()) == {living, fresh, other, tmp_path / "a[1]"}


def test_rows_survive_the_round_trip(tmp_path):
    rows = [{"es": "¿Qué? \u2028 «sí»", "n": [1, None, True]}, {"en": 'a "b"\n\tc'}]
    storage.write_jsonl(tmp_path / "a.jsonl", rows)
    assert storage.read_jsonl(tmp_path / "a.jsonl") == rows
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1}\n\n{"a": ', r"a.jsonl:3: not valid JSON .*cut off"),
        (b'{"a": 1}\n[1]\n', "a.jsonl:2: expected an object with named columns, found list"),
        ('{"a": "año"}\n'.encode("latin-1"), "a.jsonl: not UTF-8 .*convert"),
    ],
)
def test_broken_rows_are_named(tmp_path, content, said):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=said):
        storage.read_jsonl(tmp_path / "a.jsonl")


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(UserError, match="none.jsonl does not exist"):
        storage.read_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="none.json does not exist: run the notebook that writes it"):
        storage.read_json(tmp_path / "none.json")
    (tmp_path / "a.json").write_text('{\n"a": 1,\n}', encoding="utf-8")
    with pytest.raises(UserError, match="a.json:3: not valid JSON"):
        storage.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("read", [storage.read_json, storage.read_jsonl])
def test_a_folder_or_an_unreadable_file_is_named(read, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=rf"{tmp_path}: cannot be read \(Is a directory\)"):
        read(tmp_path)

    def refuse(path, *_, **__):  # tests may run as root, who reads everything
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match=r"a.json: cannot be read \(Permission denied\)"):
        read(tmp_path / "a.json")


def test_json_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.json").write_bytes('{"a": "año"}'.encode("latin-1"))
    with pytest.raises(UserError, match="a.json: cannot be read .*utf-8"):
        storage.read_json(tmp_path / "a.json")


def test_fingerprint_follows_content_not_key_order_and_is_the_same_in_another_process(tmp_path):
    rows = [{"es": "año", "en": "year"}, {"es": "sí", "en": "yes"}]
    mark = storage.fingerprint(rows)
    assert len(mark) == 12 and int(mark, 16) >= 0
    assert storage.fingerprint([dict(reversed(row.items())) for row in rows]) == mark
    assert storage.fingerprint(rows[::-1]) != mark
    assert storage.fingerprint([rows[0], rows[1] | {"en": "Yes"}]) != mark
    program = (
        "import json, sys; from llmft_helpers.storage import fingerprint; print(fingerprint(json.load(sys.stdin)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(rows), capture_output=True, text=True, cwd=runs.ROOT,
        env=os.environ | {"PYTHONHASHSEED": "7"}, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == mark


def test_save_metrics_refreshes_the_summary(profile, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_OUTPUTS", str(tmp_path))
    runs.save_metrics(profile, "leetcode", {"pass_at_1": 0.1})
    assert storage.read_json(tmp_path / "tiny" / "leetcode" / "metrics.json") == {"pass_at_1": 0.1}
    runs.save_metrics(profile, "char_gpt", {"perplexity": 3.0})
    runs.save_metrics(profile, "leetcode", {"pass_at_1": 0.2})
    summary = storage.read_json(tmp_path / "tiny" / "results.json")
    assert summary == {"char_gpt": {"perplexity": 3.0}, "leetcode": {"pass_at_1": 0.2}}
    assert list(summary) == ["char_gpt", "leetcode"]  # in the notebooks' order


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone keeps what was freed")
def test_after_a_stage_the_system_has_what_the_stage_freed():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    blocks = [bytes([1]) * 60_000 for _ in range(4000)]  # 240 MB, each too small for a mapping of its own
    last = blocks[-1]  # what lies above them stays in use
    full = resident()
    with runs.Stages()("freeing"):
        blocks.clear()
    assert full - resident() > 150e6 and last


def test_a_stage_that_is_entered_again_adds_its_seconds(monkeypatch):
    ticks = iter([0, 2, 10, 13])
    monkeypatch.setattr(runs.time, "perf_counter", lambda: next(ticks))
    stages = runs.Stages()
    for _ in range(2):
        with stages("data"):
            pass
    assert stages.seconds == {"data": 5.0}


def test_provenance_says_what_ran(profile):
    stages = runs.Stages()
    for name in ("data", "training", "data"):
        with stages(name):
            pass
    with pytest.raises(KeyError), stages("failed"):
        raise KeyError
    facts = runs.provenance(profile, stages, {"pairs": "abc"})
    assert list(facts["seconds"]) == ["data", "training", "failed"]
    assert facts["data"] == {"pairs": "abc"} and facts["seed"] == profile.seed
    assert facts["profile"]["lora"]["rank"] == profile.lora.rank
    assert set(runs.PINNED) < set(facts["versions"]) and facts["peak_memory_gb"]["host"] > 0.01
    assert {"device", "dtype", "git_commit"} <= set(facts)
    json.dumps(facts, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "folder"),
    [("", runs.ROOT / "outputs"), (" ", runs.ROOT / "outputs"), ("~/out", Path.home() / "out"), ("/a/b", Path("/a/b")),
     ("out", runs.ROOT / "out"), ("~nobody-of-that-name/out", runs.ROOT / "~nobody-of-that-name" / "out")],
)  # fmt: skip
def test_outputs_are_the_same_folder_from_everywhere(value, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMFT_OUTPUTS", value)
    assert runs.outputs_root() == folder


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_the_suites_own_repository(tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    (copy / "outputs").mkdir(parents=True)
    (copy / "code.py").write_text("1\n")
    (copy / "outputs" / "metrics.json").write_text("1\n")
    monkeypatch.setattr(runs, "ROOT", copy)
    assert runs.git_commit() is None
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "the parent's")
    assert runs.git_commit() is None  # a copy inside another repository

    git(copy, "init")
    git(copy, "add", ".")
    git(copy, "commit", "-m", "ours")
    ours = git(copy, "rev-parse", "--short", "HEAD")
    assert runs.git_commit() == ours
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))  # as in a hook of the parent
    assert runs.git_commit() == ours
    (copy / "outputs" / "metrics.json").write_text("2\n")  # results are no change of the code
    (copy / "new.py").touch()
    assert runs.git_commit() == ours
    (copy / "code.py").write_text("2\n")
    assert runs.git_commit() == f"{ours}+"


def test_a_second_run_on_the_same_outputs_is_refused_with_the_number_of_the_first(profile, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_OUTPUTS", str(tmp_path))
    program = (
        "import sys; from llmft_helpers import runs, storage; from llmft_helpers.profiles import load_profile\n"
        "with runs.only_run(load_profile('tiny')):\n    print('in', flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", program], cwd=runs.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "in\n"
    said = f"process {first.pid} is writing to {tmp_path / 'tiny'}: "
    with pytest.raises(UserError, match=said), runs.only_run(profile):
        pass
    with pytest.raises(UserError, match=said), runs.only_run(profile):  # the refused one changed nothing
        pass
    with runs.only_run(replace(profile, name="other")):
        pass
    first.kill()
    first.communicate()
    for _ in range(2):
        with runs.only_run(profile):
            assert (tmp_path / "tiny" / ".lock").read_text() == str(os.getpid())


def test_outputs_that_take_no_lock_file_are_one_message(profile, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_OUTPUTS", str(tmp_path))
    (tmp_path / "tiny" / ".lock").mkdir(parents=True)  # root may write anywhere, but not into a folder as a file
    said = r"cannot write to .*tiny \(Is a directory\): set LLMFT_OUTPUTS"
    with pytest.raises(UserError, match=said), runs.only_run(profile):
        pass


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot make the folder .*file/inner: Not a directory"):
        storage.write_text(tmp_path / "file" / "inner" / "a.txt", "x")


@pytest.mark.parametrize(("slow", "expected"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_a_cpu_computes_in_the_type_that_it_multiplies_faster(slow, expected, monkeypatch):
    monkeypatch.delenv("UNSLOTH_CPU_BF16", raising=False)
    linear = torch.nn.functional.linear

    def delayed(x, weight):
        if x.dtype == slow:
            time.sleep(0.05)
        return linear(x, weight)

    monkeypatch.setattr(torch.nn.functional, "linear", delayed)
    assert device.compute_dtype.__wrapped__() == expected


@pytest.mark.parametrize(("value", "expected"), [("0", torch.float32), ("1", torch.bfloat16)])
def test_unsloths_variable_decides_what_a_cpu_computes_in(value, expected, monkeypatch):
    monkeypatch.setenv("UNSLOTH_CPU_BF16", value)
    assert device.compute_dtype.__wrapped__() == expected
