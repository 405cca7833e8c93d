"""Image files, as both trainings read them: what is a file, what it holds, and its pixels in 8 bits.

A file may come from anywhere, so that everything a decoder raises about it is one sentence with its name.
"""

import contextlib
import os
import signal
import stat
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image
from tqdm import tqdm

from resim_bench.errors import UserError

# Those that begin with a mark of their own: no other file is taken for one, and none runs a program (as EPS does).
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
MPO = "MPO"  # several JPEGs in one; Pillow finds it by opening a JPEG
ENDINGS = {end for end, form in Image.registered_extensions().items() if form in (*FORMATS, MPO)} - {".pfm"}
MOST_PIXELS = 178_956_970  # where Pillow's own refusal begins: half a gigabyte of RGB
NO_SCALE = "its pixels are no whole numbers of 16 bits, so that nothing says which is white"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
KINDS = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISREG: ""}

# What Pillow says of odd metadata, palettes and large images, in the middle of a progress bar.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Size(NamedTuple):
    """Of the pixels as `decode` gives them without EXIF; `turned` where its orientation exchanges the sides."""

    width: int
    height: int
    turned: bool


def check_file(path: str | Path) -> None:
    """Refuse what is no regular file, such as a broken link or a pipe; nothing is opened.

    Raises:
        UserError: as above.
    """
    with _refused(path):
        _check_file(path)


def _check_file(path):
    kind = _kind(os.stat(path).st_mode)
    if kind:
        raise ValueError(f"it is {kind}")


@contextlib.contextmanager
def _refused(path: str | Path) -> Iterator[None]:
    """Say which file it is that something is wrong with."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # what decoders raise about a damaged file is not limited to a few classes
        raise UserError(
            f"{path} is no readable image ({_why(error)}): restore it, or take it out, which makes another data set"
        ) from None


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """An image file whose header has been read; its pixels have not.

    Raises:
        UserError: it is no regular file (a pipe is not opened), no image, or one of more than `MOST_PIXELS` pixels or
            of floating-point numbers, which have no one scale; or what the block does with it fails.
    """
    with _refused(path):
        _check_file(path)
        with Image.open(path, formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > MOST_PIXELS:
                raise ValueError(f"it has {pixels:,} pixels, more than the {MOST_PIXELS:,} that are read")
            if image.mode == "F":
                raise ValueError(NO_SCALE)
            yield image


def is_image(path: str | Path) -> bool:
    """Whether a file begins as an image does."""
    try:
        with opened(path):
            return True
    except UserError:
        return False


def _kind(mode: int) -> str:
    """What is there in place of a file."""
    return next((kind for is_kind, kind in KINDS.items() if is_kind(mode)), "a device")


def _why(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "of no format that is read"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than the {MOST_PIXELS:,} pixels that are read"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0]


def stored_size(path: str | Path) -> Size:
    """The size of an image, from its header.

    Raises:
        UserError: see `opened`.
    """
    with opened(path) as image:
        return Size(image.width, image.height, _orientation(image, path) >= 5)


def decode(path: str | Path, exif: bool = False) -> np.ndarray:
    """The pixels of an image: `(H, W, 3)` uint8, RGB, contiguous.

    Of 16 bits the upper 8 are taken, in grey images as Pillow does it in coloured ones. Transparency is dropped; of
    an animation the first frame counts. A TIFF is turned as its orientation says in any case: Pillow does.

    Args:
        exif: whether to turn the image as EXIF's orientation says.

    Raises:
        UserError: see `opened`; its pixels are damaged, or have more than 16 bits.
    """
    with opened(path) as image:
        turn = TURNS.get(_orientation(image, path)) if exif else None
        rgb = _in_8_bits(image).convert("RGB")
        return np.array(rgb if turn is None else rgb.transpose(turn))


def _in_8_bits(image: Image.Image) -> Image.Image:
    """An image whose grey values have more bits, scaled; others as they are."""
    if image.mode[0] != "I":
        return image
    values = np.asarray(image)
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (16,))[0] if image.mode != "I" else 16
    if values.min() < 0 or values.max() >= 2**bits:
        raise ValueError(NO_SCALE)
    return Image.fromarray((values >> (bits - 8)).astype(np.uint8))


def _orientation(image: Image.Image, path: str | Path) -> int:
    """EXIF's number from 1 to 8; unreadable metadata count as none, as in Detectron2."""
    if image.format == "TIFF":
        return 1  # Pillow turns it by itself, size and pixels
    try:
        if image.format == "PNG" and not _png_has_metadata(path):
            return 1  # Pillow would decode the pixels to see what stands behind them
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as above
        return 1
    return found if found in TURNS else 1


def _png_has_metadata(file: str | Path) -> bool:
    """Whether some may be anywhere in a PNG."""
    content = Path(file).read_bytes()
    return any(mark in content for mark in (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp"))


def unreadable(paths: Sequence[str], what: str) -> dict[str, str]:
    """Decode images on all cores, with progress on a terminal.

    Args:
        paths: the files.
        what: they are, for the progress bar.

    Returns:
        For each that cannot be read the sentence that `decode` refuses it with, in the order of `paths`.
    """
    cores = len(os.sched_getaffinity(0))
    chunk = max(1, min(64, len(paths) // (4 * cores)))
    with ProcessPoolExecutor(cores, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        refusals = pool.map(refusal, paths, chunksize=chunk)
        try:
            shown = tqdm(refusals, what, len(paths), leave=False, disable=None)
            return {path: refusal for path, refusal in zip(paths, shown, strict=True) if refusal}
        except BaseException:  # Ctrl-C: what waits is not begun
            pool.shutdown(cancel_futures=True)
            raise


def refusal(path: str) -> str:
    """The sentence that `decode` refuses a file with, or none."""
    try:
        decode(path)
    except UserError as error:
        return str(error)
    return ""
