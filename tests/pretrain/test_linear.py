"""The linear probe: its classifier against plain SGD, the frozen trunk, the held-out list, what it refuses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pretrain import linear
from pretrain.data import list_images
from pretrain.encoders import resnet
from resim_bench import backbone, cli, experiments, record
from resim_bench.data import scenes
from resim_bench.errors import UserError
from resim_bench.harness import checkpoint, runs
from tests.transfer.conftest import make_backbone

TINY = {
    "batch": 4,
    "epochs": 2,
    "milestones": (1,),
    "views.size": 32,
    "test_resize": 36,
    "log_interval": 1,
    "workers": 0,
}


@pytest.fixture
def images(tmp_path):
    """An ImageFolder of two classes that colour tells apart, ten images each to train and four to test."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 4)):
        for label, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(rng.normal(colour, 30, (40, 48 + i, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def trunk(tmp_path):
    return make_backbone(tmp_path / "b.safetensors")


@pytest.fixture
def start(images, trunk, tmp_path):
    def run(options=None, work="work", **keywords):
        keywords = {"data": images, "work_dir": tmp_path / work} | keywords
        return linear.run("probe-mini", trunk, cfg_options=TINY | (options or {}), **keywords)

    return run


def test_it_leaves_a_record_of_what_it_saw(start, trunk, images):
    path = start()
    entry = record.read(path)
    assert path.parts[-3:] == ("tiny-random", "probe-mini", "pretrain-3_transfer-0.json")
    assert set(entry["metrics"]) == {"top1", "top5"} and entry["metrics"]["top5"] == 100, "of two classes"
    assert entry["metrics"]["top1"] > 90, "colour tells them apart"
    assert entry["pretrain"]["backbone_sha256"] == backbone.digest(trunk)
    side = entry["transfer"]
    assert side["data"]["train_images"] == 20 and side["data"]["test_images"] == 8
    assert {"batch", "epochs", "dataset.images", "data.test_images"} <= set(side["deviations"])
    assert side["deviations"]["data.test_images"] == [975, 8] and "published" not in side["protocol"]
    assert start() == path, "it is done"
    with pytest.raises(UserError, match="is the result of another configuration"):
        start({"optimizer.lr": 0.01})


def test_the_classifier_trains_as_plain_sgd_does(start, trunk, images, monkeypatch, tmp_path):
    """In float64, on the features of the views that were drawn; the trunk's weights and statistics do not move."""
    seen, models = [], []
    forward = linear.LinearClassifier.forward

    def remembered(self, image, label, mode="loss"):
        if self.training:
            seen.append((image.clone(), label.clone()))
            models[:] = [self]
        return forward(self, image, label, mode)

    monkeypatch.setattr(linear.LinearClassifier, "forward", remembered)
    with monkeypatch.context() as patch:
        start_weights = []
        init = linear.LinearClassifier.__init__

        def kept(self, *args, **kwargs):
            init(self, *args, **kwargs)
            self.double()
            start_weights.extend(value.detach().clone() for value in self.classifier.parameters())

        patch.setattr(linear.LinearClassifier, "__init__", kept)
        start()
    state, provenance = backbone.load(trunk)
    reference = resnet(**provenance["arch"]).double().eval()
    reference.load_state_dict({key: value.double() for key, value in state.items()})
    weight, bias = start_weights
    assert bias.abs().max() == 0 and weight.std() == pytest.approx(0.01, rel=0.2)
    momenta = [torch.zeros_like(weight), torch.zeros_like(bias)]
    epoch_iters = 20 // 4
    for step, (image, label) in enumerate(seen):
        rate = 0.03 * (0.1 if step // epoch_iters >= 1 else 1)
        pixels = image.double().permute(0, 3, 1, 2)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1((pixels - mean) / std))))
        for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
            x = layer(x)
        features = x.mean(dim=(2, 3)).detach()
        w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        F.cross_entropy(features @ w.T + b, label).backward()
        momenta = [0.9 * m + g for m, g in zip(momenta, (w.grad, b.grad), strict=True)]
        weight, bias = weight - rate * momenta[0], bias - rate * momenta[1]
    assert len(seen) == 2 * epoch_iters
    (model,) = models
    torch.testing.assert_close(model.classifier.weight.detach(), weight, rtol=1e-4, atol=1e-6)  # normalised in float32
    for key, value in model.trunk.state_dict().items():
        assert torch.equal(value, state[key].to(value.dtype)), key


def test_interrupted_and_resumed_equals_uninterrupted(start, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.SafeCheckpointHook.__init__, "__defaults__", (0.0, 50))
    whole = start(work="whole")
    calls, forward = [], linear.LinearClassifier.forward

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(linear.LinearClassifier, "forward", interrupted)
        start()
    with pytest.raises(UserError, match="add --resume to continue it"):
        start()
    parts = start(resume=True)
    ours, theirs = (
        torch.load(next((tmp_path / work / "probe").rglob(runs.LAST)), weights_only=True)["state_dict"]
        for work in ("work", "whole")
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in ours | theirs)
    assert record.read(parts)["metrics"] == record.read(whole)["metrics"]


def test_a_tenth_of_each_class_is_held_out_by_the_same_list(start, images):
    labels = [0] * 20 + [1] * 31 + [2] * 4
    out = linear.split(labels, 0.1)
    assert [int(out[np.equal(labels, label)].sum()) for label in range(3)] == [2, 3, 0]
    assert (out == linear.split(labels, 0.1)).all() and not linear.split(labels, 0).any()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "HELD_OUT_BY", 1)
        assert (out != linear.split(labels, 0.1)).any()
    entry = record.read(start({"held_out": 0.2}))
    data = entry["transfer"]["data"]
    assert (data["images"], data["train_images"], data["test_images"]) == (20, 16, 4), "val is not used"
    part = linear.TrainingPart(images, "objects", linear.load("probe-mini").views.to_dict(), 0, 0.2)
    assert len(part) == 16 and not set(part.rows) & set(np.flatnonzero(linear.split(part.images.labels, 0.2)))


def test_a_test_image_is_the_middle_after_its_short_side_was_resized(images):
    found = list_images(str(images), "objects")
    part = linear.TestPart(found, [3], resize=36, size=32)
    image, label = part[0]
    assert image.shape == (32, 32, 3) and image.dtype == torch.uint8 and label == found.labels[3]
    resized = Image.open(found.path(3)).resize((int(Image.open(found.path(3)).width * 36 / 40), 36), Image.BILINEAR)
    left = round((resized.width - 32) / 2)
    expected = np.asarray(resized.crop((left, 2, left + 32, 34))).astype(int)
    assert np.abs(image.numpy() - expected).max() <= 1


@pytest.mark.parametrize("protocol", sorted(experiments.probe_ids()))
def test_the_configs_are_mocos(protocol):
    config = linear.load(protocol)
    optimiser = config.optimizer.to_dict()
    assert {key: optimiser[key] for key in ("type", "momentum", "weight_decay")} == {
        "type": "SGD",
        "momentum": 0.9,
        "weight_decay": 0.0,
    }
    if protocol in ("probe-in1k", "probe-in100"):
        assert (config.batch, config.epochs, tuple(config.milestones), optimiser["lr"]) == (256, 100, (60, 80), 30.0)
        assert (config.views.size, config.test_resize, tuple(config.views.scale)) == (224, 256, (0.08, 1.0))
    assert config.views.jitter_p == config.views.grayscale_p == config.views.blur_p == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch": 64}, "the batch of 64 is larger than the 20 images that train"),
        ({"test_resize": 8}, "test_resize of 8 is below views.size of 32"),
        ({"epochs": 0}, "epochs is 0: give a whole number of at least 1"),
        ({"nope": 1}, "no setting nope"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(start, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        start(options)
    assert not (tmp_path / "work").exists()


def test_data_that_cannot_be_probed_are_refused(start, images, tmp_path):
    with pytest.raises(UserError, match="held_out=0.01 leaves no image of a class to test on: set it larger"):
        start({"held_out": 0.01})
    (images / "val" / "red").rename(images / "val" / "green")
    with pytest.raises(UserError, match="has other classes in val than in train"):
        start()
    (images / "val").rename(tmp_path / "away")
    with pytest.raises(UserError, match="there is no folder .*val to test on: add it, or set held_out=0.1"):
        start()
    assert not (tmp_path / "work").exists()


def test_the_command_line_chooses_the_probe_of_the_backbones_data(trunk, tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(linear, "run", lambda probe_id, file, **_: ran.append(probe_id))
    monkeypatch.setattr(scenes, "write_objects", lambda root: root)
    for name in ("in100-moco-v2", "mini-moco-v2", "photos-random", "given-moco-v2", "in1k-moco-v2-200ep"):
        file = backbone.path(tmp_path, name, seed=0)
        backbone.save(file, {"conv1.weight": torch.zeros(1)}, {"id": name})
        assert cli.main(["probe", name, "--work-dir", str(tmp_path)]) == 0
        assert cli.main(["probe", str(file)]) == 0 and ran[-1] == ran[-2], "of a file, too"
    assert ran[::2] == ["probe-in100", "probe-mini", "probe-caltech101", "probe-in1k", "probe-in1k"]
    assert cli.main(["probe", "random", "--work-dir", str(tmp_path)]) == 2
    assert "no backbone yet for random with seed 0: run `resim-bench pretrain random` f" in capsys.readouterr().err
    assert cli.main(["probe", str(trunk), "--on", "probe-m*"]) == 0 and ran[-1] == "probe-mini"
    assert cli.main(["probe", str(trunk), "--on", "nope"]) == 2
    assert "known are probe-caltech101, probe-in100, probe-in1k, probe-mini" in capsys.readouterr().err


def test_the_objects_of_the_scenes_are_cut_out_whole_or_not_at_all(tmp_path, monkeypatch):
    root = scenes.write_objects(tmp_path / "objects", train_images=3, test_images=2)
    drawn = scenes.scene(0, "trainval", 0)
    item = drawn.objects[0]
    x0, y0, x1, y1 = map(int, item.box)
    file = root / "train" / scenes.CLASSES[item.label] / "000000-0.png"
    assert (np.asarray(Image.open(file)) == drawn.image[y0:y1, x0:x1]).all()
    assert sum(1 for _ in root.glob("train/*/*.png")) == sum(
        len(scenes.scene(0, "trainval", i).objects) for i in range(3)
    )
    with pytest.raises(UserError, match="holds something other than these scenes"):
        scenes.write_objects(root)
    monkeypatch.setattr(scenes, "scene", None)
    assert scenes.write_objects(root, train_images=3, test_images=2) == root, "left as it is"
    with pytest.raises(TypeError):
        scenes.write_objects(tmp_path / "others")
    assert [entry.name for entry in tmp_path.iterdir()] == ["objects"]
