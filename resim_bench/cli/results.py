"""Commands about what came out: ids, tables, figures, records."""

import re
import statistics
import sys
import textwrap
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from resim_bench import evidence, experiments, record
from resim_bench.cli.trainings import existing_backbone, generate_scenes
from resim_bench.errors import UserError
from resim_bench.harness import runs, trace


def list_ids(args) -> None:
    """Print every id with one line about it, and the experiments: which pre-training each protocol is for."""
    sections = {
        "pre-training": {i: experiments.describe(path) for i, path in experiments.pretrain_ids().items()},
        "released weights": {i: weights["title"] for i, weights in experiments.released().items()},
        "transfer": {i: experiments.describe(path) for i, path in experiments.transfer_ids().items()},
        "probes": {i: experiments.describe(path) for i, path in experiments.probe_ids().items()},
        "readings": {i: experiments.describe(path) for i, path in experiments.readings_ids().items()},
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


REPORTS = {"check": 0, "all": 0, "errors": sys.maxsize, "readings": 1}  # in place of tables: how many ids each takes


def print_tables(args) -> int:
    """Print tables from the records of the work directory and the kept ones, or the regression check."""
    import tables

    new, kept = args.work_dir / "records", tables.RECORDS
    report = next((name for name in REPORTS if getattr(args, name)), "")
    unused = [*args.id[REPORTS.get(report, 0) :], *["--details"] * args.details]
    unused += ["--format"] * (args.format != "terminal")
    unused += [f"--{name}" for name in REPORTS if getattr(args, name) and name != report]
    if report and unused:
        on = "" if report == "errors" else " on all records"
        raise UserError(f"tables --{report} prints one report{on}: leave {', '.join(unused)} out")
    code = 0
    if report == "check":
        text, code = tables.regress(new, kept)
    elif report == "all":
        text = tables.everything(tables.leaderboard(evidence.read_all(new, kept)))
    elif report == "errors":
        text = tables.errors(tables.collect(evidence.read_all(new, kept)), args.id or None)
    elif report == "readings":
        table = tables.load_tables()[experiments.select_one(args.id[0], tables.load_tables())] if args.id else None
        text = tables.of_worth(tables.readings(evidence.read_all(new, kept), table))
    else:
        text = tables.report([new, kept], args.id or None, args.format, args.details, sys.stdout.isatty())
    print(text, end="")
    return code


def write_page(args) -> None:
    """Write all that is known as one page for a browser."""
    import tables
    from tables.page import page, pictures

    file = args.file or args.work_dir / "report.html"
    page.check_name(file)
    for folder in args.data:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}: name another, or leave --data out")
    root = args.work_dir / "records"
    here = evidence.read_all(root)
    frame = tables.collect(sorted([*here, *evidence.read_all(tables.RECORDS)], key=record.key))  # as of both roots
    detections = {
        entry["detections"]["sha256"]: beside
        for entry in here
        if "detections" in entry
        if (beside := record.path(root, *record.key(entry)).with_name(entry["detections"]["file"])).is_file()
    }
    compared = [(group, _compare(group, detections, args.data)) for group in pictures.groups(frame, detections)]
    found = _correspondence(args)
    page.write(frame, trace.found(args.work_dir), runs.commit(), datetime.now(UTC), file, compared, found)
    print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB): open it in a browser")


def _compare(group, detections: dict[str, Path], data: list[Path]):
    """What the rows of a group made of the same test images; a sentence where that cannot be said."""
    from tables.page import pictures

    if not group.files:
        return pictures.nothing(group)  # and torch stays where it is
    from transfer import compare

    try:
        return compare.compare({row: (detections[of], of) for row, of in group.files.items()}, group.transfer, data)
    except UserError as error:
        return str(error)


VIEWED = ("mini-moco-v2", "mini-resim-c4", "mini-random")  # on the page where none is named and all are there


def _correspondence(args):
    """What the named backbones take for the same place, or those of mini; None, without torch, where there are none."""
    files = [existing_backbone(name, args.work_dir, seed=0) for name in args.backbone] or _viewed(args.work_dir)
    if not files:
        return None
    from pretrain import correspondence
    from resim_bench import backbone

    generate_scenes([str(backbone.load(file)[1].get("id")) for file in files], data=None)
    return correspondence.find(list(dict.fromkeys(files)))


def _viewed(work_dir: Path) -> list[Path]:
    """The backbones of mini, of the lowest seed that all of them have."""
    each = [
        {file.parent.name: file for file in work_dir.glob(f"pretrain/{id}/seed-*/backbone.safetensors")}
        for id in VIEWED
    ]
    seeds = [name for name in set.intersection(*map(set, each)) if name.removeprefix("seed-").isdecimal()]
    lowest = min(seeds, key=lambda name: int(name.removeprefix("seed-")), default=None)
    return [of_one[lowest] for of_one in each] if lowest else []


def score(args) -> int:
    """Measure a transfer's detections again; 1 where the numbers are not the record's."""
    from transfer import score

    text, equal = score.score(args.file)
    print(text, end="")
    return 0 if equal else 1


def draw(args) -> None:
    """Write a figure of a study's kept records, of what errors cost in a table, lengths, runs, readings or scenes."""
    import tables

    studies = {id: study for id, study in tables.load_studies().items() if study.claims}
    ids = tables.load_tables() if args.errors else [*studies, "length", "monitor", "readings", "scenes"]
    chosen = experiments.select_one(args.id, ids)
    kinds = (".png",) if chosen == "scenes" else (".svg", ".png")
    if args.file.suffix not in kinds:
        raise UserError(f"{args.file} does not end in {' or '.join(kinds)}: name the file so")
    if args.errors:
        tables.draw_errors(
            tables.collect(evidence.read_all(args.work_dir / "records", tables.RECORDS)), chosen, args.file
        )
    elif chosen == "scenes":
        from resim_bench.data import scenes

        scenes.write_sheet(args.file)
    elif chosen == "length":
        records = evidence.read_all(args.work_dir / "records", tables.RECORDS)
        tables.draw_lengths(tables.collect(records), _seconds(args.work_dir), args.file)
    elif chosen == "monitor":
        names = {run.name: run.folder for run in trace.found(args.work_dir)}
        monitored = {name: lines for name in sorted(names, key=_by_number) if (lines := trace.monitored(names[name]))}
        if not monitored:
            raise UserError(f"no run in {args.work_dir} was monitored: pretrain with --cfg-options monitor.every=1")
        tables.draw_curves(monitored, trace.SHOWN, args.file)
    elif chosen == "readings":
        records = evidence.read_all(args.work_dir / "records", tables.RECORDS)
        tables.draw_readings(tables.readings(records), args.file)
    else:
        tables.draw_study(studies[chosen], tables.collect(evidence.read_all(tables.RECORDS)), args.file)
    print(f"wrote {args.file}")


def _by_number(name: str) -> list:
    """What sorts seed-2 before seed-19."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _seconds(work_dir: Path) -> dict[str, float]:
    """What each pre-training took that ended here by its recipe, by its id: the median over its seeds."""
    from tables.paper import load_protocols

    recipes, found = load_protocols()["pretrain"], defaultdict(list)
    for run in trace.found(work_dir):
        id = run.folder.parent.name
        if run.room != "pretrain" or run.state != trace.FINISHED or not (seconds := trace.seconds(run.folder)):
            continue
        if record.digest(runs.read_claim(run.folder).get("protocol")) == recipes.get(id):
            found[id].append(seconds)
    return {name: statistics.median(values) for name, values in found.items()}


def records_keep(args) -> None:
    """Copy finished records to tables/records."""
    import tables

    experiments.require_clone("records keep")
    kept = evidence.keep(args.work_dir / "records", tables.RECORDS, tables.file_of)
    print(f"kept {len(kept)} new record{'s' * (len(kept) != 1)} in {tables.RECORDS}")
