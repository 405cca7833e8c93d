"""What is drawn of detection: boxes where the pipeline put their objects, and what a test found, judged."""

import json
from functools import partial

import numpy as np
import pytest

from resim_bench import cli, drawing, record
from resim_bench.errors import UserError
from tests.transfer.conftest import COLOURS, TINY_COCO, make_devkit
from tests.transfer.test_detections import some
from tests.transfer.test_score import keep, voc  # noqa: F401 (fixtures)
from transfer import errors, protocols, show
from transfer.detections import SUFFIX, write
from transfer.voc import read_split


def panels_of(sheet):
    return [panel for row in sheet.rows for panel in row]


def fills(image, mark):
    """Whether the one object of a mark's colour fills its box, to two pixels, and is nowhere else."""
    here = (np.abs(image.astype(int) - COLOURS[mark.text]) < 60).all(axis=2)
    y, x = np.nonzero(here)
    return np.allclose((x.min(), y.min(), x.max() + 1, y.max() + 1), mark.box, atol=2)


def test_boxes_are_where_the_pipeline_put_their_objects(devkit):
    sheet = show.training("mini-voc-full", devkit)
    *trained, tested = panels_of(sheet)
    assert len(trained) == 4 and len({panel.image.shape for panel in trained}) == 1, "padded to a batch"
    assert "padded to" in sheet.heading[1] and any("mirrored" in panel.title for panel in trained)
    alone = [panel for panel in [*trained, tested] if len(panel.marks) == 1]
    assert len(alone) > 2 and all(fills(panel.image, panel.marks[0]) for panel in alone)
    assert tested.title.startswith("test: test_000.jpg, 96 × 64 → 144 × 96 px")
    assert "mirrored" not in tested.title


def test_masks_are_those_of_the_padded_batch(coco_folder, monkeypatch):
    monkeypatch.setattr(protocols, "load", partial(protocols.load, options=TINY_COCO | {"total_batch": 6}))
    *trained, tested = panels_of(show.training("coco-1x", coco_folder, count=3))
    assert len(trained) == 3 and tested.marks
    for panel in [*trained, tested]:
        for mark in panel.marks:
            scale = panel.image.shape[0] / mark.mask.shape[0]
            y, x = np.nonzero(mark.mask)
            extent = (x.min(), y.min(), x.max() + 1, y.max() + 1)
            assert np.allclose(np.multiply(extent, scale), mark.box, atol=1.5), "objects here are rectangles"
            if len(panel.marks) == 1 and mark.text in COLOURS:
                assert fills(panel.image, mark)


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_a_folder_shows_what_was_read(devkit, coco_folder, layout):
    sheet = show.folder(layout, {"voc": devkit, "coco": coco_folder}[layout], count=20)
    panels = panels_of(sheet)
    assert [panel.title.partition(":")[0] for panel in panels] == ["train"] * 10 + ["test"] * (
        4 if layout == "voc" else 6
    )
    assert all(
        fills(panel.image, panel.marks[0])
        for panel in panels
        if len(panel.marks) == 1 and "," not in panel.marks[0].text
    )
    texts = [mark.text for panel in panels for mark in panel.marks]
    odd = {(mark.text.partition(", ")[2], mark.line) for panel in panels for mark in panel.marks} - {("", "solid")}
    assert odd == (
        {("ignored in the test", "dotted")}
        if layout == "voc"
        else {("left out", "dashed"), ("ignored in the test", "dotted")}
    )
    if layout == "voc":
        split = read_split(devkit, "train")
        assert [mark.box for panel in panels[:10] for mark in panel.marks] == split.boxes.tolist()
    assert set(COLOURS) <= set(texts)


def test_a_folder_at_fault_is_refused(devkit):
    (devkit / "VOC2007/JPEGImages/test_000.jpg").unlink()
    with pytest.raises(UserError, match="names 'test_000', but there is no"):
        show.folder("voc", devkit)


def test_what_was_found_is_judged(voc):  # noqa: F811
    ordered = voc._replace(found=errors.in_order(voc.found))
    found = {image: show.judged_marks(ordered, image) for image in (0, 1)}
    assert [(mark.text, mark.line) for mark in found[0][1]] == [("true: cat 0.90", "solid")]
    assert [(mark.text, mark.width) for mark in found[0][0]] == [("", 1)]
    wanted, marks = found[1]
    assert [mark.text for mark in marks] == ["false: dog 0.80, background", "true: dog 0.70"]
    assert [mark.line for mark in marks] == ["dashed", "solid"] and marks[0].box == [50, 50, 60, 60]
    assert [(mark.text, mark.line) for mark in wanted] == [("", "solid"), ("ignored: sheep", "dotted")]
    wanted, marks = show.judged_marks(ordered, 1, least=0.75)
    assert [mark.text for mark in marks] == ["false: dog 0.80, background"]
    assert [mark.text for mark in wanted] == ["missed: dog", "ignored: sheep"]
    wanted, marks = show.judged_marks(ordered, 1, most=1)
    assert [mark.text for mark in marks] == ["false: dog 0.80, background"] and wanted[0].line == "dotted"


def test_a_result_is_drawn_on_its_images_where_they_are(voc, keep, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    names = ["test_000", "test_001"]
    here = voc._replace(images=voc.images._replace(ids=names, sizes=np.array([[64, 96], [60, 90]])))
    place = keep(here)
    sheet = show.result(place)
    (plain, best), (other, _) = sheet.rows
    assert (plain.image == 60).all() and plain.image.shape == (64, 96, 3) and "image not found" in plain.title
    assert best.notes == ["1 true: cat 0.90"] and [mark.text for mark in best.marks] == ["", "1"]
    devkit = make_devkit(tmp_path / "photos" / "VOCdevkit")
    (plain, _), (other, _) = show.result(place.with_suffix(SUFFIX), devkit.parent).rows
    assert plain.title == "test_000; score ≥ 0.5" and plain.image.std() > 5
    assert "image not found" in other.title, "that of this name has another size"
    with pytest.raises(UserError, match="holds no VOC20xx folder"):
        show.result(place, tmp_path)
    drawing.draw(sheet)


def test_a_result_of_masks_shades_them():
    one = some()
    marks = show.judged_marks(one._replace(found=errors.in_order(one.found)), 1)[1]
    assert [mark.mask.shape for mark in marks] == [tuple(one.images.sizes[1].tolist())] * 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda place: place.with_suffix(SUFFIX).unlink(), "cannot read the detections"),
        (lambda place: place.write_text("{}"), "is no valid record"),
        (
            lambda place: record.write(
                place.parents[2],
                {k: v for k, v in record.content(json.loads(place.read_text())).items() if k != "detections"},
            ),
            "names no detections: records of probes do not, nor those from before they were kept; give another, or",
        ),
    ],
)
def test_a_record_without_its_detections_is_one_sentence(voc, keep, tmp_path, capsys, change, said):  # noqa: F811
    place = keep(voc)
    change(place)
    assert cli.main(["show", str(place), str(tmp_path / "a.png")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1 and not (tmp_path / "a.png").exists()


def test_the_command_writes_a_picture(voc, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    write(tmp_path / f"mine{SUFFIX}", voc)
    assert cli.main(["show", f"mine{SUFFIX}", "--images", "1"]) == 0
    assert capsys.readouterr().out == f"wrote work_dirs/show/mine{SUFFIX}.png\n"
    assert (tmp_path / f"work_dirs/show/mine{SUFFIX}.png").read_bytes().startswith(b"\x89PNG")
