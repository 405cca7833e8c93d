"""A small VOC folder and a small COCO folder, backbone files, and the options that make a transfer take seconds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.encoders import resnet
from resim_bench import backbone
from transfer import datasets

CLASSES = ("blue", "green", "red")
COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}

TINY = {
    "max_iters": 4,
    "total_batch": 2,
    "precise_bn_iters": 2,
    "model.train_cfg.rpn.sampler.num": 16,
    "model.train_cfg.rcnn.sampler.num": 8,
    "model.test_cfg.rpn.max_per_img": 10,
    "scales": [(128, 48), (128, 64)],
    "test_scale": (128, 64),
}
"""Options on top of mini-voc-*."""

TINY_COCO = {
    "max_iters": 4,
    "total_batch": 2,
    "precise_bn_iters": 2,
    "model.backbone.depth": 18,
    "model.neck.in_channels": [64, 128, 256, 512],
    "model.roi_head.bbox_head.fc_out_channels": 32,
    "model.roi_head.mask_head.num_convs": 1,
    "model.train_cfg.rpn.sampler.num": 16,
    "model.train_cfg.rpn_proposal.max_per_img": 20,
    "model.train_cfg.rcnn.sampler.num": 8,
    "model.test_cfg.rpn.max_per_img": 10,
    "model.test_cfg.rcnn.score_thr": 0.0,
    "train_dataloader.num_workers": 0,
    "scales": [(128, 48), (128, 64)],
    "test_dataloader.num_workers": 0,
    "test_scale": (128, 64),
}
"""Options on top of coco-*."""


@pytest.fixture(autouse=True)
def _read_anew():
    """Tests change folders that a run reads once."""
    datasets._READ.clear()


def object_xml(name, box, difficult=0):
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


def write_image(year: Path, name: str, size, objects):
    """`objects`: (class, (xmin, ymin, xmax, ymax) 1-based inclusive, difficult)."""
    pixels = np.random.default_rng(len(name)).integers(90, 130, (size[1], size[0], 3)).astype(np.uint8)
    for label, (xmin, ymin, xmax, ymax), _ in objects:
        pixels[ymin - 1 : ymax, xmin - 1 : xmax] = COLOURS.get(label, (255, 255, 255))
    Image.fromarray(pixels).save(year / "JPEGImages" / f"{name}.jpg")
    (year / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
        + "".join(object_xml(*o) for o in objects)
        + "</annotation>"
    )


def make_devkit(devkit: Path, train=8, test=4) -> Path:
    """VOC2007 with both splits and VOC2012 with a trainval; every third image is tall, objects of three classes."""
    rng = np.random.default_rng(0)
    for year, splits in (("VOC2007", {"trainval": train, "test": test}), ("VOC2012", {"trainval": 2})):
        folder = devkit / year
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (folder / part).mkdir(parents=True)
        for split, count in splits.items():
            names = [f"{split}_{i:03d}" for i in range(count)]
            for i, name in enumerate(names):
                size = (64, 96) if i % 3 == 2 else (96, 64)
                objects = []
                for k in range(1 + i % 3):
                    side, x, y = rng.integers(16, 30), rng.integers(1, 34), rng.integers(1, 34)
                    box = (int(x), int(y), int(x + side), int(y + side))
                    objects.append((CLASSES[(i + k) % 3], box, int(k == 2)))
                write_image(folder, name, size, objects)
            (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return devkit


@pytest.fixture
def devkit(tmp_path):
    return make_devkit(tmp_path / "VOCdevkit")


CATEGORIES = {"red": 7, "blue": 2, "green": 5}
CROWD, EMPTY = 900, 901  # images with nothing but a crowd, and with nothing
COCO_RUNS = {"size": [64, 96], "counts": [100, 400, 64 * 96 - 500]}


def coco_object(image_id, name, box, number, **changes):
    """A rectangle (x0, y0, x1, y1) as an annotation."""
    x0, y0, x1, y1 = box
    entry = {
        "id": number,
        "image_id": image_id,
        "category_id": CATEGORIES[name],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
        "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
    }
    return entry | changes


def make_coco(root: Path, train=8, test=4) -> Path:
    """COCO 2017's layout: every third image tall, a crowd beside objects, an image of a crowd alone, an empty one."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    categories = [{"id": number, "name": name} for name, number in CATEGORIES.items()]
    for split, count in (("train2017", train), ("val2017", test)):
        (root / split).mkdir()
        images, annotations = [], []
        for image_id in (*range(10, 10 + count), CROWD, EMPTY):
            width, height = (64, 96) if image_id % 3 == 2 else (96, 64)
            pixels = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
            for k in range(1 + image_id % 3 if image_id < CROWD else 0):
                name = CLASSES[(image_id + k) % 3]
                side, x0, y0 = (int(n) for n in rng.integers((16, 1, 1), (30, 34, 34)))
                pixels[y0 : y0 + side, x0 : x0 + side] = COLOURS[name]
                annotations.append(coco_object(image_id, name, (x0, y0, x0 + side, y0 + side), 1 + len(annotations)))
            Image.fromarray(pixels).save(root / split / f"{image_id:012d}.jpg")
            images.append({"id": image_id, "file_name": f"{image_id:012d}.jpg", "width": width, "height": height})
        for image_id in (10, CROWD):
            crowd = dict(iscrowd=1, segmentation=COCO_RUNS, area=400)
            annotations.append(coco_object(image_id, "red", (1, 1, 9, 63), 1 + len(annotations), **crowd))
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def coco_folder(tmp_path):
    return make_coco(tmp_path / "coco")


def random_pyramid(channels=(64, 128, 256, 512), dim=256, seed=1):
    """The feature pyramid of a pre-training, by the backbone file's keys."""
    torch.manual_seed(seed)
    lateral = {f"fpn_lateral{level}": torch.nn.Conv2d(channels[level - 2], dim, 1) for level in (3, 4, 5)}
    output = {f"fpn_output{level}": torch.nn.Conv2d(dim, dim, 3) for level in (3, 4)}
    return {
        f"{name}.{key}": value for name, conv in (lateral | output).items() for key, value in conv.state_dict().items()
    }


def make_backbone(path: Path, depth=18, strides=(1, 1, 1, 2), width=16, seed=0, **changes) -> Path:
    """A random ResNet in a file of the suite, its norms with statistics unlike the initial ones."""
    torch.manual_seed(seed)
    state = resnet(depth, strides, width).state_dict()
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
    provenance = {
        "id": "tiny-random",
        "seed": 3,
        "arch": {"depth": depth, "strides": list(strides), "width": width},
        "epochs": 1,
        "protocol": {"method": "none"},
        "overrides": {},
        "deviations": {},
        "data": {"digest": "0"},
        "commit": "unknown",
        "versions": {},
        "config_digest": "0",
    }
    backbone.save(path, state | changes, provenance)
    return path


@pytest.fixture
def backbone_path(tmp_path):
    return make_backbone(tmp_path / "backbone.safetensors")


@pytest.fixture
def fpn_path(tmp_path):
    return make_backbone(tmp_path / "fpn.safetensors", strides=(1, 2, 2, 2), width=64, **random_pyramid())
