"""Backbones on the way: files of their own ids, the same however often the run was cut off, of no row of a table."""

import shutil

import pytest
import torch

import tables
from pretrain import train
from resim_bench import backbone, experiments, record
from resim_bench.checkpoints import card
from resim_bench.cli import trainings
from resim_bench.errors import UserError
from tests.pretrain.helpers import TINY_RUN, interrupt_at, noise_images, same_weights

TINY = TINY_RUN | {"epochs": 3}
SEED = 5


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return noise_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def start(images):
    def run(work_dir, options, **keywords):
        arguments = {"data": images, "work_dir": work_dir, "seed": SEED} | keywords
        return train.run("mini-moco-v2", cfg_options=TINY | options, **arguments)

    return run


def kept(work_dir, epoch):
    return work_dir / "pretrain" / f"mini-moco-v2@{epoch}ep" / f"seed-{SEED}" / "backbone.safetensors"


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The work directory of a run that kept its first two epochs."""
    work_dir = tmp_path_factory.mktemp("whole")
    start(work_dir, {"keep": (1, 2)})
    return work_dir


def test_a_kept_backbone_is_what_the_run_was_then(start, whole, tmp_path):
    for epoch in (1, 2):
        shorter = start(tmp_path / str(epoch), {"max_iters": 2 * epoch})
        assert same_weights(kept(whole, epoch), shorter)
    assert not same_weights(kept(whole, 1), kept(whole, 2)) and not kept(whole, 3).exists()


def test_it_says_that_it_is_the_middle_of_a_longer_cosine(whole):
    provenance = backbone.load(kept(whole, 2))[1]
    assert (provenance["id"], provenance["epochs"], provenance["of_epochs"]) == ("mini-moco-v2@2ep", 2, 3)
    assert provenance["protocol"]["epochs"] == 3 and provenance["seed"] == SEED
    end = backbone.load(backbone.path(whole, "mini-moco-v2", SEED))[1]
    assert "of_epochs" not in end and end["epochs"] == 3


def test_its_model_card_says_so_too(whole):
    end = backbone.load(backbone.path(whole, "mini-moco-v2", SEED))
    said = [card.readme(card.Source(*found, "")).decode() for found in (backbone.load(kept(whole, 2)), end)]
    assert "the middle of a longer training: after 2 of 3 epochs" in said[0] and "middle" not in said[1]


def test_it_changes_no_number_and_no_digest(start, whole, tmp_path):
    without, file = start(tmp_path, {}), backbone.path(whole, "mini-moco-v2", SEED)
    assert same_weights(without, file)
    assert train.claim_of(without) == train.claim_of(file) == train.claim_of(kept(whole, 1))
    assert not any("keep" in setting for setting in backbone.load(file)[1]["deviations"])


def test_a_run_that_was_cut_off_leaves_the_same(start, whole, tmp_path, monkeypatch):
    for step in (2, 2, 2, 1):  # in the first epoch, after it, and in the second; the last start goes to the end
        with monkeypatch.context() as patch:
            interrupt_at(patch, step if step > 1 else 99)
            try:
                start(tmp_path, {"keep": (1, 2)}, resume=True)
            except KeyboardInterrupt:
                assert step > 1
    for epoch in (1, 2):
        assert same_weights(kept(tmp_path, epoch), kept(whole, epoch))


def test_it_is_left_before_the_checkpoint_that_lies_behind_it(start, tmp_path, monkeypatch):
    """Or a run cut off between the two would go on without it."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=2)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, {"keep": (1,)})
        assert not kept(tmp_path, 1).exists()
        patch.setattr(backbone, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        interrupt_at(patch, step=99)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, {"keep": (1,)}, resume=True)
    last = torch.load(next(tmp_path.rglob("last.pth")), weights_only=True)
    assert last["meta"]["iter"] == 1
    start(tmp_path, {"keep": (1,)}, resume=True)
    assert kept(tmp_path, 1).is_file()


def test_what_is_past_cannot_be_kept_any_more(start, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=4)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, {})
    with pytest.raises(UserError, match="keep has epoch 1, which this run is past without having left .*@1ep"):
        start(tmp_path, {"keep": (1,)}, resume=True)
    start(tmp_path, {"keep": (2,)}, resume=True)
    assert kept(tmp_path, 2).is_file()
    with pytest.raises(UserError, match="keep has epoch 1, which this run is past"):
        start(tmp_path, {"keep": (1, 2)})


def test_a_file_of_another_run_in_its_place_is_refused_and_stays(start, whole, tmp_path):
    kept(tmp_path, 1).parent.mkdir(parents=True)
    shutil.copy(kept(whole, 1), kept(tmp_path, 1))
    before = kept(tmp_path, 1).read_bytes()
    with pytest.raises(UserError, match=r"@1ep.* is the result of another configuration .protocol.optimizer.lr"):
        start(tmp_path, {"keep": (1,), "optimizer.lr": 0.01})
    assert kept(tmp_path, 1).read_bytes() == before and not (tmp_path / "pretrain" / "mini-moco-v2").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keep": (1, 4)}, "keep has epoch 4, and there are 3: give one of these"),
        ({"keep": 2}, "keep is 2: give epochs, such as"),
        ({"keep": (0,)}, "keep is .*: give epochs, such as|keep.0 is 0"),
        ({"keep": (2,), "max_iters": 3}, "keep has epoch 2, and max_iters=3 end before: an epoch of these 20 images"),
    ],
)
def test_an_epoch_that_there_is_not_is_refused(start, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        start(tmp_path / "work", options)
    assert not (tmp_path / "work").exists()


def test_an_untrained_network_keeps_nothing():
    with pytest.raises(UserError, match="keep is for what trains: leave it out"):
        train.load_recipe("mini-random", {"keep": (1,)})


def test_the_last_epoch_may_be_kept_too(start, tmp_path):
    end = start(tmp_path, {"epochs": 1, "keep": [1]})
    assert same_weights(kept(tmp_path, 1), end)


def test_commands_find_it_by_its_id(whole, tmp_path):
    assert trainings.backbone_file("mini-moco-v2@2ep", whole, SEED) == kept(whole, 2)
    assert trainings.backbone_file("mini-moco-v2@3ep", whole, SEED) == kept(whole, 3), "which is missing"
    assert experiments.how_to_get(["mini-moco-v2@3ep", "mini-moco-v2"]) == [
        "`make pretrain-mini`",
        "`resim-bench pretrain mini-moco-v2 --cfg-options keep=[3]`",
    ]
    with pytest.raises(UserError, match="no id matches 'mini-nothing'"):
        trainings.backbone_file("mini-nothing@2ep", whole, SEED)
    own = tmp_path / "mini@2ep.py"
    own.write_text("")
    with pytest.raises(UserError, match="gives its runs no name"):
        experiments.recipe_file(str(own))


def test_its_records_have_a_place_and_are_compared_with_no_row(make_record, tmp_path):
    middle = make_record("mini-moco-v2@200ep", "mini-voc-full", ap=99.0)
    place = record.write(tmp_path, middle)
    assert place.parts[-3:-1] == ("mini-moco-v2@200ep", "mini-voc-full")
    records = [record.read(place)]
    frame = tables.collect(records)
    assert not frame.trials.any() and not (frame.ran == "mini-moco-v2@200ep").any()
    assert not any("@" in pair.pretrain_id for pair in experiments.experiments())
    shown = tables.everything(tables.leaderboard(records))
    assert "mini-moco-v2@200ep" in shown and "pretrain.protocol is another than mini-moco-v2's of today" in shown


@pytest.mark.parametrize("name", ["@2ep", "a@", "a@2", "a@0ep", "a@2ep@3ep", "a@-1ep", "a@2ep/b"])
def test_other_names_with_an_at_are_none(name):
    assert not experiments.ID.fullmatch(name)
