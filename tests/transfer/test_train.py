"""A whole transfer at the smallest size: what it leaves, what it proves, what it refuses, how it continues."""

import json
import multiprocessing
import shutil
import subprocess
import sys

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from resim_bench import backbone, cli, experiments, record
from resim_bench.data import images
from resim_bench.errors import UserError
from resim_bench.harness import checkpoint, runs
from tests.transfer.conftest import CLASSES, TINY, TINY_COCO, make_backbone, object_xml
from transfer import protocols, score, train, voc


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ctrl-C after some iterations."""

    at = None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.at:
            raise KeyboardInterrupt


@pytest.fixture
def start(devkit, backbone_path, tmp_path):
    def run(transfer_id="mini-voc-frozen", work_dir="work", options=None, **keywords):
        keywords = {"data": devkit, "backbone": backbone_path} | keywords
        path = keywords.pop("backbone")
        options = TINY | (options or {})
        return train.run(transfer_id, path, work_dir=tmp_path / work_dir, cfg_options=options, **keywords)

    return run


@pytest.fixture
def start_coco(coco_folder, fpn_path, tmp_path):
    def run(transfer_id, work_dir="work", **keywords):
        options = {"data": coco_folder, "work_dir": tmp_path / work_dir, "cfg_options": TINY_COCO}
        return train.run(transfer_id, fpn_path, **options | keywords)

    return run


def trained(path):
    """State dict of the run that left the record `path`."""
    work_dir = path.parents[3]
    run_dir = work_dir / "transfer" / path.relative_to(work_dir / "records").with_suffix("")
    checkpoint = torch.load(run_dir / runs.LAST, weights_only=True)
    return checkpoint["state_dict"]


def test_a_frozen_transfer_leaves_a_record_and_the_trunk_as_it_was(start, backbone_path, devkit, capsys):
    path = start(seed=5, options={"expected_data.train_images": 10})
    entry = record.read(path)
    assert path.parts[-4:] == ("records", "tiny-random", "mini-voc-frozen", "pretrain-3_transfer-5.json")
    assert set(entry["metrics"]) == {"AP", "AP50", "AP75"}
    assert entry["pretrain"]["id"] == "tiny-random" and entry["pretrain"]["protocol"] == {"method": "none"}
    assert entry["pretrain"]["backbone_sha256"] == backbone.digest(backbone_path)
    side = entry["transfer"]
    assert side["overrides"] == runs.plain(TINY | {"expected_data.train_images": 10})
    assert side["data"]["classes"] == list(CLASSES)
    assert side["deviations"]["max_iters"] == [protocols.load("mini-voc-frozen").max_iters, 4]
    assert side["deviations"]["data.train_images"] == [400, 10], "by the shipped config, whatever is said on top of it"
    assert side["deviations"]["data.classes"] == [6, 3]
    assert set(side["deviations"]) == {
        "data.train_images",
        "data.test_images",
        "data.classes",
        "max_iters",
        "total_batch",
        "hooks.PreciseBNHook.num_iters",
        "schedule.LinearLR.end",
        "schedule.MultiStepLR.milestones",
        "model.train_cfg.rpn.sampler.num",
        "model.train_cfg.rcnn.sampler.num",
        "model.test_cfg.rpn.max_per_img",
        "train.RandomChoiceResize.scales",
        "test.Resize.scale",
    }
    assert side["protocol"]["model.backbone.frozen_stages"] == 3
    assert str(devkit) not in path.read_text()
    text, equal = score.score(path)
    assert equal and text.startswith("tiny-random through mini-voc-frozen, seeds 3 and 5: ")
    assert "4 images, 6 objects to find, 3 classes" in text
    assert text.endswith("\n\nAll 34 numbers are the record's, to the last digit.\n")

    state, _ = backbone.load(backbone_path)
    final = trained(path)
    assert len([k for k in state if not k.startswith("layer4.")]) == 90
    for key, value in state.items():
        if key.startswith("layer4."):
            if not key.endswith("num_batches_tracked"):
                assert not torch.equal(final["roi_head.shared_head." + key], value), key
        else:
            assert torch.equal(final["backbone." + key], value), key

    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "tiny-random through mini-voc-frozen, seed 5: 4 iterations of batch 2 over 10 images, 1 pro"
    )
    assert last.startswith("tiny-random through mini-voc-frozen: AP ")
    before = path.stat().st_mtime_ns
    assert start(seed=5) == path and path.stat().st_mtime_ns == before
    assert capsys.readouterr().out.count("\n") == 1
    with pytest.raises(UserError, match="is the result of another configuration"):
        start(seed=5, options={"optim_wrapper.optimizer.lr": 0.001})


def test_a_finished_transfer_needs_no_data(start, devkit, capsys):
    path = start()
    shutil.move(devkit, devkit.with_name("away"))
    capsys.readouterr()
    assert start() == path and "already" in capsys.readouterr().out
    with pytest.raises(UserError, match="is the result of another configuration"):
        start(options={"optim_wrapper.optimizer.lr": 0.001})


def test_a_full_transfer_trains_every_layer(start, backbone_path):
    path = start("mini-voc-full")
    state, _ = backbone.load(backbone_path)
    final = trained(path)
    for key, value in state.items():
        place = "roi_head.shared_head." if key.startswith("layer4.") else "backbone."
        assert not torch.equal(final[place + key], value), key


def test_a_frozen_coco_transfer_leaves_a_record_and_the_trunk_as_it_was(start_coco, coco_folder, fpn_path):
    path = start_coco("coco-1x-frozen")
    entry = record.read(path)
    assert set(entry["metrics"]) == {f"{kind}_{name}" for kind in ("box", "mask") for name in ("AP", "AP50", "AP75")}
    side = entry["transfer"]
    assert (side["data"]["classes"], side["data"]["train_images"], side["data"]["test_images"]) == (list(CLASSES), 8, 6)
    assert side["deviations"]["data.train_images"] == [117266, 8]
    assert side["deviations"]["data.classes"] == [80, 3]
    assert side["protocol"]["model.backbone.frozen_stages"] == 4
    assert side["parameters"] == {
        "loaded": ["backbone"],
        "dropped": ["fpn_lateral3", "fpn_lateral4", "fpn_lateral5", "fpn_output3", "fpn_output4"],
        "fresh": ["neck", "rpn_head", "roi_head"],
    }
    assert str(coco_folder) not in path.read_text()
    text, equal = score.score(path)
    assert equal and "6 images, 8 objects to find, 3 classes" in text
    count = len(runs.flatten({key: entry[key] for key in ("metrics", "detail")}))
    assert text.endswith(f"\n\nAll {count} numbers are the record's, to the last digit.\n")
    final = trained(path)
    state = backbone.trunk_state(backbone.load(fpn_path)[0])
    assert all(torch.equal(final[f"backbone.{key}"], value) for key, value in state.items())
    log = next(path.parents[3].rglob("*.log")).read_text()
    assert f"{len(state)} frozen tensors of the trunk are what was loaded, bit for bit" in log


def _interrupted_and_resumed(start, transfer_id, tmp_path, monkeypatch):
    """Records of a run in one go, and of one that was cut off in the first and in the third iteration."""
    whole = start(transfer_id, "whole")
    resolve = protocols.resolve
    interrupt = dict(type="InterruptHook", priority="LOWEST")

    def resolve_and_interrupt(*args, **keywords):
        cfg = resolve(*args, **keywords)
        cfg.custom_hooks = [*cfg.custom_hooks, interrupt]
        return cfg

    monkeypatch.setattr(protocols, "resolve", resolve_and_interrupt)
    # The first iteration of each start is saved, as if a minute had passed.
    monkeypatch.setattr(checkpoint.SafeCheckpointHook, "before_train", lambda hook, _: setattr(hook, "written", -1e9))
    for InterruptHook.at, saved in ((1, 1), (3, 2)):
        with pytest.raises(KeyboardInterrupt):
            start(transfer_id, "parts", resume=True)
        (last,) = (tmp_path / "parts").rglob(runs.LAST)
        assert torch.load(last, weights_only=True)["meta"]["iter"] == saved
    InterruptHook.at = None
    with pytest.raises(UserError, match="unfinished run: add --resume"):
        start(transfer_id, "parts")
    return whole, start(transfer_id, "parts", resume=True)


@pytest.mark.parametrize(
    ("starter", "transfer_id"),
    [("start", "mini-voc-full"), pytest.param("start_coco", "coco-1x-fpn-t", marks=pytest.mark.slow)],
)
def test_interrupted_and_resumed_equals_uninterrupted(starter, transfer_id, request, tmp_path, monkeypatch):
    start = request.getfixturevalue(starter)
    whole, parts = _interrupted_and_resumed(start, transfer_id, tmp_path, monkeypatch)
    for key in ("metrics", "detail", "detections"):
        assert record.read(parts)[key] == record.read(whole)[key]
    assert record.read(parts)["transfer"]["parameters"] == record.read(whole)["transfer"]["parameters"]
    one, other = trained(whole), trained(parts)
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


PLAIN = {
    "custom_hooks.1.num_iters": 1,
    "model.roi_head.bbox_head.num_classes": 3,
    "model.test_cfg.rpn.max_per_img": 10,
    "train_cfg.max_iters": 2,
    "train_dataloader.batch_size": 2,
}


def _plain_mmdetection(transfer_id, backbone_path, data, tmp_path, options):
    """What MMDetection's own training says when it reads the config, with data and backbone where they are."""
    loaders = ("train_dataloader.dataset", "val_dataloader.dataset", "test_dataloader.dataset")
    options = PLAIN | {f"{loader}.data_root": str(data) for loader in loaders} | options
    options |= {"work_dir": str(tmp_path / "plain"), "backbone": str(backbone_path)}
    program = f"""
from mmengine.config import Config
from mmengine.runner import Runner
from resim_bench.harness import checkpoint, runs
cfg = Config.fromfile({str(experiments.transfer_ids()[transfer_id])!r})
cfg.merge_from_dict({options!r})
Runner.from_cfg(cfg).train()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_plain_mmdetection_trains_and_validates_voc(devkit, backbone_path, tmp_path):
    said = _plain_mmdetection("mini-voc-frozen", backbone_path, devkit, tmp_path, {})
    assert "voc/AP50" in said and "90 frozen tensors of the trunk are what was loaded" in said


def test_plain_mmdetection_trains_and_validates_coco(coco_folder, fpn_path, tmp_path):
    tiny = {key: value for key, value in TINY_COCO.items() if "." in key and not key.startswith("test_dataloader")}
    options = tiny | {
        "model.roi_head.mask_head.num_classes": 3,
        "val_evaluator.data_root": str(coco_folder),
        "val_dataloader.dataset.pipeline.1.scale": (128, 64),
        "train_dataloader.dataset.pipeline.2.scales": [(128, 48), (128, 64)],
        "train_dataloader.persistent_workers": False,
    }
    said = _plain_mmdetection("coco-1x-release", fpn_path, coco_folder, tmp_path, options)
    assert "coco/mask_AP50" in said and "30 frozen tensors of the trunk are what was loaded" in said


def _wrong_id(start, devkit, tmp_path):
    start("voc-frosen")


def _wrong_option(start, devkit, tmp_path):
    start(options={"batch": 3})


def _option_that_fits_no_layer(start, devkit, tmp_path):
    start(options={"model.rpn_head.in_channels": 5})


def _option_that_the_test_stumbles_over(start, devkit, tmp_path):
    start(options={"test_dataloader.dataset.pipeline.3.meta_keys": ["nothing"]})


def _option_that_the_loss_stumbles_over(start, devkit, tmp_path):
    start(options={"model.roi_head.bbox_head.loss_cls.type": "L1Loss"})


def _no_data(start, devkit, tmp_path):
    start(data=tmp_path / "nothing")


def _unlisted_class(start, devkit, tmp_path):
    start(options={"classes": ["red", "blue"]})


def _no_backbone_file(start, devkit, tmp_path):
    start(backbone=tmp_path / "none.safetensors")


def _not_a_backbone_file(start, devkit, tmp_path):
    (tmp_path / "text").write_text("not a checkpoint")
    start(backbone=tmp_path / "text")


def _wrong_architecture(start, devkit, tmp_path):
    start(backbone=make_backbone(tmp_path / "other.safetensors", strides=(1, 1, 1, 1)))


def _no_pyramid(start, devkit, tmp_path):
    options = {key: TINY_COCO[key] for key in ("model.backbone.depth", "model.neck.in_channels")}
    path = make_backbone(tmp_path / "plain.safetensors", strides=(1, 2, 2, 2), width=64)
    train.run("coco-1x-fpn-t", path, data=tmp_path, work_dir=tmp_path / "work", cfg_options=options)


def _several_processes(start, devkit, tmp_path):
    start(launcher="pytorch")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_wrong_id, "no id matches 'voc-frosen': did you mean voc-frozen"),
        (_wrong_option, "no setting batch"),
        (_option_that_fits_no_layer, "model.rpn_head.in_channels=5 do not make anything that can be trained .RuntimeE"),
        (_option_that_the_test_stumbles_over, r"meta_keys=\['nothing'\] do not make anything that can be trained"),
        (_option_that_the_loss_stumbles_over, "type='L1Loss' do not make anything that can be trained"),
        (_no_data, "nothing does not exist"),
        (_unlisted_class, "object of class 'green', which is not among the classes red, blue"),
        (_no_backbone_file, "none.safetensors"),
        (_not_a_backbone_file, "text"),
        (
            _wrong_architecture,
            r"needs a ResNet of depth 18, strides \[1, 1, 1, 2\] and width 16, but the backbone has depth 18, ",
        ),
        (_no_pyramid, "the backbone file has no feature pyramid for the neck: give one of a pre-training with it"),
        (_several_processes, "needs GPUs"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(start, devkit, tmp_path, monkeypatch, wrong, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message) as caught:
        wrong(start, devkit, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "work").exists()


def test_an_unreadable_image_stops_the_run_with_one_sentence_even_in_a_worker(devkit, backbone_path, tmp_path, capsys):
    for image in (devkit / "VOC2007" / "JPEGImages").glob("trainval*"):
        image.write_bytes(image.read_bytes()[:900])  # the header is there
    command = [
        "transfer",
        "mini-voc-frozen",
        "--backbone",
        backbone_path,
        "--data",
        devkit,
        "--work-dir",
        tmp_path / "w",
    ]
    options = ["--cfg-options", "max_iters=2", "train_dataloader.num_workers=1"]
    assert cli.main([str(word) for word in (*command, *options)]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "resim-bench" in line]
    assert len(said) == 1 and said[0].startswith("resim-bench: ") and ".jpg is no readable image" in said[0]
    assert not (tmp_path / "w" / "records").exists()


def test_a_run_begins_with_its_data_and_its_record_keeps_them(start, devkit, capsys):
    xml = devkit / "VOC2007" / "Annotations" / "trainval_001.xml"
    xml.write_text(xml.read_text().replace("</annotation>", object_xml("red", (50, 1, 20, 20)) + "</annotation>"))
    path = start()
    train_line, test_line = capsys.readouterr().out.splitlines()[1:3]
    assert train_line.endswith(
        "VOCdevkit, train: 10 images, 18 objects of 3 classes; left out: "
        "1 boxes that are inverted (first: VOC2007/Annotations/trainval_001.xml: object 3 ('red'))"
    )
    assert test_line.endswith("VOCdevkit, test: 4 images, 7 objects of 3 classes")
    inverted = {"count": 1, "first": "VOC2007/Annotations/trainval_001.xml: object 3 ('red')"}
    assert record.read(path)["transfer"]["survey"] == {
        "train": {"images": 10, "objects": 18, "classes": 3, "left_out": {"boxes that are inverted": inverted}},
        "test": {"images": 4, "objects": 7, "classes": 3, "left_out": {}},
    }


def test_a_corrected_label_is_another_data_set_and_a_repaired_image_is_not(start, devkit, tmp_path):
    image = devkit / "VOC2007" / "JPEGImages" / "test_001.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:900])
    with pytest.raises(UserError, match="test_001.jpg is no readable image"):
        start()
    assert not (tmp_path / "work").exists(), "nothing was trained or claimed"
    image.write_bytes(whole)
    path = start()
    image.write_bytes(whole + b" ")
    assert start() == path
    xml = devkit / "VOC2007" / "Annotations" / "test_001.xml"
    xml.write_text(xml.read_text().replace("<difficult>0<", "<difficult>1<", 1))
    with pytest.raises(UserError, match=r"another configuration \(data.digest.annotations was "):
        start()


def test_a_training_image_is_repaired_and_the_run_goes_on(start, devkit, tmp_path, monkeypatch):
    broken = list((devkit / "VOC2007" / "JPEGImages").glob("trainval*"))
    contents = [image.read_bytes() for image in broken]
    decode = images.decode
    left = iter(range(5))

    def breaking(path, exif=False):
        if "trainval" in str(path) and next(left, None) is None:  # the test's are decoded before the training
            raise UserError(f"{path} is no readable image (cut short): restore it")
        return decode(path, exif)

    monkeypatch.setattr(checkpoint.SafeCheckpointHook, "before_train", lambda hook, _: setattr(hook, "written", -1e9))
    monkeypatch.setattr(images, "decode", breaking)
    with pytest.raises(UserError, match="is no readable image"):
        start(options={"train_dataloader.num_workers": 0})
    assert list((tmp_path / "work").rglob(runs.LAST))
    monkeypatch.setattr(images, "decode", decode)
    for image, content in zip(broken, contents, strict=True):
        image.write_bytes(content + b"repaired")
    assert start(options={"train_dataloader.num_workers": 0}, resume=True).is_file()


def test_workers_do_not_change_the_numbers(start):
    before = multiprocessing.active_children()
    alone = start("mini-voc-frozen", "alone")
    helped = start("mini-voc-frozen", "helped", {"train_dataloader.num_workers": 2, "test_dataloader.num_workers": 1})
    assert set(multiprocessing.active_children()) <= set(before), "workers end with their loop"
    one, other = trained(alone), trained(helped)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert record.read(alone)["transfer"]["protocol"] == record.read(helped)["transfer"]["protocol"]
    assert json.loads(alone.read_text())["transfer"]["seed"] == 0


def test_the_devkit_is_looked_for_where_the_config_says(start, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=voc.HOW_TO_GET):
        start(data=None)
