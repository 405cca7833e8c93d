"""What is drawn of a pre-training is what it sees; of a backbone, what its features say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretrain import monitor, show, views
from pretrain.data import TwoViews, read_image
from pretrain.encoders import load_trunk, resnet, trunk_maps
from pretrain.geometry import batch_windows
from pretrain.levels import Level
from pretrain.train import load_recipe
from resim_bench import backbone
from resim_bench.data import scenes
from resim_bench.errors import UserError
from tests.references import regions


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "mini"
    return scenes.write(root, pretrain_images=64, train_images=1, test_images=1) / "imagefolder"


def first_draws(images, recipe):
    """The images of iteration 1 with seed 0 and the draws of their views, by hand."""
    order = np.random.default_rng((0, 0)).permutation(64)
    for draw, index in enumerate(order.tolist()):
        image = read_image(images / "train" / "scenes" / f"{index:06d}.jpg")
        yield image, views.draw_pair(np.random.default_rng((0, draw)), 96, 96, recipe.views)


def test_the_windows_are_those_of_iteration_1(images):
    recipe = load_recipe("mini-resim-c4")
    sheet = show.training("mini-resim-c4", images, count=5)
    assert len(sheet.rows) == 5
    for (whole, *seen), (image, pair) in zip(sheet.rows, first_draws(images, recipe), strict=False):
        assert np.array_equal(whole.image, image)
        for panel, view in zip(seen, pair, strict=True):
            assert np.array_equal(panel.image, views.render(image, view, recipe.views))
        crops = [list(map(float, view.crop)) for view in pair]
        expected = {}
        for number in range(36):
            x, y = 8 * (number % 6), 8 * (number // 6)
            box = regions.correspond([x, y, x + 12, y + 12], *crops, 56)
            if min(box) >= -1e-4 and max(box) <= 56 + 1e-4:
                expected[str(number)] = [x, y, x + 12, y + 12], box
        query, key = ({mark.text: mark for mark in panel.marks if mark.text} for panel in seen)
        assert query.keys() == key.keys() == expected.keys()
        assert f"c4: {len(expected)} of 36 windows count" in seen[0].title
        for number, (of_query, of_key) in expected.items():
            assert query[number].box == of_query and key[number].box == pytest.approx(of_key, abs=1e-3)
            assert query[number].colour == key[number].colour
        rest = [mark for mark in seen[0].marks if not mark.text]
        assert len(rest) == 36 - len(expected) and {mark.line for mark in rest} <= {"dashed"}
    assert len(sheet.rows[0][1].marks) == 36 > len(sheet.rows[0][2].marks)


def test_a_crop_is_drawn_where_its_view_is_from(images):
    """Whatever is marked in the image, scaled and mirrored as is said, is the view; without changes of colour."""
    recipe = load_recipe("mini-moco-v2")
    plain = recipe.views.to_dict() | {"photometric": ()}
    mirrored = 0
    for (whole, *_), (image, pair) in zip(
        show.training("mini-moco-v2", images).rows, first_draws(images, recipe), strict=False
    ):
        for mark, view in zip(whole.marks, pair, strict=True):
            x0, y0, x1, y1 = mark.box
            part = image[y0:y1, x0:x1].permute(2, 0, 1)[None]
            part = F.interpolate(part, size=[56, 56], mode="bilinear", antialias=True)[0].permute(1, 2, 0)
            if "mirrored" in mark.text:
                part, mirrored = part.flip(1), mirrored + 1
            assert torch.equal(part, views.render(image, view, plain))
    assert 0 < mirrored < 8


def test_of_a_crowded_grid_a_part_is_drawn_and_its_colours_are_apart():
    level = Level(map_stride=16, window=48, stride=16)
    crop = torch.tensor([[0.0, 0, 224, 224]])
    query, key = show.window_marks(batch_windows(crop, crop, 224, level, 1), 0, level)
    assert [int(mark.text) for mark in query] == [
        11 * row + column for row in range(0, 11, 2) for column in range(0, 11, 2)
    ]
    for colour in {mark.colour for mark in key}:
        boxes = [mark.box for mark in key if mark.colour == colour]
        assert len(boxes) == 9
        for k, (x0, y0, x1, y1) in enumerate(boxes):
            assert all(u0 >= x1 or u1 <= x0 or v0 >= y1 or v1 <= y0 for u0, v0, u1, v1 in boxes[:k])


def test_other_methods_show_what_they_see(images):
    fpn = show.training("mini-resim-fpn", images, count=1)
    assert [len(row) for row in fpn.rows] == [3, 3] and len(fpn.heading) == 3
    ((whole, view),) = show.training("mini-random", images, count=1).rows
    assert [mark.text.partition(",")[0] for mark in whole.marks] == ["crop"] and view.title.endswith("class scenes")
    assert "permuted" not in " ".join(fpn.heading)
    assert "compared with another of its image" in show.training("mini-resim-c4-permuted", images, 1).heading[1]
    with pytest.raises(UserError, match="random sees no images"):
        show.training("random", images)


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    arch = {"depth": 18, "strides": [1, 1, 1, 2], "width": 16}
    backbone.save(
        tmp_path / "b.safetensors", resnet(**arch).state_dict(), {"id": "mini-moco-v2", "seed": 3, "arch": arch}
    )
    return tmp_path / "b.safetensors"


def test_cells_are_right_where_the_most_similar_one_is_in_the_true_place(images, file):
    trunk = load_trunk(file)[0].eval()
    recipe = load_recipe("mini-moco-v2")
    pair = TwoViews(str(images), "scenes", recipe.views.to_dict() | {"flip": "shared"}, 0)[0, 5]
    with torch.no_grad():
        query, key = trunk_maps(trunk, views.normalise(torch.stack((pair["query"], pair["key"]))))["c4"]
    found = show.Places(trunk, pair)
    crops = pair["query_crop"].tolist(), pair["key_crop"].tolist()
    places, right = 0, 0
    for i in range(14):
        for j in range(14):
            similar = F.cosine_similarity(query[:, i, j, None, None], key, dim=0)
            best = divmod(int(similar.argmax()), 14)
            around = [4 * j - 6, 4 * i - 6, 4 * j + 6, 4 * i + 6]
            place = regions.correspond(around, *crops, 56)
            valid = all(-1e-4 <= value <= 56 + 1e-4 for value in around + place)
            assert bool(found.valid[14 * i + j]) == valid
            if valid:
                hit = place[0] <= 4 * best[1] <= place[2] and place[1] <= 4 * best[0] <= place[3]
                assert bool(found.right[14 * i + j]) == hit
                assert found.key_boxes[14 * i + j].tolist() == pytest.approx(place, abs=1e-3)
                places, right = places + 1, right + hit
    assert 0 < right < places
    assert f"right for {right} of the {places} cells" in found.panels("")[1].title


def test_a_backbone_that_sees_the_same_twice_is_right(images, file):
    trunk = load_trunk(file)[0].eval()
    pair = TwoViews(str(images), "scenes", load_recipe("mini-moco-v2").views.to_dict(), 0)[0, 5]
    found = show.Places(trunk, pair | {"key": pair["query"], "key_crop": pair["query_crop"]})
    assert found.right[found.valid].all() and found.valid.sum() == 11 * 11
    assert monitor.correspondence(*found.reading) == 1


def test_a_sheet_of_a_backbone(images, file):
    sheet = show.backbone(file, images, count=2)
    assert sheet.heading[0].startswith("mini-moco-v2, seed 3: ")
    panels = [panel for row in sheet.rows for panel in row]
    assert len(panels) == 2 * (2 + show.CELLS) and max(map(len, sheet.rows)) == 4
    for start in (0, 8):
        query, key, *heats = panels[start : start + 8]
        assert [mark.text for mark in query.marks] == [str(k) for k in range(1, 7)]
        for mark, heat in zip(key.marks, heats, strict=True):
            assert heat.marks[0] == mark, "the true place"


def test_a_folder_shows_its_classes(tmp_path):
    for name in ("cat", "dog"):
        scenes_of = tmp_path / "train" / name
        scenes_of.mkdir(parents=True)
        for k in range(5):
            (scenes_of / f"{k}.jpg").write_bytes(scenes.jpeg(np.full((9, 12, 3), 50 * (name == "dog"), np.uint8)))
    sheet = show.folder(tmp_path, count=4)
    panels = [panel for row in sheet.rows for panel in row]
    assert [panel.title for panel in panels] == ["cat: 0.jpg", "cat: 3.jpg", "dog: 1.jpg", "dog: 4.jpg"]
    assert [panel.image.mean() for panel in panels] == pytest.approx([0, 0, 50, 50], abs=2)
    with pytest.raises(UserError, match="holds no images"):
        (tmp_path / "none").mkdir()
        show.folder(tmp_path / "none")
