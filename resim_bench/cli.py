"""The command line: `resim-bench`. It mounts the rooms lazily and is the only module that knows all of them."""

import argparse
import os
import sys
from pathlib import Path

from resim_bench import experiments, record
from resim_bench.errors import UserError

EPILOG = """\
A pre-training id names a recipe, a transfer id a protocol; `resim-bench list` shows them all.

  resim-bench mini                                        everything small, on generated scenes
  resim-bench pretrain 'in100-*' --data /data/imagenet    every recipe of the IN-100 tables
  resim-bench transfer voc-frozen --backbone in100-resim-c4 --trials 3
  resim-bench tables                                      the paper's tables beside our numbers
"""


class Parser(argparse.ArgumentParser):
    """argparse whose refusal is one sentence."""

    def error(self, message):
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser() -> Parser:
    """All commands and their options."""
    from mmengine.config import DictAction

    parser = Parser(
        prog="resim-bench",
        description="A reproduction suite for Region Similarity Representation Learning (ReSim).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name, function, help, parents=()):  # noqa: A002 (argparse's word)
        sub = commands.add_parser(name, help=help, description=help, parents=parents)
        sub.set_defaults(function=function)
        return sub

    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "--work-dir",
        type=Path,
        default=Path("work_dirs"),
        metavar="DIR",
        help="where runs are kept (default: work_dirs)",
    )
    training = argparse.ArgumentParser(add_help=False, parents=[place])
    training.add_argument("--data", type=Path, metavar="DIR", help="the data set's folder (default: the config's)")
    training.add_argument("--seed", type=_natural, default=0, metavar="N", help="the first trial's seed (default: 0)")
    training.add_argument("--trials", type=_positive, default=1, metavar="N", help="trials, one seed each (default: 1)")
    training.add_argument("--resume", action="store_true", help="continue unfinished runs from their last checkpoint")
    training.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="who started the processes: pytorch for torchrun (default: none)",
    )
    training.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="change settings of the config, as in optimizer.lr=0.015; the record names them",
    )

    command("list", list_ids, "show every recipe, protocol and table")
    command("mini", mini, "run everything small on generated scenes and print the table", [place]).add_argument(
        "--seed", type=_natural, default=0, metavar="N", help="seed of pre-training and transfer (default: 0)"
    )
    pretrain = command("pretrain", pretrain_ids, "pre-train recipes into backbone files", [training])
    pretrain.add_argument("id", metavar="ID", help="a pre-training id, or a pattern such as 'in100-*'")
    transfer = command("transfer", transfer_id, "train and test a detector on backbones, and record it", [training])
    transfer.add_argument("id", metavar="ID", help="a transfer id")
    transfer.add_argument(
        "--backbone",
        metavar="ID|FILE",
        help="a pre-training id or a backbone file (default: each that a table's row names)",
    )
    transfer.add_argument(
        "--pretrain-seed", type=_natural, default=0, metavar="N", help="which seed's backbone (default: 0)"
    )
    tables = command("tables", print_tables, "print the paper's tables beside our numbers", [place])
    tables.add_argument("id", nargs="*", metavar="TABLE", help="a table's id (default: the paper's)")
    records = command("records", records_keep, "keep finished records as evidence", [place])
    records.add_argument("action", choices=("keep",), help="copy the records of --work-dir into tables/records")
    return parser


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def list_ids(args) -> None:
    """Print every id with one line about it."""
    sections = {
        "pre-training": {i: experiments.describe(path) for i, path in experiments.pretrain_ids().items()},
        "transfer": {i: experiments.describe(path) for i, path in experiments.transfer_ids().items()},
        "tables": {i: table["title"] for i, table in experiments.reported_tables().items()},
    }
    width = max(len(i) for section in sections.values() for i in section)
    for title, section in sections.items():
        print(title)
        for i, line in section.items():
            print(f"  {i:{width}}  {line}")


def pretrain_ids(args) -> None:
    """Pre-train every recipe that the pattern selects, with every seed."""
    from pretrain import train

    selected = experiments.select(args.id, experiments.pretrain_ids())
    for pretrain_id, cfg_options in train.options_of_each(selected, args.cfg_options).items():
        for seed in _seeds(args):
            train.run(pretrain_id, seed=seed, **_options(args) | {"cfg_options": cfg_options})


def transfer_id(args) -> None:
    """Run a protocol for one backbone, or for each that a table's row pairs with it."""
    (chosen,) = experiments.select(args.id, experiments.transfer_ids())
    backbones, missing = _backbones(chosen, args)
    if backbones:
        from transfer import train

        for path in backbones:
            for seed in _seeds(args):
                train.run(chosen, path, seed=seed, **_options(args))
    if missing:
        commands = " and ".join(f"`make pretrain-{name}`" for name in dict.fromkeys(i.split("-")[0] for i in missing))
        raise UserError(f"no backbone yet for {', '.join(missing)}: run {commands} first")


def _backbones(chosen: str, args) -> tuple[list[Path], list[str]]:
    """Backbone files to transfer, and the pre-training ids that have none yet."""
    if args.backbone and (Path(args.backbone).is_file() or os.sep in args.backbone):
        return [Path(args.backbone)], []
    if args.backbone:
        wanted = experiments.select(args.backbone, experiments.pretrain_ids())
    else:
        wanted = experiments.paired_with(chosen)
        if not wanted:
            raise UserError(f"no row of a table pairs a backbone with {chosen}: name one with --backbone")
    files = {i: backbone_file(args.work_dir, i, args.pretrain_seed) for i in wanted}
    return [f for f in files.values() if f.is_file()], [i for i, f in files.items() if not f.is_file()]


def backbone_file(work_dir: Path, pretrain_id: str, seed: int) -> Path:
    """Where a pre-training leaves its backbone."""
    return work_dir / "pretrain" / pretrain_id / f"seed-{seed}" / "backbone.safetensors"


def mini(args) -> None:
    """Generate scenes, pre-train and transfer what the table `mini` names, and print it."""
    from pretrain import train as pretraining
    from resim_bench.data import scenes

    scenes.write(Path("data/mini"), pretrain_images=pretraining.load_recipe("mini-moco-v2").dataset.images)
    table = experiments.reported_tables()["mini"]["rows"]
    options = {"seed": args.seed, "work_dir": args.work_dir, "resume": True}
    files = {i: pretraining.run(i, **options) for i in dict.fromkeys(row["pretrain"] for row in table)}
    from transfer import train as transferring  # importing mmdet takes seconds

    for row in table:
        transferring.run(row["transfer"], files[row["pretrain"]], **options)
    print()
    _print_report([args.work_dir / "records"], ["mini"])


def print_tables(args) -> None:
    """Print tables from the records of the work directory and the kept ones."""
    from tables import RECORDS

    _print_report([args.work_dir / "records", RECORDS], args.id)


def _print_report(roots, only) -> None:
    import tables

    print(tables.report(roots, only or None), end="")


def records_keep(args) -> None:
    """Copy finished records to tables/records."""
    from tables import RECORDS

    kept = record.keep(args.work_dir / "records", RECORDS)
    print(f"kept {len(kept)} new record{'s' * (len(kept) != 1)} in {RECORDS}")


def _seeds(args) -> range:
    return range(args.seed, args.seed + args.trials)


def _options(args) -> dict:
    names = ("data", "work_dir", "cfg_options", "resume", "launcher")
    return {name: getattr(args, name) for name in names}


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when it is done, 2 for bad input (one sentence, no traceback), 130 after Ctrl-C."""
    # Before torch loads OpenMP: where other programs want the cores, too, threads that spin while they wait cost
    # most of the speed (0.6 against 2.3 images/s of a ResNet-50 step beside one busy process on two cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        args = build_parser().parse_args(argv)
        args.function(args)
    except UserError as error:
        print(f"resim-bench: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nresim-bench: interrupted; start it again, with --resume, to continue", file=sys.stderr)
        return 130
    return 0


def _sentence(error: UserError) -> str:
    """What the error says; from a loader's worker it arrives as the last line of a traceback."""
    return str(error).strip().splitlines()[-1].removeprefix("resim_bench.errors.UserError: ")


if __name__ == "__main__":
    sys.exit(main())
