"""What is a backbone file worth, before any detector: the monitor's readings of its trunk, as a record.

Nothing is drawn by a seed: every backbone is read on the same images and the same views, on the CPU. The record's
second seed is that of the pre-training, as in a study's trials.
"""

import math
import os
import time
from pathlib import Path

from mmengine.config import Config

from pretrain import monitor, train
from pretrain.encoders import load_trunk
from resim_bench import backbone as backbone_file
from resim_bench import experiments, files, record
from resim_bench.errors import UserError
from resim_bench.harness import console, runs

USUAL = {"mini": "readings-mini"}  # by an id's data; else VOC's


def usual(pretrain_id: str) -> str:
    """The id of the readings that a backbone gets where none is named."""
    return USUAL.get(pretrain_id.split("-")[0], "readings-voc")


def protocol(readings_id: str) -> dict:
    """What decides the numbers, but for the images."""
    config = _load(readings_id)
    return runs.plain(
        {
            "images": config.monitor.images,
            "size": config.monitor.size,
            "views": train.protocol(config, config.dataset)["views"] | {"flip": "shared"},
            "window": monitor.WINDOW,
            "stride": monitor.STRIDE,
            "neighbours": monitor.NEIGHBOURS,
            "ridge": monitor.RIDGE,
        }
    )


def run(readings_id: str, backbone: Path, *, data: Path | None = None, work_dir: Path = Path("work_dirs")) -> Path:
    """Read a backbone; returns the path of the record, whose metrics are the readings in per cent.

    Args:
        readings_id: name of a config in `pretrain/readings`.
        backbone: a file of `resim_bench.backbone`.
        data: a folder in VOC's format; by default the config's.

    Raises:
        UserError: wrong input, or the record's place belongs to other images or to another backbone.
    """
    started = time.monotonic()
    config = _load(readings_id)
    trunk, provenance = load_trunk(backbone)
    root = Path(data or config.monitor.data)
    try:
        readings = monitor.Readings(str(root), config.monitor.images, config.monitor.size, config.views.to_dict())
    except UserError as error:
        raise UserError(f"--data: {error}") from None
    facts, seed, of_config = _facts(root, readings), provenance["seed"], protocol(readings_id)
    sha256 = backbone_file.digest(backbone)
    claim = {"transfer": readings_id, "protocol": of_config, "seed": seed, "backbone": sha256, "data": facts}
    names = provenance["id"], readings_id, seed, seed
    output, run_dir = record.places(work_dir, "readings", *names)  # the latter is never made
    if runs.is_finished(run_dir, claim, output, resume=False, made_by=lambda: record.claim_of(output)):
        console.say(f"{names[0]} has {readings_id} already: {output}")
        return output

    found = {name: 100 * value for name, value in readings.read(trunk).items()}
    nothing = [name for name, value in found.items() if math.isnan(value)]
    if nothing:
        raise UserError(f"--data: {root} has too few images for {nothing[0]}: annotate more, or name another")
    expected, listed = config.expected_data.trainval_images, facts["trainval_images"]
    side = {
        "id": readings_id,
        "seed": seed,
        "protocol": of_config,
        "overrides": {},
        "deviations": {} if listed == expected else {"data.trainval_images": [expected, listed]},
        "data": facts,
    }
    seconds = time.monotonic() - started
    entry = record.of_trial(provenance, sha256, side, found, seconds, runs.environment())
    record.write(Path(work_dir) / "records", entry)
    said = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    console.say(f"{names[0]} has {readings_id}: {said} in {seconds:.0f} s ({output})")
    return output


def _load(readings_id: str) -> Config:
    return Config.fromfile(experiments.readings_ids()[readings_id])


def _facts(root: Path, readings: monitor.Readings) -> dict:
    """Which images were read: the counts, and a digest of their names and annotations."""
    listed = monitor.annotated_files(root)
    images, xmls = zip(*listed[: len(readings.images)], strict=True)
    return {
        "trainval_images": len(listed),
        "images": len(images),
        "objects": sum(len(labels) for labels in readings.labels),
        "digest": runs.content_digest(
            images=(os.fsencode(image.name) for image in images), annotations=(files.read(xml) for xml in xmls)
        ),
    }
