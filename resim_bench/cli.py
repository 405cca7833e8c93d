"""The command line: `resim-bench`. It mounts the rooms lazily and is the only module that knows all of them."""

import argparse
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from resim_bench import experiments, record
from resim_bench.errors import INTERRUPTED, UserError, one_line
from resim_bench.options import Options

EPILOG = """\
A pre-training id names a recipe, a transfer id a protocol; `resim-bench list` shows them all.

  resim-bench mini                                        everything small, on generated scenes
  resim-bench study mini                                  what mini shows, with every seed of its plan
  resim-bench pretrain 'in100-*' --data /data/imagenet    every recipe of the IN-100 tables
  resim-bench transfer voc-frozen --backbone in100-resim-c4 --trials 3
  resim-bench import moco_v2_200ep_pretrain.pth.tar --as given-moco-v2
  resim-bench tables                                      the paper's tables beside our numbers
  resim-bench plan in100-voc voc-full                     how long a table or a protocol takes on this machine
  resim-bench bench all                                   how fast it is on this machine, and against what
  resim-bench data                                        what each experiment needs, and what is there
  resim-bench data check photos                           what is in a folder of yours, and what is wrong with it
"""


class _Once(argparse.Action):
    """argparse's storing of a value, which an option may have but once: of two, nobody knows which is meant."""

    def __call__(self, parser, namespace, values, option_string=None):
        given = namespace.__dict__.setdefault("_given", set())
        if option_string and self.dest in given:
            raise argparse.ArgumentError(self, "it is given twice: give it once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """argparse whose refusal is one sentence."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register("action", None, _Once)

    def error(self, message):
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


def build_parser() -> Parser:
    """All commands and their options."""
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

    place = Parser(add_help=False)
    place.add_argument(
        "--work-dir",
        type=_path,
        default=Path("work_dirs"),
        metavar="DIR",
        help="where runs are kept (default: work_dirs)",
    )
    chosen = Parser(add_help=False)
    chosen.add_argument("--data", type=_path, metavar="DIR", help="the data set's folder (default: the config's)")
    chosen.add_argument("--trials", type=_count, default=1, metavar="N", help="trials, one seed each (default: 1)")
    chosen.add_argument(
        "--cfg-options",
        nargs="+",
        action=Options,
        default={},
        metavar="KEY=VALUE",
        help="change settings of the config, as in optimizer.lr=0.015; the record names them",
    )
    training = Parser(add_help=False, parents=[place, chosen])
    training.add_argument("--seed", type=_seed, default=0, metavar="N", help="the first trial's seed (default: 0)")
    training.add_argument("--resume", action="store_true", help="continue unfinished runs from their last checkpoint")
    training.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="who started the processes: pytorch for torchrun (default: none)",
    )

    command("list", list_ids, "show every recipe, released checkpoint, protocol, table and experiment")
    command("mini", mini, "run everything small on generated scenes and print the table", [place]).add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="seed of pre-training and transfer (default: 0)"
    )
    study = command("study", run_study, "run a study, a unit at a time, and keep its records", [place])
    study.add_argument("id", metavar="ID", help="the name of a plan in tables/studies, such as mini")
    study.add_argument("--units", type=_count, metavar="N", help="stop after N units; start it again to go on")
    pretrain = command("pretrain", pretrain_ids, "pre-train recipes into backbone files", [training])
    pretrain.add_argument("id", metavar="ID", help="a pre-training id, or a pattern such as 'in100-*'")
    transfer = command("transfer", transfer_id, "train and test a detector on backbones, and record it", [training])
    transfer.add_argument("id", metavar="ID", help="a transfer id")
    transfer.add_argument(
        "--backbone",
        type=_name,
        metavar="ID|FILE",
        help="a pre-training id or a backbone file (default: each that a table's row names)",
    )
    transfer.add_argument(
        "--pretrain-seed", type=_seed, default=0, metavar="N", help="which seed's backbone (default: 0)"
    )
    probe = command("probe", probe_features, "train a linear classifier on a backbone's features", [place, chosen])
    probe.add_argument("backbone", type=_name, metavar="ID|FILE", help="a pre-training id or a backbone file")
    probe.add_argument("--on", metavar="ID", help="probe-in1k, …; default: that of the id's data")
    probe.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the classifier (default: 0)")
    probe.add_argument("--pretrain-seed", type=_seed, default=0, metavar="N", help="which seed's backbone (default: 0)")
    probe.add_argument("--resume", action="store_true", help="continue an unfinished run")
    imports = command("import", import_weights, "turn a public checkpoint into a backbone file", [place])
    imports.add_argument("file", type=_path, metavar="FILE", help="as downloaded; nothing in it is executed")
    imports.add_argument("--as", dest="id", required=True, metavar="ID", help="given-NAME; `list` shows those of rows")
    exports = command("export", export_weights, "write a backbone in Detectron2's layout", [place])
    exports.add_argument("backbone", type=_name, metavar="ID|FILE", help="a pre-training id or a backbone file")
    exports.add_argument("target", type=_path, metavar="TARGET", help="the file to write, NAME.pkl")
    exports.add_argument("--seed", type=_seed, default=0, metavar="N", help="which seed's backbone (default: 0)")
    tables = command("tables", print_tables, "print the paper's tables beside our numbers", [place])
    tables.add_argument("id", nargs="*", metavar="TABLE", help="a table's id (default: the paper's)")
    tables.add_argument(
        "--format", default="terminal", metavar="FORMAT", help="terminal (default), markdown, csv or latex"
    )
    tables.add_argument(
        "--details", action="store_true", help="say of each row what ran, what deviates, what is missing"
    )
    tables.add_argument(
        "--check", action="store_true", help="hold all records against the paper and earlier ones; exit 1 when below"
    )
    figure = command("figure", draw, "draw what a study found, how monitored runs went, or generated scenes", [place])
    figure.add_argument("id", metavar="ID", help="mini; monitor, of the runs in the work directory; or scenes")
    figure.add_argument(
        "file", type=_path, metavar="FILE", help="what to write: NAME.svg or NAME.png; scenes as NAME.png"
    )
    data = command("data", data_sets, "show what each experiment needs and what is there, download it, or check yours")
    data.add_argument(
        "action", nargs="?", choices=("get", "check"), help="download what is missing; say what a folder holds"
    )
    data.add_argument(
        "name", nargs="?", type=_name, metavar="NAME|DIR", help="voc, coco or imagenet to get; the folder to check"
    )
    data.add_argument(
        "--to", type=_path, default=Path("data"), metavar="DIR", help="the folder of all data (default: data)"
    )
    data.add_argument("--as", dest="layout", choices=READERS, help="of the folder to check (default: guessed)")
    data.add_argument("--decode", action="store_true", help="check every pixel, too")
    plans = command("plan", plan_runs, "say how long recipes, protocols and tables take here, and how much", [chosen])
    plans.add_argument(
        "id", nargs="+", metavar="ID", help="a pre-training id, a transfer id or a table (table:coco-1x where both are)"
    )
    plans.add_argument("--gpus", type=_count, metavar="N", help="plan for N GPUs (default: what is here)")
    speed = command("bench", bench, "time the suite against the obvious way of doing the same", [place])
    speed.add_argument("what", choices=(*BENCHES, "all"), help="of what: data, step, ops, tables or all")
    records = command("records", records_keep, "keep finished records as evidence", [place])
    records.add_argument("action", choices=("keep",), help="copy the records of --work-dir into tables/records")
    return parser


LAST_SEED = 2**32 - 1  # numpy's
MOST = 1_000_000  # trials, units, GPUs
LONGEST = 255  # bytes of a file's name, on all usual file systems


def _whole(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or len(text) > 20 or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text[:40]} is not a whole number from {least} to {most}")
    return int(text)


def _seed(text: str) -> int:
    return _whole(text, 0, LAST_SEED)


def _count(text: str) -> int:
    return _whole(text, 1, MOST)


def _name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("a name is missing: give one")
    if any(len(os.fsencode(part)) > LONGEST for part in text.split(os.sep)):
        raise argparse.ArgumentTypeError(f"{text[:40]}… is too long a name for a file: give a shorter one")
    return text


def _path(text: str) -> Path:
    return Path(_name(text))


def list_ids(args) -> None:
    """Print every id with one line about it, and the experiments: which pre-training each protocol is for."""
    sections = {
        "pre-training": {i: experiments.describe(path) for i, path in experiments.pretrain_ids().items()},
        "released weights": {i: weights["title"] for i, weights in experiments.given().items()},
        "transfer": {i: experiments.describe(path) for i, path in experiments.transfer_ids().items()},
        "probes": {i: experiments.describe(path) for i, path in experiments.probe_ids().items()},
        "tables": {i: table["title"] for i, table in experiments.reported_tables().items()},
        "experiments": {i: ", ".join(experiments.paired_with(i)) or "no row" for i in experiments.transfer_ids()},
    }
    width = max(len(i) for section in sections.values() for i in section)
    for title, section in sections.items():
        print(title)
        for i, line in section.items():
            print(
                textwrap.fill(
                    f"  {i:{width}}  {line}", 120, subsequent_indent=" " * (width + 4), break_on_hyphens=False
                )
            )


def pretrain_ids(args) -> None:
    """Pre-train every recipe that the pattern selects, with every seed."""
    from pretrain import train

    own = args.id.endswith(".py")
    selected = [args.id] if own else experiments.select(args.id, experiments.pretrain_ids())
    for pretrain_id, cfg_options in train.options_of_each(selected, args.cfg_options).items():
        for seed in _seeds(args):
            train.run(pretrain_id, seed=seed, **_options(args) | {"cfg_options": cfg_options})


def transfer_id(args) -> None:
    """Run a protocol for one backbone, or for each that a table's row pairs with it."""
    chosen = experiments.select_one(args.id, experiments.transfer_ids())
    backbones, missing = _backbones(chosen, args)
    if backbones:
        from transfer import train

        for path in backbones:
            for seed in _seeds(args):
                train.run(chosen, path, seed=seed, **_options(args))
    if missing:
        steps = " and ".join(experiments.how_to_get(missing))
        raise UserError(f"no backbone yet for {', '.join(missing)}: run {steps} first")


PROBES = {"in100": "probe-in100", "mini": "probe-mini", "photos": "probe-caltech101"}  # by the id's data; else IN-1k's


def probe_features(args) -> None:
    """Train linear classifiers on a backbone, one a trial, and record their accuracy."""
    from pretrain import linear

    file = _backbone(args.backbone, args.work_dir, args.pretrain_seed)
    usual = PROBES.get(Path(args.backbone).name.split("-")[0], "probe-in1k")
    chosen = experiments.select_one(args.on or usual, experiments.probe_ids())
    if chosen == "probe-mini" and args.data is None:
        from resim_bench.data import scenes

        scenes.write_objects(Path("data/mini-objects"))
    for seed in _seeds(args):
        linear.run(chosen, file, seed=seed, **_options(args))


def _backbones(chosen: str, args) -> tuple[list[Path], list[str]]:
    """Backbone files to transfer, and the pre-training ids that have none yet."""
    wanted = experiments.paired_with(chosen) if args.backbone is None else [args.backbone]
    if not wanted:
        raise UserError(f"no row of a table pairs a backbone with {chosen}: name one with --backbone")
    files = {name: _backbone(name, args.work_dir, args.pretrain_seed) for name in wanted}
    if args.backbone is None:
        released = {i: _backbone(i, args.work_dir, 0) for i in experiments.released_for(chosen)}
        files |= {i: file for i, file in released.items() if file.is_file()}
    missing = [name for name, file in files.items() if not file.is_file() and os.sep not in name]
    return [file for name, file in files.items() if name not in missing], missing


def _backbone(name: str, work_dir: Path, seed: int) -> Path:
    """The file that an id stands for, or the file itself."""
    from resim_bench import backbone

    if Path(name).is_file() or os.sep in name:
        return Path(name)
    if name.startswith("given-"):
        return backbone.path(work_dir, name, seed=0)
    if os.path.isfile(own := backbone.path(work_dir, name, seed)):  # of a recipe from outside
        return own
    return backbone.path(work_dir, experiments.select_one(name, experiments.pretrain_ids()), seed)


def mini(args) -> None:
    """Run the table `mini` with one seed and print it."""
    _run_unit([experiments.Trial(pair, args.seed) for pair in experiments.of_table("mini")], args.work_dir)
    from tables import report

    print()
    print(report([args.work_dir / "records"], ["mini"]), end="")


def _run_unit(trials: list[experiments.Trial], work_dir: Path) -> None:
    """Generate the scenes where they are needed, and run trials."""
    from resim_bench import unit
    from resim_bench.data import scenes

    if any(trial.experiment.pretrain_id.startswith("mini-") for trial in trials):
        scenes.write(Path("data/mini"))
    unit.run(trials, work_dir)


def run_study(args) -> None:
    """Run the units of a plan that lack kept records, keep theirs, and print the table."""
    import tables

    known = tables.load_studies()
    chosen = experiments.select_one(args.id, known)
    study = known[chosen]
    units = [{(*trial.experiment, trial.seed, trial.seed): trial for trial in unit} for unit in tables.units(study)]
    lacking = [
        {names: trial for names, trial in unit.items() if not record.path(tables.RECORDS, *names).is_file()}
        for unit in units
    ]
    lacking = [unit for unit in lacking if unit]
    print(f"{chosen}: {len(units) - len(lacking)} of {len(units)} units have run", flush=True)
    for number, unit in enumerate(lacking[: args.units], len(units) - len(lacking) + 1):
        started = time.monotonic()
        _run_unit(list(unit.values()), args.work_dir)
        record.keep(args.work_dir / "records", tables.RECORDS, unit)
        minutes = (time.monotonic() - started) / 60
        print(f"{chosen}: {number} of {len(units)} units have run; this one took {minutes:.0f} min", flush=True)
    print(f"{chosen}: records are in {tables.RECORDS}\n")
    print(tables.report([tables.RECORDS], [study.table]), end="")


def import_weights(args) -> None:
    """Turn a public checkpoint into a backbone file."""
    from resim_bench import checkpoints

    print(checkpoints.import_checkpoint(args.file, args.id, args.work_dir).summary())


def export_weights(args) -> None:
    """Write a backbone in Detectron2's layout."""
    from resim_bench import checkpoints

    checkpoints.export(_backbone(args.backbone, args.work_dir, args.seed), args.target)
    print(f"wrote {args.target}")


def data_sets(args) -> int:
    """Show the data sets, download one, or check a folder."""
    if (args.layout or args.decode) and args.action != "check":
        raise UserError("--as and --decode are for a folder: resim-bench data check DIR")
    if not args.action:
        from resim_bench.data import known

        print(known.report(args.to), end="")
        return 0
    if args.action == "check":
        from resim_bench.data import check

        if not args.name:
            raise UserError("data check needs a folder: resim-bench data check DIR")
        return check.check(Path(args.name), args.layout, READERS, args.decode)
    if not args.name:
        raise UserError("data get needs a name: voc, coco or imagenet")
    from resim_bench.data import fetch

    fetch.get(args.name, args.to)
    return 0


def _read_imagefolder(folder: Path) -> list:
    from pretrain import imagefolder
    from resim_bench.data.check import Part

    found = imagefolder.read(folder)
    return [Part(found.survey, [found.path(index) for index in range(len(found.names))])]


def _read_voc(folder: Path) -> list:
    from transfer.voc import VOCFolder

    return _read_annotated(VOCFolder, folder)


def _read_coco(folder: Path) -> list:
    from transfer.coco import COCOFolder

    return _read_annotated(COCOFolder, folder)


def _read_annotated(layout, folder: Path) -> list:
    from resim_bench.data.check import Part

    root = layout.find(folder)
    return [
        Part(survey, [split.path(i) for i in range(len(split.names))])
        for split, survey in zip(layout.splits(root), layout.surveys(root), strict=True)
    ]


READERS = {"imagefolder": _read_imagefolder, "voc": _read_voc, "coco": _read_coco}


def print_tables(args) -> int:
    """Print tables from the records of the work directory and the kept ones, or the regression check."""
    import tables

    new, kept = args.work_dir / "records", tables.RECORDS
    if args.check:
        unused = [*args.id, *["--details"] * args.details, *["--format"] * (args.format != "terminal")]
        if unused:
            raise UserError(f"tables --check prints one report on all records: leave {', '.join(unused)} out")
        text, code = tables.regress(new, kept)
    else:
        bold = sys.stdout.isatty()
        text, code = tables.report([new, kept], args.id or None, args.format, args.details, bold), 0
    print(text, end="")
    return code


def draw(args) -> None:
    """Write a figure of a study's kept records, of monitored runs, or of scenes."""
    import tables

    studies = {id: study for id, study in tables.load_studies().items() if study.claims}
    chosen = experiments.select_one(args.id, [*studies, "monitor", "scenes"])
    kinds = (".png",) if chosen == "scenes" else (".svg", ".png")
    if args.file.suffix not in kinds:
        raise UserError(f"{args.file} does not end in {' or '.join(kinds)}: name the file so")
    if chosen == "scenes":
        from resim_bench.data import scenes

        scenes.write_sheet(args.file)
    elif chosen == "monitor":
        from pretrain import monitor

        files = sorted((args.work_dir / "pretrain").rglob(monitor.FILE))
        if not files:
            raise UserError(f"no run in {args.work_dir} was monitored: pretrain with --cfg-options monitor.every=1")
        runs = {f"{file.parts[-3]}, {file.parts[-2]}": monitor.curves(file.parent) for file in files}
        tables.draw_curves(runs, monitor.SHOWN, args.file)
    else:
        tables.draw_study(studies[chosen], tables.collect(record.read_all(tables.RECORDS)), args.file)
    print(f"wrote {args.file}")


def plan_runs(args) -> None:
    """Probe recipes and protocols, and print what all of it takes."""
    from pretrain import probe as pretraining
    from resim_bench import plan
    from transfer import probe as transferring

    measures = {"pretrain": pretraining.measure, "transfer": transferring.measure}
    options = {"data": args.data, "cfg_options": args.cfg_options}
    print(plan.report(args.id, measures, args.trials, args.gpus, **options), end="")


def _bench_data():
    from pretrain.bench import data

    return data.rows()


def _bench_step():
    from pretrain.bench import step

    return step.rows()


def _bench_ops():
    from pretrain.bench import ops
    from transfer import bench as metric

    return itertools.chain(ops.rows(), metric.rows())


def _bench_tables():
    from resim_bench import timing

    def tables():
        subprocess.run([sys.executable, "-m", "resim_bench.program", "tables"], check=True, stdout=subprocess.DEVNULL)

    rounds = [(timing.seconds(tables), 1.0) for _ in range(5)]
    return [timing.compare("resim-bench tables, against a second", rounds, at_least=1)]


BENCHES = {"data": _bench_data, "step": _bench_step, "ops": _bench_ops, "tables": _bench_tables}


def bench(args) -> None:
    """Measure in turn with references, print the rows as they come, and write them to the work directory."""
    from resim_bench import runs, timing

    chosen = BENCHES if args.what == "all" else {args.what: BENCHES[args.what]}
    environment = runs.environment()
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    print(f"{environment['device']}, {environment['threads']} threads\n{versions}, commit {environment['commit']}\n")
    print(timing.HEADER)
    rows = []
    for measure in chosen.values():
        for row in measure():
            print(timing.line(row), flush=True)
            rows.append(row._asdict())
    file = args.work_dir / f"bench-{args.what}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(environment | {"rows": rows}, indent=1) + "\n")
    print(f"\nwrote {file}")


def records_keep(args) -> None:
    """Copy finished records to tables/records."""
    from tables import RECORDS

    kept = record.keep(args.work_dir / "records", RECORDS)
    print(f"kept {len(kept)} new record{'s' * (len(kept) != 1)} in {RECORDS}")


def _seeds(args) -> range:
    if args.seed + args.trials - 1 > LAST_SEED:
        raise UserError(f"{args.trials} trials from seed {args.seed} on go beyond {LAST_SEED}, the last: start earlier")
    return range(args.seed, args.seed + args.trials)


def _options(args) -> dict:
    names = ("data", "work_dir", "cfg_options", "resume", "launcher")
    return {name: getattr(args, name) for name in names if name in args}


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 when it is done, 1 when `tables --check` finds a result below the paper's, 2 for bad input and for what the
        system refuses (one sentence, no traceback), 130 after Ctrl-C, 141 where nobody reads on (`| head`).
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: >&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open until the end)
    # Before torch loads OpenMP: where other programs want the cores, too, threads that spin while they wait cost
    # most of the speed (0.6 against 2.3 images/s of a ResNet-50 step beside one busy process on two cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        args = build_parser().parse_args(argv)
        code = args.function(args) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"resim-bench: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's end would complain
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno is None:  # no word of the system's
            raise
        print(f"resim-bench: {_of_the_system(error)}", file=sys.stderr)
        return 2


_REMEDIES = {
    errno.ENOSPC: "make room, and start it again: it goes on where it was",
    errno.EDQUOT: "make room, and start it again: it goes on where it was",
    errno.EROFS: "name a place that can be written, or mount it so",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.ENOENT: "restore it, or name another",
    errno.ENOTDIR: "a file stands where a folder has to be; move it away, or name another place",
    errno.EEXIST: "something else stands there; move it away, or name another place",
    errno.EISDIR: "a folder stands where a file has to be; move it away, or name another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "it is a link that leads to itself; remove it",
}


def _of_the_system(error: OSError) -> str:
    """What the operating system refused, and what to do."""
    place = f"{error.filename}: " if error.filename is not None else ""
    reason = (error.strerror or str(error)).lower()
    return str(UserError(f"{place}{reason}: {_REMEDIES.get(error.errno or 0, 'mend that, and start it again')}"))


if __name__ == "__main__":
    sys.exit(main())
