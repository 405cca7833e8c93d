"""The protocols that records are held to, `tables/protocols.toml`, are those of the recipes and configs as they are.

A change of one turns its test red, and every record made before it deviates. Where the change is meant, `make pin`
writes the file and says what changed.
"""

import pytest

import tables
from pretrain import judge, train
from resim_bench import experiments, record
from tables.paper import load_protocols
from tests import pin
from transfer import protocols


@pytest.mark.parametrize("pretrain_id", experiments.pretrain_ids())
def test_recipe(pretrain_id):
    assert load_protocols()["pretrain"].get(pretrain_id) == record.digest(pin.of_recipe(pretrain_id))


@pytest.mark.parametrize("transfer_id", experiments.transfer_ids())
def test_protocol(transfer_id):
    assert load_protocols()["transfer"].get(transfer_id) == record.digest(pin.of_protocol(transfer_id))


@pytest.mark.parametrize("readings_id", experiments.readings_ids())
def test_readings(readings_id):
    assert load_protocols()["transfer"].get(readings_id) == record.digest(judge.protocol(readings_id))


def test_nothing_else_is_pinned():
    pinned = load_protocols()
    assert pinned["pretrain"].keys() == experiments.pretrain_ids().keys()
    assert pinned["transfer"].keys() == experiments.transfer_ids().keys() | experiments.readings_ids().keys()


def test_a_record_of_another_protocol_deviates(make_record):
    """What a changed recipe does to a record of the one before."""
    recipe = train.load_recipe("in1k-moco-v2-200ep")
    one = make_record("in1k-moco-v2-200ep", "voc-full", ap=57.0, ap50=82.4, ap75=63.6)
    one["transfer"]["protocol"] = protocols.summary(
        protocols.resolve(protocols.load("voc-full"), data="x", classes=["a"], seed=0, backbone="x")
    )
    one["pretrain"]["protocol"] = train.protocol(recipe, recipe.dataset)
    frame = tables.collect([one])
    line = frame[(frame.table == "in1k-voc") & (frame.label == "MoCo-v2") & (frame.metric == "AP")].iloc[0]
    assert line.verdict == "match" and line.deviations == ()
    recipe.optimizer.lr = 0.06
    one["pretrain"]["protocol"] = train.protocol(recipe, recipe.dataset)
    frame = tables.collect([one])
    line = frame[(frame.table == "in1k-voc") & (frame.label == "MoCo-v2") & (frame.metric == "AP")].iloc[0]
    assert line.verdict == "deviates"
    assert line.deviations == ("pretrain.protocol is another than in1k-moco-v2-200ep's of today",)
