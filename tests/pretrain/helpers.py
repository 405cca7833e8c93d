"""What several tests of the room use."""

import numpy as np
import torch
from PIL import Image

from resim_bench import backbone as backbone_file
from resim_bench.harness import checkpoint

TAU = 0.2
SPEC = {
    "size": 224,
    "scale": (0.2, 1.0),
    "flip": "independent",
    "jitter": (0.4, 0.4, 0.4, 0.1),
    "jitter_p": 0.8,
    "grayscale_p": 0.2,
    "blur_sigma": (0.1, 2.0),
    "blur_p": 0.5,
    "photometric": ("jitter", "grayscale", "blur"),
}

LEVEL = {
    "map_stride": 8,
    "window": 16,
    "stride": 8,
    "dim": 8,
    "anchor": "query",
    "negatives": "windows",
    "reduction": "image",
}

PYRAMID = {"p4": LEVEL, "p3": LEVEL | {"map_stride": 4, "window": 12, "stride": 6}}
"""ReSim-FPN made tiny: P4 has 4 x 4 cells, P3 8 x 8."""


TINY_RUN = {"batch": 8, "epochs": 2, "views.size": 32, "model.queue": 16, "model.bn_group": 4, "log_interval": 1}
"""Options of a mini recipe that trains in a second: of 20 images, two iterations an epoch."""


def noise_images(root, classes=1, count=20):
    """Make an ImageFolder of noise images; returns its root."""
    rng = np.random.default_rng(0)
    for i in range(count):
        folder = root / "train" / f"class{i % classes}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    return root


def same_weights(file, other):
    """Whether two backbone files hold the same, bit for bit."""
    ours, theirs = backbone_file.load(file)[0], backbone_file.load(other)[0]
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def tiny_moco(levels=None, bn_group=4, seed=0, **options):
    """A MoCo of a ResNet-18 on views of 32 px."""
    from pretrain.methods.moco import MoCo

    torch.manual_seed(seed)
    settings = {"dim": 16, "queue": 32, "momentum": 0.9, "temperature": TAU} | options
    backbone = {"depth": 18, "strides": (1, 1, 2, 2)}
    return MoCo(backbone=backbone, levels=levels or {}, bn_group=bn_group, **settings)


def tiny_densecl(seed=0, **options):
    """A DenseCL of a ResNet-18 on views of 32 px, whose C5 has 2 x 2 cells."""
    from pretrain.methods.densecl import DenseCL

    torch.manual_seed(seed)
    settings = {"dim": 16, "queue": 32, "momentum": 0.9, "temperature": TAU, "levels": {}, "bn_group": 4} | options
    return DenseCL(backbone={"depth": 18, "strides": (1, 1, 2, 2)}, **settings)


def tiny_batch(levels=None, images=8, seed=1, bn_group=4, part=slice(None)):
    """Random views of 32 px whose crops overlap in most pairs, but not in all; or a part of such a batch."""
    from pretrain.geometry import batch_windows
    from pretrain.levels import levels_of

    rng = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, images, 2, generator=rng) * 60
    crops = torch.cat((corner, corner + 40 + 40 * torch.rand(2, images, 2, generator=rng)), dim=2)
    crops[1, -1] = crops[0, -1] + 200  # a pair without any valid window
    views = torch.randint(0, 256, (2, images, 32, 32, 3), dtype=torch.uint8, generator=rng)
    crops = crops[:, part]
    windows = {source: batch_windows(*crops, 32, level, bn_group) for source, level in levels_of(levels or {}).items()}
    return {"query": views[0, part], "key": views[1, part], "windows": windows}


def interrupt_at(monkeypatch, step):
    """Ctrl-C in the forward pass of one step of a MoCo; a checkpoint after every step."""
    from pretrain.methods.moco import MoCo

    monkeypatch.setattr(checkpoint.SafeCheckpointHook.__init__, "__defaults__", (0.0, 50))
    calls, forward = [], MoCo.forward

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(MoCo, "forward", interrupted)
