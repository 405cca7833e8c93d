"""The networks: torchvision's ResNet as trunk, MoCo-v2's instance head, and a region head a level."""

import torch
import torchvision
from torch import Tensor, nn


def resnet(depth: int = 50, strides=(1, 2, 2, 2)) -> nn.Module:
    """A torchvision ResNet without classifier whose four stages have these strides.

    Smaller strides than (1, 2, 2, 2) keep the maps large on small images; parameters and keys stay the same.
    """
    trunk = getattr(torchvision.models, f"resnet{depth}")()
    trunk.fc = nn.Identity()
    for stage, stride in enumerate(strides, start=1):
        for module in getattr(trunk, f"layer{stage}")[0].modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (stride, stride)
    return trunk.to(memory_format=torch.channels_last)  # the same numbers, computed faster


def trunk_maps(trunk: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Feature maps `(N, C, H, W)` of the trunk: `c4` after stage 3 and `c5` after stage 4."""
    x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
    c4 = trunk.layer3(trunk.layer2(trunk.layer1(x)))
    return {"c4": c4, "c5": trunk.layer4(c4)}


class Encoder(nn.Module):
    """Trunk, instance head and region heads.

    The instance head is MoCo-v2's: global average of C5, Linear, ReLU, Linear. A region head is one 3 x 3
    convolution from the level's map to the region embedding; the paper does not publish it [ours].

    Args:
        backbone: arguments of `resnet`.
        dim: of the instance embedding.
        levels: the recipe's levels by the name of their map; each has a `dim`.
    """

    def __init__(self, backbone: dict, dim: int, levels: dict):
        super().__init__()
        self.trunk = resnet(**backbone)
        width = self.trunk.layer4[-1].bn2.num_features * getattr(self.trunk.layer4[-1], "expansion", 1)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, dim))
        channels = {"c4": width // 2}
        self.region_heads = nn.ModuleDict(
            {
                source: nn.Conv2d(channels[source], level["dim"], kernel_size=3, padding=1)
                for source, level in levels.items()
            }
        )

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """`(N, 3, S, S)` to the instance embedding `(N, D)` and the region map `(N, D, H, W)` of each level."""
        maps = trunk_maps(self.trunk, images)
        embedding = self.head(maps["c5"].mean(dim=(2, 3)))
        return embedding, {source: head(maps[source]) for source, head in self.region_heads.items()}
