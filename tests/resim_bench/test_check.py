"""`resim-bench data check`: the layout, all faults at once, and the exit code."""

import os
from functools import partial
from types import SimpleNamespace

import pytest
from PIL import Image

from resim_bench import cli
from resim_bench.cli import datasets
from resim_bench.data import check, images
from resim_bench.data.survey import Survey
from resim_bench.errors import UserError


def write(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        Image.effect_noise((40, 30), 50).save(path)
    else:
        path.write_bytes(content)


NO_IMAGE = "of no format that is read"
LAYOUTS = {
    "voc": ["VOC2007/ImageSets/Main/trainval.txt"],
    "voc, its parent": ["VOCdevkit/VOC2012/JPEGImages/a.jpg"],
    "coco": ["annotations/instances_train2017.json", "train2017/a.jpg"],
    "imagefolder": ["cup/a.jpg"],
    "imagefolder, the training split": ["train/cup/a.jpg", "README.md"],
    "imagefolder, flat": ["a.jpg"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_guessed(tmp_path, layout):
    for name in LAYOUTS[layout]:
        write(tmp_path / name, b"")
    assert check.guess(tmp_path) == layout.partition(",")[0]


UNCLEAR = {
    "both": (["VOC2007/x", "annotations/instances_val2017.json"], "read as a VOC devkit and as a COCO folder: say"),
    "images beside": (["VOC2007/x", "a.jpg"], "can be read as a VOC devkit and as an ImageFolder: say which"),
    "several": (["voc/VOCdevkit/VOC2007/x", "cup/a.jpg"], "looks like none of"),
    "nothing": (["notes.txt"], "looks like none of a VOC devkit, a COCO folder, an ImageFolder: say which it is by"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_an_unclear_layout_is_asked_for(tmp_path, case):
    files, sentence = UNCLEAR[case]
    for name in files:
        write(tmp_path / name, b"")
    with pytest.raises(UserError, match=sentence):
        check.guess(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "file", "x" * 300, "nul\0"])
def test_no_folder_is_a_sentence(tmp_path, name):
    write(tmp_path / "file", b"")
    with pytest.raises(UserError, match="there is no folder .*: name the folder of a data set"):
        check.guess(tmp_path / name)


def test_all_faults_are_shown_by_kind(tmp_path, capsys):
    train, test = Survey("VOC trainval", 1200, 3000, 20), Survey("VOC test")
    for i in range(1234):
        train.leave_out("boxes without area", f"{i}.xml")
    train.leave_out("crowds", "7.xml")
    for i in range(2):
        test.fault("inverted boxes", f"{i}.xml", f"{i}.xml has an inverted box: correct it")
    test.fault("missing images", "9.jpg", "there is no 9.jpg: restore it")
    parts = [check.Part(train, []), check.Part(test, [])]
    assert check.check(tmp_path, "voc", {"voc": lambda folder: parts}, decode=False) == 2
    assert (
        capsys.readouterr().out
        == f"""\
{tmp_path} as a VOC devkit

VOC trainval: 1,200 images, 3,000 objects of 20 classes
  left out
    1,234  boxes without area  0.xml, …
        1  crowds              7.xml

VOC test: 0 images of 0 classes
  faults
        2  inverted boxes  0.xml, …
           0.xml has an inverted box: correct it
        1  missing images  9.jpg
           there is no 9.jpg: restore it

{tmp_path} cannot be used: 3 faults; no image was decoded (--decode does)
"""
    )


def test_a_reader_that_gives_up_is_a_verdict(tmp_path, capsys):
    def read(folder):
        raise UserError("there is no list: give one")

    assert check.check(tmp_path, "coco", {"coco": read}, decode=True) == 2
    assert capsys.readouterr().out.endswith(f"\n\n  there is no list: give one\n\n{tmp_path} cannot be used: 1 fault\n")


def test_a_folder_of_images_is_checked(tmp_path, capsys):
    write(tmp_path / "cup" / "1.png")
    write(tmp_path / "cup" / os.fsdecode(b"caf\xe9.png"))
    assert cli.main(["data", "check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"\n{tmp_path}: 2 images of 1 class\n" in out and out.endswith(
        "can be used; no image was decoded (--decode does)\n"
    )
    assert cli.main(["data", "check", str(tmp_path), "--decode"]) == 0
    assert "all 2 images decode\n" in capsys.readouterr().out
    (tmp_path / "cup" / "2.jpg").symlink_to("nowhere")
    assert cli.main(["data", "check", str(tmp_path), "--as", "imagefolder"]) == 2
    out = capsys.readouterr().out
    assert "1  broken links  cup/2.jpg\n" in out and "cannot be used: 1 fault;" in out


def test_every_image_that_does_not_decode_is_named(tmp_path, capsys):
    for i in range(5):
        write(tmp_path / "cup" / f"{i}.png")
    for i in (1, 3):
        file = tmp_path / "cup" / f"{i}.png"
        file.write_bytes(file.read_bytes()[: 500 + 10 * i])
    write(tmp_path / "cup" / "4.png", b"text")
    assert cli.main(["data", "check", str(tmp_path), "--decode"]) == 2
    shown = capsys.readouterr().out.splitlines()
    at = shown.index("  images that do not decode: restore them, or take them out, which makes another data set")
    assert shown[at + 1].startswith("        2  ")
    assert [line.strip() for line in shown[at + 2 : -2]] == ["cup/1.png", "cup/3.png", f"1  {NO_IMAGE}", "cup/4.png"]
    assert shown[-1] == f"{tmp_path} cannot be used: 3 faults"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["check"], "data check needs a folder"),
        (["--decode"], "--as and --decode are for a folder: resim-bench data check DIR"),
        (["get", "voc", "--as", "voc"], "--as and --decode are for a folder"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, sentence, capsys):
    assert cli.main(["data", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_decoding_is_left_by_ctrl_c(tmp_path, monkeypatch):
    """What has begun ends; nothing else is begun."""
    begun = tmp_path / "begun"

    def decode(path):
        with open(begun, "a") as file:
            file.write("x")

    def interrupted(refusals, *_, **__):
        next(refusals)
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "decode", decode)
    monkeypatch.setattr(images, "tqdm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        images.unreadable(["a.png"] * 100_000, "decoding")
    assert len(begun.read_text()) < 50_000


def test_of_two_splits_each_is_read(tmp_path, capsys, monkeypatch):
    class Layout:
        @staticmethod
        def find(folder):
            return folder

        @staticmethod
        def splits(root):
            train, test = Survey(f"{root}, train", 2, 4, 1), Survey(f"{root}, test")
            train.note("images that are tested, too", "a.png")
            test.fault("missing lists", "test.txt", "there is no list of the test: write one")
            return [SimpleNamespace(survey=survey, names=["a.png"], path=lambda i: "a.png") for survey in (train, test)]

        @classmethod
        def surveys(cls, root):
            return [split.survey for split in cls.splits(root)]

    monkeypatch.setitem(datasets.READERS, "voc", partial(datasets._read_annotated, Layout))
    assert cli.main(["data", "check", str(tmp_path), "--as", "voc"]) == 2
    out = capsys.readouterr().out
    assert f"\n{tmp_path}, train: 2 images, 4 objects of 1 class\n  notes\n        1  images that are" in out
    assert f"\n{tmp_path}, test: 0 images of 0 classes\n  faults\n" in out and "is no list of the test: write" in out
