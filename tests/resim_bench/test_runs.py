"""Run directories: what is claimed, locked, skipped, refused, and what is never lost."""

import json
import subprocess
import sys

import pytest

from resim_bench import files
from resim_bench.errors import UserError
from resim_bench.harness import runs

CONFIG = {"protocol": {"lr": 0.1, "scale": (0.2, 1.0)}, "seed": 0, "data": {"digest": {"kind": "content"}}}


def test_deviations_name_both_values():
    run = {"protocol": {"lr": 0.2, "scale": [0.2, 1.0], "new": 1}, "seed": 0}
    canonical = {"protocol": CONFIG["protocol"], "seed": 0}
    assert runs.differences(canonical, run) == {"protocol.lr": [0.1, 0.2], "protocol.new": [None, 1]}
    assert runs.differences(CONFIG, runs.plain(CONFIG)) == {}


def test_data_digest_sees_names_and_sizes(tmp_path):
    for name, text in (("a", "1"), ("b", "22")):
        (tmp_path / name).write_text(text)
    names = [tmp_path / "a", tmp_path / "b"]
    before = runs.data_digest(tmp_path, names)
    assert before == runs.data_digest(tmp_path, names[::-1]) != runs.data_digest(tmp_path, names[:1])
    (tmp_path / "a").write_text("longer")
    assert before != runs.data_digest(tmp_path, names)


def test_a_content_digest_says_which_part_is_another():
    one = runs.content_digest(lists=[b"a", b"b"], annotations=[b"x"])
    assert one["kind"] == "content"
    assert set(runs.differences(one, runs.content_digest(lists=[b"a", b"b"], annotations=[b"y"]))) == {"annotations"}
    assert set(runs.differences(one, runs.content_digest(lists=[b"ab"], annotations=[b"x"]))) == {"lists"}


class Run:
    """A run in a folder whose output, when there is one, says that it is of `made_by`."""

    def __init__(self, folder):
        self.folder, self.output = folder / "deep" / "run", folder / "out" / "record.json"
        self.output.parent.mkdir()
        self.made_by = CONFIG

    def arguments(self, config=CONFIG, resume=False):
        return (self.folder, config, self.output, resume), {
            "made_by": lambda: self.made_by,
            "old_digest": lambda: "0" * 64,
        }

    def is_finished(self, *args, **kwargs):
        positional, named = self.arguments(*args, **kwargs)
        return runs.is_finished(*positional, **named)

    def claimed(self, *args, **kwargs):
        positional, named = self.arguments(*args, **kwargs)
        return runs.claimed(*positional, **named)

    def save(self, name=runs.LAST):
        (self.folder / name).write_text("checkpoint")


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_a_run_is_new_then_unfinished_then_done(run):
    assert not run.is_finished()
    with run.claimed() as done:
        assert not done and json.loads((run.folder / runs.CLAIM).read_text()) == runs.plain(CONFIG)
        run.save()
    with pytest.raises(UserError, match="unfinished run: add --resume"):
        run.is_finished()
    written = (run.folder / runs.CLAIM).stat().st_mtime_ns
    with run.claimed(resume=True) as done:
        assert not done
        run.output.write_text("record")
    assert (run.folder / runs.CLAIM).stat().st_mtime_ns == written, "the claim is written once"
    assert run.is_finished() and not (run.folder / runs.LOCK).exists()


def test_a_finished_output_counts_whatever_stands_beside_it(run):
    run.output.write_text("record")
    assert run.is_finished(), "its directory was removed, or never copied here"
    run.made_by = CONFIG | {"seed": 3}
    with pytest.raises(UserError, match=r"is the result of another configuration \(seed was 3, is now 0\)"):
        run.is_finished(resume=True)
    with pytest.raises(UserError, match="another configuration"), run.claimed(resume=True):
        pass
    assert run.output.read_text() == "record" and not run.folder.exists()


def test_a_run_of_another_configuration_is_refused_and_nothing_is_lost(run):
    with run.claimed():
        run.save()
    with pytest.raises(UserError, match=r"holds a run of another configuration \(seed was 0, is now 1\)"):
        run.is_finished(CONFIG | {"seed": 1}, resume=True)
    assert {file.name for file in run.folder.iterdir()} == {runs.CLAIM, runs.LAST}


def test_a_claim_without_a_checkpoint_stands_in_nobodys_way(run):
    run.folder.mkdir(parents=True)
    (run.folder / runs.CLAIM).write_text('{"seed": ')  # what a kill left
    (run.folder / runs.HALF).write_text("half")
    with run.claimed(CONFIG | {"seed": 1}):
        assert {entry.name for entry in run.folder.iterdir()} == {runs.LOCK, runs.CLAIM}
        assert runs.read_claim(run.folder)["seed"] == 1
        run.save()


def test_a_start_that_fails_leaves_what_others_put_there(run):
    """Such as a checkpoint that was put aside, as a sentence of ours may have made somebody do."""
    run.folder.mkdir(parents=True)
    (run.folder / "last.pth.bak").write_text("put aside")
    with pytest.raises(RuntimeError), run.claimed():
        assert (run.folder / "last.pth.bak").exists()
        (run.folder / "log").mkdir()
        raise RuntimeError
    assert [entry.name for entry in run.folder.iterdir()] == ["last.pth.bak"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, None])
def test_a_damaged_claim_is_one_sentence_that_says_what_to_delete(run, content):
    with run.claimed():
        run.save()
    (run.folder / runs.CLAIM).unlink()
    if content is not None:
        (run.folder / runs.CLAIM).write_text(content)
    with pytest.raises(UserError, match=f"run.json is (damaged|missing).*delete {run.folder} to start anew"):
        run.is_finished(resume=True)


def test_a_start_that_fails_leaves_no_trace(run):
    with pytest.raises(RuntimeError), run.claimed():
        (run.folder / "log").mkdir()
        raise RuntimeError
    assert not run.folder.parent.exists()


def test_a_run_that_fails_after_a_checkpoint_keeps_it(run):
    with pytest.raises(RuntimeError), run.claimed():
        run.save()
        raise RuntimeError
    assert {file.name for file in run.folder.iterdir()} == {runs.CLAIM, runs.LAST}


def test_it_continues_from_the_checkpoint_before_the_last(run):
    with run.claimed():
        run.save(runs.BEFORE)
    assert runs.checkpoint(run.folder).name == runs.BEFORE
    with run.claimed(resume=True):
        run.save()
    assert runs.checkpoint(run.folder).name == runs.LAST


def test_what_was_started_under_the_old_digest_is_compared_by_it(run):
    old = CONFIG | {"data": {"digest": "0" * 64}}
    run.made_by = old
    run.output.write_text("record")
    assert run.is_finished()
    run.made_by = CONFIG | {"data": {"digest": "1" * 64}}
    with pytest.raises(UserError, match="data.digest was 1111111111111111…, is now 0000000000000000…"):
        run.is_finished()


HOLD = """
import sys
from resim_bench import files
with files.locked(__import__("pathlib").Path(sys.argv[1]), "W"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_start_says_who_has_the_directory(run):
    run.folder.mkdir(parents=True)
    command = [sys.executable, "-c", HOLD, str(run.folder / runs.LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        for refused in (run.is_finished, lambda: run.claimed().__enter__()):
            with pytest.raises(UserError, match=rf"being worked on by process {holder.pid} on \S+: wait for it"):
                refused()
        assert (run.folder / runs.LOCK).read_text().startswith(f"process {holder.pid} on ")
        holder.kill()
    with run.claimed():
        run.save()


def test_replacing_is_whole_or_not_at_all(tmp_path):
    place = tmp_path / "file"
    place.write_text("before")
    (tmp_path / ".file.dead.tmp").write_text("what a killed process left")
    with pytest.raises(RuntimeError), files.replacing(place) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert place.read_text() == "before" and [file.name for file in tmp_path.iterdir()] == ["file"]
    with files.replacing(place) as stream:
        stream.write(b"after")
    assert place.read_text() == "after"


def test_an_error_names_the_place_and_not_a_temporary_file(tmp_path):
    place = tmp_path / "file"
    place.mkdir()
    with pytest.raises(IsADirectoryError) as caught, files.replacing(place) as stream:
        stream.write(b"content")
    assert caught.value.filename == str(place) and [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_environment_names_what_decides_numbers():
    facts = runs.environment()
    assert facts["versions"]["torch"].startswith("2.11")
    assert {"python", "torchvision", "onedl-mmengine", "onedl-mmcv", "onedl-mmdetection"} <= facts["versions"].keys()
    assert facts["commit"] and facts["device"] and facts["threads"] >= 1


def test_a_record_never_names_the_commit_of_another_repository(tmp_path, monkeypatch):
    """As where the environment stands in somebody else's checkout."""
    commit = "git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x"
    subprocess.run(commit, cwd=tmp_path, shell=True, check=True)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    assert len(runs.commit()) == 40, "its own"
    for name, ending in (("tables/records/mini.jsonl", ""), ("transfer/voc.py", "-dirty")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
        subprocess.run(["git", "add", name], cwd=tmp_path, check=True)
        assert runs.commit()[40:] == ending, "a study keeps its records while it runs"
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(runs, "ROOT", tmp_path / "lib")
    assert runs.commit() == "unknown"
