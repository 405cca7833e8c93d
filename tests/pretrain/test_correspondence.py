"""What the page is given is what features say: held against loops over cells, and where the answer is known."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretrain import correspondence, views
from pretrain.data import TwoViews
from pretrain.encoders import load_trunk, resnet, trunk_maps
from pretrain.train import load_recipe
from resim_bench import backbone
from resim_bench.correspondence import LETTERS, LEVELS
from resim_bench.data import scenes
from resim_bench.errors import UserError
from resim_bench.harness.draws import DrawSampler
from tests.references import regions

SMALL = {"depth": 18, "strides": [1, 1, 1, 2], "width": 16}


def untrained(file, id="mini-moco-v2", seed=0, arch=None):  # noqa: A002
    torch.manual_seed(seed)
    provenance = {"id": id, "seed": seed, "arch": arch or SMALL}
    backbone.save(file, resnet(**provenance["arch"]).state_dict(), provenance)
    return file


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to work in, with scenes and photographs where recipes have them."""
    place = tmp_path_factory.mktemp("place")
    scenes.write(place / "data" / "mini", pretrain_images=16, train_images=1, test_images=1)
    photographs = place / "data" / "caltech101" / "train" / "emu"
    photographs.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for name in range(16):
        image = noise.integers(0, 255, (8, 12, 3), np.uint8).repeat(12, 0).repeat(12, 1)
        (photographs / f"{name}.jpg").write_bytes(scenes.jpeg(image))
    return place


@pytest.fixture
def files(place, monkeypatch):
    monkeypatch.chdir(place)
    return [untrained(place / f"{seed}.safetensors", seed=seed) for seed in (3, 4)]


def drawn_by_hand(root, name):
    """The views of the first draws, and where each cell's window lies in the key view, by loops."""
    spec = load_recipe("mini-moco-v2").views.to_dict() | {"flip": "shared"}
    dataset = TwoViews(root, name, spec, seed=0)
    for draw, index in DrawSampler(dataset, seed=0, batch_size=1):
        pair = dataset[draw, index]
        crops = pair["query_crop"].tolist(), pair["key_crop"].tolist()
        places = []
        for i, j in itertools.product(range(14), repeat=2):
            around = [4 * j - 6, 4 * i - 6, 4 * j + 6, 4 * i + 6]
            box = regions.correspond(around, *crops, 56)
            places.append(box if all(-1e-4 <= value <= 56 + 1e-4 for value in around + box) else None)
        yield dataset.images.names[index], pair, places


def lies_in(cell, box):
    return box[0] <= 4 * (cell % 14) <= box[2] and box[1] <= 4 * (cell // 14) <= box[3]


def test_it_is_what_loops_find(files):
    found = correspondence.find(files, count=2)
    assert found.backbones == [("mini-moco-v2", 3), ("mini-moco-v2", 4)] and found.side == 14
    assert found.windows[14 * 3 + 5] == (3.5, 1.5, 6.5, 4.5)
    assert list(found.pairs) == ["scenes", "caltech101"]
    trunks = [load_trunk(file)[0].eval() for file in files]
    right = 0
    for name, root in (("scenes", "data/mini/imagefolder"), ("caltech101", "data/caltech101")):
        enough = (one for one in drawn_by_hand(root, name) if sum(map(bool, one[2])) >= 49)
        for pair, (title, views_of, places) in zip(found.pairs[name], enough, strict=False):
            assert pair.title == title
            assert [pair.query, pair.key] == [scenes.jpeg(views_of[of].numpy()) for of in ("query", "key")]
            for box, by_hand in zip(pair.places, places, strict=True):
                assert (box is None) == (by_hand is None)
                assert box is None or box == pytest.approx([value / 4 for value in by_hand], abs=1e-3)
            chances = [sum(lies_in(cell, box) for cell in range(196)) / 196 for box in places if box]
            assert pair.by_chance == pytest.approx(sum(chances))
            for trunk, of_trunk in zip(trunks, pair.found, strict=True):
                with torch.no_grad():
                    both = torch.stack((views_of["query"], views_of["key"]))
                    query, key = trunk_maps(trunk, views.normalise(both))["c4"].flatten(2)
                for cell in range(196):
                    similar = F.cosine_similarity(query[:, cell, None], key, dim=0)
                    best = of_trunk.best[cell]
                    assert similar[best] == pytest.approx(float(similar.max()), abs=1e-6)
                    assert of_trunk.right[cell] == (places[cell] is not None and lies_in(best, places[cell]))
                    right += of_trunk.right[cell]
                    steps = ((similar - similar.min()) / (similar.max() - similar.min()) * LEVELS).tolist()
                    for at in range(196):
                        letter = LETTERS.index(of_trunk.heat[(196 * cell + at) // 2])
                        level = letter % LEVELS if at % 2 else letter // LEVELS
                        assert level - 1e-3 <= steps[at] <= level + 1 + 1e-3
    assert right > 0


def test_what_sees_the_same_twice_is_right_everywhere(files, monkeypatch):
    usual = TwoViews.__getitem__

    def twice(self, item):
        pair = usual(self, item)
        return pair | {"key": pair["query"], "key_crop": pair["query_crop"]}

    monkeypatch.setattr(TwoViews, "__getitem__", twice)
    for pair in correspondence.find(files[:1], count=1).pairs["scenes"]:
        there = [14 * i + j for i in range(14) for j in range(14) if 2 <= i <= 12 and 2 <= j <= 12]
        assert [cell for cell, box in enumerate(pair.places) if box] == there
        for cell in there:
            i, j = divmod(cell, 14)
            assert pair.places[cell] == pytest.approx((j - 1.5, i - 1.5, j + 1.5, i + 1.5), abs=1e-3)
        assert [pair.found[0].right[cell] for cell in there] == [True] * 121 and sum(pair.found[0].right) == 121
        assert pair.by_chance == pytest.approx(121 * 9 / 196)


def test_levels_are_equal_steps_of_a_row():
    similar = torch.tensor([[0.0, 0.124, 0.126, 1.0], [-1.0, -1.0, -1.0, -1.0]])
    assert correspondence.levels(similar).tolist() == [[0, 0, 1, 7], [0, 0, 0, 0]]


def test_what_does_not_go_together_is_refused(files, place, monkeypatch):
    large = untrained(place / "large.safetensors", id="other", arch=SMALL | {"strides": [1, 2, 2, 2]})
    with pytest.raises(
        UserError, match="mini-moco-v2 has 14 × 14 cells of C4 in views of 56 px, and other 4 × 4: give"
    ):
        correspondence.find([files[0], large])
    with pytest.raises(UserError, match="other has 14 × 14 cells of C4 in views of 224 px, and mini-moco-v2 56 × 56"):
        correspondence.find([large, files[0]])
    fine = untrained(place / "fine.safetensors", id="fine")
    with pytest.raises(
        UserError, match="fine has 56 × 56 cells of C4 in views of 224 px, and the page has room for 16"
    ):
        correspondence.find([fine])
    with pytest.raises(UserError, match="room for 6 backbones, and 7 are named"):
        correspondence.find([files[0]] * 7)
    (place / "empty").mkdir()
    monkeypatch.chdir(place / "empty")
    with pytest.raises(
        UserError, match="no images to look for places in: put some at data/mini/imagefolder or data/cal"
    ):
        correspondence.find(files)


def test_pairs_that_share_nothing_are_refused(files, monkeypatch):
    monkeypatch.setattr(correspondence, "SHARED", 0.9)
    monkeypatch.setattr(correspondence, "TRIED", 3)
    with pytest.raises(UserError, match="no pair of views of .*scenes|imagefolder.* shares enough"):
        correspondence.find(files[:1])
