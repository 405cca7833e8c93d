"""What the Hugging Face hub has beside weights: timm's configuration, and the model card, which people read.

The card says what the provenance holds, and what it does not; it has no number from anywhere else. Values stand in
blocks, as JSON, so that no name of a file or a data set can be taken for Markdown.
"""

import json
from typing import NamedTuple

from torch import Tensor

from resim_bench import backbone
from resim_bench.errors import one_line
from resim_bench.harness import runs

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, RGB, of 1: what pre-training and transfers use
SIZE = 224  # of the images, where the provenance does not say


class Source(NamedTuple):
    """What a backbone file holds, and its sha256."""

    state: dict[str, Tensor]
    provenance: dict
    sha256: str


class Facts(NamedTuple):
    """How the card of a kind of backbone speaks.

    `sections` are headings with the top keys of the provenance that stand below them; `unknown` what no provenance of
    this kind holds, a sentence each.
    """

    intro: str
    sections: dict[str, tuple[str, ...]]
    unknown: tuple[str, ...]


_LICENCE = "The licence: none is stated here. Who publishes this adds `license` to the head of this file."
_WORTH = "How good it is: no result belongs to the backbone file, so none is given here."
OURS = Facts(
    "made by resim-bench, a reproduction suite for *Region Similarity Representation Learning* (ReSim, Xiao et al., "
    "2021)",
    {
        "What it is": ("id", "seed", "epochs", "arch", "data", "survey"),
        "Settings of the recipe as it ran": ("protocol",),
        "Overrides": ("overrides",),
        "Deviations from the recipe of this id, as `[shipped, ran]`": ("deviations",),
        "Where it was trained": ("commit", "versions", "device", "threads", "changes"),
    },
    (_LICENCE, _WORTH, "What the images show: `data.digest` goes by their names."),
)
THEIRS = Facts(
    "that others trained, imported by resim-bench from their checkpoint",
    {
        "What it is": ("id", "epochs", "arch", "data"),
        "Where it was imported, not trained": ("commit", "versions", "device", "threads"),
    },
    (
        _LICENCE + " That of its authors applies.",
        _WORTH,
        "How it was trained: data, settings and seed were not in the checkpoint; nobody verified what it is called.",
        "How large its images were and how normalised: `config.json` has what this suite would give it, of ImageNet.",
    ),
)


def architecture(provenance: dict) -> str | None:
    """The network's name, the same in torchvision and timm, such as `resnet50`; None where they have none for it."""
    arch = backbone.architecture(provenance)
    plain = list(arch["strides"]) == [1, 2, 2, 2] and arch["width"] == backbone.WIDTH
    return f"resnet{arch['depth']}" if plain else None


def config(source: Source) -> bytes:
    """`config.json`, from which timm builds the network and prepares its images."""
    size = source.provenance["protocol"].get("views", {}).get("size", SIZE)
    content = {
        "architecture": architecture(source.provenance),
        "num_classes": 0,
        "pretrained_cfg": {
            "mean": MEAN,
            "std": STD,
            "input_size": (3, size, size),
            "num_classes": 0,
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def readme(source: Source) -> bytes:
    """`README.md`, the model card."""
    provenance, name = source.provenance, architecture(source.provenance)
    facts = THEIRS if "imported" in provenance["protocol"] else OURS
    sections = {heading: _block(_below(provenance, keys)) for heading, keys in facts.sections.items()}
    sections["The backbone file"] = _block({"sha256": source.sha256})
    sections["How to load it"] = _LOADING.format(name=name)
    sections["What is not known"] = "\n".join(
        f"* {sentence}" for sentence in [*facts.unknown, *_gaps(provenance, facts)]
    )
    intro = f"The trunk of a {name}, without classifier, {facts.intro}."
    if "of_epochs" in provenance:
        intro += (
            f" It is the middle of a longer training: after {provenance['epochs']} of {provenance['of_epochs']} epochs."
        )
    if backbone.pyramid_state(source.state):
        intro += " The feature pyramid beside it is left out."
    parts = [_HEAD, f"# {one_line(str(provenance['id']))}", intro]
    parts += [f"## {heading}\n\n{text}" for heading, text in sections.items()]
    return ("\n\n".join(parts) + "\n").encode()


def _below(provenance: dict, keys: tuple[str, ...]) -> dict | None:
    """What stands below a heading: of several keys each with its value, of one the value."""
    return provenance.get(keys[0]) if len(keys) == 1 else {key: provenance.get(key) for key in keys}


def _gaps(provenance: dict, facts: Facts) -> list[str]:
    """What this very provenance leaves open."""
    wanted = [key for keys in facts.sections.values() for key in keys]
    missing = [f"`{key}`" for key in wanted if provenance.get(key) in (None, "unknown")]
    said = [f"What its provenance does not name: {', '.join(missing)}."] if missing else []
    if str(provenance.get("commit")).endswith("-dirty"):
        said.append("The very code: files differed from those of the commit.")
    return said


def _block(values: dict | None) -> str:
    """Nested values, a line each: the dotted key and the value as JSON."""
    if not values:
        return "Not recorded." if values is None else "None."
    lines = [f"{key}: {json.dumps(value)}" for key, value in runs.flatten(values).items()]
    return "\n".join(["```yaml", *lines, "```"])


_HEAD = """\
---
library_name: timm
tags:
- image-feature-extraction
- timm
- resim-bench
---"""

_LOADING = """\
With timm, from this folder or from the hub:

```python
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True)  # "hf-hub:USER/NAME" of the hub
```

With torchvision:

```python
import torch, torchvision
from safetensors.torch import load_file

model = torchvision.models.{name}()
model.fc = torch.nn.Identity()
model.load_state_dict(load_file("model.safetensors"))
```"""
