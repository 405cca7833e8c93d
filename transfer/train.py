"""From a backbone file to a record: fine-tune the protocol's detector, test the last iterate, write what came out."""

import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_world_size, is_main_process

from resim_bench import backbone as backbone_file
from resim_bench import record
from resim_bench.errors import UserError
from resim_bench.harness import console, launch, options, runs
from resim_bench.harness.runner import QuietRunner, build_runner, claimed
from transfer import detections, hooks, protocols, weights
from transfer.datasets import seeded


def run(
    transfer_id: str,
    backbone: Path,
    *,
    data: Path | None = None,
    seed: int = 0,
    work_dir: Path = Path("work_dirs"),
    cfg_options: dict | None = None,
    resume: bool = False,
    launcher: str = "none",
    log: tuple[str, ...] = (),
) -> Path:
    """Carry a backbone through a protocol; returns the path of the record.

    A run that is done already (same protocol, seed, backbone and data) only returns its record.

    Args:
        transfer_id: name of a config in `transfer/configs`.
        backbone: file of `resim_bench.backbone`; its provenance says which recipe and seed it is.
        data: the data set's folder (VOCdevkit or COCO), or one that holds it; by default what the config says.
        seed: of everything random in this transfer.
        work_dir: records go to `work_dir/records`, logs and checkpoints to `work_dir/transfer`.
        cfg_options: {dotted key: value} on top of the config.
        resume: continue an unfinished run.
        launcher: `none`, `pytorch`, `slurm` or `mpi`, as MMDetection has them.
        log: where else progress goes, as `resim_bench.harness.logs` has it.

    Raises:
        UserError: wrong id, options, data or backbone; an unfinished run without `resume`; several processes without
            GPUs.
    """
    started = time.monotonic()
    world_size = _join(launcher)
    cfg = protocols.load(transfer_id, cfg_options)
    provenance = _check_backbone(cfg, backbone, transfer_id)
    names = provenance["id"], transfer_id, provenance["seed"], seed
    output, run_dir = record.places(work_dir, "transfer", *names)
    data_set, masks = protocols.data_set(cfg), protocols.has_masks(cfg)
    root, surveys = Path(data or cfg.data_root), []
    if output.is_file() and not root.exists():  # its data are away: nothing is left to do that would need them
        facts = record.claim_of(output)["data"]
    else:
        root = data_set.find(root)
        facts = launch.on_main_process(lambda: data_set.facts(root, cfg.classes, masks, cfg.fraction))
        surveys = data_set.surveys(root, masks)
    chosen = dict(data=root, classes=facts["classes"], seed=seed, backbone=backbone)
    resolved = protocols.resolve(cfg, world_size=world_size, **chosen)
    shipped = protocols.load(transfer_id)
    canonical = protocols.resolve(shipped, **chosen)
    protocol = protocols.summary(resolved)

    sha256 = backbone_file.digest(backbone)
    claim = {"transfer": transfer_id, "protocol": protocol, "seed": seed, "backbone": sha256, "data": facts}
    place = {"run_dir": run_dir, "config": claim, "output": output, "resume": resume}
    how = {"made_by": lambda: record.claim_of(output), "old_digest": lambda: data_set.old_digest(root)}
    done = f"{names[0]} is through {transfer_id} already: {output}"
    if launch.on_main_process(lambda: runs.is_finished(**place, **how)):
        console.say(done)
        return output

    used = f"{facts['used_images']:,} of " if "used_images" in facts else ""
    console.say(
        f"{names[0]} through {transfer_id}, seed {seed}: {cfg.max_iters} iterations of batch {cfg.total_batch} over "
        f"{used}{facts['train_images']:,} images, {console.processes()}"
    )
    for survey in surveys:
        console.say(f"  {survey.line()}")
    if backbone_file.CHECKSUM not in provenance:
        console.say(f"  {backbone} has no checksum, being from before there was one: taken as it is")
    launch.on_main_process(lambda: data_set.check_test(root))
    with options.built_from(cfg_options or {}):
        runner = build_runner(protocols.for_runner(resolved), seed, launcher, log)
        if cfg_options:
            _try(runner)
    with claimed(**place, **how) as finished:
        if finished:
            console.say(done)
            return output
        runner.move_in(run_dir, record.digest(runs.read_claim(run_dir)))
        metrics, parameters = _train_and_test(runner)
        if is_main_process():
            (metric,) = runner.test_loop.evaluator.metrics
            beside = output.with_suffix(detections.SUFFIX)
            kept = {"file": beside.name, "sha256": detections.write(beside, metric.detections)}
            side = {
                "id": transfer_id,
                "seed": seed,
                "protocol": protocol,
                "overrides": runs.plain(cfg_options or {}),
                "deviations": protocols.deviations(protocols.summary(canonical), protocol)
                | _data_deviations(shipped.expected_data, facts),
                "data": facts,
                "images_per_process": cfg.total_batch // world_size,
                "survey": {split: survey.facts() for split, survey in zip(("train", "test"), surveys, strict=True)},
                "parameters": parameters,
                "changes": runner.changes,
            }
            seconds = time.monotonic() - started
            entry = record.of_trial(provenance, sha256, side, metrics, seconds, runs.environment())
            record.write(Path(work_dir) / "records", entry | {"detail": metric.detail, "detections": kept})
    said = ", ".join(f"{name} {value:.1f}" for name, value in metrics.items())
    console.say(f"{names[0]} through {transfer_id}: {said} ({output})")
    return output


def _train_and_test(runner: QuietRunner) -> tuple[dict[str, float], dict]:
    """Train as far as the run is not trained yet, and test; the metrics, and what `weights.parameters` says."""
    runner.train()
    measured = runner.test()
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, hooks.BackboneHook))
    return {name.rpartition("/")[2]: value for name, value in measured.items()}, hook.parameters


@torch.no_grad()
def _try(runner: QuietRunner) -> None:
    """Send an image through the training and one through the test, as what building does not show may stop a run.

    The model and the random numbers of the run stay as they are.
    """
    model = launch.unwrapped(runner.model)
    was_training, evaluator = model.training, runner.test_loop.evaluator
    train, test = (
        pseudo_collate([loop.dataloader.dataset[place]])
        for loop, place in ((runner.train_loop, (0, 0)), (runner.test_loop, 0))
    )
    model.eval()  # running statistics stay
    with seeded(0), torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        model.parse_losses(model(**model.data_preprocessor(train, training=True), mode="loss"))
        evaluator.process(model.test_step(test), test)
    for metric in evaluator.metrics:
        metric.results.clear()
    model.train(was_training)


def _join(launcher: str) -> int:
    """Connect the processes of a launcher, before any of them writes; returns how many they are."""
    if launcher != "none" and not torch.cuda.is_available():
        raise UserError(
            "a transfer over several processes needs GPUs, because SyncBN has no CPU kernel: leave --launcher out"
        )
    launch.join_processes(launcher)
    return get_world_size()


def _check_backbone(cfg: Config, path: Path, transfer_id: str) -> dict:
    """The provenance of a file whose depth, strides, width and pyramid are what the detector needs.

    Two ResNets that differ in strides have the same shapes, so that loading would not tell.
    """
    state_dict, provenance = backbone_file.load(path)
    trunk, head = cfg.model.backbone, cfg.model.roi_head.get("shared_head")
    strides = [*trunk.strides, *([head.stride] if head else [])]
    wanted = {"depth": trunk.depth, "strides": strides, "width": trunk.get("base_channels", backbone_file.WIDTH)}
    found = backbone_file.architecture(provenance)
    if found != wanted:
        raise UserError(
            f"{transfer_id} needs a ResNet of {backbone_file.spell(wanted)}, but the backbone has "
            f"{backbone_file.spell(found)}: give a backbone of that architecture"
        )
    if cfg.init_neck:
        weights.check_pyramid(state_dict)
    return provenance


def _data_deviations(expected: dict, facts: dict) -> dict[str, list]:
    """Where the data are not the protocol's, by count."""
    found = facts | {"classes": len(facts["classes"])}
    return {
        f"data.{key}": [expected[key], found[key]]
        for key in ("train_images", "test_images", "classes")
        if expected[key] != found[key]
    }
