"""Checkpoints from anywhere: every public layout gives the same trunk, and whatever is wrong is one sentence."""

import argparse
import os
import pickle
import re
import shutil
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from resim_bench import backbone, checkpoints, experiments, record
from resim_bench.checkpoints import reading
from resim_bench.errors import UserError
from resim_bench.harness import runs

BLOCKS = {1: 3, 2: 4, 3: 6, 4: 3}
PYRAMID = {"fpn_lateral3": (256, 512, 1, 1), "fpn_lateral4": (256, 1024, 1, 1), "fpn_lateral5": (256, 2048, 1, 1)}
PYRAMID |= {"fpn_output3": (256, 256, 3, 3), "fpn_output4": (256, 256, 3, 3)}


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def numpied(state):
    return {key: value.numpy() for key, value in state.items()}


def detectron2_names():
    """{torchvision's module: Detectron2's}, written down block by block."""
    names = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}
    for stage, blocks in BLOCKS.items():
        for block in range(blocks):
            here, there = f"layer{stage}.{block}", f"res{stage + 1}.{block}"
            for conv in (1, 2, 3):
                names |= {f"{here}.conv{conv}": f"{there}.conv{conv}", f"{here}.bn{conv}": f"{there}.conv{conv}.norm"}
        names |= {f"layer{stage}.0.downsample.0": f"res{stage + 1}.0.shortcut"}
        names |= {f"layer{stage}.0.downsample.1": f"res{stage + 1}.0.shortcut.norm"}
    return names | {name: f"backbone.{name}" for name in PYRAMID} | {f"{n}.0": f"backbone.{n}.0" for n in PYRAMID}


def detectron2(state):
    names = detectron2_names()
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}


def pyramid():
    weights = {f"{name}.weight": torch.randn(shape) for name, shape in PYRAMID.items()}
    return weights | {f"{name}.bias": torch.randn(256) for name in PYRAMID}


def mlp():
    return {"fc.0.weight": torch.randn(9, 9), "fc.0.bias": torch.randn(9), "fc.2.weight": torch.randn(9, 9)}


def moco(trunk, more=None):
    """MoCo's file, of which ReSim's is one; the key encoder's weights are other ones."""
    query = trunk | mlp() | (more or {})
    key = {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in query.items()}
    state = prefixed("module.encoder_q.", query) | prefixed("module.encoder_k.", key)
    state |= {"module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    momenta = {i: {"momentum_buffer": torch.randn(3)} for i in range(5)}
    groups = [{"lr": 0.03, "nesterov": False, "params": [*range(5)]}]
    optimizer = {"state": momenta, "param_groups": groups}
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": optimizer}


def moco_leaves(keys):
    left = {"encoder_q.fc": 3, "encoder_k": keys, "queue": 1, "queue_ptr": 1}
    return prefixed("state_dict.module.", left) | {"optimizer.state": 5}


def vissl(trunk):
    heads = {"0.clf.0.weight": torch.randn(5, 5), "0.clf.0.bias": torch.randn(5)}
    model = {"trunk": prefixed("_feature_blocks.", trunk), "heads": heads}
    state = {"train": True, "base_model": {"model": model, "meters": [], "loss": {}}, "optimizer": {}, "losses": [1.5]}
    return {"phase_idx": 1, "loss": {}, "iteration": 3, "classy_state_dict": state}


def resim_detectron2(trunk, more=None):
    model = detectron2(trunk | (more or {})) | {"stem.fc.0.weight": torch.randn(9, 9)}
    return {"model": numpied(model), "__author__": "MOCO", "matching_heuristics": True}


def old(trunk):
    """As torch before 0.4.1 left it: parameters, and no counters."""
    return {k: torch.nn.Parameter(v) for k, v in trunk.items() if not k.endswith("num_batches_tracked")}


def torch_save(content, file):
    torch.save(content, file)


def legacy_save(content, file):
    torch.save(content, file, _use_new_zipfile_serialization=False)


def pickled(content, file):
    file.write_bytes(pickle.dumps(content))


# layout: (content from the trunk, how it is written, file name, the prefix used, what is left)
LAYOUTS = {
    "torchvision": (lambda t: t | {"fc.weight": torch.randn(9)}, torch_save, "resnet50-0676ba61.pth", "", {"fc": 1}),
    "torchvision, old": (old, legacy_save, "resnet50-19c8e357.pth", "", {}),
    "MoCo": (moco, legacy_save, "moco.pth.tar", "state_dict.module.encoder_q.", moco_leaves(321)),
    "ReSim-FPN": (
        lambda t: moco(t, pyramid()),
        torch_save,
        "resim.pth.tar",
        "state_dict.module.encoder_q.",
        moco_leaves(331),
    ),
    "DenseCL": (lambda t: {"state_dict": t, "author": "DenseCL"}, torch_save, "densecl.pth", "state_dict.", {}),
    "OpenSelfSup": (
        lambda t: {"meta": {"epoch": 3}, "state_dict": prefixed("backbone.", t) | {"head.weight": torch.randn(3)}},
        legacy_save,
        "simclr.pth",
        "state_dict.backbone.",
        {"state_dict.head": 1},
    ),
    "SwAV": (
        lambda t: (
            prefixed("module.", t)
            | {"module.projection_head.0.weight": torch.randn(5), "module.prototypes.weight": torch.randn(5)}
        ),
        legacy_save,
        "swav.pth.tar",
        "module.",
        {"module.projection_head": 1, "module.prototypes": 1},
    ),
    "VISSL": (
        vissl,
        torch_save,
        "model.torch",
        "classy_state_dict.base_model.model.trunk._feature_blocks.",
        {"classy_state_dict.base_model.model.heads": 2},
    ),
    "ReSim, converted": (
        lambda t: resim_detectron2(t, pyramid()),
        torch_save,
        "resim_backbone.pkl",
        "model.",
        {"model.stem": 1},
    ),
    "Detectron2": (resim_detectron2, pickled, "moco.pkl", "model.", {"model.stem": 1}),
    "safetensors": (lambda t: t, save_file, "model.safetensors", "", {}),
}


def features(model, image):
    """C2 to C5."""
    outputs = [model.maxpool(model.relu(model.bn1(model.conv1(image))))]
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        outputs.append(layer(outputs[-1]))
    return outputs[1:]


@pytest.fixture(autouse=True)
def tidy(tmp_path):
    """A trunk is 94 MB: nothing stays."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def source():
    """A ResNet-50 whose every tensor is random, statistics too."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval()
    model.fc = torch.nn.Identity()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
            module.num_batches_tracked.random_(1, 1000)
    return model


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_public_layout_gives_the_source_model(layout, source, tmp_path):
    content, write, name, prefix, left = LAYOUTS[layout]
    trunk = source.state_dict()
    content = content(trunk)
    write(content, tmp_path / name)
    report = checkpoints.import_checkpoint(tmp_path / name, "given-x", tmp_path)

    state, provenance = backbone.load(report.path)
    assert (report.prefix, report.source, report.written) == (prefix, name, True)
    assert report.left == left
    has_pyramid = layout in ("ReSim-FPN", "ReSim, converted")
    assert report.used_of_pyramid == len(backbone.pyramid_state(state)) == 10 * has_pyramid
    assert report.used == (318 if "old" not in layout else 265) + 10 * has_pyramid
    if has_pyramid:
        flat = runs.flatten(content)
        where = "model.backbone." if layout == "ReSim, converted" else prefix
        for name, value in backbone.pyramid_state(state).items():
            assert torch.equal(value, torch.as_tensor(flat[where + name]))

    with torch.device("meta"):
        imported = torchvision.models.resnet50().eval()
    imported.fc = torch.nn.Identity()
    imported.load_state_dict(backbone.trunk_state(state), assign=True)  # strict
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(features(imported, image), features(source, image), strict=True):
            assert torch.equal(ours, theirs) and ours.std() > 0
    counter = state["layer4.2.bn3.num_batches_tracked"]
    assert counter.shape == () and counter == (0 if "old" in layout else trunk["layer4.2.bn3.num_batches_tracked"])
    assert provenance["epochs"] == (200 if "encoder_q" in prefix else None)


# From here on tensors without content: what is wrong shows before it matters.


def hollow(model=torchvision.models.resnet50):
    """The trunk's shapes at the size of one number a tensor."""
    with torch.device("meta"):
        state = backbone.trunk_state(model().state_dict())
    return {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}


def hollow_pyramid():
    weights = {f"{name}.weight": torch.zeros(()).expand(shape) for name, shape in PYRAMID.items()}
    return weights | {f"{name}.bias": torch.zeros(256) for name in PYRAMID}


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


def renamed(state, before, after):
    return {after if key == before else key: value for key, value in state.items()}


def refused(tmp_path, content, write=torch_save, name="file.pth", given_id="given-x"):
    """The sentence with which an import is refused, without the file's path."""
    if content is not None:
        write(content, tmp_path / name)
    with pytest.raises(UserError) as refusal:
        checkpoints.import_checkpoint(tmp_path / name, given_id, tmp_path / "work")
    sentence = str(refusal.value)
    assert "\n" not in sentence and len(sentence) < 420, sentence
    assert not (tmp_path / "work").exists(), "something was written"
    return sentence.replace(str(tmp_path / name), "FILE")


def plain(problem, place=""):
    return f"FILE holds no plain ResNet-50{place}: {problem}; give a checkpoint that fills one exactly"


def test_a_renamed_key_is_refused(tmp_path):
    before, after = "layer3.0.conv2.weight", "layer3.0.konv2.weight"
    problem = f"{before} is missing, and {after} should not be there"
    assert refused(tmp_path, renamed(hollow(), before, after)) == plain(problem)
    assert refused(tmp_path, renamed(hollow(), "conv1.weight", "first.weight")) == plain("conv1.weight is missing")


def test_a_missing_key_is_refused(tmp_path):
    for key in ("bn1.running_var", "layer4.2.bn3.bias", "layer1.0.downsample.0.weight"):
        assert refused(tmp_path, without(hollow(), key)) == plain(f"{key} is missing")


@pytest.mark.parametrize("key", ["layer5.0.conv1.weight", "conv1.bias", "layer1.0.se.weight", "bn2.weight"])
def test_a_key_that_a_resnet50_has_not_is_refused(key, tmp_path):
    assert refused(tmp_path, hollow() | {key: torch.zeros(1)}) == plain(f"{key} should not be there")
    swav = prefixed("module.", hollow() | {key: torch.zeros(1)})
    assert refused(tmp_path, swav) == plain(f"module.{key} should not be there", " under 'module.'")


def test_an_extra_key_in_detectron2s_spelling_is_refused(tmp_path):
    for key in ("res6.0.conv1.weight", "stem.conv2.weight", "res2.0.conv1.bias"):
        content = {"model": detectron2(hollow()) | {key: torch.zeros(1)}}
        assert refused(tmp_path, content) == plain(f"model.{key} should not be there", " under 'model.'")


def test_a_wrong_shape_is_refused(tmp_path):
    wrong = hollow() | {"layer4.0.conv2.weight": torch.zeros(512, 512, 1, 1)}
    problem = "the shape of layer4.0.conv2.weight is (512, 512, 1, 1), not (512, 512, 3, 3)"
    assert refused(tmp_path, wrong) == plain(problem)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("resnet18", r"layer1\.0\.conv3\.weight \(and \d+ more\) is missing, and the shape of .*"),
        ("resnet101", r"layer3\.6\.conv1\.weight \(and 305 more\) should not be there"),
        ("wide_resnet50_2", r"the shape of layer1\.0\.conv1\.weight \(and \d+ more\) is \(128, .*"),
    ],
)
def test_another_resnet_is_refused(model, problem, tmp_path):
    sentence = refused(tmp_path, hollow(getattr(torchvision.models, model)))
    assert re.fullmatch(re.escape(plain("PROBLEM")).replace("PROBLEM", problem), sentence)


def test_a_file_without_a_trunk_is_refused(tmp_path):
    sentence = "FILE holds no ResNet-50 among its {} tensors: give a checkpoint that does"
    assert refused(tmp_path, {"a": torch.zeros(1), "b": [1]}) == sentence.format(1)
    assert refused(tmp_path, [torch.zeros(1)]) == sentence.format(0)


def test_the_momentum_copy_never_stands_in_for_a_faulty_original(tmp_path):
    query = without(hollow(), "layer2.1.bn2.weight")
    content = {"state_dict": prefixed("encoder_q.", query) | prefixed("encoder_k.", hollow())}
    problem = plain("layer2.1.bn2.weight is missing", " under 'state_dict.encoder_q.'")
    assert refused(tmp_path, content) == problem


def test_a_momentum_copy_on_its_own_is_a_trunk(tmp_path):
    trunk = hollow()
    for prefix in ("teacher.", "module.momentum_encoder.", "target_net.0.", "state_dict_ema.", "semantic.backbone."):
        other = trunk | {"conv1.weight": torch.ones(64, 3, 7, 7)}
        torch.save(prefixed(prefix, trunk), tmp_path / "alone.pth")
        torch.save(prefixed(prefix, trunk) | prefixed("student.", other), tmp_path / "both.pth")
        tensors, _ = reading.read(tmp_path / "alone.pth")
        assert checkpoints.trunks.find(tensors, "alone").prefix == prefix
        tensors, _ = reading.read(tmp_path / "both.pth")
        if prefix == "semantic.backbone.":  # no copy, though its name has an "ema" in it
            with pytest.raises(UserError, match="two trunks, 'semantic.backbone.' and 'student.'"):
                checkpoints.trunks.find(tensors, "both")
        else:
            assert checkpoints.trunks.find(tensors, "both").prefix == "student."


def test_one_trunk_under_two_names_is_one(tmp_path):
    """OpenSelfSup's trainings hold the query encoder as `backbone` and as the first part of `encoder_q`."""
    trunk = {key: torch.rand(()).to(value.dtype).expand(value.shape) for key, value in hollow().items()}
    state = prefixed("backbone.", trunk) | prefixed("encoder_q.0.", trunk) | prefixed("encoder_k.0.", hollow())
    torch.save({"state_dict": state}, tmp_path / "epoch_200.pth")
    report = checkpoints.import_checkpoint(tmp_path / "epoch_200.pth", "given-x", tmp_path)
    assert report.prefix == "state_dict.backbone."
    assert report.left == {"state_dict.encoder_q": 318, "state_dict.encoder_k": 318}
    assert torch.equal(backbone.load(report.path)[0]["conv1.weight"], trunk["conv1.weight"])


def test_two_different_trunks_are_refused(tmp_path):
    other = hollow() | {"layer1.0.bn1.bias": torch.ones(64)}
    sentence = "FILE holds two trunks, 'a.' and 'b.': save the one that you mean alone and import that"
    assert refused(tmp_path, {"a": hollow(), "b": other}) == sentence


def test_a_pyramid_with_norm_is_left_and_reported(tmp_path):
    norm = {f"{name}.1.{key}": torch.zeros(256) for name in PYRAMID for key in ("weight", "bias")}
    convolutions = {f"{name}.0.weight": torch.zeros(()).expand(shape) for name, shape in PYRAMID.items()}
    state = hollow() | convolutions | norm
    model = detectron2(hollow() | convolutions) | prefixed("backbone.", norm)
    for index, (content, left) in enumerate(
        [(state, dict.fromkeys(PYRAMID, 3)), ({"model": model}, {"model.backbone": 15})]
    ):
        torch.save(content, tmp_path / "file.pth")
        report = checkpoints.import_checkpoint(tmp_path / "file.pth", f"given-{index}", tmp_path)
        assert (report.used, report.used_of_pyramid, report.left) == (318, 0, left)
        assert backbone.load(report.path)[0].keys() == hollow().keys()


def test_half_a_pyramid_is_refused(tmp_path):
    state = hollow() | without(hollow_pyramid(), "fpn_output4.bias")
    assert refused(tmp_path, state) == plain("fpn_output4.bias is missing")
    state = hollow() | hollow_pyramid() | {"fpn_lateral3.weight": torch.zeros(256, 256, 1, 1)}
    problem = "the shape of fpn_lateral3.weight is (256, 256, 1, 1), not (256, 512, 1, 1)"
    assert refused(tmp_path, state) == plain(problem)


def test_no_file_or_an_empty_one_is_refused(tmp_path):
    assert refused(tmp_path, None) == "there is no checkpoint FILE"
    (tmp_path / "file.pth").touch()
    assert refused(tmp_path, None) == "FILE is empty: download it again"


@pytest.mark.parametrize("write", [torch_save, legacy_save, pickled, save_file])
def test_a_file_cut_anywhere_is_refused(write, tmp_path):
    content = {"a": torch.randn(3, 5), "b": torch.randn(7)}
    write(numpied(content) if write is pickled else content, tmp_path / "whole")
    assert reading.read(tmp_path / "whole")[0].keys() == {"a", "b"}
    whole = (tmp_path / "whole").read_bytes()
    for length in range(1, len(whole), len(whole) // 40):
        (tmp_path / "file.pth").write_bytes(whole[:length])
        sentence = refused(tmp_path, None)
        cut = r"FILE is no checkpoint, or is cut short \(.+\): download it again"
        cut_in_a_name = r"FILE wants to call (torch|collections)\.[\w.]+, which .+"
        assert re.fullmatch(f"{cut}|{cut_in_a_name}", sentence), sentence


def test_a_web_page_saved_instead_is_refused(tmp_path):
    (tmp_path / "file.pth").write_text("<!DOCTYPE html><title>Google Drive</title>")
    assert refused(tmp_path, None).startswith("FILE is no checkpoint, or is cut short (invalid load key, '<'")


@pytest.mark.parametrize(
    ("key", "change", "problem"),
    [
        ("layer2.0.bn1.running_var", lambda v: torch.full(v.shape, -1.0), "is a variance below 0"),
        ("layer2.0.bn1.running_var", lambda v: torch.full(v.shape, torch.nan), "has values that are not finite"),
        ("conv1.weight", lambda v: torch.full(v.shape, torch.inf), "has values that are not finite"),
        ("conv1.weight", lambda v: v.to(torch.int32), "is no plain tensor of floating-point numbers (int32)"),
        ("conv1.weight", lambda v: v.to(torch.bool), "is no plain tensor of floating-point numbers (bool)"),
        ("conv1.weight", lambda v: v.to(torch.complex64), "is no plain tensor of floating-point numbers (complex64)"),
        (
            "conv1.weight",
            lambda v: v.clone().to_sparse(),
            "is no plain tensor of floating-point numbers (sparse_coo float32)",
        ),
        ("conv1.weight", lambda v: v.to("meta"), "is no plain tensor of floating-point numbers (without values)"),
        (
            "conv1.weight",
            lambda v: torch.quantize_per_tensor(torch.zeros(v.shape), 0.1, 0, torch.qint8),
            "is no plain tensor of floating-point numbers (qint8)",
        ),
    ],
)
def test_weights_that_are_no_weights_are_refused(tmp_path, key, change, problem):
    state = hollow()
    assert refused(tmp_path, state | {key: change(state[key])}) == plain(f"{key} {problem}")


@pytest.mark.parametrize("write", [torch_save, pickled])
def test_a_structure_that_is_shared_or_holds_itself_ends(tmp_path, write):
    shared = {"w": np.zeros(3)}
    for _ in range(40):
        shared = {"left": shared, "right": shared}
    shared["itself"] = shared
    assert "holds no ResNet-50 among its 1 tensors" in refused(tmp_path, shared, write)


@pytest.mark.parametrize("write", [torch_save, pickled])
def test_what_people_save_beside_weights_is_left_alone(tmp_path, write):
    beside = {
        "args": argparse.Namespace(lr=0.03, out=Path("/somewhere")),
        "place": Path("there"),
        "history": HistoryBuffer([1.0, 2.0], [1, 1]),
        "config": ConfigDict(a=1, b=dict(c=[2])),
        "more": types.SimpleNamespace(x=1),
    }
    assert "holds no ResNet-50 among its 1 tensors" in refused(tmp_path, {"w": np.zeros(3)} | beside, write)


class Call:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("write", [torch_save, legacy_save, pickled])
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.mkdir, "posix.mkdir"), (eval, "builtins.eval"), (np.load, "numpy.load"), (exec, "builtins.exec")],
)
def test_a_malicious_pickle_is_refused_unexecuted(function, name, write, tmp_path):
    argument = str(tmp_path / "harm") if function is os.mkdir else f"__import__('os').mkdir('{tmp_path / 'harm'}')"
    sentence = refused(tmp_path, {"model": {"w": np.zeros(3)}, "x": Call(function, argument)}, write)
    name = name if write is pickled else name.removeprefix("builtins.")
    assert sentence == (
        f"FILE wants to call {name}, which weights do not need: do not trust it, or where you do, save its tensors "
        "alone and import those"
    )
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("write", [torch_save, legacy_save, pickled])
def test_what_a_history_calls_gets_nothing(tmp_path, write):
    """`getattr` stands in the pickles of mmengine's histories; here it reads no attribute."""

    class Attribute:
        def __reduce__(self):
            return getattr, (np.ndarray, "tofile")

    write({"w": np.zeros(3), "x": Attribute(), "y": Call(getattr, np.ndarray, "tofile")}, tmp_path / "file")
    assert reading.read(tmp_path / "file")[0].keys() == {"w"}
    assert "tofile" not in str(reading._content(tmp_path / "file"))


def test_what_is_no_file_of_weights_is_said_so(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "script.pt")
    sentence = refused(tmp_path, None, name="script.pt")
    assert sentence == "FILE is a TorchScript program: save its state_dict() with torch.save and import that"

    torch.save(hollow(), tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "bomb.pth", "w", 8) as bomb:
        whole.extractall(tmp_path / "folder")
        for name in whole.namelist():
            bomb.writestr(name, bytes(10**6) if "/data/" in name else whole.read(name))
    assert "times its size, which no weights do: do not trust it" in refused(tmp_path, None, name="bomb.pth")
    for name in ("folder", "folder/whole"):
        said = "FILE is an unpacked checkpoint, not a checkpoint file: give the file as it was downloaded"
        assert refused(tmp_path, None, name=name) == said


@pytest.mark.parametrize("write", [torch_save, legacy_save, pickled])
def test_arrays_of_either_numpy_are_read(write, tmp_path):
    content = {"w": np.arange(6.0).reshape(2, 3), "n": np.array(7), "best": np.float64(0.5), "name": np.array("x")}
    write(content, tmp_path / "new")
    written = [(tmp_path / "new").read_bytes()]
    if write is not torch_save:  # a zip file has checksums
        written.append(pickle.dumps(content, 2) if write is pickled else written[0])
        written[1] = written[1].replace(b"numpy._core.", b"numpy.core.")
        assert written[1] != written[0]
    for data in written:
        (tmp_path / "file").write_bytes(data)
        tensors, epochs = reading.read(tmp_path / "file")
        assert epochs is None and tensors.keys() == {"w", "n"}
        assert tensors["w"].tolist() == [[0, 1, 2], [3, 4, 5]] and tensors["n"].item() == 7


@pytest.mark.parametrize("name", ["moco", "in1k-moco-v2-200ep", "given-", "given-../x", "given-a/b", "given- x", ""])
def test_an_id_that_is_not_given_is_refused(name, tmp_path):
    sentence = refused(tmp_path, {}, given_id=name)
    assert sentence == f"'{name}' cannot name imported weights: choose an id such as given-moco"


def test_an_id_keeps_the_file_that_it_was_given(tmp_path):
    state = hollow()
    torch.save(state, tmp_path / "a.pth")
    torch.save(state | {"bn1.bias": torch.ones(64)}, tmp_path / "b.pth")
    first = checkpoints.import_checkpoint(tmp_path / "a.pth", "given-x", tmp_path)
    before = first.path.read_bytes()
    assert first.path == tmp_path / "pretrain" / "given-x" / "seed-0" / "backbone.safetensors"
    assert first.summary() == f"a.pth: used 318 tensors at the top; left nothing; wrote {first.path}"

    stamp = first.path.stat().st_mtime_ns
    again = checkpoints.import_checkpoint(tmp_path / "a.pth", "given-x", tmp_path)
    assert again == first._replace(written=False) and first.path.stat().st_mtime_ns == stamp
    assert again.summary().endswith(f"; {first.path} holds this very file already")

    with pytest.raises(UserError) as refusal:
        checkpoints.import_checkpoint(tmp_path / "b.pth", "given-x", tmp_path)
    assert str(refusal.value) == (
        f"given-x holds another file than {tmp_path / 'b.pth'} already: delete {first.path}, or choose another id"
    )
    assert first.path.read_bytes() == before


def test_the_report_says_what_was_used_and_what_was_left(tmp_path):
    torch.save(moco(hollow(), hollow_pyramid()), tmp_path / "r.pth.tar")
    report = checkpoints.import_checkpoint(tmp_path / "r.pth.tar", "given-x", tmp_path)
    assert report.summary() == (
        "r.pth.tar: used 328 tensors under 'state_dict.module.encoder_q.', 10 of them of the feature pyramid; left "
        "state_dict.module.encoder_q.fc (3), state_dict.module.encoder_k (331), state_dict.module.queue (1), "
        f"state_dict.module.queue_ptr (1), optimizer.state (5); wrote {report.path}"
    )


def test_the_provenance_makes_a_record(tmp_path):
    torch.save({"epoch": 90, "state_dict": hollow()}, tmp_path / "a.pth")
    path = checkpoints.import_checkpoint(tmp_path / "a.pth", "given-x", tmp_path).path
    _, provenance = backbone.load(path)
    sha256 = backbone.digest(tmp_path / "a.pth")
    assert provenance["arch"] == {"depth": 50, "strides": [1, 2, 2, 2]} and provenance["epochs"] == 90
    assert provenance["data"] == {"source": "a.pth", "sha256": sha256, "digest": sha256}
    side = ("id", "seed", "epochs", "protocol", "overrides", "deviations", "data")
    transfer = {"id": "voc-full", "seed": 1, "protocol": {}, "overrides": {}, "deviations": {}, "data": {}}
    entry = {
        "schema": record.SCHEMA,
        "pretrain": {"backbone_sha256": backbone.digest(path)} | {key: provenance[key] for key in side},
        "transfer": transfer,
        "metrics": {"AP": 50.0},
        **{key: provenance[key] for key in ("versions", "commit", "device")},
        "seconds": 1.0,
        "finished": record.now(),
    }
    assert record.content(record.read(record.write(tmp_path / "records", entry))) == entry


def test_export_and_import_give_the_same_file_back(source, tmp_path):
    state = source.state_dict() | pyramid()
    backbone.save(tmp_path / "b.safetensors", state, {"id": "x"})
    checkpoints.export(tmp_path / "b.safetensors", tmp_path / "out" / "b.pkl")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["b.pkl"]

    content = pickle.loads((tmp_path / "out" / "b.pkl").read_bytes())
    assert content.keys() == {"model", "__author__", "matching_heuristics"} and content["matching_heuristics"] is True
    assert content["model"].keys() == detectron2(state).keys()
    assert all(type(value) is np.ndarray for value in content["model"].values())

    report = checkpoints.import_checkpoint(tmp_path / "out" / "b.pkl", "given-x", tmp_path)
    back, _ = backbone.load(report.path)
    assert back.keys() == state.keys()
    assert all(back[key].dtype == state[key].dtype and torch.equal(back[key], state[key]) for key in state)


def test_export_refuses_a_bad_target(tmp_path):
    backbone.save(tmp_path / "b.safetensors", {"conv1.weight": torch.zeros(1)}, {"id": "x"})
    (tmp_path / "there.pkl").write_text("mine")
    for target, sentence in (
        ("there.pkl", "is another file already: delete it, or choose another name"),
        ("b.bin", "ends in .bin, as no layout does"),
    ):
        with pytest.raises(UserError, match=re.escape(sentence)):
            checkpoints.export(tmp_path / "b.safetensors", tmp_path / target)
    with pytest.raises(UserError, match="there is no backbone file"):
        checkpoints.export(tmp_path / "nothing.safetensors", tmp_path / "new.pkl")
    assert (tmp_path / "there.pkl").read_text() == "mine" and not (tmp_path / "new.pkl").exists()


def test_an_export_that_is_there_is_left(tmp_path):
    backbone.save(tmp_path / "b.safetensors", {"conv1.weight": torch.zeros(1)}, {"id": "x"})
    for _ in range(2):  # as after a kill that came too late
        checkpoints.export(tmp_path / "b.safetensors", tmp_path / "b.pkl")


def test_export_leaves_its_neighbours_alone(tmp_path):
    backbone.save(tmp_path / "b.safetensors", {"conv1.weight": torch.zeros(1)}, {"id": "x"})
    (tmp_path / "w.tmp").write_text("mine")
    checkpoints.export(tmp_path / "b.safetensors", tmp_path / "w.pkl")
    assert (tmp_path / "w.tmp").read_text() == "mine"
    assert {file.name for file in tmp_path.iterdir()} == {"b.safetensors", "w.tmp", "w.pkl"}


def test_every_given_id_says_what_it_is_and_where_it_stands():
    entries = experiments.released()
    assert "given-moco-v2" in entries and "given-vader" not in entries
    for name, entry in entries.items():
        assert re.fullmatch(r"given-[a-z0-9-]+", name) and entry.keys() == {"title", "url"}, name
        assert entry["url"].startswith("https://") and "IN-1k" in entry["title"], name
        assert re.search(r"\bepochs\b", entry["title"]), name
