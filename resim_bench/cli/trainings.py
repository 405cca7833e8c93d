"""Commands that train or read a backbone: pre-training, transfer, probe, judge, mini and studies."""

import os
import time
from pathlib import Path

from resim_bench import evidence, experiments, record
from resim_bench.cli.arguments import LAST_SEED
from resim_bench.errors import UserError
from resim_bench.harness import parallel


def pretrain_ids(args) -> None:
    """Pre-train every recipe that the pattern selects, with every seed."""
    from pretrain import train

    own = args.id.endswith(".py")
    selected = [args.id] if own else experiments.select(args.id, experiments.pretrain_ids())
    each = train.options_of_each(selected, args.cfg_options)  # wrong ones are said before a minute of scenes
    generate_scenes(selected, args.data, args.launcher)
    for pretrain_id, cfg_options in each.items():
        for seed in _seeds(args):
            train.run(pretrain_id, seed=seed, **_options(args) | {"cfg_options": cfg_options})


def transfer_id(args) -> None:
    """Run a protocol for one backbone, or for each that a table's row pairs with it."""
    chosen = experiments.select_one(args.id, experiments.transfer_ids())
    backbones, missing = _backbones(chosen, args)
    if backbones:
        from transfer import train

        generate_scenes([chosen], args.data, args.launcher)
        for path in backbones:
            for seed in _seeds(args):
                train.run(chosen, path, seed=seed, **_options(args))
    if missing:
        if len(missing) == 1:
            raise _missing(missing[0], args.pretrain_seed)
        steps = " and ".join(experiments.how_to_get(missing))
        raise UserError(f"no backbone yet for {', '.join(missing)}: run {steps} first")


SCENES, OBJECTS = Path("data/mini"), Path("data/mini-objects")


def probe_features(args) -> None:
    """Train linear classifiers on a backbone, one per trial, and record their accuracy."""
    from pretrain import linear
    from resim_bench import backbone

    file = existing_backbone(args.backbone, args.work_dir, args.pretrain_seed)
    chosen = experiments.select_one(args.on or linear.usual(backbone.load(file)[1]["id"]), experiments.probe_ids())
    if chosen == "probe-mini" and args.data is None:
        from resim_bench.data import scenes

        scenes.write_objects(OBJECTS)
    for seed in _seeds(args):
        linear.run(chosen, file, seed=seed, **_options(args))


def judge(args) -> None:
    """Read a backbone, unless its record is there, and print its readings beside those of the known ones."""
    import tables
    from pretrain import judge
    from resim_bench import backbone

    file = backbone_file(args.backbone, args.work_dir, args.pretrain_seed)
    known = evidence.read_all(args.work_dir / "records", tables.RECORDS)
    there = file.is_file() or os.sep in args.backbone
    id = backbone.load(file)[1]["id"] if there else file.parts[-3]
    chosen = experiments.select_one(args.on or judge.usual(id), experiments.readings_ids())
    if there:
        if chosen == "readings-mini" and args.data is None and not SCENES.exists():
            from resim_bench.data import scenes

            scenes.write(SCENES)
        entry = record.read(judge.run(chosen, file, data=args.data, work_dir=args.work_dir))
    else:
        kept = [one for one in known if record.key(one) == (id, chosen, args.pretrain_seed, args.pretrain_seed)]
        if not kept:
            raise _missing(id, args.pretrain_seed)
        entry = kept[0]
    if not args.quiet:
        print("\n" + tables.beside(entry, tables.readings(known)), end="")


def generate_scenes(ids, data: Path | None, launcher: str = "none") -> None:
    """Generate the scenes of mini, where one of the ids needs them and nothing is in their place."""
    if data is None and not SCENES.exists() and any(name.startswith("mini-") for name in ids):
        from resim_bench.data import scenes
        from resim_bench.harness import launch

        launch.join_processes(launcher)
        launch.on_main_process(lambda: scenes.write(SCENES))


def _backbones(chosen: str, args) -> tuple[list[Path], list[str]]:
    """Backbone files to transfer, and the pre-training ids that have none yet."""
    wanted = experiments.paired_with(chosen) if args.backbone is None else [args.backbone]
    if not wanted:
        raise UserError(f"no row of a table pairs a backbone with {chosen}: name one with --backbone")
    files = {name: backbone_file(name, args.work_dir, args.pretrain_seed) for name in wanted}
    if args.backbone is None:
        released = {i: backbone_file(i, args.work_dir, 0) for i in experiments.released_for(chosen)}
        files |= {i: file for i, file in released.items() if file.is_file()}
    missing = [name for name, file in files.items() if not file.is_file() and os.sep not in name]
    return [file for name, file in files.items() if name not in missing], missing


def backbone_file(name: str, work_dir: Path, seed: int) -> Path:
    """The file that an id stands for, or the file itself."""
    from resim_bench import backbone

    if Path(name).is_file() or os.sep in name:
        return Path(name)
    if name.startswith("given-"):
        return backbone.path(work_dir, name, seed=0)
    if os.path.isfile(own := backbone.path(work_dir, name, seed)):  # of a recipe from outside
        return own
    recipe, *epoch = name.partition("@")
    return backbone.path(work_dir, experiments.select_one(recipe, experiments.pretrain_ids()) + "".join(epoch), seed)


def existing_backbone(name: str, work_dir: Path, seed: int) -> Path:
    """The file that an id stands for, or the file itself.

    Raises:
        UserError: there is none for an id, and how to get it.
    """
    file = backbone_file(name, work_dir, seed)
    if not file.is_file() and os.sep not in name:
        raise _missing(file.parts[-3], seed)
    return file


def _missing(id: str, seed: int) -> UserError:
    of_seed = f" with seed {seed}" if not id.startswith("given-") else ""
    return UserError(f"no backbone yet for {id}{of_seed}: run {experiments.how_to_get_one(id, seed)} first")


HALVES = ("mini", "mini-coco")
HEADLINES = ("mini-voc-full", "mini-voc-frozen", "mini-coco-1x-frozen")  # of their rows, those that one seed runs


def mini(args) -> None:
    """Run the headline rows of both halves of mini with one seed and print their tables."""
    pairs = [pair for half in HALVES for pair in experiments.of_table(half) if pair.transfer_id in HEADLINES]
    _run_unit([experiments.Trial(pair, args.seed) for pair in pairs], args.work_dir)
    from tables import report

    print()
    print(report([args.work_dir / "records"], list(HALVES)), end="")


def _run_unit(trials: list[experiments.Trial], *where: Path) -> None:
    """Generate the scenes where they are needed, and run trials; `where` is as `parallel.run` has it."""
    from resim_bench.data import scenes

    if any(trial.experiment.pretrain_id.startswith("mini-") for trial in trials):
        scenes.write(SCENES)
    if any(trial.experiment.transfer_id == "probe-mini" for trial in trials):
        scenes.write_objects(OBJECTS)
    parallel.run(trials, *where)


def run_study(args) -> None:
    """Run the units of a plan that lack kept records, keep theirs, and print the table; of other data none is kept."""
    import tables

    experiments.require_clone("a study")
    evidence.refuse_locked(tables.RECORDS)
    known = tables.load_studies()
    chosen = experiments.select_one(args.id, known)
    study = known[chosen]
    if study.pinned:
        steps = " then ".join(f"`{step}`" for step in tables.load_tables()[study.table].run)
        raise UserError(
            f"{chosen} is an earlier edition and has run, by the recipes of its day: a seed anew is {steps}"
        )
    where, records = [args.work_dir], tables.RECORDS
    if args.data:  # beside the plan's own, of the same backbones
        _check_data(args.data, {row.transfer_id for row in experiments.of_table(study.table)})
        tests_dir = args.work_dir / "on" / "-".join(args.data.resolve().parts[1:])
        where, records = [args.work_dir, args.data, tests_dir], tests_dir / "records"
    units = [{(*trial.experiment, trial.seed, trial.seed): trial for trial in trials} for trials in tables.units(study)]
    kept = set(map(record.key, evidence.read_all(records)))
    lacking = [{names: trial for names, trial in unit.items() if names not in kept} for unit in units]
    lacking = [unit for unit in lacking if unit]
    print(f"{chosen}: {len(units) - len(lacking)} of {len(units)} units have run", flush=True)
    for number, unit in enumerate(lacking[: args.units], len(units) - len(lacking) + 1):
        started = time.monotonic()
        _run_unit(list(unit.values()), *where)
        if not args.data:
            evidence.keep(args.work_dir / "records", tables.RECORDS, tables.file_of, unit)
        minutes = (time.monotonic() - started) / 60
        print(f"{chosen}: {number} of {len(units)} units have run; this one took {minutes:.0f} min", flush=True)
    print(f"{chosen}: records are in {records}\n")
    print(tables.report([records], [study.table]), end="")


def _check_data(data: Path, transfer_ids: set[str]) -> None:
    """Refuse what is no folder of these protocols' data, before an hour of pre-training."""
    from transfer import protocols

    for transfer_id in transfer_ids & experiments.transfer_ids().keys():
        protocols.data_set(protocols.load(transfer_id)).find(data)


def _seeds(args) -> range:
    if args.seed + args.trials - 1 > LAST_SEED:
        raise UserError(f"{args.trials} trials from seed {args.seed} on go beyond {LAST_SEED}, the last: start earlier")
    return range(args.seed, args.seed + args.trials)


def _options(args) -> dict:
    names = ("data", "work_dir", "cfg_options", "resume", "launcher", "log")
    return {name: getattr(args, name) for name in names if name in args}
