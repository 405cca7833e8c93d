"""The command `report` with backbones: which are shown, and that the page's numbers are what they find."""

import json
import re
from pathlib import Path

import pytest
import torch

from pretrain import correspondence
from pretrain.encoders import resnet
from resim_bench import backbone, cli
from resim_bench.data import scenes

SMALL = {"depth": 18, "strides": [1, 1, 1, 2], "width": 16}
WORK = Path("w")
MOCO, RESIM, UNTRAINED = VIEWED = "mini-moco-v2", "mini-resim-c4", "mini-random"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def asked(monkeypatch):
    """The files whose features are looked at; nothing is found."""
    files = []
    monkeypatch.setattr("pretrain.correspondence.find", lambda given: files.extend(given))
    return files


@pytest.fixture
def generated(monkeypatch):
    """Where scenes are written; none are."""
    places = []
    monkeypatch.setattr("resim_bench.data.scenes.write", places.append)
    return places


def leave(id, seed, file=None):  # noqa: A002
    """A backbone, untrained whatever it is called."""
    torch.manual_seed(len(id) + seed)
    file = file or backbone.path(WORK, id, seed)
    backbone.save(file, resnet(**SMALL).state_dict(), {"id": id, "seed": seed, "arch": SMALL})
    return file


def report(*argv):
    assert cli.main(["report", "x.html", "--work-dir", "w", *map(str, argv)]) == 0
    return Path("x.html").read_text("utf-8")


def test_without_a_name_mini_s_are_shown_of_the_lowest_seed_that_all_have(asked, generated):
    for id, seeds in ((MOCO, (2, 5, 10)), (RESIM, (5, 10)), (UNTRAINED, (5, 0, 10))):  # noqa: A001
        for seed in seeds:
            leave(id, seed)
    backbone.path(WORK, RESIM, "2").parent.mkdir()  # has not ended
    report()
    assert asked == [backbone.path(WORK, id, 5) for id in VIEWED] and generated == [Path("data/mini")]


def test_where_one_is_missing_none_is_shown_and_nothing_generated(asked, generated):
    for id, seed in ((MOCO, 0), (RESIM, 1), (UNTRAINED, 0)):  # noqa: A001
        leave(id, seed)
    assert "No backbones to look into." in report() and asked == generated == []


def test_named_ones_are_shown_once_each_in_their_order(asked, generated):
    other = leave("given-mine", 0, Path("other.safetensors"))
    ours = leave(MOCO, 0)
    report("--backbone", other, "--backbone", MOCO, "--backbone", other)
    assert asked == [other, ours] and generated == [Path("data/mini")]
    report("--backbone", other)
    assert asked[2:] == [other] and len(generated) == 1, "scenes are mini's"


def test_the_page_s_numbers_are_what_they_find():
    scenes.write(Path("data/mini"), pretrain_images=24, train_images=1, test_images=1)
    files = [leave(id, 3) for id in VIEWED]
    text = report()
    found = correspondence.find(files)
    pairs = found.pairs["scenes"]
    of = sum(place is not None for pair in pairs for place in pair.places)
    assert len(pairs) == correspondence.PAIRS and list(found.pairs) == ["scenes"]
    for number, id in enumerate(VIEWED):  # noqa: A001
        right = sum(sum(pair.found[number].right) for pair in pairs)
        assert (
            f'{id}, seed 3</small></th><td class="number">{100 * right / of:.1f} <small>{right} of {of} cells' in text
        )
    data = json.loads(re.search('id="places-data">(.*)</script>', text)[1])
    for given, pair in zip(data["pairs"], pairs, strict=True):
        assert [one["best"] for one in given["found"]] == [one.best for one in pair.found]
        assert [one["heat"] for one in given["found"]] == [one.heat for one in pair.found]
    assert len(text.encode()) < 5e6
