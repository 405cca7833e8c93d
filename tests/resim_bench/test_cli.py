"""The command line: what it teaches, what it passes on, and one sentence for whatever is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision

import tables
from resim_bench import backbone, cli, evidence, experiments, record
from resim_bench.cli import datasets, results
from resim_bench.data import scenes
from resim_bench.harness import runs, trace
from resim_bench.machine import doctor as machine_doctor
from resim_bench.machine import estimate, timing
from tests import pin


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty folder: no data, no runs."""
    monkeypatch.chdir(tmp_path)


def refused(capsys, *argv):
    """The sentence with which a command is refused."""
    try:
        code = cli.main([str(a) for a in argv])
    except SystemExit as stop:  # argparse
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err, err
    assert not list(Path().iterdir()), "nothing half-written"
    return err


def test_list_shows_every_id_with_a_line(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    known = (
        experiments.pretrain_ids(),
        experiments.released(),
        experiments.transfer_ids(),
        experiments.reported_tables(),
    )
    known = *known, experiments.probe_ids(), experiments.readings_ids()
    for name in (name for ids in known for name in ids):
        assert re.search(rf"^  {name} +\S.{{20,}}$", out, re.MULTILINE), name
    words = " ".join(out.partition("\nexperiments\n")[2].split())
    for transfer_id in experiments.transfer_ids():
        assert f"{transfer_id} {', '.join(experiments.paired_with(transfer_id)) or 'no row'}" in words
    assert max(map(len, out.splitlines())) <= 120


COMMANDS = (
    "pretrain transfer judge import export tables mini study figure show records list data plan slurm bench doctor"
)


@pytest.mark.parametrize("command", ["", *COMMANDS.split()])
def test_help_teaches(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert "usage: resim-bench" in capsys.readouterr().out


def test_tables_work_without_any_run(capsys):
    assert cli.main(["tables"]) == 0
    out = capsys.readouterr().out
    assert "ReSim-C4" in out and "ReSim-FPN" in out and "unverified" in out
    assert not list(Path().iterdir())


def processor_time(script):
    """The least of three: what else runs on the machine is no fault of the script."""

    def once():
        before = os.times()
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    return min(once() for _ in range(3))


def test_tables_answer_fast_and_without_torch():
    script = "import sys; from resim_bench.cli import main; main(['tables']); assert 'torch' not in sys.modules"
    assert processor_time(script) < 5 * processor_time("import pandas"), "two seconds of a core, or what it has of them"


LONG = "x" * 300


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["pretrain", "in100-moco"], "no id matches 'in100-moco': did you mean in100-moco-v2"),
        (["transfer", "voc-half"], "no id matches 'voc-half': did you mean"),
        (["tables", "in100"], "in100"),
        (["pretrain", "in100-moco-v2", "--fast"], "unrecognized arguments: --fast"),
        (["pretrain", "in100-moco-v2", "--seed", "-1"], "seed"),
        (["pretrain", "in100-moco-v2", "--trials", "0"], "0 is not a whole number from 1 to"),
        (["pretrain"], "the following arguments are required: ID"),
        (["train"], "invalid choice: 'train'"),
        (["pretrain", "in100-*"], "there is no image folder data/imagenet"),
        (["transfer", "voc-frozen"], "no backbone yet for in100-moco-v2, .* run `make pretrain-in100` first"),
        (
            ["transfer", "voc-full", "--backbone", "random"],
            "random with seed 0: run `resim-bench pretrain random` first",
        ),
        (["transfer", "voc-frozen", "--backbone", "given-x"], "given-x: run `resim-bench import FILE --as given-x` f"),
        (["import", "nothing.pth", "--as", "given-x"], "there is no checkpoint nothing.pth"),
        (["import", "nothing.pth", "--as", "moco"], "'moco' cannot name imported weights"),
        (["import", "nothing.pth"], "the following arguments are required: --as"),
        (["export", "random", "x.pkl", "--seed", "2"], "run `resim-bench pretrain random --seed 2` first"),
        (["data", "get"], "data get needs a name: voc, coco or imagenet"),
        (["data", "get", "imagenet"], "ImageNet is given to registered people only"),
        (["data", "get", "cifar"], "'cifar' cannot be downloaded: choose voc or coco"),
        (["tables", "--format", "html"], "there is no format 'html': choose from terminal, markdown, latex, csv"),
        (["transfer", "voc-full", "--backbone", "./nothing.safetensors"], "there is no backbone file nothing"),
        (["judge", "mini-moco-v2"], "for mini-moco-v2 with seed 0: run `resim-bench pretrain mini-moco-v2` first"),
        (["judge", "./nothing"], "there is no backbone file nothing"),
        (["judge", "random", "--on", "voc"], "no id matches 'voc': .*known are readings-mini, readings-voc"),
        (["records", "drop"], "invalid choice: 'drop'"),
        (["transfer", "mini-voc-*"], r"'mini-voc-\*' matches 2 ids, mini-voc-full, mini-voc-frozen: give one of them"),
        (["transfer", "voc-full", "--backbone", "in100-resim*"], r"'in100-resim\*' matches 4 ids"),
        (["transfer", "voc-full", "--backbone", ""], "argument --backbone: a name is missing"),
        (["transfer", "voc-full", "--backbone", LONG], "argument --backbone: x{40}… is too long a name for a file"),
        (["pretrain", "random", "--work-dir", f"/tmp/{LONG}/w"], "argument --work-dir: /tmp/x+… is too long"),
        (["pretrain", "random", "--data", "ä" * 128], "argument --data: ä{40}… is too long"),
        (["pretrain", LONG], "no id matches 'x"),
        (["import", LONG, "--as", "given-x"], "argument FILE: x{40}… is too long"),
        (["export", "random", f"{LONG}.pkl"], "argument TARGET: x{40}… is too long"),
        (["data", "--to", LONG], "argument --to: x{40}… is too long"),
        (["export", "mini-*", "x.pkl"], r"matches \d+ ids, mini-random"),
        (["plan", "in100-*"], r"matches \d+ ids, "),
        (["figure", "*", "x.png"], r"matches \d+ ids, .*mini-first, mini, .*length, monitor, readings, scenes"),
        (["show", "nope"], "no id matches 'nope': known are random, "),
        (["show", "mini-*"], r"matches \d+ ids, mini-random"),
        (["show", "mini-resim-c4", "x.jpg"], "x.jpg does not end in .png: name the file so"),
        (["show", "mini-resim-c4", "--images", "0"], "0 is not a whole number from 1 to"),
        (["show", "mini-resim-c4", "--as", "voc"], "--as is for a folder, and mini-resim-c4 is none"),
        (["show", "./nothing"], "./nothing cannot be shown: give an id, a record, a backbone's file or a folder"),
        (["show", "nothing.json"], "cannot read the record nothing.json"),
        (["show", "nothing.detections.npz"], "cannot read the detections nothing.detections.npz"),
        (["show", "nothing.py"], "there is no recipe nothing.py"),
        (
            ["show", "backbone:random"],
            "no backbone yet for random with seed 0: run `resim-bench pretrain random` first",
        ),
        (["show", "given-moco-v2"], "no backbone yet for given-moco-v2: run `resim-bench import FILE --as given-moco"),
        (["show", "in100-moco-v2"], "there is no image folder data/imagenet"),
        (["show", "voc-full"], "the VOC folder data/VOCdevkit does not exist"),
        (["show", "."], ". looks like none of a VOC devkit, a COCO folder, an ImageFolder: say which it is by --as"),
        (["show", ".", "--data", "x"], ". is the images itself: leave --data out"),
        (["report", "x.htm", "--backbone", "mini-moco-v2"], "x.htm does not end in .html: name the file so"),
        (["report", "--data", "nothing", "x.html"], "there is no folder nothing: name another, or leave --data out"),
        (["report", "--backbone", "nope"], "no id matches 'nope': known are random, "),
        (["report", "--backbone", "./nothing"], "there is no backbone file nothing"),
        (
            ["report", "--backbone", "random", "--backbone", "x/y"],
            "with seed 0: run `resim-bench pretrain random` first",
        ),
        (["study", "*"], r"matches \d+ ids, carry-over, mini-choices"),
        (
            ["study", "mini-first"],
            "mini-first is an earlier edition and has run, by the recipes of its day: a seed anew",
        ),
        (["pretrain", ""], "no id matches ''"),
        (["pretrain", "x\ny"], r"^resim-bench: no id matches 'x\\ny': known are"),
        (["pretrain", "random", "--x\ny"], r"unrecognized arguments: --x\\ny"),
        (["pretrain", "random", "--seed", "4294967296"], "4294967296 is not a whole number from 0 to 4294967295"),
        (["pretrain", "random", "--seed", "4294967295", "--trials", "2"], "2 trials from seed 4294967295 on go beyond"),
        (["pretrain", "random", "--seed", "9" * 5000], "9 is not a whole number from 0 to 4294967295"),
        (["pretrain", "random", "--seed", "1", "--seed", "2"], "argument --seed: it is given twice: give it once"),
        (["mini", "--seed", "1.5"], "1.5 is not a whole number from 0"),
        (["transfer", "voc-full", "--pretrain-seed", "-0x1"], "pretrain-seed"),
        (["plan", "mini", "--gpus", "1" * 400], "is not a whole number from 1 to 1000000"),
        (["plan", "mini", "--price", "nan"], "nan is no price, a number above 0"),
        (["plan", "mini", "--trials", "10000000"], "is not a whole number from 1 to 1000000"),
        (["study", "mini", "--units", "1e3"], "1e3 is not a whole number from 1 to 1000000"),
        (["pretrain", "random", "--data", ""], "argument --data: a name is missing"),
        (["pretrain", "random", "--work-dir", " "], "argument --work-dir: a name is missing"),
        (["tables", "--work-dir", "typo"], "argument --work-dir: there is no folder typo: name the one that is meant"),
        (["import", "", "--as", "given-x"], "argument FILE: a name is missing"),
        (["tables", "--check", "nope"], "tables --check prints one report on all records: leave nope out"),
        (["tables", "--check", "--details"], "leave --details out"),
        (["tables", "mini", "--errors", "--details"], "tables --errors prints one report: leave --details out"),
        (["figure", "mini-voc-full", "a.svg", "--errors"], "no id matches 'mini-voc-full'"),
        (["pretrain", "random", "--cfg-options", "batch"], "'batch' is no KEY=VALUE"),
        (["pretrain", "random", "--cfg-options", "batch=[1,2"], r"brackets or quotes of 'batch=\[1,2' do not match"),
        (["pretrain", "random", "--cfg-options", "batch=1", "batch=2"], "batch is given twice: give it once"),
        (["pretrain", "random", "--cfg-options", "batch=0"], "batch is 0: give a whole number of at least 1"),
        (["pretrain", "mini-*", "--cfg-options", "epochs=0"], "epochs is 0: give a whole number"),
        (["transfer", "voc-full", "--launcher", "torch"], "invalid choice: 'torch'"),
        (["doctor", "--data", "nowhere"], "there is no folder nowhere: name the folder of a data set"),
        (["doctor", "--data"], "argument --data: expected at least one argument"),
        (["doctor", "--gpus", "8"], "unrecognized arguments: --gpus 8"),
    ],
)
def test_wrong_input_is_one_sentence(capsys, argv, sentence):
    assert re.search(sentence, refused(capsys, *argv))


def test_what_is_missing_is_said_after_what_can_run_has_run(monkeypatch, capsys):
    file = backbone.path("work_dirs", "in100-moco-v2", 0)
    backbone.save(file, {"conv1.weight": torch.zeros(1)}, {"id": "in100-moco-v2"})
    ran = []
    monkeypatch.setattr("transfer.train.run", lambda *args, **kwargs: ran.append((args, kwargs["seed"])))
    assert cli.main(["transfer", "voc-frozen", "--trials", "2"]) == 2
    assert ran == [(("voc-frozen", file), 0), (("voc-frozen", file), 1)]
    assert "no backbone yet for in100-resim-c4" in capsys.readouterr().err


def test_a_transfer_on_scenes_generates_them(monkeypatch):
    file, made = backbone.path("work_dirs", "mini-random", 0), []
    backbone.save(file, {"conv1.weight": torch.zeros(1)}, {"id": "mini-random"})
    monkeypatch.setattr("transfer.train.run", lambda *args, **kwargs: None)
    monkeypatch.setattr("resim_bench.data.scenes.write", made.append)
    argv = ["transfer", "mini-voc-frozen", "--backbone", "mini-random"]
    assert cli.main([*argv, "--data", "blood"]) == 0 and not made
    assert cli.main(argv) == 0 and made == [Path("data/mini")]


def test_options_reach_the_training(monkeypatch):
    calls = []
    monkeypatch.setattr("pretrain.train.run", lambda *args, **kwargs: calls.append((args[0], kwargs)))
    argv = "pretrain in100-resim-c4* --data photos --seed 3 --trials 2 --resume --work-dir w"
    assert cli.main([*argv.split(), "--cfg-options", "batch=8", "optimizer.lr=0.1", "model.queue=16"]) == 0
    named = ["in100-resim-c4", *(f"in100-resim-c4-w{w}" for w in ("16-s16", "48-s16", "64-s48"))]
    assert sorted(name for name, _ in calls[::2]) == named
    assert [kwargs["seed"] for _, kwargs in calls] == [3, 4] * 4
    assert calls[0][1] | {"seed": 0} == {
        "seed": 0,
        "data": Path("photos"),
        "work_dir": Path("w"),
        "resume": True,
        "log": (),
        "launcher": "none",
        "cfg_options": {"batch": 8, "optimizer.lr": 0.1, "model.queue": 16},
    }


def test_released_weights_go_through_beside_the_rows_they_stand_for(monkeypatch):
    files = [backbone.path("work_dirs", i, 0) for i in ("in1k-moco-v2-200ep", "given-moco-v2")]
    for file in files:
        backbone.save(file, {"conv1.weight": torch.zeros(1)}, {"id": file.parts[-3]})
    ran = []
    monkeypatch.setattr("transfer.train.run", lambda *args, **kwargs: ran.append(args))
    assert cli.main(["transfer", "voc-full"]) == 2, "other rows have no backbone yet"
    assert ran == [("voc-full", file) for file in files]
    assert cli.main(["transfer", "coco-1x-frozen", "--backbone", "given-moco-v2"]) == 0
    assert ran[2:] == [("coco-1x-frozen", files[1])]


def test_a_checkpoint_comes_in_and_goes_out(tmp_path, capsys):
    torch.save({"state_dict": torchvision.models.resnet50().state_dict()}, "r50.pth")
    assert cli.main(["import", "r50.pth", "--as", "given-mine"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("r50.pth: used 318 tensors under 'state_dict.'; left state_dict.fc (2); wrote work_dirs/")
    assert cli.main(["export", "given-mine", "mine.pkl"]) == 0
    assert capsys.readouterr().out == "wrote mine.pkl\n" and Path("mine.pkl").is_file()


def test_what_the_check_finds_is_the_exit_code(monkeypatch, capsys):
    Path("w").mkdir()
    for code in (0, 1):
        monkeypatch.setattr("tables.regress", lambda new, kept, code=code: (f"{new}\n", code))
        assert cli.main(["tables", "--check", "--work-dir", "w"]) == code
    assert capsys.readouterr().out == "w/records\n" * 2


@pytest.mark.parametrize(("form", "beginning"), [("markdown", "#"), ("csv", "table,"), ("latex", r"\begin{table*}")])
def test_the_formats(capsys, form, beginning):
    assert cli.main(["tables", "in100-voc", "--format", form]) == 0
    assert beginning in capsys.readouterr().out


def test_data_says_what_is_there(capsys):
    assert cli.main(["data", "--to", "elsewhere"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("looked for in elsewhere") and "VOC2007 trainval" in out and "missing" in out


def test_a_benchmark_prints_its_rows_and_keeps_them(monkeypatch, capsys, tmp_path):
    row = timing.compare("two views", [(1.0, 4.0)], amount=300, unit="pairs/s", at_least=3)
    monkeypatch.setattr(cli.machine, "BENCHES", {"data": lambda: [row], "step": lambda: iter([row, row])})
    assert cli.main(["bench", "all"]) == 0
    machine, versions, _, header, *rows, _, last = capsys.readouterr().out.splitlines()
    assert machine.endswith("threads") and "torch" in versions and "commit" in versions
    assert header == row.header and rows == [row.line()] * 3
    file = tmp_path / "work_dirs" / "bench-all.json"
    assert last == "wrote work_dirs/bench-all.json"
    kept = json.loads(file.read_text())
    assert [r["ratio"] for r in kept["rows"]] == [4.0] * 3 and kept["device"] and kept["threads"] >= 1


def test_a_place_that_cannot_be_written_is_said_before_anything_is_measured(monkeypatch, capsys, tmp_path):
    (tmp_path / "taken").touch()
    measured = []
    monkeypatch.setattr(cli.machine, "BENCHES", {"data": lambda: measured.append(1) or []})
    assert cli.main(["bench", "data", "--work-dir", "taken"]) == 2 and not measured
    assert capsys.readouterr().err.startswith("resim-bench: taken: ")


def test_rows_of_each_kind_stand_below_their_header(monkeypatch, capsys):
    ratio = timing.compare("two views", [(1.0, 4.0)])
    growth = timing.Growth("a loss", (1, 2), (1.0, 2.0), 1.0, 1.0, 1.0, 1.15)
    absent = timing.LeftOut("a peer", "it is not installed")
    monkeypatch.setattr(cli.machine, "BENCHES", {"step": lambda: [ratio, absent, ratio], "growth": lambda: [growth]})
    assert cli.main(["bench", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:-2]
    shown = [ratio.line(), absent.line(), ratio.line()]
    assert lines == ["", ratio.header, *shown, "", growth.header, growth.line()]


@pytest.fixture
def few_checks(monkeypatch):
    """What the doctor looks at, replaced by a finding of each room; the states of the two."""
    states = {"pretrain": "ready", "transfer": "noted"}

    def checks(room):
        return lambda *_: [machine_doctor.Check(room, machine_doctor.Finding, (states[room], f"{room} it is"), "buy")]

    for room in states:
        monkeypatch.setattr(f"{room}.doctor.checks", checks(room))
    monkeypatch.setattr("resim_bench.machine.hardware.checks", lambda work_dir, data: [])
    return states


def test_the_doctor_gathers_what_each_room_looks_at(few_checks, capsys):
    (Path("photos") / "class").mkdir(parents=True)
    cv2.imwrite("photos/class/one.jpg", np.zeros((8, 8, 3)))
    assert cli.main(["doctor", "--data", "photos"]) == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith(" ")]
    assert titles[:-2] == ["this machine", "pre-training", "detection", "data"]
    assert titles[-2].startswith("ready: all of 6, 4 to note; ") and titles[-1] == "worth knowing"
    assert sorted(os.listdir()) == ["photos"], "nothing is left"


def test_what_is_not_ready_is_the_doctor_s_exit_code(few_checks, capsys):
    few_checks["pretrain"] = "not ready"
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert f"\npre-training\n  {'pretrain':44}not ready  pretrain it is\n" in out
    assert "\nnot ready: 1 of 5, 4 to note; " in out and f"\nwhat to do\n  {'pretrain':44}buy\n" in out


def test_the_doctor_reads_data(tmp_path):
    year = tmp_path / "data" / "VOCdevkit" / "VOC2007"
    (year / "ImageSets" / "Main").mkdir(parents=True)
    (year / "ImageSets" / "Main" / "trainval.txt").write_text("000001\n")
    whole = scenes.write(tmp_path / "data" / "mini", pretrain_images=2, train_images=8, test_images=4)
    found = {check.what: check for check in datasets.looks({whole / "VOCdevkit": "voc"})}
    seen = {what: check.look(*check.args) for what, check in found.items()}
    assert seen[str(whole / "VOCdevkit")].state == seen["data/mini"].state == seen["mini in data"].state == "ready"
    assert seen["data/VOCdevkit"].state == "not ready" and "more)" in seen["data/VOCdevkit"].said
    assert found["data/VOCdevkit"].remedy == "`resim-bench data check data/VOCdevkit` shows all that is wrong"
    assert seen["voc in data"].state == "noted" and "another list: 1 instead of 5011" in seen["voc in data"].said
    assert seen["imagenet in data"].do == "`resim-bench data get imagenet` says how to get it"
    assert "photos in data" not in seen


def test_a_plan_gets_what_was_asked(monkeypatch, capsys):
    asked = {}

    def report(ids, measures, trials, gpus, price, **options):
        asked.update(ids=ids, measures=set(measures), trials=trials, gpus=gpus, price=price, **options)
        return "a table\n"

    monkeypatch.setattr(estimate, "report", report)
    argv = ["plan", "mini", "voc-full", "--gpus", "8", "--trials", "5", "--data", "d", "--cfg-options", "batch=64"]
    assert cli.main([*argv, "--price", "2.5"]) == 0
    assert capsys.readouterr().out == "a table\n"
    assert asked == {
        "ids": ["mini", "voc-full"],
        "measures": {"pretrain", "transfer"},
        "trials": 5,
        "gpus": 8,
        "price": 2.5,
        "data": Path("d"),
        "cfg_options": {"batch": 64},
    }


@pytest.fixture
def units(monkeypatch, make_record, tmp_path):
    """The seeds whose unit was run; each leaves records of all rows, and of a seed that nobody asked for."""
    seeds = []
    metrics = {pair: one.metrics for one in tables.load_tables().values() for pair in experiments.of_table(one.id)}

    def run(trials, work_dir, data=None, tests_dir=None):
        seeds.extend(dict.fromkeys(seed for _, seed in trials))
        assert (data is None) == (tests_dir is None)
        for pair, seed in trials:
            for one in (seed, 900):
                found = dict.fromkeys(metrics.get(pair, ["cells"]), 20.0 + one % 3)
                record.write((tests_dir or work_dir) / "records", make_record(*pair, seeds=(one, one), metrics=found))

    monkeypatch.setattr("resim_bench.harness.parallel.run", run)
    monkeypatch.setattr("resim_bench.data.scenes.write", lambda root, **counts: root)
    monkeypatch.setattr("tables.RECORDS", tmp_path / "kept")
    return seeds


def test_a_study_goes_on_where_it_stopped_and_keeps_its_records(units, tmp_path, capsys):
    seeds = list(tables.load_studies()["mini"].seeds)
    assert cli.main(["study", "mini", "--units", "2"]) == 0
    assert units == seeds[:2]
    assert len(evidence.read_all(tmp_path / "kept")) == 2 * (6 + 3), "rows, and what their backbones read"
    out = capsys.readouterr().out
    assert (
        f"mini: 0 of {len(seeds)} units have run\nmini: 1 of {len(seeds)} units have run; this one took 0 min\n" in out
    )
    assert cli.main(["study", "mini"]) == 0
    assert units == seeds
    assert f"mini: 2 of {len(seeds)} units have run" in capsys.readouterr().out
    assert cli.main(["study", "mini"]) == 0 and units == seeds, "all have run: the table alone"


def test_a_study_on_other_data_keeps_nothing_and_has_a_place_of_its_own(units, tmp_path, capsys):
    """Two folders of a name do not meet, and what the plan's own data gave stays."""
    work, name = tmp_path / "work", "-".join(tmp_path.parts[1:])
    for folder in ("blood", "cells"):
        data = str(tmp_path / folder / "VOCdevkit")
        argv = ["study", "photos-cards", "--data", data, "--units", "2", "--work-dir", str(work)]
        assert cli.main(argv) == 2 and f"the VOC folder {data} does not exist" in capsys.readouterr().err
        (tmp_path / folder / "VOCdevkit/VOC2007").mkdir(parents=True)
        assert cli.main(argv) == 0
        records = work / "on" / f"{name}-{folder}-VOCdevkit" / "records"
        out = capsys.readouterr().out
        assert "6 of 6 rows have run" in out and f"photos-cards: records are in {records}\n" in out
        assert len(evidence.read_all(records)) == (2 + 1) * 6, "two seeds, and the one that nobody asked for"
        assert cli.main(argv) == 0, "which goes on"
    assert units == [1, 2, 3, 1, 2, 3] and not (tmp_path / "kept").exists() and not (work / "records").exists()


def test_controls_run_two_trials_of_a_row_at_a_time_beside_what_the_study_kept(units, tmp_path, capsys):
    cli.main(["study", "mini"])
    units.clear()
    seeds = list(tables.load_studies()["mini-controls"].seeds)
    of_row = len(seeds) // 2
    planned = of_row * len(tables.load_tables()["mini-controls"].rows)
    assert cli.main(["study", "mini-controls", "--units", "1"]) == 0
    assert units == seeds[:2]
    assert f"mini-controls: {2 * of_row} of {planned} units have run" in capsys.readouterr().out
    assert cli.main(["study", "mini-controls", "--units", "1"]) == 0
    assert units == seeds[:4]
    kept = {entry["pretrain"]["id"] for entry in evidence.read_all(tmp_path / "kept")}
    kept -= {pair.pretrain_id for pair in experiments.of_table("mini")}
    assert kept == {"mini-resim-c4-permuted"}, "reported before any other"
    out = capsys.readouterr().out
    assert f"mini-controls: {2 * of_row + 2} of {planned} units have run" in out and "AP − ReSim-C4" in out
    units.clear()
    assert cli.main(["study", "mini-choices", "--units", "2"]) == 0
    assert units == seeds[:3], "of three seeds the last runs alone"


def test_mini_runs_the_headline_rows_of_both_halves_with_one_seed_and_prints_their_tables(units, capsys):
    assert cli.main(["mini"]) == 0
    out = capsys.readouterr().out
    assert units == [0] and re.search("ReSim-C4 +20.0", out) and re.search("ReSim-FPN +20.0", out)
    assert "6 of 6 rows have run" in out and "4 of 9 rows have run" in out


def test_figures(units, capsys, tmp_path):
    assert cli.main(["figure", "scenes", "docs/scenes.png"]) == 0
    assert capsys.readouterr().out == "wrote docs/scenes.png\n"
    assert cv2.imread("docs/scenes.png").shape == (3 * 96, 6 * 96, 3)
    assert cli.main(["figure", "mini", "mini.svg"]) == 2
    assert "no seed of the study mini has run" in capsys.readouterr().err
    assert cli.main(["figure", "length", "length.svg"]) == 2
    assert "no row of mini-length has run" in capsys.readouterr().err
    cli.main(["study", "mini", "--units", "1"])
    assert cli.main(["figure", "mini", "mini.svg"]) == 0 and Path("mini.svg").is_file()
    assert cli.main(["figure", "monitor", "monitor.svg"]) == 2
    assert "no run in work_dirs was monitored: pretrain with --cfg-options monitor.every=1" in capsys.readouterr().err
    for name in ("mini-moco-v2", "mini-resim-c4"):
        folder = Path("work_dirs/pretrain", name, "seed-1")
        folder.mkdir(parents=True)
        (folder / runs.CLAIM).write_text("{}")
        readings = dict.fromkeys(trace.SHOWN, 0.5)
        lines = [{"iter": 0, "spread": 0.4}, {"iter": 2} | readings]
        (folder / trace.MONITOR).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli.main(["figure", "monitor", "monitor.svg"]) == 0
    assert all(word in Path("monitor.svg").read_text() for word in ("mini-resim-c4, seed-1", "correspondence", "knn"))
    cli.main(["study", "mini-length"])
    assert cli.main(["figure", "length", "length.svg"]) == 2
    assert "no pre-training of MoCo-v2, ReSim-C4, windows permuted has its log here" in capsys.readouterr().err
    for name in ("mini-moco-v2-16ep", "mini-resim-c4", "mini-resim-c4-permuted-4ep"):
        for seed, protocol in ((11, pin.of_recipe(name)), (12, {"max_iters": 2})):
            folder = Path("work_dirs/pretrain", name, f"seed-{seed}")
            (folder / "1/vis_data").mkdir(parents=True)
            (folder / runs.CLAIM).write_text(json.dumps({"protocol": protocol}))
            (folder / "backbone.safetensors").touch()
            (folder / "1/vis_data/scalars.json").write_text(json.dumps({"iter": 248, "time": seed / 4}) + "\n")
    assert set(results._seconds(Path("work_dirs")).values()) == {682.0}, "of the recipe's run alone"
    assert cli.main(["figure", "length", "length.svg"]) == 0
    assert "minutes of pre-training" in Path("length.svg").read_text()
    assert cli.main(["figure", "mini", "mini.pdf"]) == 2
    assert "mini.pdf does not end in .svg or .png" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrain.train.run", interrupted)
    assert cli.main(["pretrain", "random"]) == 130
    assert "interrupted; start it again, trainings with --resume, to continue" in capsys.readouterr().err


def _started(command):
    """Code, output and errors of a shell's command line."""
    command = command.replace("resim-bench", f"{sys.executable} -m resim_bench.cli")
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_a_reader_that_leaves_and_a_closed_output_are_quiet():
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does, but before the first word, so that nobody has to be fast
    command = [sys.executable, "-m", "resim_bench.program", "list"]
    left = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (left.returncode, left.stderr) == (128 + signal.SIGPIPE, "")
    assert _started("resim-bench list >&-") == (0, "", "")
    assert _started("resim-bench pretrain nope 2>&-")[0] == 2


def test_a_terminal_that_is_not_utf_8_shows_the_tables():
    command = [sys.executable, "-m", "resim_bench.program", "tables", "mini"]
    shown = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True)
    assert shown.returncode == 0 and shown.stdout.startswith(b"Mini") and not shown.stderr


def test_everything_that_ran_is_listed(capsys, tmp_path):
    assert cli.main(["tables", "--all", "--work-dir", str(tmp_path)]) == 0
    assert "mini-voc-frozen\n═" in (out := capsys.readouterr().out) and "mini-densecl" in out
    assert "tables --all prints one report on all records: leave mini out" in refused(capsys, "tables", "mini", "--all")
    assert "leave --all out" in refused(capsys, "tables", "--check", "--all")
    assert "leave --readings out" in refused(capsys, "tables", "--check", "--readings")


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ("tables mini --details mini-coco", {"id": ["mini", "mini-coco"], "details": True}),
        ("data check --as voc photos", {"action": "check", "name": "photos", "layout": "voc"}),
        ("show r.json --images 9 x.png", {"what": "r.json", "images": 9, "file": Path("x.png")}),
        ("report --data a --data b x.html", {"data": [Path("a"), Path("b")], "file": Path("x.html")}),
    ],
)
def test_options_may_stand_between_what_they_belong_to(argv, found):
    assert vars(cli.build_parser().parse_args(argv.split())).items() >= found.items()


def test_version_and_environment_for_a_report(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and re.match(r"resim-bench \d+\.\d+\.\d+, commit \w+", capsys.readouterr().out)
    assert cli.main(["env"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n{name} " in said for name in ("python", "torch", "onedl-mmcv", "device", "GPU", "mmcv's operators"))


@pytest.mark.parametrize("argv", [["study", "mini"], ["records", "keep"]])
def test_evidence_is_kept_in_a_clone_alone(capsys, monkeypatch, tmp_path, argv):
    monkeypatch.setattr(experiments, "ROOT", tmp_path)
    assert "is none: clone the repository" in refused(capsys, *argv)
