"""A backbone goes out in the names of other programs, and to the hub with a card that says no more than is known."""

import json
import pickle
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
import torchvision
import yaml
from safetensors.torch import load_file

from resim_bench import backbone, checkpoints, cli
from resim_bench.checkpoints import card, layouts, trunks
from resim_bench.errors import UserError
from resim_bench.harness import runs

# timm 1.0.31, asked by hand: the state_dict of timm.create_model("resnetN", num_classes=0) has the names, shapes and
# order of torchvision's without fc, N = 18, 34, 50, 101, 152, and the networks have the same strides;
# timm.create_model("local-dir:FOLDER", pretrained=True) loads the folder strictly, and computes what torchvision does.
STAGES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
CONVS = {18: 2, 50: 3}
BOTTLENECK = {50}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
PYRAMID = {"fpn_lateral3.weight": torch.randn(4, 3), "fpn_lateral3.bias": torch.randn(4)}

PROVENANCE = {
    "id": "in100-mine",
    "seed": 3,
    "arch": {"depth": 18, "strides": [1, 2, 2, 2]},
    "epochs": 7.5,
    "protocol": {"batch": 96, "views": {"size": 160}, "dataset": {"name": "a\n```\n# b", "images": 1234}},
    "config_digest": "0",
    "overrides": {"batch": 96},
    "deviations": {"batch": [256, 96]},
    "data": {"images": 1234, "classes": 17, "digest": {"kind": "content", "images": "ab"}},
    "survey": {"images": 1234, "classes": 17, "left_out": {}},
    "changes": [],
    "versions": {"python": "3.12.1", "torch": "2.11.0"},
    "commit": "c0ffee",
    "device": "8 x a GPU",
    "threads": 6,
}
IMPORTED = {
    "id": "given-mine",
    "seed": 0,
    "arch": {"depth": 18, "strides": [1, 2, 2, 2]},
    "epochs": None,
    "protocol": {"imported": "moco.pth"},
    "overrides": {},
    "deviations": {},
    "data": {"source": "moco.pth", "sha256": "ab", "digest": "ab"},
    **{key: PROVENANCE[key] for key in ("versions", "commit", "device", "threads")},
}


def names(depth):
    """The names of timm's ResNets and of torchvision's, spelled out."""
    found = ["conv1.weight", *(f"bn1.{part}" for part in NORM)]
    for stage, blocks in enumerate(STAGES[depth], start=1):
        for block in range(blocks):
            here = f"layer{stage}.{block}"
            for conv in range(1, CONVS[depth] + 1):
                found += [f"{here}.conv{conv}.weight", *(f"{here}.bn{conv}.{part}" for part in NORM)]
            if block == 0 and (stage > 1 or depth in BOTTLENECK):
                found += [f"{here}.downsample.0.weight", *(f"{here}.downsample.1.{part}" for part in NORM)]
    return found


@pytest.fixture(autouse=True)
def tidy(tmp_path):
    """A trunk is 45 MB: nothing stays."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    network.fc = torch.nn.Identity()
    for name, value in network.named_buffers():
        if not name.endswith("num_batches_tracked"):
            value.uniform_(0.5, 1.5)
    return network


@pytest.fixture
def file(model, tmp_path):
    backbone.save(tmp_path / "b.safetensors", model.state_dict() | PYRAMID, PROVENANCE)
    return tmp_path / "b.safetensors"


def test_the_names_are_torchvisions_and_timms():
    with torch.device("meta"):
        for depth in STAGES:
            theirs = getattr(torchvision.models, f"resnet{depth}")().state_dict()
            assert list(backbone.trunk_state(theirs)) == names(depth)
    assert len(names(50)) == 318 and len(names(18)) == 120


@pytest.mark.parametrize(
    ("target", "layout", "read"),
    [
        ("a.safetensors", None, load_file),
        ("a.pth", None, lambda file: torch.load(file, weights_only=True)),
        ("a.pth", "timm", lambda file: torch.load(file, weights_only=True)),
        ("hub/model.safetensors", None, load_file),
    ],
)
def test_torchvision_loads_it_strictly(target, layout, read, model, file, tmp_path):
    asked = "hub/" if target.startswith("hub") else target
    said = checkpoints.export(file, f"{tmp_path}/{asked}", layout)
    whose = layout or ("timm" if asked == "hub/" else "torchvision")
    left = f"left out the feature pyramid (2 tensors), which {whose}'s ResNets do not have"
    assert said == f"wrote {tmp_path}/{asked}; {left}"

    state = read(tmp_path / target)
    assert sorted(state) == sorted(names(18))
    plain = torchvision.models.resnet18()
    missing, unexpected = plain.load_state_dict(state, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and not unexpected
    plain.fc = torch.nn.Identity()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain.eval()(image), model(image))


def test_torch_saves_what_is_exported_and_not_the_file_it_was_read_from(model, tmp_path):
    heavy = {"fpn_lateral3.weight": torch.zeros(10**7)}
    backbone.save(tmp_path / "b.safetensors", model.state_dict() | heavy, PROVENANCE)
    checkpoints.export(tmp_path / "b.safetensors", tmp_path / "a.pth")
    trunk = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    assert trunk < (tmp_path / "a.pth").stat().st_size < trunk + 10**5


def test_detectron2_reads_its_names_with_the_pyramid(file, tmp_path):
    state, _ = backbone.load(file)
    assert checkpoints.export(file, tmp_path / "a.pkl") == f"wrote {tmp_path / 'a.pkl'}"
    model = {trunks.detectron2_name(name): value.numpy() for name, value in state.items()}
    wanted = {"model": model, "__author__": "resim-bench", "matching_heuristics": True}
    content = (tmp_path / "a.pkl").read_bytes()
    assert b"numpy._core" not in content and b"numpy.core.multiarray" in content, "numpy 1 reads it, too"
    with warnings.catch_warnings(action="error"):
        found = pickle.loads(content)
    assert found.keys() == wanted.keys() and found["model"].keys() == model.keys()
    assert all(np.array_equal(value, model[name]) for name, value in found["model"].items())

    checkpoints.export(file, tmp_path / "a.pth", "detectron2")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert content["matching_heuristics"] is True and content["__author__"] == "resim-bench"
    assert content["model"].keys() == model.keys() and "backbone.fpn_lateral3.bias" in model
    assert all(torch.equal(content["model"][name], torch.from_numpy(value)) for name, value in model.items())


def test_the_hub_has_what_timm_asks_for(file, tmp_path):
    checkpoints.export(file, tmp_path / "hub")
    assert {entry.name for entry in (tmp_path / "hub").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert json.loads((tmp_path / "hub/config.json").read_text()) == {
        "architecture": "resnet18",
        "num_classes": 0,
        "pretrained_cfg": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "input_size": [3, 160, 160],
            "num_classes": 0,
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }


def read_card(text):
    """Its front matter, and what stands below each heading."""
    head, body = re.fullmatch(r"---\n(.*?\n)---\n\n(.*)", text, re.S).groups()
    title, *parts = re.split(r"^## ", body, flags=re.M)
    return yaml.safe_load(head), title, dict(part.split("\n\n", 1) for part in parts)


def block(text):
    return yaml.safe_load(re.search(r"^```yaml\n(.*?)^```$", text, re.S | re.M)[1])


def of(provenance, *keys):
    return runs.flatten({key: provenance[key] for key in keys})


def test_the_card_says_what_the_provenance_holds(file, tmp_path):
    checkpoints.export(file, tmp_path / "hub")
    head, title, sections = read_card((tmp_path / "hub/README.md").read_text())
    assert head == {"library_name": "timm", "tags": ["image-feature-extraction", "timm", "resim-bench"]}
    assert title.startswith("# in100-mine\n\nThe trunk of a resnet18, without classifier, made by resim-bench")
    assert "The feature pyramid beside it is left out." in title
    what, settings, overrides, deviations, where, itself, loading, unknown = sections.values()
    assert block(what) == of(PROVENANCE, "id", "seed", "epochs", "arch", "data", "survey")
    assert block(settings) == runs.flatten(PROVENANCE["protocol"])
    assert block(overrides) == {"batch": 96} and block(deviations) == {"batch": [256, 96]}
    assert block(where) == of(PROVENANCE, "commit", "versions", "device", "threads", "changes")
    assert block(itself) == {"sha256": backbone.digest(file)}
    assert "licence" in unknown and "does not name" not in unknown and "very code" not in unknown


@pytest.mark.parametrize("provenance", [PROVENANCE, IMPORTED], ids=["ours", "theirs"])
def test_the_card_has_no_number_from_elsewhere(provenance):
    text = card.readme(card.Source({}, provenance, "5a5a")).decode()
    known = json.dumps(provenance) + "5a5a"
    elsewhere = [number for number in re.findall(r"\d+(?:\.\d+)*", text) if number not in known]
    assert set(elsewhere) <= {"2021"}, "the paper's year"


def test_the_card_says_how_to_load_it(file, tmp_path, monkeypatch, model):
    checkpoints.export(file, tmp_path / "hub")
    _, _, sections = read_card((tmp_path / "hub/README.md").read_text())
    timm, torchvision_ = re.findall(r"^```python\n(.*?)^```$", sections["How to load it"], re.S | re.M)
    assert "local-dir:" in timm
    compile(timm, "timm", "exec")
    monkeypatch.chdir(tmp_path / "hub")
    scope = {}
    exec(torchvision_, scope)
    assert torch.equal(scope["model"].conv1.weight, model.conv1.weight)


def test_weights_of_others_are_said_to_be_theirs():
    source = card.Source({}, IMPORTED, "5a")
    _, title, sections = read_card(card.readme(source).decode())
    assert "that others trained, imported by resim-bench" in title and "left out" not in title
    assert list(sections)[:2] == ["What it is", "Where it was imported, not trained"]
    assert block(sections["What it is"]) == of(IMPORTED, "id", "epochs", "arch", "data"), "no seed"
    unknown = sections["What is not known"]
    assert "How it was trained" in unknown and "normalised" in unknown
    assert "What its provenance does not name: `epochs`." in unknown
    assert json.loads(card.config(source))["pretrained_cfg"]["input_size"] == [3, 224, 224]


def test_the_card_says_what_its_own_provenance_leaves_open():
    old = {key: value for key, value in PROVENANCE.items() if key not in ("survey", "threads", "overrides")}
    text = card.readme(card.Source({}, old | {"commit": "c0ffee-dirty"}, "5a")).decode()
    assert "What its provenance does not name: `survey`, `overrides`, `threads`." in text
    assert "## Overrides\n\nNot recorded." in text and "files differed from those of the commit" in text
    text = card.readme(card.Source({}, PROVENANCE | {"commit": "unknown", "deviations": {}}, "5a")).decode()
    assert "does not name: `commit`." in text and "`[shipped, ran]`\n\nNone." in text


@pytest.mark.parametrize(
    "arch",
    [
        {"depth": 18, "strides": [1, 1, 1, 2], "width": 16},
        {"depth": 50, "strides": [1, 2, 2, 1]},
        {"depth": 50, "strides": [1, 2, 2, 2], "width": 32},
    ],
)
def test_a_network_without_a_name_goes_to_torchvision_alone(arch, tmp_path):
    backbone.save(tmp_path / "b.safetensors", {"conv1.weight": torch.zeros(1)}, PROVENANCE | {"arch": arch})
    spelled = backbone.spell({"width": 64} | arch)
    for target, layout in (("hub/", None), ("b.pth", "timm")):
        with pytest.raises(UserError) as refusal:
            checkpoints.export(tmp_path / "b.safetensors", f"{tmp_path}/{target}", layout)
        assert str(refusal.value) == (
            f"timm has no ResNet of {spelled}, so neither it nor the hub could build this backbone's: "
            "write NAME.safetensors or NAME.pth with --layout torchvision"
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.safetensors"]
    said = checkpoints.export(tmp_path / "b.safetensors", tmp_path / "b.pth")
    assert said.endswith(f"; torchvision has no ResNet of {spelled}: build one before you load it")
    assert torch.load(tmp_path / "b.pth", weights_only=True).keys() == {"conv1.weight"}


@pytest.mark.parametrize(
    ("target", "layout", "chosen"),
    [
        ("x/a.pkl", None, "detectron2"),
        ("a.pth", None, "torchvision"),
        ("a.safetensors", None, "torchvision"),
        ("a.pth", "detectron2", "detectron2"),
        ("a.pth", "timm", "timm"),
        ("a", None, "timm"),
        ("a.b/", None, "timm"),
        ("a.pkl/", "timm", "timm"),
        (".", None, "timm"),
    ],
)
def test_the_target_decides(target, layout, chosen):
    found, writers = layouts.choose(target, layout)
    assert found == chosen
    is_folder = target in ("a", "a.b/", "a.pkl/", ".")
    assert list(writers) == (["model.safetensors", "config.json", "README.md"] if is_folder else [layouts.ITSELF])


@pytest.mark.parametrize(
    ("target", "layout", "sentence"),
    [
        (
            "a.bin",
            None,
            "a.bin ends in .bin, as no layout does: name it NAME.pkl, NAME.safetensors, NAME.pth or a FOLDER/",
        ),
        ("a.pkl", "timm", "a.pkl is nothing that timm reads: name it NAME.safetensors, NAME.pth or a FOLDER/"),
        ("a.pkl", "torchvision", "a.pkl is nothing that torchvision reads: name it NAME.safetensors or NAME.pth"),
        ("a/", "torchvision", "a/ is nothing that torchvision reads: name it NAME.safetensors or NAME.pth"),
        ("a.safetensors", "detectron2", "a.safetensors is nothing that detectron2 reads: name it NAME.pkl or NAME.pth"),
    ],
)
def test_a_target_that_no_program_reads_is_refused(target, layout, sentence):
    with pytest.raises(UserError) as refusal:
        layouts.choose(target, layout)
    assert str(refusal.value) == sentence


def test_what_is_there_is_left_and_what_is_anothers_is_refused(file, tmp_path):
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "README.md").write_text("mine")
    with pytest.raises(UserError, match="README.md is another file already: delete it, or choose another name"):
        checkpoints.export(file, hub)
    assert [entry.name for entry in hub.iterdir()] == ["README.md"], "nothing is written before all is clear"

    (hub / "README.md").unlink()
    (hub / "notes.txt").write_text("mine")
    for target in (hub, tmp_path / "a.pth", tmp_path / "a.safetensors"):
        checkpoints.export(file, target)
    before = {entry: entry.stat().st_mtime_ns for entry in tmp_path.rglob("*")}
    (hub / "config.json").unlink()
    for target in (f"{hub}/", tmp_path / "a.pth", tmp_path / "a.safetensors"):
        checkpoints.export(file, target)
    left = (hub, hub / "config.json")
    after = {entry: entry.stat().st_mtime_ns for entry in tmp_path.rglob("*")}
    assert after.keys() == before.keys() and all(after[e] == before[e] for e in before if e not in left)


def test_the_command_line_knows_every_layout(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for layout in layouts.LAYOUTS:
        assert cli.main(["export", str(file), f"{layout}.pth", "--layout", layout]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split(";")[0] for line in out] == [f"wrote {layout}.pth" for layout in layouts.LAYOUTS]
    assert cli.main(["export", str(file), "v1.0/"]) == 0 and (tmp_path / "v1.0" / "README.md").is_file()
    assert layouts.DEFAULT.keys() == {ending for endings in layouts.LAYOUTS.values() for ending in endings}
