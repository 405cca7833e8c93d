"""A backbone file's readings: those that a monitored run read, what the record says, what is refused."""

import pytest

from pretrain import judge, monitor, train
from resim_bench import backbone, cli, record
from resim_bench.data import scenes
from resim_bench.errors import UserError
from resim_bench.experiments import readings_ids
from resim_bench.harness import trace
from tests.transfer.conftest import make_backbone


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return scenes.write(tmp_path_factory.mktemp("data") / "mini", pretrain_images=20, train_images=12, test_images=1)


@pytest.fixture
def trunk(tmp_path):
    return make_backbone(tmp_path / "b.safetensors")


def test_it_reads_what_the_monitor_read_at_the_end(data, tmp_path):
    options = {"batch": 8, "model.queue": 16, "model.bn_group": 4, "max_iters": 2, "monitor.every": 1}
    options["monitor.data"] = str(data / "VOCdevkit")
    file = train.run("mini-moco-v2", data=data / "imagefolder", work_dir=tmp_path, cfg_options=options, seed=3)
    place = judge.run("readings-mini", file, data=data, work_dir=tmp_path)
    assert place.parts[-3:] == ("mini-moco-v2", "readings-mini", "pretrain-3_transfer-3.json")
    last = trace.monitored(file.parent)[-1]
    found = record.read(place)["metrics"]
    assert found.keys() == {"cells", "knn", "correspondence", "spread"}
    assert found == {name: pytest.approx(100 * last[name], abs=1e-6) for name in found}


def test_it_leaves_a_record_of_what_it_saw(trunk, data, tmp_path):
    place = judge.run("readings-mini", trunk, data=data, work_dir=tmp_path)
    entry = record.read(place)
    side = entry["transfer"]
    assert entry["pretrain"]["backbone_sha256"] == backbone.digest(trunk)
    assert side["deviations"] == {"data.trainval_images": [400, 12]} and side["data"]["images"] == 12
    assert side["data"]["objects"] == sum(len(scenes.scene(0, "trainval", i).objects) for i in range(12))
    assert [path.name for path in tmp_path.iterdir()].count("readings") == 0, "there is nothing to continue"
    before = place.read_bytes()
    assert judge.run("readings-mini", trunk, data=data / "VOCdevkit", work_dir=tmp_path) == place
    assert place.read_bytes() == before, "it is done"
    make_backbone(trunk, seed=1)
    with pytest.raises(UserError, match="is the result of another configuration .backbone was .* give another --work"):
        judge.run("readings-mini", trunk, data=data, work_dir=tmp_path)


@pytest.mark.parametrize("changes", [{"depth": 34, "width": 8}, {"strides": (1, 2, 2, 2), "width": 64}])
def test_it_reads_any_architecture(data, tmp_path, changes):
    """The second without a width, as records from before there was one."""
    file = make_backbone(tmp_path / "b.safetensors", **changes)
    state, provenance = backbone.load(file)
    if changes["width"] == backbone.WIDTH:
        del provenance["arch"]["width"], provenance[backbone.CHECKSUM]
        backbone.save(file, state, provenance)
    entry = record.read(judge.run("readings-mini", file, data=data, work_dir=tmp_path))
    assert all(0 <= value <= 100 for value in entry["metrics"].values())


@pytest.mark.parametrize(
    ("readings_id", "recipe"), [("readings-mini", "mini-resim-c4"), ("readings-voc", "in1k-resim-fpn-200ep")]
)
def test_images_and_views_are_those_of_the_recipes_monitor(readings_id, recipe):
    of_recipe, found = train.load_recipe(recipe), judge.protocol(readings_id)
    assert (found["images"], found["size"]) == (of_recipe.monitor.images, of_recipe.monitor.size)
    assert found["views"] == train.protocol(of_recipe, of_recipe.dataset)["views"] | {"flip": "shared"}
    assert judge._load(readings_id).monitor.data == of_recipe.monitor.data


def test_what_cannot_be_read_is_one_sentence_and_leaves_nothing(trunk, data, tmp_path):
    for folder in (tmp_path / "nothing", data / "imagefolder"):
        with pytest.raises(UserError, match="^--data: .* is no VOCdevkit with two images in VOC2007's trainval: name"):
            judge.run("readings-mini", trunk, data=folder, work_dir=tmp_path / "work")
    with pytest.raises(UserError, match="there is no backbone file"):
        judge.run("readings-mini", tmp_path / "none", data=data, work_dir=tmp_path / "work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor.Readings, "read", lambda self, trunk: {"cells": 0.5, "correspondence": float("nan")})
        with pytest.raises(UserError, match="has too few images for correspondence: annotate more"):
            judge.run("readings-mini", trunk, data=data, work_dir=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_the_command_prints_it_beside_what_is_known(trunk, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tables.RECORDS", tmp_path / "kept")
    argv = ["judge", str(trunk), "--on", "readings-mini", "--data", str(data), "--work-dir", str(tmp_path / "work")]
    assert cli.main([*argv, "--quiet"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny-random has readings-mini already: ")
    assert "tiny-random, seed 3, by readings-mini on 12 images, in per cent" in out and "\n→ this one  " in out


def test_a_kept_record_does_without_the_file(data, tmp_path, capsys, monkeypatch):
    file = make_backbone(tmp_path / "b.safetensors")
    state, provenance = backbone.load(file)
    del provenance[backbone.CHECKSUM]
    backbone.save(file, state, provenance | {"id": "mini-random"})
    monkeypatch.setattr("tables.RECORDS", tmp_path / "kept")
    judge.run("readings-mini", file, data=data, work_dir=tmp_path / "work")
    (tmp_path / "work" / "records").rename(tmp_path / "kept")
    argv = ["judge", "mini-random", "--work-dir", str(tmp_path / "work")]
    assert cli.main([*argv, "--pretrain-seed", "3"]) == 0
    assert "mini-random, seed 3, by readings-mini" in capsys.readouterr().out
    assert cli.main(argv) == 2 and "no backbone yet for mini-random with seed 0" in capsys.readouterr().err


def test_each_readings_has_its_data():
    assert {judge.usual(name) for name in ("random", "given-moco-v2", "photos-random", "mine")} == {"readings-voc"}
    assert judge.usual("mini-moco-v2@3ep") == "readings-mini" and readings_ids().keys() == {
        "readings-mini",
        "readings-voc",
    }
