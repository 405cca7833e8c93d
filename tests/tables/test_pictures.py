"""Test images on the page: which rows are compared, what is drawn and said of them, and how much room they take."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

import tables
from resim_bench.comparison import RIGHT, Comparison, Counts, Detection, Object, Picture, counts
from resim_bench.record import ERRORS
from tables.page import page, pictures
from tests.tables.test_page import HOSTILE, MADE, embedded, found, luminance, parsed, words

METHODS = ("random init.", "MoCo-v2", "ReSim-C4")
IDS = dict(zip(METHODS, ("mini-random", "mini-moco-v2", "mini-resim-c4"), strict=True))


def jpeg(seed=0, size=(96, 96)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(file, "JPEG", quality=80)
    return file.getvalue()


def picture(number=0, name=None, label="ring", rights=(0, 1, 2), objects=2, size=(96, 96)):
    """Of each method so many objects are found and as many detections wrong as are missed."""
    boxes = [(8.0 * k, 10.0, 8.0 * k + 24, 40.0) for k in range(objects)]
    wanted = [Object(box, label, False) for box in boxes] + [Object((60, 60, 80, 80), label, True)]
    found = {}
    for method, right in zip(METHODS, rights, strict=True):
        good = [Detection(boxes[k], label, 0.9 - k / 100, RIGHT, k) for k in range(right)]
        bad = [Detection((50, 50, 70, 90), label, 0.4, "localisation", None) for _ in range(objects - right)]
        found[method] = [*good, *bad]
    return Picture(name or f"scene_{number:04d}", size, jpeg(number, size), wanted, found)


def comparison(*shown, **changes):
    totals = {method: Counts(900, 100 * place, 7) for place, method in enumerate(METHODS)}
    given = {"pictures": shown, "totals": totals, "images": 1200, "differ": len(shown)} | changes
    return Comparison(**given)


def of_trial(make_record, method, seed=0, transfer="mini-voc-frozen", **changes):
    """A record that says what errors cost and names detections."""
    costs = {"0.5": dict.fromkeys(ERRORS, 10.0)}
    entry = make_record(IDS.get(method, method), transfer, seeds=(seed, seed), **changes)
    of = {"file": "x.detections.npz", "sha256": f"{method} {transfer} {seed}"}
    return entry | {"detail": {"errors": {"box": costs}}, "detections": of}


@pytest.fixture
def records(make_record):
    return [of_trial(make_record, method) for method in METHODS]


@pytest.fixture
def shown(records):
    """The tree of a page with these comparisons, each of the one group of the records."""

    def build(*comparisons):
        frame = tables.collect(records)
        (group,) = pictures.groups(frame, [record["detections"]["sha256"] for record in records])
        return parsed(page.page(frame, [], "0" * 40, MADE, [(group, one) for one in comparisons]))

    return build


def test_rows_of_one_protocol_are_compared_by_the_lowest_seed_that_all_have(make_record):
    every = [of_trial(make_record, method, seed) for method in METHODS for seed in (1, 2, 3)]
    every += [of_trial(make_record, method, 1, "mini-voc-full") for method in METHODS]
    frame = tables.collect(every)
    here = {record["detections"]["sha256"] for record in every} - {"MoCo-v2 mini-voc-frozen 1"}
    frozen, full = pictures.groups(frame, here)
    assert frozen == (
        "mini",
        "frozen backbone",
        "mini-voc-frozen",
        (2, 2),
        {method: f"{method} mini-voc-frozen 2" for method in METHODS},
        (),
    )
    assert (full.transfer, full.seeds, list(full.files)) == ("mini-voc-full", (1, 1), list(METHODS))


def test_of_few_detections_those_are_compared_that_share_a_seed(make_record):
    every = [of_trial(make_record, "random init.", 1), *(of_trial(make_record, name, 3) for name in METHODS[1:])]
    frame = tables.collect(every)
    (group,) = pictures.groups(frame, {record["detections"]["sha256"] for record in every})
    assert group.seeds == (3, 3) and list(group.files) == ["MoCo-v2", "ReSim-C4"]
    assert group.without == ("random init.",)
    (group,) = pictures.groups(frame, {"ReSim-C4 mini-voc-frozen 3"})
    assert group.files == {} and "side by side need the detections of at least two rows" in pictures.nothing(group)
    assert pictures.nothing(group).endswith("leaves its own: `make mini`")


def test_what_deviates_or_says_no_costs_is_not_compared(make_record):
    every = [of_trial(make_record, name) for name in METHODS]
    every[0]["pretrain"]["deviations"] = {"epochs": [8, 1]}
    (group,) = pictures.groups(tables.collect(every), {record["detections"]["sha256"] for record in every})
    assert list(group.files) == ["MoCo-v2", "ReSim-C4"] and group.without == ()
    del every[1]["detail"]
    assert pictures.groups(tables.collect(every), {"ReSim-C4 mini-voc-frozen 0"}) == [], "one row is nothing to compare"


def test_the_page_says_the_numbers_of_the_detections(shown):
    of_two = picture(1, rights=(0, 2, 1)), picture(2, rights=(2, 1, 1), objects=3)
    tree = shown(comparison(*of_two))
    (data,) = embedded(tree)["pictures"]
    assert (data["table"], data["group"], data["transfer"]) == ("mini", "frozen backbone", "mini-voc-frozen")
    assert data["totals"]["MoCo-v2"] == {"objects": 900, "found": 100, "wrong": 7}
    assert [image["name"] for image in data["images"]] == ["scene_0001", "scene_0002"]
    items = found(found(tree, "ol", class_="pictures")[0], "li")
    items = [item for item in items if item.get("id")]
    for one, image, item in zip(of_two, data["images"], items, strict=True):
        captions = [words(node) for node in found(item, "p")]
        told = [node.get("aria-label") for node in found(item, "svg")]
        wanted = sum(not thing.ignored for thing in one.objects)
        assert captions[0] == f"To find {wanted} objects" and told[0] == f"Test image with {wanted} objects to find"
        for place, method in enumerate(METHODS, 1):
            of = counts(one, method)
            assert image["counts"][method] == of._asdict()
            assert captions[place] == f"{method} {of.found} of {wanted} found, {of.wrong} wrong"
            wrong = "1 detection wrong" if of.wrong == 1 else f"{of.wrong} detections wrong"
            assert told[place] == f"{method}: {of.found} of {wanted} objects found, {of.missed} missed, {wrong}"
    (totals,) = found(tree, "table", class_="found")
    rows = [[words(cell) for cell in row] for row in found(totals, "tr")]
    assert rows[0] == ["all 1,200 images", "objects", "found", "missed", "wrong"]
    assert rows[2] == ["MoCo-v2", "900", "100", "800", "7"]


def test_pictures_keep_their_order(shown):
    names = [f"scene_{number}" for number in (5, 3, 8, 1, 9, 0, 7, 4, 6, 2)]
    tree = shown(comparison(*(picture(number, name) for number, name in enumerate(names))))
    captions = [words(node) for node in found(tree, "figcaption") if "found:" in words(node)]
    assert captions == [
        f"{number} {name}, found: random init. 0, MoCo-v2 1, ReSim-C4 2" for number, name in enumerate(names, 1)
    ]
    opened, more = found(tree, "ol", class_="pictures")
    assert len([item for item in opened if item.get("id")]) == pictures.OPEN and more.get("start") == "9"
    assert words(found(tree, "details", class_="more")[0]).startswith("2 more")


def test_boxes_are_drawn_where_they_are_in_a_line_of_their_kind(shown):
    tree = shown(comparison(picture(rights=(0, 1, 2), size=(96, 48))))
    views = [node for node in found(tree, "svg", class_="sight") if node.get("role") == "img"]
    assert {view.get("viewBox") for view in views} == {"0 0 168 84"}

    def drawn(view, kind):
        return [node.get("d") for node in found(view, "path", class_=kind)]

    wanted, none, one, two = views
    assert drawn(wanted, "object") == ["M0 17.5H42V70H0zM14 17.5H56V70H14z"]
    assert drawn(wanted, "ignored") == ["M105 105H140V140H105z"] and [words(t) for t in found(wanted, "text")] == [
        *"abc"
    ]
    assert drawn(one, "right") == ["M0 17.5H42V70H0z"] and drawn(one, "missed") == ["M14 17.5H56V70H14z"]
    assert drawn(one, "wrong") == ["M87.5 87.5H122.5V157.5H87.5z"]
    assert [words(node) for node in found(one, "text")] == ["1", "2", "b"]
    assert not drawn(none, "right") and not drawn(two, "wrong") and not drawn(two, "missed")
    for view in views:
        assert sorted(drawn(view, "edge")) == sorted(d for kind in pictures.STYLES for d in drawn(view, kind))
        for text in found(view, "text"):
            assert 0 <= float(text.get("x")) <= 168 - 7 and 10 <= float(text.get("y")) <= 84, "in the image"
    lists = [[words(item) for item in found(node, "li")] for node in found(tree, "ul") if found(node, "bdi")]
    assert lists[0] == ["a ring", "b ring", "c ring (need not be found)"]
    assert lists[2] == ["1 ring 0.90, finds a", "2 ring 0.40, wrong place", "b missed"]


def test_labels_do_not_hide_each_other_and_are_never_the_same():
    boxes = [(10.0, 10.0, 60.0, 60.0)] * 6
    taken = []
    for box in boxes:
        taken.append(pictures._free_place(box, 7.5, (168.0, 168.0), taken))
    assert all(pictures._common(one, other) == 0 for k, one in enumerate(taken) for other in taken[:k])
    letters = [pictures._letters(number) for number in range(1000)]
    assert letters[:2] + letters[25:28] == ["a", "b", "z", "aa", "ab"] and len(set(letters)) == 1000


def test_an_image_stands_in_the_page_once_and_nothing_comes_from_outside(shown):
    one = picture(1)
    tree = shown(comparison(one, picture(2)), comparison(one))
    addresses = [node.get(name) for node in tree.iter() for name in ("href", "src") if node.get(name)]
    images = [address for address in addresses if address.startswith("data:image/jpeg;base64,")]
    assert [base64.b64decode(address.partition(",")[2]) for address in images] == [jpeg(1), jpeg(2)]
    others = set(addresses) - set(images) - {"data:,"}
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    assert len(ids) == len(set(ids)) and {address[1:] for address in others} <= set(ids)
    uses = [node.get("href") for node in found(tree, "use") if node.get("href").endswith("-image")]
    assert len(uses) == 2 * len(METHODS) + 1 + len(METHODS)
    style = found(tree, "style")[0].text
    assert not re.search(r"url\(|@import|https?:", style)
    assert not any(name == "style" or name.startswith("on") for node in tree.iter() for name in node.attrib)


def test_hostile_names_change_nothing_but_their_own_cells(shown):
    def one(name, label):
        return shown(comparison(picture(1, name, label)))

    hostile, plain = one(HOSTILE, HOSTILE), one("plain", "plain")
    assert len(found(hostile, "script")) == len(found(plain, "script")) == 2
    names = [words(node) for node in found(hostile, "bdi")]
    assert set(names) == {pictures.cut(HOSTILE)} and len(names[0]) <= pictures.LONGEST
    assert "<script>alert(1)</script>\"'&</style>]]>{{ 7 * 6 }}" in names[0] and "\u202e" not in names[0]
    for tree in (hostile, plain):
        for above in list(tree.iter()):
            for node in list(above):
                if node.get("id") == "data" or str(node.tag).endswith("bdi"):
                    node.text = ""
    assert "".join(hostile.itertext()) == "".join(plain.itertext())
    assert [node.attrib for node in hostile.iter()] == [node.attrib for node in plain.iter()]


def test_three_dozen_images_are_small_and_any_number_is_bounded(records):
    frame = tables.collect(records)
    (group,) = pictures.groups(frame, [record["detections"]["sha256"] for record in records])
    plain = len(page.page(frame, [], "0" * 40, MADE).encode())
    few = comparison(*(picture(number, objects=5, rights=(0, 2, 5)) for number in range(36)))
    text = page.page(frame, [], "0" * 40, MADE, [(group, few)])
    assert text.count("data:image/jpeg") == 36 and len(text.encode()) - plain < 6e5
    crowded = comparison(*(picture(number, "x" * 999, "y" * 999, (0, 30, 60), 60, (240, 240)) for number in range(36)))
    text = page.page(frame, [], "0" * 40, MADE, [(group, crowded)] * 12)
    assert 12 <= text.count('class="sights"') < 12 * 36 and len(text.encode()) - plain < 2e6


def test_where_nothing_can_be_shown_a_sentence_says_why(records, shown):
    text = words(shown("the test images are away: fetch `them`"))
    assert "The same test images, frozen backbone The test images are away: fetch them." in text
    text = words(shown("away", "away"))
    assert text.count("Away.") == 1 and "frozen backbone and frozen backbone" in text
    text = words(shown(comparison(differ=0)))
    assert "Of seed 0, the rows find as many objects in each test image." in text
    text = words(shown(comparison(picture(), lost=2)))
    assert "Left out, as their files are gone or damaged: 2 images." in text


def test_lines_are_told_apart_on_any_image():
    """By dashes, and by a colour of at least 3 against the dark edge that each has."""
    style = (page.HERE / "pictures.css").read_text()
    rules = {kind: re.search(rf"\.sight \.{kind} {{([^}}]*)}}", style)[1] for kind in pictures.STYLES}
    for rule in rules.values():
        colour = re.search(r"stroke: (#\w+)", rule)[1]
        assert (luminance(colour) + 0.05) / (luminance("#000") + 0.05) >= 4.5
    dashes = {kind: re.search(r"stroke-dasharray: ([\d. ]+)", rule) for kind, rule in rules.items()}
    of = {kind: found and found[1] for kind, found in dashes.items()}
    assert of["right"] is None and len({of["right"], of["wrong"], of["missed"]}) == 3
