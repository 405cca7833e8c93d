"""The backbone file: what goes in comes out, and nothing else is read."""

import pytest
import torch
from safetensors.torch import save_file

from resim_bench import backbone
from resim_bench.errors import UserError
from tests.pretrain.helpers import tiny_moco


def test_round_trip(tmp_path):
    state = backbone.trunk_state(tiny_moco().trunk.state_dict())
    file = tmp_path / "deep" / "b.safetensors"
    backbone.save(file, state, {"id": "x", "epochs": 1.5})
    loaded, provenance = backbone.load(file)
    assert provenance.pop(backbone.CHECKSUM) and provenance == {"id": "x", "epochs": 1.5}
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[k], state[k]) for k in state)
    assert [f.name for f in file.parent.iterdir()] == ["b.safetensors"]


def test_the_classifier_is_no_part_of_the_trunk():
    assert backbone.trunk_state({"fc.weight": 1, "layer4.fc": 2, "conv1.weight": 3}) == {
        "layer4.fc": 2,
        "conv1.weight": 3,
    }


def test_the_same_content_has_the_same_digest(tmp_path):
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        backbone.save(tmp_path / f"{name}.safetensors", {"w": torch.full((2,), value)}, {"id": "x"})
    a, b, c = (backbone.digest(tmp_path / f"{name}.safetensors") for name in "abc")
    assert a == b != c and len(a) == 64


def test_what_is_no_backbone_is_refused(tmp_path):
    def file(name, content=None):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        return path

    save_file({"w": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    torch.save({"w": torch.zeros(1)}, tmp_path / "model.pth")
    backbone.save(tmp_path / "whole.safetensors", {"w": torch.zeros(99)}, {})
    truncated = (tmp_path / "whole.safetensors").read_bytes()[:-40]
    for path, sentence in (
        (file("nothing"), "there is no backbone file"),
        (file("text", b"hello"), "is no backbone file of this suite, or is damaged"),
        (file("empty", b""), "is no backbone file of this suite, or is damaged"),
        (file("truncated", truncated), "is no backbone file of this suite, or is damaged"),
        (file("model.pth"), "is no backbone file of this suite, or is damaged"),
        (file("foreign.safetensors"), "without provenance"),
    ):
        with pytest.raises(UserError, match=sentence):
            backbone.load(path)


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    with pytest.raises(UserError, match="the weights of conv1.weight are not finite"):
        backbone.save(tmp_path / "b.safetensors", {"conv1.weight": torch.tensor([torch.nan])}, {"id": "x"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_a_flipped_bit_is_found(tmp_path, dtype):
    file = tmp_path / "b.safetensors"
    backbone.save(file, {"n": torch.zeros((), dtype=dtype), "w": torch.ones(5, 3, dtype=dtype)}, {"id": "x", "seed": 1})
    whole = file.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in (*range(start, len(whole)), whole.index(b"seed") + 8):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match="has changed since it was written|is no backbone file|that is damaged"):
            backbone.load(file)


def test_a_file_from_before_checksums_is_taken(tmp_path):
    save_file({"w": torch.zeros(1)}, tmp_path / "b.safetensors", metadata={"provenance": '{"id": "x"}'})
    assert backbone.load(tmp_path / "b.safetensors")[1] == {"id": "x"}


@pytest.mark.parametrize("provenance", ["", "[]", "{", "null"])
def test_a_damaged_provenance_is_one_sentence(tmp_path, provenance):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "b.safetensors", metadata={"provenance": provenance})
    with pytest.raises(UserError, match="has a provenance that is damaged: make or import it again"):
        backbone.load(tmp_path / "b.safetensors")
