"""Few labels: a fixed share of the training images, nested, the same for everybody, and said."""

import random

import pytest

from resim_bench import record
from resim_bench.errors import UserError
from tests.transfer.conftest import TINY, TINY_COCO
from tests.transfer.helpers import resolved
from transfer import datasets, protocols, train
from transfer.coco import COCOFolder
from transfer.voc import VOCFolder

NAMES = [f"VOC2007/JPEGImages/{i:06}.jpg" for i in range(1, 201)]
GOLDEN = ["000006", "000012", "000074", "000090", "000107", "000135", "000144", "000151", "000160", "000165"]


def chosen(names, fraction):
    return [names[i] for i in datasets.share(names, fraction)]


def test_the_list_is_fixed():
    numbers = [name[-10:-4] for name in chosen(NAMES, 0.05)]
    assert numbers == GOLDEN, "another list is another protocol: records of before would no longer be comparable"


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 2), (0.1, 20), (0.5, 100), (1.0, 200), (1e-9, 1), (0.999, 200)])
def test_how_many(fraction, count):
    assert len(set(chosen(NAMES, fraction))) == count
    assert len(chosen(["only"], fraction)) == 1


def test_a_smaller_share_lies_inside_of_a_larger_one():
    shares = [set(chosen(NAMES, percent / 100)) for percent in range(1, 101)]
    assert all(smaller <= larger for smaller, larger in zip(shares, shares[1:], strict=False))


def test_the_order_of_files_does_not_matter():
    mixed = NAMES.copy()
    random.Random(0).shuffle(mixed)
    assert mixed != NAMES and set(chosen(mixed, 0.1)) == set(chosen(NAMES, 0.1))
    assert datasets.share(mixed, 0.1) == sorted(datasets.share(mixed, 0.1)), "they stay in the order of the files"


@pytest.mark.parametrize(("kind", "folder"), [(VOCFolder, "devkit"), (COCOFolder, "coco_folder")])
def test_a_data_set_trains_on_its_share_and_tests_on_all(kind, folder, request):
    folder = request.getfixturevalue(folder)

    def names(split, **keywords):
        data = kind(folder, split, **keywords)
        return [data.get_data_info(i)["img_path"] for i in range(len(data))]

    whole, half = names("train"), names("train", fraction=0.5)
    below = [name.removeprefix(f"{folder}/") for name in whole]
    assert half == [whole[i] for i in datasets.share(below, 0.5)] and 0 < len(half) < len(whole)
    assert names("test", fraction=0.5) == names("test")
    facts = kind.facts(folder)
    assert kind.facts(folder, fraction=0.5) == facts | {"used_images": len(half)}, "and the data set is the same"


def test_a_protocol_without_it_is_what_it_was():
    summary, dataset = protocols.summary(resolved()), resolved().train_dataloader.dataset
    assert "fraction" not in summary and "fraction" not in dataset
    assert protocols.summary(resolved(options={"fraction": 1})) == summary
    assert protocols.deviations(summary, summary) == {}
    few = resolved(options={"fraction": 0.1})
    assert protocols.summary(few) == summary | {"fraction": 0.1}
    assert few.train_dataloader.dataset.fraction == 0.1 and "fraction" not in few.test_dataloader.dataset


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, True, "few", float("nan"), None])
def test_what_is_no_fraction_is_refused(fraction):
    with pytest.raises(UserError, match="fraction is .*: give a (finite )?number"):
        protocols.load("coco-1x", {"fraction": fraction})


@pytest.mark.parametrize("transfer_id", ["mini-voc-frozen", "coco-1x"])
def test_a_transfer_says_and_records_it(transfer_id, request, tmp_path, capsys):
    of_voc = transfer_id == "mini-voc-frozen"
    data, backbone = map(
        request.getfixturevalue, ("devkit", "backbone_path") if of_voc else ("coco_folder", "fpn_path")
    )
    options = (TINY if of_voc else TINY_COCO) | {"fraction": 0.3, "max_iters": 1}
    entry = record.read(train.run(transfer_id, backbone, data=data, work_dir=tmp_path / "w", cfg_options=options))
    facts = entry["transfer"]["data"]
    used, count = facts["used_images"], facts["train_images"]
    assert used == round(0.3 * count) < count
    assert f"over {used} of {count} images, " in capsys.readouterr().out
    assert entry["transfer"]["deviations"]["fraction"] == [1.0, 0.3]
    assert entry["transfer"]["protocol"]["fraction"] == 0.3
