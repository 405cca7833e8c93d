"""A small VOC folder, backbone files, and the options that make a transfer take seconds."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from resim_bench import backbone

CLASSES = ("blue", "green", "red")
COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}

TINY = {
    "max_iters": 4,
    "total_batch": 2,
    "precise_bn_iters": 2,
    "model.train_cfg.rpn.sampler.num": 16,
    "model.train_cfg.rcnn.sampler.num": 8,
    "model.test_cfg.rpn.max_per_img": 10,
    "train_dataloader.dataset.pipeline.2.scales": [(128, 48), (128, 64)],
    "test_dataloader.dataset.pipeline.1.scale": (128, 64),
}
"""Options on top of mini-voc-*."""


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


def make_backbone(path: Path, depth=18, strides=(1, 1, 2, 2), seed=0, **changes) -> Path:
    """A random ResNet in a file of the suite, its norms with statistics unlike the initial ones."""
    torch.manual_seed(seed)
    state = backbone.trunk_state(getattr(torchvision.models, f"resnet{depth}")().state_dict())
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
    provenance = {
        "id": "tiny-random",
        "seed": 3,
        "arch": {"depth": depth, "strides": list(strides)},
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
