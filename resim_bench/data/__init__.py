"""The data sets the suite knows: published ones and where to get them, the IN-100 list, generated scenes."""

from pathlib import Path


def imagenet100() -> list[str]:
    """The wnids of IN-100's 100 classes: the list of CMC (Tian et al., 2020)."""
    return Path(__file__).with_name("imagenet100.txt").read_text().split()
