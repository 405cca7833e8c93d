"""How good are a backbone's features by themselves: a linear classifier on the frozen trunk, and its accuracy.

The protocol is MoCo's (main_lincls.py; docs/sources.md): the trunk in evaluation mode, C5 averaged, one linear layer
from N(0, 0.01); the last epoch counts.
"""

import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from pydantic import Field, Strict
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pretrain.data import LabelledView, list_images, read_image
from pretrain.encoders import load_trunk, trunk_maps
from pretrain.imagefolder import Images
from pretrain.recipes import SGD, Adam, DatasetSettings
from pretrain.train import FUSED
from pretrain.views import ViewSettings, normalise
from resim_bench import backbone as backbone_file
from resim_bench import experiments, record, settings
from resim_bench.errors import UserError
from resim_bench.harness import console, options, runs
from resim_bench.harness.runner import build_runner, claimed, loader_workers
from resim_bench.settings import Natural, Pixels, Schema, Share, Whole, WholeOrNone, says

UNPROTOCOLLED = ("workers", "log_interval", "published", "test_images")
HELD_OUT_BY = 0  # the seed of the list: it does not change with that of the run


class Probe(Schema):
    """A config of `probes/`."""

    dataset: DatasetSettings
    views: ViewSettings
    optimizer: Annotated[SGD | Adam, Field(discriminator="type")]
    batch: Whole
    epochs: Whole
    milestones: Annotated[tuple[Whole, ...], Strict(False), says("epochs, such as (60,80)")]
    test_resize: Pixels
    held_out: Share
    test_images: WholeOrNone
    max_iters: WholeOrNone
    workers: Natural
    log_interval: Whole
    published: dict[str, Any]


USUAL = {"in100": "probe-in100", "mini": "probe-mini", "photos": "probe-caltech101"}  # by an id's data; else IN-1k's


def usual(pretrain_id: str) -> str:
    """The id of the probe that a backbone gets where none is named."""
    return USUAL.get(pretrain_id.split("-")[0], "probe-in1k")


def load(probe_id: str, cfg_options: dict | None = None) -> Config:
    """The config of an id, with options of the command line.

    Raises:
        UserError: no such id or setting, or a setting cannot be what it is.
    """
    config = options.merge_options(Config.fromfile(experiments.probe_ids()[probe_id]), cfg_options or {})
    settings.check(Probe, config.to_dict())
    if config.test_resize < config.views.size:
        raise UserError(
            f"test_resize of {config.test_resize} is below views.size of {config.views.size}: set it larger"
        )
    return config


def split(labels: list[int], share: float) -> np.ndarray:
    """`(n,)` bool: which images do not train, the same share of each class (a whole number of images, rounded)."""
    labels_of = np.asarray(labels)
    out = np.zeros(len(labels_of), bool)
    for label, count in sorted(Counter(labels).items()):
        order = np.random.default_rng((HELD_OUT_BY, label)).permutation(count)
        out[np.flatnonzero(labels_of == label)[order[: round(share * count)]]] = True
    return out


@DATASETS.register_module()
class TrainingPart(LabelledView):
    """The views of `LabelledView`, of the images that are not held out."""

    def __init__(self, root, name, views, seed, held_out):
        super().__init__(root, name, views, seed)
        self.rows = np.flatnonzero(~split(self.images.labels, held_out)).tolist()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, item):
        draw, index = item
        return super().__getitem__((draw, self.rows[index]))


class TestPart(Dataset):
    """The middle of each test image: `(S, S, 3)` uint8, its short side resized before, and its class number."""

    def __init__(self, images: Images, rows, resize: int, size: int):
        self.images, self.rows, self.resize, self.size = images, list(rows), resize, size

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        image = read_image(self.images.path(self.rows[index])).permute(2, 0, 1)[None]
        height, width = image.shape[-2:]
        scale = self.resize / min(height, width)
        shape = [max(self.resize, int(side * scale)) for side in (height, width)]
        image = F.interpolate(image, size=shape, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        top, left = (round((side - self.size) / 2) for side in shape)
        return image[top : top + self.size, left : left + self.size].contiguous(), self.images.labels[self.rows[index]]


@MODELS.register_module()
class LinearClassifier(BaseModel):
    """One linear layer on a trunk that stays as it was loaded, running statistics included.

    Args:
        backbone: the file.
        num_classes: of the data set.
    """

    def __init__(self, backbone, num_classes):
        super().__init__()
        self.trunk, _ = load_trunk(backbone)
        self.trunk.requires_grad_(False)
        last = self.trunk.layer4[-1]
        self.classifier = nn.Linear(last.bn2.num_features * last.expansion, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def train(self, mode=True):
        """Set the mode, the trunk staying in evaluation."""
        super().train(mode)
        self.trunk.eval()
        return self

    def scores(self, image: Tensor) -> Tensor:
        """`(N, S, S, 3)` uint8 to `(N, classes)`."""
        with torch.no_grad():
            features = trunk_maps(self.trunk, normalise(image).to(self.classifier.weight.dtype))["c5"].mean(dim=(2, 3))
        return self.classifier(features)

    def forward(self, image, label, mode="loss") -> dict[str, Tensor]:
        """Loss and accuracy of a batch."""
        scores = self.scores(image)
        return {"loss": F.cross_entropy(scores, label), "top1": (scores.argmax(dim=1) == label).float().mean()}


def _data(config: Config, root: Path) -> tuple[Images, Images, np.ndarray]:
    """What trains, what tests, and the rows of that which do.

    Raises:
        UserError: a folder is missing, its images cannot be used, or the two have other classes.
    """
    name = config.dataset.name
    train = list_images(str(root), name)
    if config.held_out:
        return train, train, np.flatnonzero(split(train.labels, config.held_out))
    if not (root / "val").is_dir():
        raise UserError(f"there is no folder {root / 'val'} to test on: add it, or set held_out=0.1")
    test = list_images(str(root / "val"), name)
    if test.classes != train.classes:
        raise UserError(f"{root} has other classes in val than in train: a test needs the same")
    return train, test, np.arange(len(test.names))


def run(
    probe_id: str,
    backbone: Path,
    *,
    data: Path | None = None,
    seed: int = 0,
    work_dir: Path = Path("work_dirs"),
    cfg_options: dict | None = None,
    resume: bool = False,
) -> Path:
    """Probe a backbone; returns the path of the record, whose metrics are `top1` and `top5` in per cent.

    Args:
        probe_id: name of a config in `pretrain/probes`.
        backbone: a file of `resim_bench.backbone`.
        data: the folder with `train` and, where nothing is held out, `val`; by default the config's.

    Raises:
        UserError: wrong input, or an unfinished run without `resume`.
    """
    started = time.monotonic()
    config, shipped = load(probe_id, cfg_options), load(probe_id)
    _, provenance = backbone_file.load(backbone)
    root = Path(data or config.dataset.root)
    train, test, rows = _data(config, root)
    images = len(train.names) - (len(rows) if config.held_out else 0)
    if images < config.batch:
        raise UserError(f"the batch of {config.batch} is larger than the {images} images that train: set batch smaller")
    if not len(rows):
        raise UserError(f"held_out={config.held_out} leaves no image of a class to test on: set it larger")
    facts = train.facts() | {"train_images": images, "test_images": len(rows), "test_digest": test.facts()["digest"]}
    protocol = _protocol(config, facts)
    sha256 = backbone_file.digest(backbone)
    claim = {"transfer": probe_id, "protocol": protocol, "seed": seed, "backbone": sha256, "data": facts}
    names = provenance["id"], probe_id, provenance["seed"], seed
    output, run_dir = record.places(work_dir, "probe", *names)
    place = {"run_dir": run_dir, "config": claim, "output": output, "resume": resume}
    done = f"{names[0]} is through {probe_id} already: {output}"
    if runs.is_finished(**place, made_by=lambda: record.claim_of(output)):
        console.say(done)
        return output

    console.say(train.survey.line())
    console.say(
        f"{names[0]} through {probe_id}, seed {seed}: {config.epochs} epochs of batch {config.batch} over "
        f"{images:,} images, {len(rows):,} to test, {console.processes()}"
    )
    with options.built_from(cfg_options or {}):
        runner = build_runner(_runner_config(config, backbone, root, seed, images, len(train.classes)), seed)
    with claimed(**place, made_by=lambda: record.claim_of(output)) as finished:
        if finished:
            console.say(done)
            return output
        model = runner.move_in(run_dir, record.digest(runs.read_claim(run_dir))).train()
        metrics = accuracies(model, TestPart(test, rows, config.test_resize, config.views.size), config)
        other_test = shipped.test_images not in (None, len(rows))
        side = {
            "id": probe_id,
            "seed": seed,
            "protocol": protocol,
            "overrides": runs.plain(cfg_options or {}),
            "deviations": runs.differences(_protocol(shipped, shipped.dataset), protocol)
            | ({"data.test_images": [shipped.test_images, len(rows)]} if other_test else {}),
            "data": facts,
            "survey": train.survey.facts(),
            "changes": runner.changes,
        }
        seconds = time.monotonic() - started
        entry = record.of_trial(provenance, sha256, side, metrics, seconds, runs.environment())
        record.write(Path(work_dir) / "records", entry)
    said = ", ".join(f"{name} {value:.1f}" for name, value in metrics.items())
    found = config.published.get(names[0])
    beside = f"; published: top1 {found['top1']} ({found['source']})" if found else ""
    console.say(f"{names[0]} through {probe_id}: {said}{beside} ({output})")
    return output


def _protocol(config: Config, facts: dict) -> dict:
    """What decides the numbers."""
    chosen = {key: value for key, value in config.to_dict().items() if key not in UNPROTOCOLLED}
    seen = {"name": config.dataset.name, "images": facts["images"], "classes": facts["classes"]}
    return runs.plain(chosen | {"dataset": seen})


def _runner_config(config: Config, backbone: Path, root: Path, seed: int, images: int, classes: int) -> Config:
    epoch_iters = images // config.batch
    workers = loader_workers(config.workers)
    dataset = dict(type="TrainingPart", root=str(root), name=config.dataset.name, views=config.views.to_dict())
    return Config(
        dict(
            model=dict(type="LinearClassifier", backbone=str(backbone), num_classes=classes),
            train_dataloader=dict(
                dataset=dataset | dict(seed=seed, held_out=config.held_out),
                batch_size=config.batch,
                sampler=dict(type="DrawSampler", batch_size=config.batch, drop_last=True),
                collate_fn=dict(type="default_collate"),
                num_workers=workers,
                persistent_workers=workers > 0,
                drop_last=True,
            ),
            train_cfg=dict(by_epoch=False, max_iters=config.max_iters or config.epochs * epoch_iters),
            optim_wrapper=dict(type="OptimWrapper", optimizer=config.optimizer.to_dict() | FUSED),
            param_scheduler=dict(
                type="EpochLR",
                epoch_iters=epoch_iters,
                epochs=config.epochs,
                milestones=config.milestones,
                by_epoch=False,
            ),
            default_hooks=dict(logger=dict(type="LoggerHook", interval=config.log_interval)),
            custom_hooks=[dict(type="Float32Hook")],
        )
    )


@torch.no_grad()
def accuracies(model: LinearClassifier, test: Dataset, config: Config) -> dict[str, float]:
    """`top1` and `top5` in per cent; of fewer than six classes the second is that of all."""
    model.eval()
    device = model.classifier.weight.device
    right = torch.zeros(2)
    for image, label in DataLoader(test, config.batch, num_workers=loader_workers(config.workers)):
        best = model.scores(image.to(device)).cpu().topk(min(5, model.classifier.out_features), dim=1).indices
        hits = best == label[:, None]
        right += torch.stack([hits[:, 0].sum(), hits.sum()])
    return {name: 100 * float(count) / len(test) for name, count in zip(("top1", "top5"), right, strict=True)}
