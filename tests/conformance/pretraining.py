"""Pre-training: steps of MoCo-v2, and boxes and losses of ReSim's release, beside what the originals computed."""

import torch

from pretrain.geometry import batch_windows
from pretrain.levels import Level
from pretrain.methods.moco import MoCo
from pretrain.pooling import prroi_pool
from pretrain.regions import dense_negatives, region_loss
from pretrain.train import load_recipe
from tests.conformance.certificate import apart, golden, quantity, relative

CHANGES: dict = {}  # of MoCo's settings, or of a level of the release: the tests put in what has to turn a line red
NARROW = {"dim": 16, "queue": 32, "momentum": 0.99, "temperature": 0.2, "bn_group": 8}
BATCH, LR, MOMENTUM, DECAY = 8, 0.03, 0.9, 1e-4


def _state(prefix: str) -> dict[str, torch.Tensor]:
    """The original's query or key encoder by our names; MoCo's head is the last layer of its ResNet."""
    names = {"fc.0.": "head.0.", "fc.2.": "head.2."}
    state = {}
    for key, value in golden("moco_narrow").items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            place = next((names[start] + name.removeprefix(start) for start in names if name.startswith(start)), None)
            state[place or f"trunk.{name}"] = value.double() if value.is_floating_point() else value
    return state


def _newest_first(queue: torch.Tensor, oldest: int) -> torch.Tensor:
    """The original's queue, (D, K), whose block `oldest` is replaced next, in our order, that of the blocks' age."""
    blocks = list(queue.T.double().split(BATCH))
    return torch.cat((blocks[oldest:] + blocks[:oldest])[::-1])


@quantity("MoCo-v2: losses of three steps", "MoCo", "ResNet-18, batch 8, queue 32, float64", 1e-9)
def moco_losses():
    losses, _ = _moco_steps()
    return relative(losses, golden("moco_narrow")["losses"])


@quantity("MoCo-v2: weights, statistics, queue", "MoCo", "both encoders; kept in float32", 1e-7)
def moco_state():
    _, model = _moco_steps()
    found = [relative(model.queue, _newest_first(golden("moco_narrow")["end.queue"], oldest=3))]
    for encoder, prefix in ((model.encoder_q, "end.encoder_q."), (model.encoder_k, "end.encoder_k.")):
        ours = encoder.state_dict()
        found += [relative(ours[key], value) for key, value in _state(prefix).items() if "num_batches" not in key]
    return max(found)


def _moco_steps():
    given = golden("moco_narrow")
    model = MoCo(
        {"depth": 18, "strides": (1, 2, 2, 2), "width": 8},
        levels={},
        **NARROW | {key: CHANGES[key] for key in NARROW.keys() & CHANGES.keys()},
    ).double()
    model.encoder_q.load_state_dict(_state("start.encoder_q."), strict=False)
    model.encoder_k.load_state_dict(_state("start.encoder_k."), strict=False)
    model.queue = _newest_first(given["start.queue"], oldest=0)
    optimiser = torch.optim.SGD(model.parameters(), LR, MOMENTUM, weight_decay=DECAY)
    losses = []
    for query, key in given["images"]:
        loss = model(query, key, {})["loss_instance"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses), model


def _release(source: str) -> dict:
    return load_recipe("in1k-resim-fpn-200ep-release").model.levels.to_dict()[source] | CHANGES.get(source, {})


def _release_windows(source: str):
    given = golden("resim_release_boxes")
    return given, batch_windows(given["crops_query"], given["crops_key"], 224, Level(**_release(source)), 1)


@quantity("release: which windows count", "ReSim", "300 pairs, 36 windows of P4, 64 of P3", 0, unit="windows")
def release_valid():
    wrong = 0
    for source in ("p4", "p3"):
        given, windows = _release_windows(source)
        wrong += apart(windows.valid, given[f"{source}_valid"])
    return wrong


@quantity("release: boxes of the key view", "ReSim", "those of 300 pairs that count", 1e-6)
def release_boxes():
    found = []
    for source in ("p4", "p3"):
        given, windows = _release_windows(source)
        both = windows.valid & given[f"{source}_valid"]
        found.append(relative(windows.key_boxes[both], given[f"{source}_key_boxes"][both]))
    return max(found)


def _release_loss(source: str):
    given, level = golden("resim_release_losses"), _release(source)
    query = given[f"query_{source}"].double().requires_grad_()
    key = given[f"key_{source}"].double()
    valid = given[f"{source}_label"] >= 0
    pooled = [
        prroi_pool(features, given[f"{source}_{side}_boxes"], level["map_stride"])
        for side, features in (("query", query), ("key", key))
    ]
    temperature = CHANGES.get("temperature", NARROW["temperature"])
    loss = region_loss(*pooled, valid, temperature, dense_negatives(key), level["reduction"])[0]
    loss.backward()
    return loss.detach(), query.grad


@quantity("release: region losses", "ReSim", "2 images, P4 and P3, float64", 1e-9)
def release_losses():
    losses = torch.stack([_release_loss(source)[0] for source in ("p4", "p3")])
    return relative(losses, golden("resim_release_losses")["losses"])


@quantity("release: gradients by the query maps", "ReSim", "the same", 1e-9)
def release_gradients():
    given, found = golden("resim_release_losses"), []
    for level, source in enumerate(("p4", "p3")):
        _, gradient = _release_loss(source)
        found.append(relative(gradient[0, :4], given[f"grad_{source}_image0_channels0_3"]))
        found.append(relative(gradient.norm(), given["grad_norms"][level]))
    return max(found)
