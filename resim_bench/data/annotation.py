"""The lists and annotations of PASCAL VOC's format, as whoever needs them reads them.

docs/data.md has the rules.
"""

import codecs
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from resim_bench import files
from resim_bench.data import images

CORNERS = "xmin", "ymin", "xmax", "ymax"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf(inity)?)", re.ASCII | re.IGNORECASE)
LABELLED = re.compile(r"(.*\S)\s+[-+]?\d+")  # a line of one class's list: whether it is in the image
DIFFICULT = {"": False, "0": False, "false": False, "1": True, "true": True}
DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z][\w.:-]*)["'][^>]*>""")


class Listed(NamedTuple):
    """What a line of a list names, also without the ending of its file, and which files may be the image, if any is."""

    name: str
    stem: str
    entries: list[str]


def read_list(file: Path) -> tuple[bytes, list[Listed]]:
    """The content of `VOC20xx/ImageSets/Main/FILE`, and what each of its lines names in `VOC20xx/JPEGImages`.

    Raises:
        OSError: the list or the folder of images cannot be read.
        UnicodeDecodeError: the list is no text.
    """
    content, year = files.read(file), file.parents[2]
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16")
    else:  # other bytes as they are in the names of files
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    named: dict[str, list[str]] = {}
    for entry in sorted(os.listdir(year / "JPEGImages")):
        for key in {entry, entry.rpartition(".")[0] or entry}:
            named.setdefault(key, []).append(entry)
    lines = (line.strip() for line in re.split(r"[\r\n]+", text))
    return content, [_listed(line, named, year / "Annotations") for line in lines if line]


def _listed(line: str, named: dict[str, list[str]], annotations: Path) -> Listed:
    labelled = LABELLED.fullmatch(line)
    is_name = line in named or os.path.lexists(annotations / f"{line}.xml")
    name = labelled[1] if labelled and not is_name else line
    entries = named.get(name, [])
    return Listed(name, name.rpartition(".")[0] or name if entries == [name] else name, entries)


def image_file(folder: Path, entries: list[str], filename: Callable[[], str]) -> Path:
    """The image among the entries of a name: by its ending, or what `filename`, the annotation's, says.

    Raises:
        ValueError: it may be several.
    """
    known = [name for name in entries if os.path.splitext(name)[1].lower() in images.ENDINGS]
    candidates = known or [name for name in entries if images.is_image(folder / name)] or entries
    if len(candidates) > 1:
        said = filename()
        candidates = [name for name in candidates if name == said] or candidates
    if len(candidates) > 1:
        raise ValueError(f"its image may be {' or '.join(candidates)}; say which by <filename>")
    return folder / candidates[0]


def read_root(content: bytes):
    """The root of an annotation, in whatever encoding it declares; its tags in small letters, without namespaces.

    Raises:
        ValueError: it is not well formed, in no known encoding, no annotation, or has objects or boxes in other places.
    """
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        declared = DECLARED.match(content)
        try:  # an encoding that Python knows and the parser does not
            text = content[declared.end() :].decode(declared[1].decode()) if declared else ""
            root = ElementTree.fromstring(text)
        except (ElementTree.ParseError, LookupError, ValueError):
            raise ValueError(str(error) or type(error).__name__) from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2].lower()
    if root.tag != "annotation":
        raise ValueError(f"its root is <{root.tag}>, not <annotation>")
    objects = root.findall("object")
    for tag, here in (("object", len(objects)), ("bndbox", sum(1 for node in objects for _ in node.iter("bndbox")))):
        if here < sum(1 for _ in root.iter(tag)):  # they would not be seen, and in a test nothing would say so
            where = "directly in <annotation>" if tag == "object" else "in an <object>"
            raise ValueError(f"it has a <{tag}> that is not {where}")
    return root


def _only(node, path: str):
    """The one element of that path, or None.

    Raises:
        ValueError: there are several.
    """
    elements = node.findall(path)
    if len(elements) > 1:
        raise ValueError(f"has {len(elements)} <{path.rpartition('/')[2]}>")
    return elements[0] if elements else None


def content_of(node, path: str) -> str:
    """The text of an element, empty where there is none."""
    element = _only(node, path)
    return "" if element is None else (element.text or "").strip()


def read_side(root, side: str) -> float:
    """The annotated width or height, 0 where there is none."""
    text = content_of(root, f"size/{side}") or "0"
    if not NUMBER.fullmatch(text) or not 0 <= float(text) < float("inf") or float(text) % 1:
        raise ValueError(f"its <{side}> is '{text}'")
    return float(text)


def read_object(node) -> tuple[str, tuple[float, ...], bool]:
    """Class name, continuous box, and whether it is difficult.

    Raises:
        ValueError: says what is wrong with it.
    """
    name, difficult = content_of(node, "name"), content_of(node, "difficult").lower()
    if not name:
        raise ValueError("has no <name>")
    if difficult not in DIFFICULT:
        raise ValueError(f"has '{difficult}' for <difficult>, which is 0 or 1")
    if _only(node, "bndbox") is None:
        raise ValueError("has no <bndbox>")
    corners = [content_of(node, f"bndbox/{corner}") for corner in CORNERS]
    for corner, text in zip(CORNERS, corners, strict=True):
        if not NUMBER.fullmatch(text):
            raise ValueError(f"has '{text}' for <{corner}>, which is a number" if text else f"has no <{corner}>")
    xmin, ymin, xmax, ymax = map(float, corners)
    # continuous, of 1-based inclusive corners, as Detectron2 reads them
    return name, (xmin - 1, ymin - 1, xmax, ymax), DIFFICULT[difficult]
