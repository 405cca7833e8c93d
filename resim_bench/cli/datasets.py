"""The command about data sets."""

from pathlib import Path

from resim_bench.errors import UserError


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
