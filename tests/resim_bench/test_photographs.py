"""Stand-ins for photographs: real sizes, as much to decode, and objects that lie where their boxes say."""

import itertools

import numpy as np
from pycocotools import mask as coco_mask

from resim_bench.data import photographs, scenes


def drawn(count, size=photographs.VOC, labels=3):
    return list(itertools.islice(photographs.photographs("trainval", *size, range(labels)), count))


def test_they_are_as_large_as_photographs_and_as_much_to_decode():
    for size in (photographs.VOC, photographs.COCO):
        for scene in drawn(4, size):
            assert scene.image.shape == (*size[::-1], 3)
            assert 0.4 < len(scenes.jpeg(scene.image)) / scene.image[..., 0].size < 0.7, "bytes a pixel"


def test_objects_lie_where_their_boxes_say_and_take_the_labels_in_turn():
    objects = [item for scene in drawn(3) for item in scene.objects]
    assert [item.label for item in objects] == [k % 3 for k in range(len(objects))]
    for item in objects:
        rows, columns = np.nonzero(item.mask)
        assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert len({item.box for item in objects}) == len(objects), "images differ"


def test_outlines_enclose_what_they_outline():
    for item in drawn(2)[1].objects:
        polygons = photographs.outlines(item.mask)
        height, width = item.mask.shape
        filled = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
        common = np.count_nonzero(filled & item.mask)
        assert common > 0.8 * np.count_nonzero(item.mask), "the rim aside"


def test_an_imagefolder_has_all_its_classes_and_images(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "DISTINCT", 2)
    root = photographs.write_imagefolder(tmp_path / "few", images=5, classes=3)
    files = sorted(root.rglob("*.jpg"))
    assert len(files) == 5 and len(list(root.iterdir())) == 3
    assert len({file.read_bytes() for file in files}) == 2
    assert len(list(photographs.write_imagefolder(tmp_path / "many", images=2, classes=4).rglob("*.jpg"))) == 4
