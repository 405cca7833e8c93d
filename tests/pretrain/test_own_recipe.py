"""A recipe and a method from outside of the repository."""

import re
from typing import Literal

import pytest

from pretrain import recipes, train
from pretrain.methods import untrained
from pretrain.methods.method import Method
from resim_bench import backbone, cli, experiments, settings
from resim_bench.cli.trainings import backbone_file
from resim_bench.errors import UserError
from tests.pretrain.test_train import images  # noqa: F401 (a fixture)

METHOD = '''
from typing import Literal

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import nn

from pretrain.encoders import BackboneSettings, resnet
from pretrain.methods.method import Method
from pretrain.views import normalise
from resim_bench.settings import Schema, Whole


class Settings(Schema):
    type: Literal["Agreement"]
    backbone: BackboneSettings
    dim: Whole


@MODELS.register_module(force=True)
class Agreement(Method):
    """Two views shall be alike, which a constant fulfils."""

    Settings = Settings

    def __init__(self, backbone, dim):
        super().__init__()
        self.trunk = resnet(**backbone)
        self.head = nn.Linear(self.trunk.layer4[-1].bn2.num_features, dim)

    @classmethod
    def parameter_groups(cls, recipe):
        return {"custom_keys": {"head": {"lr_mult": 10.0}}}

    @classmethod
    def check(cls, recipe):
        if recipe.model.dim > 64:
            raise ValueError("model.dim is above 64: give less")

    def forward(self, query, key, mode="loss", **_):
        query, key = (self.head(self.trunk(normalise(view))) for view in (query, key))
        return {"loss_agreement": -F.cosine_similarity(query, key.detach()).mean()}
'''
RECIPE = """
_base_ = "{configs}/mini-moco-v2.py"
custom_imports = dict(imports=["agreement"])
model = dict(_delete_=True, type="Agreement", backbone=dict(depth=18, strides=(1, 1, 1, 2), width=16), dim=8)
views = dict(size=32)
batch = 8
epochs = 1
"""


class Rootless(settings.Schema):
    type: Literal["Rootless"]


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "agreement.py").write_text(METHOD)
    file = tmp_path / "mine.py"
    file.write_text(RECIPE.format(configs=experiments.ROOT / "pretrain" / "configs"))
    return file


def test_a_recipe_from_a_file_trains_a_method_that_it_imports(mine, images, tmp_path, capsys):  # noqa: F811
    argv = ["pretrain", str(mine), "--data", str(images), "--work-dir", str(tmp_path / "work")]
    assert cli.main(argv) == 0
    file = backbone.path(tmp_path / "work", "mine", 0)
    _, provenance = backbone.load(file)
    assert provenance["id"] == "mine" and provenance["protocol"]["model"]["type"] == "Agreement"
    assert "custom_imports" not in provenance["protocol"]
    assert {setting.split(".")[0] for setting in provenance["deviations"]} == {"dataset"}
    assert cli.main(argv) == 0 and "mine, seed 0: done before" in capsys.readouterr().out
    wrapper = train.optim_config(train.load_recipe(str(mine)))
    assert wrapper["paramwise_cfg"] == {"custom_keys": {"head": {"lr_mult": 10.0}}}
    assert backbone_file("mine", tmp_path / "work", 0) == file, "its id is enough to transfer it"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("dim=8", "dim=65"), "model.dim is above 64: give less"),
        (("dim=8", "queue=8"), "there is no setting model.queue: model of type Agreement has type, backbone, dim"),
        (('"Agreement"', '"Nope"'), "model.type is 'Nope': give MoCo, DenseCL, Supervised, Random or Agreement"),
        (('["agreement"]', '["nowhere"]'), "mine.py is no recipe .*nowhere"),
        (
            ('type="Agreement"', 'type=["Agreement"]'),
            "model is .*Agreement.*: give the settings of a method, with its name",
        ),
        (
            ("model = dict(_delete_=True,", "model = 5 #"),
            "model is 5: give the settings of a method, with its name as type",
        ),
        (("size=32", "size=32, ratio=(0, 1)"), r"views.ratio is \(0, 1\): give two numbers above 0, the smaller first"),
        (("batch = 8", "batch = = 8"), "mine.py is no recipe .*SyntaxError"),
        (("batch = 8", "bach = 8"), "there is no setting bach"),
        (("batch = 8", "batch = 'many'"), "batch is 'many': give a whole number of at least 1"),
    ],
)
def test_what_is_wrong_with_it_is_a_sentence(mine, images, tmp_path, capsys, change, sentence):  # noqa: F811
    train.load_recipe(str(mine))  # so that the method is known
    mine.write_text(mine.read_text().replace(*change))
    assert cli.main(["pretrain", str(mine), "--data", str(images), "--work-dir", str(tmp_path / "work")]) == 2
    said = capsys.readouterr().err
    assert re.search(sentence, said) and said.count("\n") == 1, said
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (type("Bare", (Method,), {}), "the method Bare has no Settings: give it the schema of a recipe's model"),
        (type("Rootless", (Method,), {"Settings": Rootless}), "model has no backbone: a method's Settings name so the"),
    ],
)
def test_a_method_says_what_a_recipe_may_and_what_is_transferred(monkeypatch, method, sentence):
    """Before hours of training, behind which there would be nothing to keep."""
    recipe = train.load_recipe("mini-moco-v2").to_dict() | {"model": {"type": "Rootless"}}
    monkeypatch.setattr(recipes.methods, "known", lambda: (method, untrained.Random))
    monkeypatch.setattr(recipes.methods, "of", lambda recipe: method)
    with pytest.raises(UserError, match=sentence):
        settings.check(recipes.schema(), recipe)


def test_a_recipe_of_ones_own_has_what_it_leaves_out(mine):
    text = mine.read_text()
    model = 'model = dict(_delete_=True, type="MoCo", backbone=dict(depth=18), dim=8, queue=16, momentum=0.9, '
    mine.write_text(re.sub("model = .*", model + "temperature=0.2, levels=dict())", text))
    model = train.load_recipe(str(mine)).model
    assert (model.bn_group, model.instance_weight, tuple(model.backbone.strides)) == (32, 1.0, (1, 2, 2, 2))


def test_a_file_that_is_not_there_or_takes_anothers_name_is_refused(mine, capsys):
    assert cli.main(["pretrain", "nowhere.py"]) == 2
    other = mine.rename(mine.with_name("in100-moco-v2.py"))
    assert cli.main(["pretrain", str(other)]) == 2
    for name in ("my recipe.py", "given-mine.py"):
        assert cli.main(["pretrain", str(other.rename(other.with_name(name)))]) == 2
        other = other.with_name(name)
    said = capsys.readouterr().err
    assert said.count("gives its runs no name that files and records can have") == 2
    assert "there is no recipe nowhere.py: give a file, or an id of `resim-bench list`" in said
    assert "in100-moco-v2.py has the name of a recipe of the suite: give it another" in said
