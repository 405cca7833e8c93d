"""The command that draws pictures: which room draws what, by what is named."""

import importlib
import os
import re
from pathlib import Path

from resim_bench import experiments
from resim_bench.cli.trainings import existing_backbone, generate_scenes
from resim_bench.errors import UserError

BACKBONE = "backbone:"  # before an id that is a recipe's, too
LONGEST = 100  # letters of a picture's name that is made of another


def show(args) -> None:
    """Write a picture of a training's input, a result, a backbone's similarities or a folder."""
    name = re.sub(r"[^\w.@-]+", "_", args.what).strip("_.")[-LONGEST:] or "here"
    file = args.file or args.work_dir / "show" / f"{name}.png"
    if file.suffix != ".png":
        raise UserError(f"{file} does not end in .png: name the file so")
    options = {"data": args.data, "count": args.images}
    sheet = _sheet(args, {name: value for name, value in options.items() if value is not None})
    from resim_bench import drawing

    drawing.write(file, sheet)
    print(f"wrote {file}")


def _sheet(args, options: dict):
    """What is named, drawn; an id comes before a folder of that name."""
    what, ending = args.what, Path(args.what).suffix
    recipes, protocols = experiments.pretrain_ids(), experiments.transfer_ids()
    known = what in recipes or what in protocols
    if os.path.isdir(what) and not known:
        return _of_folder(Path(what), args.layout, options)
    if args.layout:
        raise UserError(f"--as is for a folder, and {what} is none: leave it out")
    if ending in (".json", ".npz"):
        import transfer.show

        return transfer.show.result(Path(what), **options)
    if _is_backbone(what, ending, known, args.work_dir):
        import pretrain.show

        name = what.removeprefix(BACKBONE)
        generate_scenes([name], args.data)
        return pretrain.show.backbone(existing_backbone(name, args.work_dir, seed=0), **options)
    if ending != ".py" and (os.sep in what or os.path.exists(what)):
        raise UserError(f"{what} cannot be shown: give an id, a record, a backbone's file or a folder of images")
    chosen = what if ending == ".py" else experiments.select_one(what, [*recipes, *protocols])
    room = importlib.import_module("transfer.show" if chosen in protocols else "pretrain.show")
    generate_scenes([chosen], args.data)
    return room.training(chosen, **options)


def _is_backbone(what: str, ending: str, known: bool, work_dir: Path) -> bool:
    """Whether a backbone is named: by its file or as one, by an id that is no recipe's, or of a recipe from outside."""
    from resim_bench import backbone

    named = what.startswith((BACKBONE, "given-")) or "@" in what or ending == ".safetensors"
    return named or (not known and os.sep not in what and backbone.path(work_dir, what, seed=0).is_file())


def _of_folder(folder: Path, layout: str | None, options: dict):
    from resim_bench.data import check

    if "data" in options:
        raise UserError(f"{folder} is the images itself: leave --data out")
    layout = layout or check.guess(folder)
    if layout == "imagefolder":
        import pretrain.show

        return pretrain.show.folder(folder, **options)
    import transfer.show

    return transfer.show.folder(layout, folder, **options)
