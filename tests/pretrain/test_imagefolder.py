"""Which files of a folder are its images."""

import os
import shutil
import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from pretrain import imagefolder
from resim_bench.data import imagenet100
from resim_bench.data.images import ENDINGS
from resim_bench.harness import runs


def make(root: Path, *entries: str) -> Path:
    """Files, empty ones, by name; `name -> target` is a link, `name/` a folder, `name |` a pipe, `name *` an image."""
    for entry in entries:
        name, _, target = entry.partition(" ")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if target.startswith("->"):
            path.symlink_to(target[3:])
        elif target == "|":
            os.mkfifo(path)
        elif target == "*":
            Image.new("RGB", (8, 8)).save(path, format="PNG")
        elif name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_text("")
    return root


def read(root, name=""):
    """The images by class, what was left out and the faults as {kind: (times, first)}, and the whole."""
    found = imagefolder.read(root, name)
    by_class = {c: [] for c in found.classes}
    for image, label in zip(found.names, found.labels, strict=True):
        assert os.path.lexists(found.path(found.names.index(image)))
        by_class[found.classes[label]].append(image.partition("/")[2])
    survey = found.survey
    said = [{kind: met[:2] for kind, met in some.items()} for some in (survey.left_out, survey.faults)]
    assert survey.images == len(found.names) and survey.classes == len(found.classes)
    return by_class, *said, found


HIDDEN, FOREIGN = "hidden files and folders", "files that are no readable images"
LINKED, EMPTY = "links to folders that take part already", "folders without images"
STRAY, BESIDE = "images outside of a class folder", "folders beside train"
TREES = {
    "plain": (
        ["a/1.jpg", "a/2.png", "b/1.JPEG", "b/c/1.webp"],
        {"a": ["1.jpg", "2.png"], "b": ["1.JPEG", "c/1.webp"]},
        {},
    ),
    "sorted as paths, not as text": (
        ["a/x-1/1.jpg", "a/x/1.jpg", "a/x.jpg", "a/X.jpg", "a-b/1.jpg", "A/1.jpg"],
        {"A": ["1.jpg"], "a": ["X.jpg", "x/1.jpg", "x-1/1.jpg", "x.jpg"], "a-b": ["1.jpg"]},
        {},
    ),
    "hidden": (
        ["a/1.jpg", "a/._1.jpg", "a/.DS_Store", "a/.ipynb_checkpoints/1-checkpoint.jpg", ".ipynb_checkpoints/"]
        + ["__MACOSX/a/1.jpg", "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", ".git/x.jpg"],
        {"a": ["1.jpg"]},
        {HIDDEN: (7, ".git")},
    ),
    "every known ending, unopened": ([f"a/1{e}" for e in ENDINGS], {"a": sorted(f"1{e}" for e in ENDINGS)}, {}),
    "other endings are looked into": (
        ["a/1.jpg", "a/README.txt", "a/Thumbs.db", "a/3", "a/2 *", "a/photo.upload *", "a/depth.pfm"],
        {"a": ["1.jpg", "2", "photo.upload"]},
        {FOREIGN: (4, "a/3")},
    ),
    "a linked folder": (
        ["store/1.jpg", "in/a/more -> ../../store", "in/a/0.jpg"],
        {"a": ["0.jpg", "more/1.jpg"]},
        {},
    ),
    "a linked class": (["store/1.jpg", "in/a -> ../store"], {"a": ["1.jpg"]}, {}),
    "a linked image": (["store/1.jpg", "in/a/2.jpg -> ../../store/1.jpg"], {"a": ["2.jpg"]}, {}),
    "a folder itself is before links to it": (
        ["a -> b", "b/1.jpg", "b/itself -> .", "b/up -> ..", "b/around -> ../../.."],
        {"b": ["1.jpg"]},
        {LINKED: (4, "a")},
    ),
    "linked twice": (
        ["store/1.jpg", "store/again -> .", "in/b -> ../store", "in/a/sub -> ../../store"],
        {"a": ["sub/1.jpg"]},
        {LINKED: (2, "a/sub/again")},
    ),
    "a folder with an image's name": (["a/1.jpg/2.jpg"], {"a": ["1.jpg/2.jpg"]}, {}),
    "a class without images": (
        ["a/1.jpg", "b/", "c/d/notes.txt"],
        {"a": ["1.jpg"]},
        {EMPTY: (2, "b"), FOREIGN: (1, "c/d/notes.txt")},
    ),
    "images at the top": (
        ["a/1.jpg", "2.jpg", "notes.txt"],
        {"a": ["1.jpg"]},
        {STRAY: (1, "2.jpg"), FOREIGN: (1, "notes.txt")},
    ),
    "broken links without an image's name": (
        ["a/1.jpg", "a/data -> nowhere", "a/run |"],
        {"a": ["1.jpg"]},
        {FOREIGN: (2, "a/data")},
    ),
    "the training split": (
        ["train/a/1.jpg", "val/a/2.jpg", "val2/x.jpg", "labels/x.txt"],
        {"a": ["1.jpg"]},
        {BESIDE: (3, "labels")},
    ),
    "train alone": (["train/a/1.jpg", "readme.txt"], {"a": ["1.jpg"]}, {}),
    "a class called train": (
        ["bus/1.jpg", "car/1.jpg", "train/1.jpg"],
        {"bus": ["1.jpg"], "car": ["1.jpg"], "train": ["1.jpg"]},
        {},
    ),
    "a deep class called train": (
        ["bus/1.jpg", "car/x/1.jpg", "train/ice/1.jpg"],
        {"bus": ["1.jpg"], "car": ["x/1.jpg"], "train": ["ice/1.jpg"]},
        {},
    ),
    "a class called train in a split": (
        ["train/train/1.jpg", "train/bus/1.jpg"],
        {"bus": ["1.jpg"], "train": ["1.jpg"]},
        {},
    ),
    "a class called test": (["test/1.jpg"], {"test": ["1.jpg"]}, {}),
    "classes called as splits": (["test/1.jpg", "exam/1.jpg"], {"exam": ["1.jpg"], "test": ["1.jpg"]}, {}),
    "the class train alone": (["train/1.jpg"], {"train": ["1.jpg"]}, {}),
}


@pytest.mark.parametrize("tree", TREES)
def test_which_files_take_part(tmp_path, tree):
    entries, classes, left_out = TREES[tree]
    make(tmp_path, *entries)
    root = tmp_path / "in" if (tmp_path / "in").exists() else tmp_path
    assert read(root)[:3] == (classes, left_out, {})


def test_names_need_not_be_text(tmp_path):
    name = os.fsdecode(b"caf\xe9\n.jpg")
    make(tmp_path, "a/1.jpg").joinpath("a", name).write_text("")
    make(tmp_path, "a/.hidden").joinpath("a", "." + name).write_text("")
    classes, left_out, _, found = read(tmp_path)
    assert classes == {"a": ["1.jpg", name]} and left_out == {HIDDEN: (2, r"a/.caf\udce9\n.jpg")}
    found.survey.line().encode()
    digest = found.facts()["digest"]
    assert digest == runs.content_digest(images=[b"a/1.jpg", b"a/caf\xe9\n.jpg"])
    assert len(found.old_digest(tmp_path)) == 64


BROKEN, PIPES, NO_CLASS = "broken links", "pipes, sockets and devices", "images without a class folder"
FAULTS = {
    "nothing": ([], "no images", "holds no images: expected .*/<class>/<image>"),
    "no image": (["a/1.txt", "b/"], "no images", "holds no images: expected"),
    "images at the top alone": (["1.jpg", "2.jpg"], NO_CLASS, "put its images into a folder of a class, as .*/1.jpg"),
    "flat splits": (["train/1.jpg", "test/1.jpg"], NO_CLASS, "train has no class folders: put"),
    "splits": (
        ["Training/a/1.jpg", "Testing/a/1.jpg"],
        "splits in place of classes",
        "holds Testing and Training, but no train",
    ),
    "a test alone": (["val/a/1.jpg"], "splits in place of classes", "holds val, but no train: name the training"),
    "a broken link": (["a/1.jpg", "a/2.jpg -> nowhere"], BROKEN, r"a/2.jpg is no readable image \(No such file"),
    "a link to itself": (["a/1.jpg", "a/2.jpg -> 2.jpg"], BROKEN, r"a/2.jpg is .* \(Too many levels"),
    "a pipe": (["a/1.jpg", "a/2.jpg |"], PIPES, r"a/2.jpg is no readable image \(it is a pipe\)"),
    "a device": (["a/2.jpg -> /dev/zero"], PIPES, r"\(it is a device\)"),
}


@pytest.mark.parametrize("tree", FAULTS)
def test_what_cannot_be_used_is_a_sentence(tmp_path, tree):
    entries, kind, sentence = FAULTS[tree]
    survey = imagefolder.read(make(tmp_path, *entries)).survey
    assert [*survey.faults] == [kind]
    with pytest.raises(imagefolder.UserError, match=sentence):
        survey.refuse()


@pytest.mark.parametrize("name", ["nowhere", "file", "x" * 300, "nul\0"])
def test_no_folder_is_a_sentence(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(imagefolder.UserError, match="there is no image folder .*: put the training images there"):
        imagefolder.read(tmp_path / name).survey.refuse()


def test_a_folder_that_may_not_be_read_is_a_sentence(tmp_path, monkeypatch):
    make(tmp_path, "a/1.jpg", "b/1.jpg")

    def refused(folder):
        if str(folder).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", refused)
    classes, _, faults, found = read(tmp_path)
    assert classes == {"a": ["1.jpg"]} and faults == {"folders that cannot be read": (1, "b")}
    with pytest.raises(imagefolder.UserError, match="/b cannot be read .Permission denied.: allow it, or remove it"):
        found.survey.refuse()


def test_the_imagenet_100_list_applies_to_wnids(tmp_path):
    wnids = imagenet100()
    assert len(set(wnids)) == 100
    make(tmp_path, *(f"{wnid}/a.jpg" for wnid in [*wnids, "n00000000"]))
    found = imagefolder.read(tmp_path, "imagenet100")
    assert found.classes == sorted(wnids) and len(found.names) == 100 and found.labels[-1] == 99
    assert len(imagefolder.read(tmp_path, "imagenet1k").classes) == 101
    shutil.rmtree(tmp_path / wnids[5])
    with pytest.raises(imagefolder.UserError, match=f"lacks 1 of the 100 classes of IN-100, first of them {wnids[5]}"):
        imagefolder.read(tmp_path, "imagenet100").survey.refuse()
    make(tmp_path, f"{wnids[5]}/")
    assert "missing classes" in imagefolder.read(tmp_path, "imagenet100").survey.faults


def test_the_digest_goes_by_names_and_the_old_one_by_sizes_too(tmp_path):
    before = imagefolder.read(make(tmp_path, "train/a/1.jpg", "train/b/1.jpg"))
    old = before.old_digest(tmp_path)
    assert old == runs.data_digest(tmp_path, tmp_path.rglob("*.jpg"))
    (tmp_path / "train" / "a" / "1.jpg").write_text("repaired")
    repaired = imagefolder.read(tmp_path)
    assert repaired.facts() == before.facts() == imagefolder.read(tmp_path / "train").facts()
    assert repaired.old_digest(tmp_path) != old
    (tmp_path / "train" / "a" / "1.jpg").rename(tmp_path / "train" / "a" / "2.jpg")
    assert imagefolder.read(tmp_path).facts()["digest"] != before.facts()["digest"]


def test_what_has_not_changed_is_not_listed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(imagefolder, "MANY", 1)
    make(tmp_path, "a/1.jpg", "a/.x", "b/c/1.jpg", "d/1.jpg", "d/2.txt", "e/1.jpg -> ../a/1.jpg")
    settled = time.time() - 60
    for folder in (tmp_path, *tmp_path.rglob("*/")):
        os.utime(folder, (settled, settled))
    first = imagefolder.read(tmp_path)
    listed, scan = [], imagefolder._scan
    monkeypatch.setattr(imagefolder, "_scan", lambda folder: listed.append(folder) or scan(folder))
    assert imagefolder.read(tmp_path) == first
    assert listed == [f"{tmp_path}/d", f"{tmp_path}/e"], "what was looked into or is a link is looked at again"
    make(tmp_path, "b/c/2.jpg")
    listed.clear()
    assert imagefolder.read(tmp_path).names == ["a/1.jpg", "b/c/1.jpg", "b/c/2.jpg", "d/1.jpg", "e/1.jpg"]
    assert f"{tmp_path}/b/c" in listed and f"{tmp_path}/a" not in listed


@pytest.mark.parametrize("nonsense", [3, [], {"": 5}, {"": [1, 2]}, {"a": None}])
def test_a_memory_of_nonsense_is_none(tmp_path, monkeypatch, nonsense):
    monkeypatch.setattr(imagefolder.memory, "recall", lambda *_: nonsense)
    assert imagefolder.read(make(tmp_path, "a/1.jpg")).names == ["a/1.jpg"]


NAMES = st.sampled_from(["a", "b", "train", "val", "x.jpg", "y.PNG", "z.txt", ".h", "._x.jpg", "é", "a b", "-", "..."])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(NAMES, min_size=1, max_size=4)), links=st.lists(st.tuples(NAMES, NAMES, NAMES), max_size=3)
)
def test_any_tree_is_read_once_and_in_order_or_has_a_fault(tmp_path, files, links):
    root = tmp_path / "tree"
    root.mkdir()
    try:
        for parts in files:
            path = root.joinpath(*parts)
            if not any(p.is_file() for p in (path, *path.parents)) and not path.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("")
        for *place, target in links:
            link = root.joinpath(*place)
            if link.parent.is_dir() and not os.path.lexists(link):
                link.symlink_to(root / target)
        found = imagefolder.read(root)
        assert bool(found.names) or found.survey.faults
        keys = [(c, name.split("/")[1:]) for name in found.names for c in [name.split("/")[0]]]
        assert keys == sorted(keys) and len({*found.names}) == len(found.names)
        folders = {os.path.dirname(found.path(i)) for i in range(len(found.names))}
        assert len({os.path.realpath(folder) for folder in folders}) == len(folders), "no folder counts twice"
        assert all(
            found.classes[label] == name.split("/")[0] for name, label in zip(found.names, found.labels, strict=True)
        )
        assert not any(part.startswith(".") for name in found.names for part in name.split("/"))
    finally:
        shutil.rmtree(root)
