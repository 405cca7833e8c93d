"""Commands about weights from outside and for outside."""

from resim_bench.cli.trainings import existing_backbone


def import_weights(args) -> None:
    """Turn a public checkpoint into a backbone file."""
    from resim_bench import checkpoints

    print(checkpoints.import_checkpoint(args.file, args.id, args.work_dir).summary())


def export_weights(args) -> None:
    """Write a backbone in the layout of another program."""
    from resim_bench import checkpoints

    print(checkpoints.export(existing_backbone(args.backbone, args.work_dir, args.seed), args.target, args.layout))
