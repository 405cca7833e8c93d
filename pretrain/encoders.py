"""The networks: torchvision's ResNet as trunk, MoCo-v2's instance head, a feature pyramid or a region head."""

import math
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import torchvision
from pydantic import AfterValidator, Strict
from torch import Tensor, nn

from resim_bench import backbone
from resim_bench.backbone import WIDTH
from resim_bench.settings import Schema, Whole, one_of, says

PYRAMID = ("p4", "p3")
DEPTHS = (18, 34, 50, 101, 152)


def _starts_at_1(strides):
    if strides[0] != 1:  # the first stage has no convolution to give it to
        raise ValueError
    return strides


class BackboneSettings(Schema):
    """What `resnet` takes."""

    depth: one_of(*DEPTHS) = 50
    strides: Annotated[
        tuple[Whole, Whole, Whole, Whole],
        Strict(False),
        AfterValidator(_starts_at_1),
        says("four whole numbers, the first of them 1, such as (1,2,2,2)"),
    ] = (1, 2, 2, 2)
    width: Whole = WIDTH

    def stride(self, stage: int) -> int:
        """Pixels of an image a cell of the map after a stage, 1 to 4."""
        return 4 * math.prod(self.strides[:stage])


def resnet(depth: int = 50, strides=(1, 2, 2, 2), width: int = WIDTH) -> nn.Module:
    """A torchvision ResNet without classifier whose four stages have these strides.

    Smaller strides than (1, 2, 2, 2) keep the maps large on small images; parameters and keys stay the same.

    Args:
        width: channels of the stem and of the first stage's 3 x 3 convolutions; every other width follows.
    """
    trunk = getattr(torchvision.models, f"resnet{depth}")()
    trunk.fc = nn.Identity()
    if width != WIDTH:
        _narrow(trunk, width / WIDTH)
    for stage, stride in enumerate(strides, start=1):
        for module in getattr(trunk, f"layer{stage}")[0].modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (stride, stride)
    return trunk.to(memory_format=torch.channels_last)  # the same numbers, computed faster


def _narrow(trunk: nn.Module, factor: float) -> None:
    """Replace every convolution and norm by one with `factor` of its channels, drawn as torchvision draws them."""
    for name, module in list(trunk.named_modules()):
        if isinstance(module, nn.Conv2d):
            channels = [c if c == 3 else int(c * factor) for c in (module.in_channels, module.out_channels)]
            shape = (module.kernel_size, module.stride, module.padding)
            narrow = nn.Conv2d(*channels, *shape, bias=False)
            nn.init.kaiming_normal_(narrow.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            narrow = nn.BatchNorm2d(int(module.num_features * factor))
        else:
            continue
        trunk.set_submodule(name, narrow)


def load_trunk(file: Path) -> tuple[nn.Module, dict]:
    """The trunk in a backbone file, and its provenance.

    Raises:
        UserError: it is no backbone file, or is damaged.
    """
    state, provenance = backbone.load(file)
    trunk = resnet(**backbone.architecture(provenance))
    trunk.load_state_dict(backbone.trunk_state(state))
    return trunk, provenance


def trunk_maps(trunk: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Feature maps `(N, C, H, W)` of the trunk: `c3`, `c4` and `c5` after stages 2, 3 and 4."""
    x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
    c3 = trunk.layer2(trunk.layer1(x))
    c4 = trunk.layer3(c3)
    return {"c3": c3, "c4": c4, "c5": trunk.layer4(c4)}


class FPN(nn.Module):
    """The pre-training's feature pyramid: 1 x 1 laterals from C5, C4 and C3, 3 x 3 outputs on P4 and P3 alone.

    Convolutions with bias and no norm, kaiming-uniform weights (a = 1), zero biases; the path from above is doubled by
    nearest neighbours. Lin et al. 2017; the pyramid's form is the ReSim release's.

    Args:
        channels: of C5.
        dim: of every map of the pyramid.
    """

    def __init__(self, channels: int, dim: int):
        super().__init__()
        for level, divisor in ((5, 1), (4, 2), (3, 4)):
            self.add_module(f"lateral{level}", nn.Conv2d(channels // divisor, dim, kernel_size=1))
        for level in (4, 3):
            self.add_module(f"output{level}", nn.Conv2d(dim, dim, kernel_size=3, padding=1))
        for convolution in self.children():
            nn.init.kaiming_uniform_(convolution.weight, a=1)
            nn.init.zeros_(convolution.bias)

    def forward(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """`c3`, `c4` and `c5` of a trunk to `p4` and `p3`, of the size of `c4` and `c3`."""
        top4 = self.lateral4(maps["c4"]) + _doubled(self.lateral5(maps["c5"]), maps["c4"])
        top3 = self.lateral3(maps["c3"]) + _doubled(top4, maps["c3"])
        return {"p4": self.output4(top4), "p3": self.output3(top3)}


def _doubled(above: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(above, size=like.shape[-2:], mode="nearest")


HEADS = {  # of regions on C4, from the map's channels to the embedding's
    "conv3x3": lambda channels, dim: nn.Conv2d(channels, dim, kernel_size=3, padding=1),
    "conv1x1": lambda channels, dim: nn.Conv2d(channels, dim, kernel_size=1),
    "mlp": lambda channels, dim: nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=1), nn.ReLU(inplace=True), nn.Conv2d(channels, dim, kernel_size=1)
    ),
}


class Encoder(nn.Module):
    """Trunk, instance head, and what the regions are compared in.

    The instance head is MoCo-v2's: global average of C5, Linear, ReLU, Linear. Levels on `p4` or `p3` read the feature
    pyramid as it is (ReSim-FPN); one on `c4` has a region head, by default one 3 x 3 convolution from the map to the
    region embedding, which is not in our sources [ours].

    Args:
        trunk: as `resnet` returns it.
        dim: of the instance embedding.
        levels: `pretrain.levels.Level` by the name of its map.
    """

    def __init__(self, trunk: nn.Module, dim: int, levels: dict):
        super().__init__()
        self.trunk = trunk
        width = self.trunk.layer4[-1].bn2.num_features * getattr(self.trunk.layer4[-1], "expansion", 1)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, dim))
        self.sources = tuple(levels)
        of_pyramid = [level.dim for source, level in levels.items() if source in PYRAMID]
        self.fpn = FPN(width, of_pyramid[0]) if of_pyramid else None
        self.region_heads = nn.ModuleDict(
            {source: HEADS[level.head](width // 2, level.dim) for source, level in levels.items() if source == "c4"}
        )

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """`(N, 3, S, S)` to the instance embedding `(N, D)` and the region map `(N, D, H, W)` of each level."""
        maps = trunk_maps(self.trunk, images)
        embedding = self.head(maps["c5"].mean(dim=(2, 3)))
        if self.fpn is not None:
            maps |= self.fpn(maps)
        for source, head in self.region_heads.items():
            maps[source] = head(maps[source])
        return embedding, {source: maps[source] for source in self.sources}
