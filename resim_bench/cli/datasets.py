"""The command about data sets."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from resim_bench.errors import UserError
from resim_bench.machine import doctor


def data_sets(args) -> int:
    """Show the data sets, download one, or check a folder."""
    if (args.layout or args.decode) and args.action != "check":
        raise UserError("--as and --decode are for a folder: resim-bench data check DIR")
    if not args.action:
        from resim_bench.data import catalogue

        print(catalogue.report(args.to), end="")
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


def looks(layouts: Mapping[Path, str], root: Path = Path("data")) -> Iterator[doctor.Check]:
    """What the doctor looks at: the folders that were named, and those where the experiments look for their data.

    Args:
        layouts: of the folders that were named.
        root: of the others.
    """
    from resim_bench.data import catalogue

    for folder, layout in layouts.items():
        yield _look(folder, layout)
    for name, parts in catalogue.DATA_SETS.items():
        folders = dict.fromkeys(root / part.folder.split("/")[0] for part in parts)
        there = [folder for folder in folders if folder.is_dir()]
        yield from (_look(folder, None) for folder in there)
        if there or any(part.archive for part in parts) or name == "imagenet":
            yield doctor.Check(f"{name} in {root}", complete, (name, root), seconds=180)


def _look(folder: Path, layout: str | None) -> doctor.Check:
    remedy = f"`resim-bench data check {folder}` shows all that is wrong"
    return doctor.Check(str(folder), survey, (folder, layout), remedy, 180)


def survey(folder: Path, layout: str | None) -> doctor.Finding:
    """What is in a folder, and whether it can be used; its layout is guessed where it is None."""
    from resim_bench.data import check

    surveys = [part.survey for part in READERS[layout or check.guess(folder)](folder)]
    faults = [fault for of_part in surveys for fault in of_part.faults.values()]
    if faults:
        more = sum(fault.times for fault in faults) - 1
        return doctor.Finding(doctor.NOT_READY, faults[0].sentence + (f" ({more} more)" if more else ""))
    return doctor.Finding(doctor.READY, "; ".join(of_part.counted() for of_part in surveys))


def complete(name: str, root: Path) -> doctor.Finding:
    """Whether a data set of the catalogue is all there."""
    from resim_bench.data import catalogue

    parts = catalogue.DATA_SETS[name]
    problems = {part.title: problem for part in parts if (problem := part.problem(root / part.folder))}
    if not problems:
        return doctor.Finding(doctor.READY, f"{', '.join(part.title for part in parts)}: present")
    size = sum(part.archive.size for part in parts if part.archive and part.title in problems)
    said = ", ".join(f"{title} {problem}" for title, problem in problems.items())
    return doctor.Finding(doctor.NOTED, said, catalogue.HOW_TO_GET[name].format(size / 1e9))
