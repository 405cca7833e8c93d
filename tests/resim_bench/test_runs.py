"""Run directories: what is claimed, skipped, refused."""

import json

import pytest

from resim_bench import runs
from resim_bench.errors import UserError

CONFIG = {"protocol": {"lr": 0.1, "scale": (0.2, 1.0)}, "seed": 0}


def test_deviations_name_both_values():
    run = {"protocol": {"lr": 0.2, "scale": [0.2, 1.0], "new": 1}, "seed": 0}
    assert runs.deviations(CONFIG, run) == {"protocol.lr": [0.1, 0.2], "protocol.new": [None, 1]}
    assert runs.deviations(CONFIG, runs.plain(CONFIG)) == {}


def test_data_digest_sees_names_and_sizes(tmp_path):
    for name, text in (("a", "1"), ("b", "22")):
        (tmp_path / name).write_text(text)
    files = [tmp_path / "a", tmp_path / "b"]
    before = runs.data_digest(tmp_path, files)
    assert before == runs.data_digest(tmp_path, files[::-1]) != runs.data_digest(tmp_path, files[:1])
    (tmp_path / "a").write_text("longer")
    assert before != runs.data_digest(tmp_path, files)


def test_a_run_is_new_then_unfinished_then_done(tmp_path):
    run_dir, output = tmp_path / "run", tmp_path / "out" / "record.json"
    output.parent.mkdir()
    output.write_text("of an earlier life: without a claim it proves nothing")
    assert not runs.open_run(run_dir, CONFIG, output, resume=False)
    assert not output.exists()
    assert not runs.open_run(run_dir, CONFIG, output, resume=False), "nothing was trained yet"
    (run_dir / "last.pth").touch()
    with pytest.raises(UserError, match="unfinished run: add --resume"):
        runs.open_run(run_dir, CONFIG, output, resume=False)
    assert not runs.open_run(run_dir, CONFIG, output, resume=True)
    output.touch()
    assert runs.open_run(run_dir, CONFIG, output, resume=False)


def test_another_configuration_is_refused_and_nothing_is_lost(tmp_path):
    output = tmp_path / "out"
    runs.open_run(tmp_path, CONFIG, output, resume=False)
    output.touch()
    with pytest.raises(UserError, match=r"another configuration \(seed was 0, is now 1\)"):
        runs.open_run(tmp_path, CONFIG | {"seed": 1}, output, resume=True)
    assert output.exists() and json.loads((tmp_path / "run.json").read_text()) == runs.plain(CONFIG)


def test_environment_names_what_decides_numbers():
    facts = runs.environment()
    assert facts["versions"]["torch"].startswith("2.11")
    assert {"python", "torchvision", "onedl-mmengine", "onedl-mmcv", "onedl-mmdetection"} <= facts["versions"].keys()
    assert facts["commit"] and facts["device"]
