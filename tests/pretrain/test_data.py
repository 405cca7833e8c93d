"""Pixels as pre-training reads them."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain import imagefolder
from pretrain.data import list_images, read_image
from resim_bench.data import images
from resim_bench.errors import UserError
from resim_bench.harness import launch


@pytest.mark.parametrize(
    ("form", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("BMP", "RGB")]
)
def test_an_image_is_what_pillow_reads_whatever_its_name(tmp_path, form, mode):
    path, rotated = tmp_path / "n00000000_1.JPEG", Image.Exif()
    rotated[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path, format=form, exif=rotated)
    with Image.open(path) as image:
        expected = np.array(image.convert("RGB"))
    pixels = read_image(path)
    assert pixels.is_contiguous() and pixels.dtype == torch.uint8
    assert np.array_equal(pixels.numpy(), expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_truncated_image_is_refused(tmp_path, form):
    path = tmp_path / "image"
    Image.effect_noise((48, 40), 50).save(path, format=form)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is no readable image"):
        read_image(path)


def test_16_bits_are_scaled_and_not_cut_off(tmp_path):
    Image.fromarray(np.array([[0, 256, 32768, 65535]], np.uint16)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_jpeg_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS", 99)
    Image.new("RGB", (10, 10)).save(tmp_path / "large.jpg")
    with pytest.raises(UserError, match="large.jpg is no readable image .it has 100 pixels, more than the 99 "):
        read_image(tmp_path / "large.jpg")


def test_a_name_need_not_be_text(tmp_path):
    path = os.path.join(tmp_path, os.fsdecode(b"caf\xe9.jpg"))
    Image.new("RGB", (10, 10)).save(path)
    assert read_image(path).shape == (10, 10, 3)


def test_a_folder_is_refused_at_its_first_fault(tmp_path):
    (tmp_path / "class").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "class" / name).symlink_to("nowhere")
    with pytest.raises(UserError, match=r"class/a.jpg is no readable image .* \(1 more: `resim-bench data check`"):
        list_images(str(tmp_path), "")


def test_other_processes_are_told(tmp_path, monkeypatch):
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "a.jpg").write_text("")
    found = imagefolder.read(tmp_path)
    monkeypatch.setattr(launch, "on_main_process", lambda look: pickle.loads(pickle.dumps(found)))
    monkeypatch.setattr(imagefolder, "read", None)
    assert list_images(str(tmp_path), "told") == found
