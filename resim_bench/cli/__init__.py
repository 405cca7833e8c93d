"""The command line: `resim-bench`. It mounts the rooms lazily and is the only place that knows all of them.

A module per family of commands, whose functions take what argparse read.
"""

import argparse
import errno
import os
import signal
import sys
import time
from pathlib import Path

from resim_bench.cli import datasets, machine, results, show, trainings, weights
from resim_bench.cli.arguments import Parser, Version, a_count, a_folder, a_name, a_path, a_price, a_seed, some_logs
from resim_bench.cli.options import Options
from resim_bench.errors import INTERRUPTED, UserError

EPILOG = """\
A pre-training id names a recipe, a transfer id a protocol; `resim-bench list` shows them all.

  resim-bench mini                                        everything small, on generated scenes
  resim-bench study mini                                  what mini shows, with every seed of its plan
  resim-bench pretrain 'in100-*' --data /data/imagenet    every recipe of the IN-100 tables
  resim-bench transfer voc-frozen --backbone in100-resim-c4 --trials 3
  resim-bench import moco_v2_200ep_pretrain.pth.tar --as given-moco-v2
  resim-bench judge mini-moco-v2                          what its features are worth, before any detector
  resim-bench tables                                      the paper's tables beside our numbers
  resim-bench report                                      all of it as one page for a browser
  resim-bench score work_dirs/records/…/pretrain-0_transfer-0.json    AP by IoU, class and size, without a training
  resim-bench plan in100-voc voc-full                     how long a table or a protocol takes on this machine
  resim-bench slurm in100-voc --gpus 8 > in100.sh         the same as jobs of a cluster: bash in100.sh
  resim-bench doctor                                      whether everything works here, before it costs money
  resim-bench bench all                                   how fast it is on this machine, and against what
  resim-bench data                                        what each experiment needs, and what is there
  resim-bench data check photos                           what is in a folder of yours, and what is wrong with it
  resim-bench show mini-resim-c4                          a picture of what it trains on; also of what a detector found
"""


def build_parser() -> Parser:
    """All commands and their options."""
    parser = Parser(
        prog="resim-bench",
        description="A reproduction suite for Region Similarity Representation Learning (ReSim).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=Version, help="say which version this is")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name, function, help, parents=()):  # noqa: A002 (argparse's word)
        sub = commands.add_parser(name, help=help, description=help, parents=parents)
        sub.set_defaults(function=function)
        return sub

    def work_dir(kind):
        of_runs = Parser(add_help=False)
        of_runs.add_argument(
            "--work-dir",
            type=kind,
            default=Path("work_dirs"),
            metavar="DIR",
            help="where runs are kept (default: work_dirs)",
        )
        return of_runs

    place, existing = work_dir(a_path), work_dir(a_folder)  # of what makes runs, and of what reads them
    chosen = Parser(add_help=False)
    chosen.add_argument("--data", type=a_path, metavar="DIR", help="the data set's folder (default: the config's)")
    chosen.add_argument("--trials", type=a_count, default=1, metavar="N", help="trials, one seed each (default: 1)")
    chosen.add_argument(
        "--cfg-options",
        nargs="+",
        action=Options,
        default={},
        metavar="KEY=VALUE",
        help="change settings of the config, as in optimizer.lr=0.015; the record names them",
    )
    training = Parser(add_help=False, parents=[place, chosen])
    training.add_argument("--seed", type=a_seed, default=0, metavar="N", help="the first trial's seed (default: 0)")
    training.add_argument("--resume", action="store_true", help="continue unfinished runs from their last checkpoint")
    training.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="who started the processes: pytorch for torchrun (default: none)",
    )
    training.add_argument(
        "--log",
        type=some_logs,
        default=(),
        metavar="NAME,…",
        help="show progress in tensorboard, wandb or mlflow, too: files below the run's directory",
    )

    command("list", results.list_ids, "show every recipe, released checkpoint, protocol, table and experiment")
    command(
        "mini", trainings.mini, "run everything small on generated scenes and print the table", [place]
    ).add_argument("--seed", type=a_seed, default=0, metavar="N", help="seed of pre-training and transfer (default: 0)")
    study = command("study", trainings.run_study, "run a study, a unit at a time, and keep its records", [place])
    study.add_argument("id", metavar="ID", help="the name of a plan in tables/studies, such as mini")
    study.add_argument(
        "--data",
        type=a_path,
        metavar="DIR",
        help="the transfers' folder (default: the plan's); such records are not kept",
    )
    study.add_argument("--units", type=a_count, metavar="N", help="stop after N units; start it again to go on")
    pretrain = command("pretrain", trainings.pretrain_ids, "pre-train recipes into backbone files", [training])
    pretrain.add_argument("id", metavar="ID", help="a pre-training id, or a pattern such as 'in100-*'")
    transfer = command(
        "transfer", trainings.transfer_id, "train and test a detector on backbones, and record it", [training]
    )
    transfer.add_argument("id", metavar="ID", help="a transfer id")
    transfer.add_argument(
        "--backbone",
        type=a_name,
        metavar="ID|FILE",
        help="a pre-training id or a backbone file (default: each that a table's row names)",
    )
    transfer.add_argument(
        "--pretrain-seed", type=a_seed, default=0, metavar="N", help="which seed's backbone (default: 0)"
    )
    probe = command(
        "probe", trainings.probe_features, "train a linear classifier on a backbone's features", [place, chosen]
    )
    probe.add_argument("backbone", type=a_name, metavar="ID|FILE", help="a pre-training id or a backbone file")
    probe.add_argument("--on", metavar="ID", help="probe-in1k, …; default: that of the id's data")
    probe.add_argument("--seed", type=a_seed, default=0, metavar="N", help="of the classifier (default: 0)")
    probe.add_argument(
        "--pretrain-seed", type=a_seed, default=0, metavar="N", help="which seed's backbone (default: 0)"
    )
    probe.add_argument("--resume", action="store_true", help="continue an unfinished run")
    judge = command(
        "judge", trainings.judge, "read a backbone on annotated images, beside those whose AP is known", [place]
    )
    judge.add_argument("backbone", type=a_name, metavar="ID|FILE", help="a pre-training id or a backbone file")
    judge.add_argument("--on", metavar="ID", help="readings-mini or readings-voc; default: that of the id's data")
    judge.add_argument("--data", type=a_path, metavar="DIR", help="a VOCdevkit folder (default: that of --on)")
    judge.add_argument(
        "--pretrain-seed", type=a_seed, default=0, metavar="N", help="which seed's backbone (default: 0)"
    )
    judge.add_argument("--quiet", action="store_true", help="record the readings, and print no table")
    imports = command("import", weights.import_weights, "turn a public checkpoint into a backbone file", [place])
    imports.add_argument("file", type=a_path, metavar="FILE", help="as downloaded; nothing in it is executed")
    imports.add_argument("--as", dest="id", required=True, metavar="ID", help="given-NAME; `list` shows those of rows")
    exports = command("export", weights.export_weights, "write a backbone as other programs read it", [existing])
    exports.add_argument("backbone", type=a_name, metavar="ID|FILE", help="a pre-training id or a backbone file")
    exports.add_argument(
        "target",
        type=a_name,
        metavar="TARGET",
        help="what to write: NAME.pkl (Detectron2), NAME.safetensors, NAME.pth, or a FOLDER/ for the Hugging Face hub",
    )
    exports.add_argument(
        "--layout",
        choices=("detectron2", "torchvision", "timm"),
        help="whose (default: detectron2 for .pkl, timm for a folder, else torchvision)",
    )
    exports.add_argument("--seed", type=a_seed, default=0, metavar="N", help="which seed's backbone (default: 0)")
    tables = command("tables", results.print_tables, "print the paper's tables beside our numbers", [existing])
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
    tables.add_argument("--all", action="store_true", help="every experiment that has records here, best first")
    tables.add_argument("--errors", action="store_true", help="what each kind of error of a detector costs, in AP")
    tables.add_argument(
        "--readings", action="store_true", help="how well readings predict frozen AP (default: of all backbones)"
    )
    report = command("report", results.write_page, "write what holds, why, and how runs go as one page", [existing])
    report.add_argument(
        "file", nargs="?", type=a_path, metavar="FILE.html", help="what to write (default: report.html in --work-dir)"
    )
    report.add_argument(
        "--backbone",
        action="append",
        type=a_name,
        default=[],
        metavar="ID|FILE",
        help="show where its features find the same place in two views; may be given several times (default: mini's "
        "MoCo-v2, ReSim-C4 and untrained one, where they are there)",
    )
    report.add_argument(
        "--data",
        action="append",
        type=a_path,
        default=[],
        metavar="DIR",
        help="test images, where the config has none; may be given several times",
    )
    command(
        "score", results.score, "measure a transfer's detections again, and say whether its record's numbers come out"
    ).add_argument("file", type=a_path, metavar="RECORD|FILE", help="a record, or the .detections.npz beside one")
    figure = command(
        "figure",
        results.draw,
        "draw what a study found, its lengths, monitored runs, readings against AP, or scenes",
        [existing],
    )
    figure.add_argument(
        "id",
        metavar="ID",
        help="mini; length; monitor, of the runs in the work directory; readings, of all records; or scenes",
    )
    figure.add_argument("--errors", action="store_true", help="of a table: what each kind of error costs")
    figure.add_argument(
        "file", type=a_path, metavar="FILE", help="what to write: NAME.svg or NAME.png; scenes as NAME.png"
    )
    pictures = command("show", show.show, "write a picture of a training's input, a result or a folder", [place])
    pictures.add_argument(
        "what",
        type=a_name,
        metavar="WHAT",
        help="a pre-training or transfer id: what it trains on; a record: what was found; a backbone's file or "
        "backbone:ID: what it takes for the same place; a folder of images: what is annotated",
    )
    pictures.add_argument(
        "file", nargs="?", type=a_path, metavar="FILE.png", help="what to write (default: below show/ in --work-dir)"
    )
    pictures.add_argument("--images", type=a_count, metavar="N", help="how many (default: a few)")
    pictures.add_argument("--data", type=a_path, metavar="DIR", help="the images (default: where the config has them)")
    pictures.add_argument("--as", dest="layout", choices=datasets.READERS, help="of a folder (default: guessed)")
    data = command(
        "data", datasets.data_sets, "show what each experiment needs and what is there, download it, or check yours"
    )
    data.add_argument(
        "action", nargs="?", choices=("get", "check"), help="download what is missing; say what a folder holds"
    )
    data.add_argument(
        "name", nargs="?", type=a_name, metavar="NAME|DIR", help="voc, coco or imagenet to get; the folder to check"
    )
    data.add_argument(
        "--to", type=a_path, default=Path("data"), metavar="DIR", help="the folder of all data (default: data)"
    )
    data.add_argument("--as", dest="layout", choices=datasets.READERS, help="of the folder to check (default: guessed)")
    data.add_argument("--decode", action="store_true", help="check every pixel, too")
    plans = command(
        "plan", machine.plan_runs, "say how long recipes, protocols and tables take here, and how much", [chosen]
    )
    plans.add_argument(
        "id", nargs="+", metavar="ID", help="a pre-training id, a transfer id or a table (table:coco-1x where both are)"
    )
    plans.add_argument(
        "--gpus", type=a_count, metavar="N", help="plan for N GPUs, and when each run is (default: what is here)"
    )
    plans.add_argument("--price", type=a_price, metavar="X", help="of an hour of a GPU: say what it costs")
    queue = command("slurm", machine.slurm_script, "print a script that runs them as arrays of Slurm's jobs", [place])
    queue.add_argument("id", nargs="+", metavar="ID", help="as of plan; a protocol is a job for each of its rows")
    queue.add_argument("--data", type=a_path, metavar="DIR", help="the data set's folder (default: the config's)")
    queue.add_argument("--trials", type=a_count, default=1, metavar="N", help="trials, one seed each (default: 1)")
    queue.add_argument("--gpus", type=a_count, metavar="N", help="of a job (default: what is here)")
    queue.add_argument("--hours", type=a_count, metavar="N", help="at most, of a job at a time; it goes on by itself")
    queue.add_argument("--partition", type=a_name, metavar="P", help="where to run (default: the cluster's)")
    speed = command(
        "bench", machine.bench, "time the suite against the obvious way of doing the same, and as work grows", [place]
    )
    speed.add_argument("what", choices=(*machine.BENCHES, "all"), help=f"of what: {', '.join(machine.BENCHES)} or all")
    health = command("doctor", machine.examine, "look in ten minutes at everything that a run needs here", [place])
    health.add_argument(
        "--data", nargs="+", type=a_path, default=[], metavar="DIR", help="folders of data to look at, beside data/"
    )
    command("env", machine.show_environment, "say what a report of a problem needs")
    records = command("records", results.records_keep, "keep finished records as evidence", [existing])
    records.add_argument("action", choices=("keep",), help="copy the records of --work-dir into tables/records")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 when it is done, 1 when `tables --check` finds a result below the paper's, `score` one that is not the
        record's or `doctor` what is not ready, 2 for bad input and for what the system refuses (one sentence, no
        traceback), 130 after Ctrl-C, 141 where nobody reads on (`| head`).
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
        _say(error)
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
        _say(_of_the_system(error))
        return 2


def _say(sentence) -> None:
    """What is wrong; of several processes the others wait, until their launcher ends them or they alone know it."""
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
        time.sleep(20)
    print(f"resim-bench: {sentence}", file=sys.stderr)


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
