"""How long others said that the same took on their GPUs: what a plan shows where there is none."""

from typing import NamedTuple


class Anchor(NamedTuple):
    """A published time.

    Attributes:
        ids: recipes and protocols with the same step, whatever the number of iterations.
        step: seconds.
        gpus, device: on how many of which.
        source: who says so, and of what.
    """

    ids: tuple[str, ...]
    step: float
    gpus: int
    device: str
    source: str


ANCHORS = (
    Anchor(
        ("in1k-moco-v2-200ep", "in100-moco-v2"),
        53 * 3600 / (200 * 5004),
        8,
        "V100",
        "MoCo's README: 53 h for 200 epochs of ImageNet",
    ),
    Anchor(("voc-full",), 0.537, 8, "V100", "Detectron2's model zoo: 0.537 s a step, frozen batch norm"),
    Anchor(("coco-1x", "coco-2x"), 0.345, 8, "V100", "Detectron2's model zoo: 0.345 s a step, SyncBN"),
)


def of(run_id: str) -> Anchor | None:
    """What was published about a recipe or protocol, if anything was."""
    return next((anchor for anchor in ANCHORS if run_id in anchor.ids), None)
