"""The reader of VOC: lists, annotation files, and what it says of those that are wrong."""

import codecs
import math
import os
from pathlib import PurePath
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resim_bench.data.annotation import read_object, read_root, read_side
from resim_bench.errors import UserError
from tests.transfer.conftest import object_xml, write_image
from transfer.voc import VOCFolder, read_split

BOX = (1, 1, 20, 20)


@pytest.fixture
def year(devkit):
    """A VOC2007 with the images of `NAMES`."""
    for name in NAMES:
        write_image(devkit / "VOC2007", name, (96, 64), [("red", BOX, 0)])
    return devkit / "VOC2007"


NAMES = ("card", "card (1)", "two words", "dotted.name", "größe", "-1", "7")


def write_list(year, content, split="test"):
    (year / "ImageSets" / "Main" / f"{split}.txt").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


LISTS = {
    "names with spaces": ("card\ncard (1)\ntwo words\n", ["card", "card (1)", "two words"]),
    "no line break at the end": ("card\ntest_000", ["card", "test_000"]),
    "Windows": ("card\r\n\r\ncard (1)\r\n", ["card", "card (1)"]),
    "an old Mac": ("card\rtest_000\r", ["card", "test_000"]),
    "UTF-8 with a mark": (codecs.BOM_UTF8 + "größe\ncard".encode(), ["größe", "card"]),
    "UTF-16": ("größe\r\ncard\r\n".encode("utf-16"), ["größe", "card"]),
    "endings": ("card.jpg\ncard (1).jpg\ndotted.name\n", ["card", "card (1)", "dotted.name"]),
    "labels": ("card -1\ntwo words  1\ncard (1)\t0\ntest_000.jpg 12\n", ["card", "two words", "card (1)", "test_000"]),
    "numbers as names": ("-1\n7\n", ["-1", "7"]),
    "space around": ("  card  \n\ttest_000\n\n   \n", ["card", "test_000"]),
}


@pytest.mark.parametrize(("content", "expected"), LISTS.values(), ids=LISTS)
def test_what_a_list_names(year, content, expected):
    write_list(year, content)
    found = read_split(year.parent, "test")
    assert found.ids == expected and not found.survey.faults
    assert [PurePath(name).stem for name in found.names] == [PurePath(name).stem for name in found.sources] == expected


def test_a_name_that_is_no_text_is_read(year):
    write_image(year, "gr\udcf6\udcdfe", (96, 64), [("red", BOX, 0)])
    write_list(year, "größe\n".encode("latin-1"))
    assert [PurePath(name).name for name in read_split(year.parent, "test").names] == ["gr\udcf6\udcdfe.jpg"]
    assert VOCFolder.facts(year.parent)["test_images"] == 1


def test_files_beside_the_images_that_are_none_do_not_count(year):
    for name in ("card.json", "card.txt", "card.xml", "card.jpg.bak", "Thumbs.db"):
        (year / "JPEGImages" / name).write_text("{}")
    write_list(year, "card\n")
    assert read_split(year.parent, "test").names == ["VOC2007/JPEGImages/card.jpg"]


def _two_of_a_name(year):
    Image.new("RGB", (96, 64)).save(year / "JPEGImages" / "card.png")


def _nothing(year):
    pass


def _no_image_but_annotation(year):
    (year / "JPEGImages" / "card (1).jpg").rename(year / "JPEGImages" / "other.jpg")
    (year / "Annotations" / "card 2.xml").write_text("<annotation/>")


WRONG_LISTS = {
    "no image": (
        "card\nnone\n",
        _nothing,
        "names without an image",
        "test.txt names 'none', but there is no .*JPEGImages/none.jpg",
    ),
    "a word behind": ("card red\n", _nothing, "names without an image", "names 'card red', but"),
    "a missing image, not a label": (
        "card 2\n",
        _no_image_but_annotation,
        "names without an image",
        "names 'card 2', but",
    ),
    "a missing image in brackets": (
        "card (1)\n",
        _no_image_but_annotation,
        "names without an image",
        r"names 'card \(1\)'",
    ),
    "Latin-1": ("größe".encode("latin-1"), _nothing, "names without an image", r"names 'gr\\udcf6\\udcdfe', but"),
    "two files": (
        "card\n",
        _two_of_a_name,
        "annotations that cannot be read",
        "its image may be card.jpg or card.png; say",
    ),
    "twice": ("card\ncard.jpg\n", _nothing, "names that a list repeats", "names 'card.jpg' twice: take one out"),
    "cut UTF-16": (codecs.BOM_UTF16_LE + b"a", _nothing, "lists that are no text", "test.txt is no text"),
}


@pytest.mark.parametrize(("content", "spoil", "kind", "message"), WRONG_LISTS.values(), ids=WRONG_LISTS)
def test_what_is_wrong_with_a_list(year, content, spoil, kind, message):
    spoil(year)
    write_list(year, content)
    survey = VOCFolder.surveys(year.parent)[1]
    assert list(survey.faults) == [kind]
    with pytest.raises(UserError, match=message):
        VOCFolder.facts(year.parent)


def test_a_file_of_one_of_two_endings_can_be_named(year):
    _two_of_a_name(year)
    write_list(year, "card.png\n")
    found = read_split(year.parent, "test")
    found.survey.refuse()
    assert (found.names, found.ids) == (["VOC2007/JPEGImages/card.png"], ["card"])


def test_an_image_listed_twice_trains_once(year):
    write_list(year, "card\ncard\ncard.jpg\ntest_000\n", "trainval")
    survey = VOCFolder.surveys(year.parent)[0]
    repeats = "2 names that a list repeats (first: VOC2007/ImageSets/Main/trainval.txt: card)"
    assert f"left out: {repeats}" in survey.line()
    assert read_split(year.parent, "train").ids[:2] == ["card", "test_000"]


SIZE = "<size><width>96</width><height>64</height></size>"
ONE = object_xml("red", BOX)


def read(content):
    """Width, height and objects of an annotation file."""
    root = read_root(content if isinstance(content, bytes) else content.encode())
    return read_side(root, "width"), read_side(root, "height"), list(map(read_object, root.iterfind("object")))


def whole(objects=ONE, size=SIZE):
    return f"<annotation>{size}{objects}</annotation>"


READ = {
    "UTF-8 with a mark": codecs.BOM_UTF8 + whole().encode(),
    "UTF-16": whole().encode("utf-16"),
    "Latin-1, as it says": b'<?xml version="1.0" encoding="ISO-8859-1"?>' + whole().encode("latin-1"),
    "a comment": whole(f"<!-- by hand -->{ONE}"),
    "numbers with space": whole(object_xml("red", (" 1", "1 ", "\n20\n", "+20"))),
    "numbers with points": whole(object_xml("red", ("1.0", "1e0", "20.", "2e1"))),
    "a size with a point": whole(size="<size><width>96.0</width><height> 64 </height></size>"),
    "difficult without text": whole(ONE.replace("<difficult>0</difficult>", "<difficult/>")),
    "difficult with space": whole(ONE.replace("<difficult>0</difficult>", "<difficult> 0 </difficult>")),
    "no difficult": whole(ONE.replace("<difficult>0</difficult>", "")),
    "space around a class": whole(ONE.replace("red", " red\n")),
    "tags in capitals": whole().replace("object>", "OBJECT>").replace("bndbox", "BndBox").replace("name", "Name"),
    "a namespace": whole().replace("<annotation>", '<annotation xmlns="https://example.org/voc">'),
    "a part with a box": whole(ONE.replace("</object>", "<part><bndbox/></part></object>")),
}


@pytest.mark.parametrize("content", READ.values(), ids=READ)
def test_annotations_with_one_meaning_are_read(content):
    assert read(content) == (96, 64, [("red", (0, 0, 20, 20), False)])


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width/><height> </height></size>"])
def test_a_size_may_be_missing(size):
    assert read(whole(size=size))[:2] == (0, 0)


REFUSED = {
    "no XML": ("no XML", "syntax error"),
    "empty": ("", "no element found"),
    "cut short": (whole()[:60], "no element found|unclosed token"),
    "another root": (f"<annotations>{whole()}</annotations>", "its root is <annotations>, not <annotation>"),
    "unknown encoding": (f'<?xml version="1.0" encoding="klingon"?>{whole()}', "unknown encoding"),
    "wrong bytes": (whole(object_xml("größe", BOX)).encode("latin-1"), "not well-formed"),
    "entities": ('<!DOCTYPE a [<!ENTITY b "c">]>' + whole("&b;&d;"), "undefined entity"),
    "a width of text": (whole(size="<size><width>wide</width><height>64</height></size>"), "its <width> is 'wide'"),
    "a width of nan": (whole(size="<size><width>nan</width><height>64</height></size>"), "its <width> is 'nan'"),
    "a width of inf": (whole(size="<size><width>1e400</width><height>64</height></size>"), "its <width> is '1e400'"),
    "half a pixel": (whole(size="<size><width>96.5</width><height>64</height></size>"), "its <width> is '96.5'"),
    "no name": (whole(ONE + ONE.replace("<name>red</name>", "")), "has no <name>"),
    "an empty name": (whole(ONE.replace("red", " ")), "has no <name>"),
    "no box": (whole("<object><name>red</name></object>"), "has no <bndbox>"),
    "an empty corner": (whole(ONE.replace("<xmax>20<", "<xmax><")), "has no <xmax>"),
    "a corner of text": (whole(object_xml("red", (1, "one", 20, 20))), "has 'one' for <ymin>"),
    "a comma": (whole(object_xml("red", (1, "1,5", 20, 20))), "has '1,5' for <ymin>"),
    "what Python alone reads": (whole(object_xml("red", (1, "1_5", 20, 20))), "has '1_5' for <ymin>"),
    "objects in a list": (whole(f"<objects>{ONE}</objects>"), "it has a <object> that is not directly in <annotation>"),
    "an object in an object": (whole(ONE.replace("</object>", f"{ONE}</object>")), "a <object> that is not directly"),
    "a box of no object": (whole(ONE.replace("object>", "obj>")), "it has a <bndbox> that is not in an <object>"),
    "difficult by another number": (whole(object_xml("red", BOX, 2)), "has '2' for <difficult>, which is 0 or 1"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_annotations_without_one_meaning_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read(content)


def _elements(text):
    """XML of the tags that the reader knows, in any arrangement."""
    tags = (
        "annotation",
        "size",
        "width",
        "height",
        "object",
        "name",
        "bndbox",
        "xmin",
        "ymin",
        "xmax",
        "ymax",
        "difficult",
        "Object",
    )
    leaf = st.builds(lambda tag, content: (tag, content), st.sampled_from(tags), text)
    return st.recursive(
        leaf, lambda inner: st.tuples(st.sampled_from(tags), st.lists(inner, max_size=6)), max_leaves=20
    )


def _tree(tag, content):
    node = ElementTree.Element(tag)
    if isinstance(content, str):
        node.text = content
    else:
        node.extend(_tree(*inner) for inner in content)
    return node


NUMBERS = st.one_of(
    st.integers().map(str), st.floats().map(str), st.sampled_from(["", " ", "nan", "1e400", "٣", "0x1"])
)
LETTERS = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"), max_size=5)


def is_read_or_refused(content):
    try:
        width, height, objects = read(content)
    except ValueError as error:
        assert str(error)
    else:
        assert 0 <= width < math.inf and 0 <= height < math.inf
        assert len(objects) == content.lower().count(b"<object"), "none is overlooked"
        assert all(name.strip() == name != "" and isinstance(ignored, bool) for name, _, ignored in objects)
        assert all(isinstance(corner, float) for _, box, _ in objects for corner in box)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(_elements(st.one_of(NUMBERS, LETTERS)), max_size=6))
def test_any_xml_is_an_annotation_or_one_sentence(content):
    is_read_or_refused(ElementTree.tostring(_tree("annotation", content)))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=40), st.integers(0, len(whole())), st.integers(0, 40))
def test_any_damage_is_an_annotation_or_one_sentence(damage, start, length):
    content = whole().encode()
    is_read_or_refused(content[:start] + damage + content[start + length :])


def test_what_is_written_is_read(year):
    """Whatever the corners, the box covers their pixels."""
    rng = np.random.default_rng(0)
    for corners in rng.integers(1, 90, (20, 4)).tolist():
        ((_, box, _),) = read(whole(object_xml("red", corners)))[2]
        assert box == (corners[0] - 1, corners[1] - 1, corners[2], corners[3])


@pytest.mark.parametrize("place", ["Annotations/trainval_000.xml", "ImageSets/Main/trainval.txt"])
def test_a_pipe_is_refused_and_not_waited_for(devkit, place):
    file = devkit / "VOC2007" / place
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match="it is no regular file"):
        VOCFolder.read(VOCFolder.find(devkit), "train").survey.refuse()
