"""The monitor's readings against obvious twins, and that a monitored run is the run."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretrain import monitor, train
from pretrain.encoders import resnet
from resim_bench import backbone
from resim_bench.data import scenes
from resim_bench.errors import UserError
from resim_bench.harness import trace


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return scenes.write(tmp_path_factory.mktemp("data") / "mini", pretrain_images=20, train_images=12, test_images=1)


def test_a_cell_has_the_class_of_the_smallest_box_that_holds_it():
    boxes, labels = torch.tensor([[0.0, 0, 16, 16], [4, 4, 12, 8]]), torch.tensor([1, 2])
    found = monitor.cell_labels(boxes, labels, (6, 6), 4)
    for i in range(6):
        for j in range(6):
            inside = [k for k, (x0, y0, x1, y1) in enumerate(boxes.tolist()) if x0 <= 4 * j < x1 and y0 <= 4 * i < y1]
            assert found[i, j] == (labels[inside[-1]] if inside else 0)


def test_a_readout_reads_what_is_linear_and_nothing_else():
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (2000,))
    held_out = torch.arange(2000) % 2 == 1
    signal = F.one_hot(labels, 8).float() @ torch.randn(8, 16) + 0.01 * torch.randn(2000, 16)
    assert monitor.readout(signal, labels, held_out) > 0.99
    assert monitor.readout(torch.randn(2000, 16), labels, held_out) < 0.2, "a guess of four classes: about 1 in 7"
    mislabelled = torch.where(held_out, (labels + 1) % 4, labels)
    assert monitor.readout(signal, mislabelled, held_out) < 0.01, "fitted to the others alone"


def test_neighbours_are_those_of_other_images():
    torch.manual_seed(0)
    features, labels, images = torch.randn(60, 5), torch.randint(0, 3, (60,)), torch.arange(60) // 4
    right = 0
    for i in range(60):
        similar = F.cosine_similarity(features[i], features, dim=1)
        others = sorted((k for k in range(60) if images[k] != images[i]), key=lambda k: -similar[k])[:10]
        right += torch.bincount(labels[others], minlength=3).argmax() == labels[i]
    assert monitor.knn(features, labels, images) == pytest.approx(float(right) / 60)


def test_the_spread_is_0_in_a_collapse_and_1_all_over_the_sphere():
    torch.manual_seed(0)
    assert monitor.spread(torch.ones(50, 8) * torch.rand(50, 1)) == pytest.approx(0, abs=1e-3)
    assert monitor.spread(torch.randn(5000, 8)) == pytest.approx(1, abs=0.01)


def test_neighbours_are_of_other_images_however_few_there_are():
    features, labels = torch.eye(4), torch.tensor([0, 1, 0, 1])
    assert monitor.knn(features, labels, torch.tensor([0, 0, 1, 1])) == 0.5, "a vote each of one object of either class"
    assert monitor.knn(torch.eye(3), torch.tensor([1, 1, 0]), torch.tensor([0, 0, 1])) == 0, "none is its own neighbour"


def test_without_a_window_there_is_no_correspondence():
    assert np.isnan(monitor.correspondence(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=bool)))


def test_correspondence_finds_the_same_place_among_those_that_count():
    torch.manual_seed(0)
    key, valid = torch.randn(6, 9, 16), torch.rand(6, 9) < 0.7
    assert monitor.correspondence(key + 0.01 * torch.randn_like(key), key, valid) == 1
    rolled = key.roll(1, dims=1)
    assert monitor.correspondence(rolled, key, torch.ones_like(valid)) == 0
    hits = []
    for image in range(6):
        places = valid[image].nonzero()[:, 0].tolist()
        query = torch.randn(9, 16)
        key[image, 0] = query[0]
        hits += [max(places, key=lambda k: F.cosine_similarity(query[i], key[image, k], dim=0)) == i for i in places]
        rolled[image] = query
    assert monitor.correspondence(rolled, key, valid) == pytest.approx(np.mean(hits))


def test_readings_of_scenes(data):
    views = train.load_recipe("mini-moco-v2").views.to_dict()
    readings = monitor.Readings(str(data / "VOCdevkit"), images=8, size=96, views=views)
    assert len(readings.images) == 8 and readings.query.shape == (8, 56, 56, 3)
    assert readings.boxes[0].tolist() == [list(o.box) for o in scenes.scene(0, "trainval", 0).objects]
    trunk = resnet(18, (1, 1, 1, 2), 16)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    found = readings.read(trunk.train())
    assert trunk.training and all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())
    assert found.keys() == {"cells", "knn", "correspondence", "spread"}
    assert all(0 <= value <= 1 for value in found.values())
    assert found == readings.read(trunk), "the same trunk reads the same"


def test_a_monitored_run_is_the_run(data, tmp_path, capsys):
    options = {"batch": 8, "epochs": 4, "model.queue": 16, "model.bn_group": 4, "max_iters": 7, "log_interval": 1}
    watched = options | {"monitor.every": 2, "monitor.images": 4, "monitor.data": str(data / "VOCdevkit")}
    files = [
        train.run("mini-moco-v2", data=data / "imagefolder", work_dir=tmp_path / name, cfg_options=cfg_options)
        for name, cfg_options in (("plain", options), ("watched", watched))
    ]
    (plain, of_plain), (monitored, of_monitored) = map(backbone.load, files)
    assert all(torch.equal(plain[name], monitored[name]) for name in plain)
    assert of_plain["deviations"] == of_monitored["deviations"]
    curves = trace.monitored(files[1].parent)
    assert [line["iter"] for line in curves] == [0, 4, 7]
    logged = [line["loss_instance"] for line in trace.progress(files[1].parent)]
    assert [line.get("loss_instance") for line in curves] == [
        None,
        pytest.approx(np.mean(logged[:4])),
        pytest.approx(np.mean(logged[4:])),
    ]
    assert "  Monitor [4/7]  cells: 0." in capsys.readouterr().out


def test_its_losses_are_the_mean_of_all_processes(monkeypatch, tmp_path, capsys):
    """As the log's are; what is added up goes on as it was."""
    monkeypatch.setattr(monitor, "all_reduce", lambda value, op: value.mul_({"mean": 3}[op]))
    monkeypatch.setattr(monitor, "Readings", lambda **_: SimpleNamespace(read=lambda trunk: {}))
    hook = monitor.MonitorHook(every=1, epoch_iters=2)
    runner = SimpleNamespace(model=SimpleNamespace(trunk=None), iter=0, max_iters=9, work_dir=tmp_path)
    for runner.iter in range(4):
        hook.after_train_iter(runner, 0, outputs={"loss_instance": torch.tensor(2.0 + runner.iter)})
    assert [line["loss_instance"] for line in trace.monitored(tmp_path)] == [7.5, 13.5]


def test_of_an_iteration_that_was_done_twice_the_last_reading_counts(tmp_path):
    lines = [{"iter": 0, "knn": 0.1}, {"iter": 2, "knn": 0.2}, {"iter": 2, "knn": 0.3}]
    (tmp_path / trace.MONITOR).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [line["knn"] for line in trace.monitored(tmp_path)] == [0.1, 0.3]


def test_without_annotated_images_it_says_what_to_do(tmp_path, data):
    options = {"batch": 8, "model.queue": 16, "model.bn_group": 4, "max_iters": 1, "monitor.every": 1}
    with pytest.raises(UserError, match=r"monitor.data: nothing/VOCdevkit is no VOCdevkit .*or set monitor.every=0"):
        train.run(
            "mini-moco-v2",
            data=data / "imagefolder",
            work_dir=tmp_path,
            cfg_options=options | {"monitor.data": "nothing/VOCdevkit"},
        )


def _without(name):
    return lambda xml: xml.write_text(xml.read_text().replace(f"<{name}>", "<other>").replace(f"</{name}>", "</other>"))


def _with(value):
    return lambda xml: xml.write_text(re.sub("<xmin>.*?</xmin>", f"<xmin>{value}</xmin>", xml.read_text(), count=1))


def _twice(image):
    shutil.copy(image, image.with_suffix(".png"))
    xml = image.parents[1] / "Annotations" / f"{image.stem}.xml"
    xml.write_text(re.sub("<filename>.*?</filename>", "", xml.read_text()))


@pytest.mark.parametrize(
    ("file", "spoil", "sentence"),
    [
        ("Annotations/{}.xml", lambda xml: xml.unlink(), "there is no annotation .*: restore it, or take its image"),
        ("Annotations/{}.xml", lambda xml: xml.write_text("<annotation>"), "is no annotation in VOC's format"),
        (
            "Annotations/{}.xml",
            lambda xml: xml.write_text('<?xml version="1.0" encoding="x"?><a/>'),
            "is no annotation",
        ),
        ("Annotations/{}.xml", _without("bndbox"), "is no annotation in VOC's format"),
        ("Annotations/{}.xml", _without("name"), "is no annotation in VOC's format"),
        ("Annotations/{}.xml", _with("wide"), "is no annotation in VOC's format"),
        ("Annotations/{}.xml", _with("nan"), "in a box that is none: correct it"),
        ("Annotations/{}.xml", _with("1e30"), "in a box that is none: correct it"),
        ("JPEGImages/{}.jpg", lambda image: image.write_bytes(image.read_bytes()[:400]), "is no readable image"),
        (
            "JPEGImages/{}.jpg",
            lambda image: image.unlink(),
            "names '[0-9]+', but there is no .*: restore it",
        ),
        ("JPEGImages/{}.jpg", _twice, "its image may be .*; say which by <filename>"),
        (
            "ImageSets/Main/trainval.txt",
            lambda names: names.write_bytes(b"\xff\xfe\xff"),
            "no VOCdevkit with two",
        ),
        ("ImageSets/Main/trainval.txt", lambda names: names.write_text(names.read_text().split()[0]), "with two"),
    ],
)
def test_what_it_cannot_read_is_a_sentence_before_the_training(data, tmp_path, file, spoil, sentence):
    devkit = tmp_path / "VOCdevkit"
    shutil.copytree(data / "VOCdevkit", devkit)
    name = (devkit / "VOC2007/ImageSets/Main/trainval.txt").read_text().split()[0]
    spoil(devkit / "VOC2007" / file.format(name))
    with pytest.raises(UserError, match=sentence):
        monitor.Readings(str(devkit), 4, 32, train.load_recipe("mini-moco-v2").views.to_dict())


def _as_png(year, lines):
    for image in (year / "JPEGImages").iterdir():
        image.rename(image.with_suffix(".PNG"))
    return "\n".join(lines).encode()


def _inverted(year, lines):
    xml = year / "Annotations" / f"{lines[0]}.xml"
    turned = (
        "<object><name>ring</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></object>"
    )
    xml.write_text(xml.read_text().replace("</annotation>", f"{turned}</annotation>"))
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "change",
    [
        _as_png,
        _inverted,
        lambda year, lines: "".join(f"{line}.jpg\r\n" for line in lines).encode(),
        lambda year, lines: "".join(f"{line}  1\n" for line in lines).encode(),
        lambda year, lines: "\n\n".join(lines).encode("utf-8-sig"),
        lambda year, lines: "\n".join(lines).encode("utf-16"),
    ],
    ids=["endings", "a box without area", "names with endings", "labels", "a mark", "UTF-16"],
)
def test_it_reads_what_a_detector_would_train_on(data, tmp_path, change):
    devkit, views = tmp_path / "VOCdevkit", train.load_recipe("mini-moco-v2").views.to_dict()
    plain = monitor.Readings(str(data / "VOCdevkit"), 4, 32, views)
    shutil.copytree(data / "VOCdevkit", devkit)
    file = devkit / "VOC2007/ImageSets/Main/trainval.txt"
    file.write_bytes(change(devkit / "VOC2007", file.read_text().split()))
    found = monitor.Readings(str(devkit), 4, 32, views)
    assert torch.equal(torch.stack(found.images), torch.stack(plain.images))
    assert all(map(torch.equal, found.boxes, plain.boxes)) and torch.equal(found.query, plain.query)


def test_images_without_objects_do_where_others_have_some(data, tmp_path):
    devkit, views = tmp_path / "VOCdevkit", train.load_recipe("mini-moco-v2").views.to_dict()
    shutil.copytree(data / "VOCdevkit", devkit)
    names = (devkit / "VOC2007/ImageSets/Main/trainval.txt").read_text().split()[:4]
    (devkit / "VOC2007" / "Annotations" / f"{names[0]}.xml").write_text("<annotation/>")
    assert len(monitor.Readings(str(devkit), 4, 32, views).boxes[0]) == 0
    for name in names:
        (devkit / "VOC2007" / "Annotations" / f"{name}.xml").write_text("<annotation/>")
    with pytest.raises(UserError, match="has no object in its first 4 images: annotate some"):
        monitor.Readings(str(devkit), 4, 32, views)
