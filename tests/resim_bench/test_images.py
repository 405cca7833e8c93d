import os
import socket
import struct
import zlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image, ImageOps

from resim_bench.data import images
from resim_bench.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
RAMP = np.linspace(0, 65535, 12).astype(np.uint16).reshape(3, 4)


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "P"), ("PNG", "1")]
    + [(form, "RGB") for form in ("AVIF", "BMP", "GIF", "JPEG2000", "PPM", "TIFF", "WEBP")],
)
def test_pixels_are_those_of_pillow_whatever_the_name(tmp_path, form, mode):
    path = tmp_path / "image.JPEG"
    Image.fromarray(NOISE).convert(mode).save(path, format=form)
    with Image.open(path) as image:
        expected = np.array(image.convert("RGB"))
    pixels = images.decode(path)
    assert np.array_equal(pixels, expected) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert images.stored_size(path) == (14, 10, False)


@pytest.mark.parametrize("ending", ["png", "pgm", "tif", "jp2"])
def test_16_bits_are_scaled_and_not_cut_off(tmp_path, ending):
    path = tmp_path / f"grey.{ending}"
    Image.fromarray(RAMP).save(path, **({"irreversible": False} if ending == "jp2" else {}))
    pixels = images.decode(path)
    assert np.array_equal(pixels, np.repeat((RAMP >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_grey_and_coloured_images_of_16_bits_agree(tmp_path):
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, axis=1).astype(">u2").tobytes() for row in RAMP)
    header = b"IHDR" + struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(rows), b"IEND"]
    content = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    (tmp_path / "coloured.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    Image.fromarray(RAMP).save(tmp_path / "grey.png")
    assert np.array_equal(images.decode(tmp_path / "coloured.png"), images.decode(tmp_path / "grey.png"))


def test_the_12_bits_of_a_tiff_are_scaled(tmp_path):
    path = tmp_path / "grey.tif"
    Image.fromarray(np.array([[0x00, 0x0F, 0xFF]], np.uint8)).save(path)  # as 12 bits: 0 and 4095
    content = path.read_bytes()
    for tag, before, after in ((256, 3, 2), (258, 8, 12)):
        at = content.index(struct.pack("<H", tag), 8)
        kind = content[at + 2]
        assert struct.unpack_from("<H" if kind == 3 else "<I", content, at + 8)[0] == before
        content = content[: at + 8] + struct.pack("<I", after) + content[at + 12 :]
    path.write_bytes(content)
    assert images.decode(path)[..., 0].tolist() == [[0, 255]]


@pytest.mark.parametrize("values", [RAMP.astype(np.float32), RAMP.astype(np.int32) * 2, -RAMP.astype(np.int32)])
def test_what_has_no_one_scale_is_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "depth.tif")
    with pytest.raises(UserError, match="depth.tif is no readable image .its pixels are no whole numbers of 16 bits"):
        images.decode(tmp_path / "depth.tif")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_turns_where_it_is_asked_for(tmp_path, form, orientation):
    path, exif = tmp_path / "image", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(path, format=form, exif=exif)
    with Image.open(path) as image:
        as_stored, upright = np.array(image), np.array(ImageOps.exif_transpose(image))
    assert np.array_equal(images.decode(path), as_stored)
    assert np.array_equal(images.decode(path, exif=True), upright)
    width, height, turned = images.stored_size(path)
    assert as_stored.shape == (height, width, 3)
    assert upright.shape == ((width, height, 3) if turned else (height, width, 3))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_unreadable_exif_is_none(tmp_path, form):
    Image.fromarray(NOISE).save(tmp_path / "image", format=form, exif=b"Exif\0\0nonsense")
    assert images.stored_size(tmp_path / "image") == (14, 10, False)
    assert images.decode(tmp_path / "image", exif=True).shape == (10, 14, 3)


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    path, exif = tmp_path / "image.png", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(path, exif=exif)
    content = path.read_bytes()
    start, pixels = content.index(b"eXIf") - 4, content.index(b"IDAT") - 4
    end = content.index(b"IEND") - 4
    path.write_bytes(content[:start] + content[pixels:end] + content[start:pixels] + content[end:])
    assert images.stored_size(path).turned and images.decode(path, exif=True).shape == (14, 10, 3)


def _pipe(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as at:
        at.bind(str(path))


REFUSED = {
    "pipe": (_pipe, "it is a pipe"),
    "socket": (_socket, "it is a socket"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "folder": (lambda path: path.mkdir(), "it is a folder"),
    "broken link": (lambda path: path.symlink_to("nowhere.jpg"), "No such file or directory"),
    "link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "empty": (lambda path: path.write_bytes(b""), "of no format that is read"),
    "text": (lambda path: path.write_text("no image"), "of no format that is read"),
    "EPS, which runs a program": (lambda path: Image.fromarray(NOISE).save(path, format="EPS"), "of no format"),
    "bomb": (lambda path: path.write_bytes(png(20000, 10000)), "it has more than the 178,956,970 pixels"),
    "larger bomb": (
        lambda path: path.write_bytes(png(2**31 - 1, 2**31 - 1)),
        "it has more than the 178,956,970 pixels",
    ),
}


@pytest.mark.parametrize("read", [images.decode, images.stored_size])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_image_is_refused_in_one_sentence(tmp_path, kind, read):
    path, (make, reason) = tmp_path / "x.jpg", REFUSED[kind]
    make(path)
    with pytest.raises(UserError, match=rf"^\S+x.jpg is no readable image \({reason}.*\): restore it, or take it out"):
        read(path)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_truncated_image_is_refused(tmp_path, form):
    path = tmp_path / "image"
    Image.effect_noise((48, 40), 50).save(path, format=form)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is no readable image"):
        images.decode(path)


def test_a_name_is_said_in_one_line_whatever_it_holds(tmp_path):
    with pytest.raises(UserError) as refused:
        images.decode(tmp_path / os.fsdecode(b"caf\xe9\n\x1b[2J.jpg"))
    assert r"caf\udce9\n\x1b[2J.jpg is no readable image" in str(refused.value)


def _encoded(tmp_path_factory, form):
    path = tmp_path_factory.mktemp("images") / "image"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(path, format=form, exif=exif)
    return path.read_bytes()


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    return {form: _encoded(tmp_path_factory, form) for form in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM")}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_mutated_bytes_are_pixels_or_a_sentence(tmp_path, encoded, data):
    content = bytearray(encoded[data.draw(st.sampled_from(sorted(encoded)))])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "image.jpg"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        pixels = images.decode(path, exif=data.draw(st.booleans()))
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and "image.jpg" in str(error)
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
