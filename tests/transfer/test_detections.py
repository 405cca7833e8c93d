"""The file of detections: what goes in comes out, equal content is equal bytes, and nothing else is taken for one."""

import hashlib
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as run_length

from resim_bench.errors import UserError
from transfer import masks
from transfer.detections import Detections, Found, Images, Truth, read, write


def some(with_masks=True, seed=0):
    """Three objects in two images of different sizes, and two detections in one of them."""
    rng = np.random.default_rng(seed)
    sizes = np.array([[12, 9], [7, 20]])
    codes = [masks.encode(rng.random((1, *size)) < 0.5)[0] for size in sizes]
    truth = Truth(
        image=np.array([0, 1, 1]),
        label=np.array([1, 0, 1]),
        box=rng.uniform(0, 7, (3, 4)),
        ignored=np.array([False, True, False]),
        area=rng.uniform(0, 30, 3),
        mask=[codes[0], codes[1], codes[1]] if with_masks else None,
    )
    found = Found(
        image=np.array([1, 1]),
        label=np.array([1, 0]),
        box=rng.uniform(0, 7, (2, 4)).astype(np.float32),
        score=rng.random(2).astype(np.float32),
        mask=[codes[1]] * 2 if with_masks else None,
    )
    metric = {"type": "COCOAveragePrecision", "kinds": ["box", "mask"] if with_masks else ["box"]}
    return Detections(Images(["a/é.jpg", 7], sizes), ("cat", "dog"), truth, found, metric)


def nothing_found():
    one = some()
    return one._replace(found=Found(*(column[:0] for column in one.found)))


def same(one, other):
    for side in ("truth", "found"):
        for a, b in zip(getattr(one, side), getattr(other, side), strict=True):
            assert a == b if not isinstance(a, np.ndarray) else a.dtype == b.dtype and np.array_equal(a, b)
    assert np.array_equal(one.images.sizes, other.images.sizes)
    assert (one.images.ids, one.classes, one.metric) == (other.images.ids, other.classes, other.metric)


@pytest.mark.parametrize(
    "detections", [some(), some(with_masks=False), nothing_found()], ids=["masks", "boxes", "none"]
)
def test_what_goes_in_comes_out_and_equal_content_is_equal_bytes(tmp_path, detections):
    one, other = (write(tmp_path / name, detections) for name in ("a", "b"))
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes() and one == other == hashlib.sha256(content).hexdigest()
    same(read(tmp_path / "a", one), detections)
    assert write(tmp_path / "b", some(seed=1)) != one


def test_a_column_that_would_lose_digits_is_not_written(tmp_path):
    one = some()
    with pytest.raises(TypeError):
        write(tmp_path / "x", one._replace(found=one.found._replace(box=one.found.box.astype(np.float64))))
    assert not list(tmp_path.iterdir())


def _about(**values):
    def change(arrays):
        about = json.loads(arrays["about"].tobytes()) | values
        return {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}

    return change


def _arrays(**values):
    return lambda arrays: {name.replace("_", ".", 1): value for name, value in values.items()}


CHANGES = {
    "another version": (_about(version=2), "it is resim-bench detections 2, and not resim-bench detections 1"),
    "another kind": (_about(kind="pictures"), "it is pictures 1, and not"),
    "fewer ids": (_about(ids=["a"]), "sizes is int64 of shape"),
    "no metric": (_about(metric="VOC"), "metric is str"),
    "image": (_arrays(found_image=np.array([0, 2])), "found.image goes beyond the 2"),
    "label": (_arrays(truth_label=np.array([0, -1, 0])), "truth.label goes beyond the 2"),
    "type": (_arrays(found_score=np.zeros(2)), "found.score is float64 of shape"),
    "no number": (_arrays(truth_area=np.full(3, np.nan)), "truth.area has a number that is none"),
    "length": (_arrays(found_box=np.zeros((3, 4), np.float32)), "found.box is float32 of shape"),
    "sizes": (_arrays(sizes=np.array([[12, 0], [7, 20]])), "an image has no size"),
    "letters": (_arrays(found_mask=np.array([200, 1], np.uint8)), "its masks are cut short"),
    "masks": (
        _arrays(found_mask=np.array([49, 49], np.uint8), found_mask_letters=np.array([1, 1])),
        "found.mask are no masks of its images",
    ),
    "pickle": (_arrays(truth_area=np.array([{}, {}, {}])), "allow_pickle=False"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_of_something_else_is_refused_in_one_sentence(tmp_path, name):
    file, (change, problem) = tmp_path / "x.detections.npz", CHANGES[name]
    write(file, some())
    with np.load(file) as content:
        arrays = dict(content)
    np.savez(file, **arrays | change(arrays))
    with pytest.raises(UserError, match=problem) as refusal:
        read(file)
    assert str(refusal.value).startswith(f"{file} holds no detections, or is damaged (")


@pytest.mark.parametrize("name", ["sizes", "truth.area", "found.mask"])
def test_a_lost_array_is_missed(tmp_path, name):
    write(tmp_path / "x.npz", some())
    with np.load(tmp_path / "x.npz") as content:
        np.savez(tmp_path / "y.npz", **{key: content[key] for key in content.files if key != name})
    with pytest.raises(UserError, match=f"or is damaged .it has no {name}.: give"):
        read(tmp_path / "y.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x80\x04N."])
def test_what_is_no_such_file_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="holds no detections, or is damaged") as refusal:
        read(tmp_path / "x")
    assert "pickle" not in str(refusal.value)
    np.save(tmp_path / "y.npy", np.zeros(3))
    with pytest.raises(UserError, match="holds no detections, or is damaged"):
        read(tmp_path / "y.npy")
    with pytest.raises(UserError, match="cannot read the detections .*nowhere .No such file.*: restore it"):
        read(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="it is no regular file"):
        read(tmp_path / "pipe")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    file = tmp_path_factory.mktemp("whole") / "x"
    return file, write(file, some()), file.read_bytes()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_says_the_same(whole, data):
    file, sha256, content = whole
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        changed = changed[:place]
    file.write_bytes(changed)
    with pytest.raises(UserError, match="has changed since it was written"):
        read(file, sha256)
    try:
        same(read(file), some())
    except UserError as error:
        assert "\n" not in str(error)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6))
def test_run_lengths_of_many_are_pycocotools_and_cover_their_images(data, sizes):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = [rng.random(size) < rng.choice([0, 0.05, 0.5, 1]) for size in sizes]
    codes = [masks.encode(mask[None])[0] for mask in pixels]
    lengths, first = masks.run_lengths(codes)
    for mask, start, end in zip(pixels, first[:-1], first[1:], strict=True):
        colours = np.arange(end - start) % 2
        assert np.array_equal(np.repeat(colours, lengths[start:end]).astype(bool), mask.T.ravel())
    assert masks.cover(codes, np.array(sizes))
    k = data.draw(st.integers(0, len(sizes) - 1))
    assert not masks.cover(codes, np.array([(h + (i == k), w) for i, (h, w) in enumerate(sizes)]))


def test_a_negative_run_is_none():
    lengths, _ = masks.run_lengths([b">N"])
    assert lengths.tolist() == [14, -2] and not masks.cover([b">N"], np.array([[4, 3]]))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=6) | st.text("0123456789:;PQRSTUVWXYZ[no", max_size=6).map(str.encode), max_size=3))
def test_what_covers_its_image_is_safe_to_decode(codes):
    sizes = np.tile([[4, 3]], (len(codes), 1))
    if masks.cover(codes, sizes):
        for code in codes:
            assert run_length.decode(masks.as_coco(code, (4, 3))).shape == (4, 3)
