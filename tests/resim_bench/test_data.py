"""The published data sets: what is there is told truly, and what is fetched appears whole or not at all."""

import hashlib
import io
import json
import re
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import Counter
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from resim_bench.data import catalogue, fetch, imagenet100
from resim_bench.errors import UserError
from resim_bench.experiments import experiments

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def tree(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def voc_files(split: str, count: int) -> dict[str, bytes]:
    names = [f"{split}{index}" for index in range(count)]
    return {
        f"ImageSets/Main/{split}.txt": "".join(f"{name}\n" for name in names).encode(),
        **{f"JPEGImages/{name}.jpg": b"image" for name in names},
        **{f"Annotations/{name}.xml": b"<annotation/>" for name in names},
    }


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `files`, half of those in `cut_off`; counts how often each was `asked` for, and the bytes `sent`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut_off: set[str] = set()
        self.continues = True
        self.says_length = True
        self.sent: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802 (the base class's name)
        name = self.path.strip("/")
        self.server.asked[name] += 1
        if name not in self.server.files:
            return self.send_error(404)
        content = self.server.files[name]
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        if start >= len(content):
            return self.send_error(416)
        start *= self.server.continues
        self.send_response(206 if start else 200)
        content = content[start:]
        if self.server.says_length:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        content = content[: len(content) // 2] if name in self.server.cut_off else content
        self.server.sent[name] += len(content)
        self.wfile.write(content)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server of three tiny parts of two data sets, which the tables of `known` name instead of the real ones."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    inside = "VOCdevkit/VOC2007"
    server.files = {
        "trainval.tar": tar({f"{inside}/{name}": data for name, data in voc_files("trainval", 3).items()}),
        "test.tar": tar({f"{inside}/{name}": data for name, data in voc_files("test", 2).items()}),
        "val.zip": zipped({f"val2017/{index}.jpg": b"image" for index in range(4)}),
    }
    monkeypatch.setattr(catalogue, "DATA_SETS", catalogue.DATA_SETS | {"voc": [], "coco": []})
    for split, expected in (("trainval", 3), ("test", 2)):
        problem = partial(catalogue.problem_of_voc, split=split, expected=expected)
        catalogue.DATA_SETS["voc"].append(part(server, f"{split}.tar", "voc-*", inside, problem, inside))
    images = partial(catalogue.problem_of_images, expected=4)
    catalogue.DATA_SETS["coco"].append(part(server, "val.zip", "coco-*", "coco/val2017", images, "val2017"))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def part(server, name: str, ids: str, folder: str, problem, inside: str) -> catalogue.Part:
    content = server.files[name]
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    archive = catalogue.Archive(url, hashlib.md5(content).hexdigest(), len(content), inside)
    return catalogue.Part(name, ids, folder, len(content), problem, archive)


def serve(server, name: str, content: bytes) -> None:
    """Publish other content under a name, with its checksum."""
    server.files[name] = content
    for parts in catalogue.DATA_SETS.values():
        for index, each in enumerate(parts):
            if each.title == name:
                parts[index] = part(server, name, each.ids, each.folder, each.problem, each.archive.inside)


COMPLETE = {f"VOCdevkit/VOC2007/{name}" for name in voc_files("trainval", 3) | voc_files("test", 2)}


def test_get_fetches_every_part_and_leaves_nothing_else(server, tmp_path):
    fetch.get("voc", tmp_path)
    fetch.get("coco", tmp_path)
    assert tree(tmp_path) == COMPLETE | {f"coco/val2017/{index}.jpg" for index in range(4)}
    assert not list(tmp_path.glob("*/downloads"))
    assert (tmp_path / "VOCdevkit/VOC2007/JPEGImages/test1.jpg").read_bytes() == b"image"


def test_a_second_get_says_so_and_downloads_nothing(server, tmp_path, capsys):
    fetch.get("voc", tmp_path)
    server.asked.clear()
    capsys.readouterr()
    fetch.get("voc", tmp_path)
    assert not server.asked
    assert capsys.readouterr().out.count("is complete in") == 2


def test_get_downloads_only_what_lacks(server, tmp_path):
    folder = tmp_path / "VOCdevkit/VOC2007"
    for name, content in voc_files("trainval", 3).items():
        write(folder, name, content=content)
    mine = folder / "JPEGImages/mine.jpg"
    write(folder, "JPEGImages/mine.jpg")
    fetch.get("voc", tmp_path)
    assert server.asked == {"test.tar": 1}
    assert tree(tmp_path) == COMPLETE | {str(mine.relative_to(tmp_path))}


def test_get_repairs_an_incomplete_part(server, tmp_path):
    fetch.get("coco", tmp_path)
    (tmp_path / "coco/val2017/2.jpg").unlink()
    fetch.get("coco", tmp_path)
    assert server.asked == {"val.zip": 2}
    assert len(tree(tmp_path / "coco/val2017")) == 4


def test_a_data_set_of_the_users_own_is_left_alone(server, tmp_path):
    own = voc_files("trainval", 2)
    for name, content in own.items():
        write(tmp_path / "VOCdevkit/VOC2007", name, content=content)
    with pytest.raises(UserError, match=r"other than trainval\.tar \(another list: 2 instead of 3 images\): move"):
        fetch.get("voc", tmp_path)
    assert not server.asked
    assert tree(tmp_path / "VOCdevkit/VOC2007") == set(own)


@pytest.mark.parametrize("says_length", [True, False])
@pytest.mark.parametrize("continues", [True, False])
def test_a_download_that_is_cut_off_continues(server, tmp_path, monkeypatch, continues, says_length):
    server.cut_off, server.continues, server.says_length = {"test.tar"}, continues, says_length
    monkeypatch.setattr(fetch, "PIECE", 512)
    with pytest.raises(UserError, match="the connection failed.*: start again to continue"):
        fetch.get("voc", tmp_path)
    assert catalogue.problem_of_voc(tmp_path / "VOCdevkit/VOC2007", "trainval", 3) == ""
    assert catalogue.problem_of_voc(tmp_path / "VOCdevkit/VOC2007", "test", 2) == "missing"
    assert tree(tmp_path / "VOCdevkit/downloads") == {"test.tar.part"}
    server.cut_off = set()
    fetch.get("voc", tmp_path)
    assert server.asked == {"trainval.tar": 1, "test.tar": 2}
    size = len(server.files["test.tar"])
    assert server.sent["test.tar"] == (size if continues else size + size // 2)
    assert tree(tmp_path) == COMPLETE


def test_a_beginning_of_another_file_is_found_out(server, tmp_path):
    write(tmp_path, "coco/downloads/val.zip.part", content=bytes(9))
    with pytest.raises(UserError, match="another checksum"):
        fetch.get("coco", tmp_path)
    fetch.get("coco", tmp_path)
    assert len(tree(tmp_path / "coco")) == 4


def test_a_file_that_got_smaller_at_the_server_is_one_sentence_and_then_anew(server, tmp_path):
    whole, server.files["val.zip"] = server.files["val.zip"], b"gone"
    write(tmp_path, "coco/downloads/val.zip.part", content=whole[:9])
    with pytest.raises(UserError, match="HTTP status 416"):
        fetch.get("coco", tmp_path)
    assert not tree(tmp_path)


def test_an_archive_of_the_users_own_is_not_overwritten(server, tmp_path):
    write(tmp_path, "coco/downloads/val.zip", content=b"mine")
    with pytest.raises(UserError, match="val.zip has another checksum than .*: move it away and try again"):
        fetch.get("coco", tmp_path)
    assert (tmp_path / "coco/downloads/val.zip").read_bytes() == b"mine" and not server.asked


def test_two_at_once_do_not_meet(server, tmp_path):
    (tmp_path / "coco").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", LOCK_AND_WAIT, tmp_path / "coco/.val2017.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    holder.stdout.readline()
    with pytest.raises(UserError, match=f"val2017 is being worked on by process {holder.pid} on"):
        fetch.get("coco", tmp_path)
    holder.communicate(b"")
    fetch.get("coco", tmp_path)
    assert len(tree(tmp_path / "coco")) == 4


LOCK_AND_WAIT = """
import sys
from pathlib import Path
from resim_bench import files
with files.locked(Path(sys.argv[1]), "it"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_what_killed_ones_left_is_removed(server, tmp_path):
    write(tmp_path, "coco/.val2017.building-abc/val2017/0.jpg", "coco/.val2017.lock")
    fetch.get("coco", tmp_path)
    assert tree(tmp_path) == {f"coco/val2017/{index}.jpg" for index in range(4)}
    write(tmp_path, "coco/downloads/val.zip", "coco/downloads/val.zip.part")  # killed before they were removed
    fetch.get("coco", tmp_path)
    assert tree(tmp_path) == {f"coco/val2017/{index}.jpg" for index in range(4)}


def test_another_checksum_leaves_nothing(server, tmp_path):
    server.files["val.zip"] = zipped({"val2017/0.jpg": b"another"})
    with pytest.raises(UserError, match="another checksum than expected, so the file was removed: try again"):
        fetch.get("coco", tmp_path)
    assert not tree(tmp_path)


def test_without_a_network_one_sentence(server, tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # a port where nobody listens
        absent = catalogue.DATA_SETS["coco"][0]
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/val.zip"
        catalogue.DATA_SETS["coco"][0] = absent._replace(archive=absent.archive._replace(url=url))
        with pytest.raises(UserError, match=f"{url} \\(the connection failed\\)") as caught:
            fetch.get("coco", tmp_path)
    assert "\n" not in str(caught.value)
    assert not tree(tmp_path)


def test_a_file_that_the_server_lacks_is_named(server, tmp_path):
    del server.files["val.zip"]
    with pytest.raises(UserError, match=r"val\.zip \(HTTP status 404\)"):
        fetch.get("coco", tmp_path)


def test_an_archive_put_there_by_hand_is_used(server, tmp_path):
    write(tmp_path, "coco/downloads/val.zip", content=server.files["val.zip"])
    fetch.get("coco", tmp_path)
    assert not server.asked
    assert len(tree(tmp_path / "coco")) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_unpacking_that_is_cut_off_leaves_only_the_archive(server, tmp_path, monkeypatch, error):
    extract = zipfile.ZipFile._extract_member
    calls = iter(range(4))

    def failing(self, *args):
        if next(calls) == 2:
            raise error
        return extract(self, *args)

    monkeypatch.setattr(zipfile.ZipFile, "_extract_member", failing)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else UserError):
        fetch.get("coco", tmp_path)
    assert tree(tmp_path) == {"coco/downloads/val.zip"}


def test_what_was_downloaded_is_unpacked_by_the_next_get(server, tmp_path, monkeypatch):
    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(fetch, "_move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        fetch.get("coco", tmp_path)
    assert catalogue.problem_of_images(tmp_path / "coco/val2017", 4) == "missing"
    fetch.get("coco", tmp_path)
    assert server.asked == {"val.zip": 1}
    assert len(tree(tmp_path / "coco")) == 4


@pytest.mark.parametrize("moves", range(5))
def test_a_part_that_joins_another_never_looks_complete_too_early(server, tmp_path, monkeypatch, moves):
    folder = tmp_path / "VOCdevkit/VOC2007"
    for name, content in voc_files("trainval", 3).items():
        write(folder, name, content=content)
    rename, calls = Path.rename, iter(range(9))

    def failing(self, target):
        if ".VOC2007.building-" in str(self) and next(calls) == moves:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(Path, "rename", failing)
        fetch.get("voc", tmp_path)
    assert catalogue.problem_of_voc(folder, "trainval", 3) == ""
    assert catalogue.problem_of_voc(folder, "test", 2) != ""
    fetch.get("voc", tmp_path)
    assert server.asked == {"test.tar": 1}
    assert tree(tmp_path) == COMPLETE


def test_a_tar_with_a_path_outside_is_refused(server, tmp_path):
    serve(server, "trainval.tar", tar({"../../../evil": b"evil"}))
    with pytest.raises(UserError, match="cannot be unpacked .*outside the destination"):
        fetch.get("voc", tmp_path / "data")
    assert not list(tmp_path.rglob("evil"))
    assert not (tmp_path / "data/VOCdevkit/VOC2007").exists()


def test_a_zip_writes_nothing_outside(server, tmp_path):
    files = {f"val2017/{index}.jpg": b"image" for index in range(4)}
    serve(server, "val.zip", zipped(files | {"../../../evil": b"evil", "beside/evil": b"evil"}))
    fetch.get("coco", tmp_path / "data")
    assert tree(tmp_path) == {f"data/coco/{name}" for name in files}


def test_an_archive_that_lacks_images_does_not_verify(server, tmp_path):
    serve(server, "val.zip", zipped({"val2017/0.jpg": b"image"}))
    with pytest.raises(UserError, match=r"does not verify \(incomplete: lacks 3 of 4 images\)"):
        fetch.get("coco", tmp_path)


def test_too_small_a_disk_is_refused_before_any_download(server, tmp_path, monkeypatch):
    parts = catalogue.DATA_SETS["voc"]
    needed = sum(p.size for p in parts) + max(p.archive.size for p in parts)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(UserError, match="make room, or name a folder on another disk with --to"):
        fetch.get("voc", tmp_path)
    assert not server.asked
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    fetch.get("voc", tmp_path)
    assert tree(tmp_path) == COMPLETE


def test_an_archive_that_is_there_needs_no_room(server, tmp_path, monkeypatch):
    part = catalogue.DATA_SETS["coco"][0]
    write(tmp_path, "coco/downloads/val.zip", content=server.files["val.zip"])
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: SimpleNamespace(free=part.size))
    fetch.get("coco", tmp_path)
    assert len(tree(tmp_path / "coco")) == 4


def test_imagenet_is_explained_and_never_downloaded(tmp_path):
    with pytest.raises(UserError, match=r"registered people only: .*image-net\.org.*imagenet/train/<wnid>/"):
        fetch.get("imagenet", tmp_path)


@pytest.mark.parametrize("name", ["pascal", "mini"])
def test_what_cannot_be_downloaded_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=f"'{name}' cannot be downloaded: choose voc or coco"):
        fetch.get(name, tmp_path)


def test_voc_is_held_against_its_list(tmp_path):
    problem = partial(catalogue.problem_of_voc, tmp_path, "trainval")
    assert problem(3) == "missing"
    for name in voc_files("trainval", 3):
        write(tmp_path, name, content=voc_files("trainval", 3)[name])
    assert problem(3) == ""
    assert problem(4) == "another list: 3 instead of 4 images"
    (tmp_path / "JPEGImages/trainval1.jpg").unlink()
    write(tmp_path, "JPEGImages/other.jpg")
    assert problem(3) == "incomplete: lacks 1 of 3 images"
    write(tmp_path, "JPEGImages/trainval1.jpg")
    (tmp_path / "Annotations/trainval0.xml").unlink()
    (tmp_path / "Annotations/trainval2.xml").unlink()
    assert problem(3) == "incomplete: lacks 2 of 3 annotations"


def test_coco_is_held_against_counts_and_sizes(tmp_path):
    assert catalogue.problem_of_images(tmp_path / "val2017", 2) == "missing"
    write(tmp_path, "val2017/1.jpg", "val2017/notes.txt")
    assert catalogue.problem_of_images(tmp_path / "val2017", 2) == "incomplete: lacks 1 of 2 images"
    write(tmp_path, "val2017/2.jpg", "val2017/mine.jpg")
    assert catalogue.problem_of_images(tmp_path / "val2017", 2) == ""

    problem = partial(catalogue.problem_of_files, tmp_path / "annotations", {"a.json": 1, "b.json": 2})
    assert problem() == "missing"
    write(tmp_path, "annotations/a.json")
    assert problem() == "incomplete: lacks 1 of 2 files"
    write(tmp_path, "annotations/b.json")
    assert problem() == "wrong size: b.json"
    write(tmp_path, "annotations/b.json", content=b"xx")
    assert problem() == ""


def test_imagenet_is_counted(tmp_path):
    wnids = imagenet100()[:3]
    problem = partial(catalogue.problem_of_classes, tmp_path / "train", 3, 6)
    assert problem() == "missing"
    write(tmp_path / "train", *(f"{wnid}/{i}.JPEG" for wnid in wnids for i in range(2)))
    assert problem() == ""
    assert problem(listed=wnids[:2]) == "incomplete: lacks 1 of 3 classes"
    (tmp_path / "train" / wnids[0] / "0.JPEG").unlink()
    assert problem() == "incomplete: lacks 1 of 6 images"
    write(tmp_path / "train", "n99999999/0.JPEG", "n99999999/1.JPEG", "val/0.JPEG")
    assert problem(listed=wnids) == "incomplete: lacks 1 of 6 images"
    assert problem() == "7 instead of 6 images"


def test_scenes_are_counted(tmp_path):
    assert catalogue.problem_of_scenes(tmp_path) == "missing"
    write(tmp_path, "scenes.json", content=json.dumps({"images": {"pretrain": 2}}).encode())
    write(tmp_path, "imagefolder/train/scenes/0.jpg")
    assert catalogue.problem_of_scenes(tmp_path) == "incomplete: lacks 1 of 2 images"
    write(tmp_path, "imagefolder/train/scenes/1.jpg")
    assert catalogue.problem_of_scenes(tmp_path) == ""


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff", b'{"images": {"pretrain": "x"}}', b"[" * 100_000]
)
def test_a_damaged_note_on_the_scenes_is_said(tmp_path, content):
    write(tmp_path, "scenes.json", content=content)
    assert catalogue.problem_of_scenes(tmp_path) == "scenes.json is damaged: remove the folder"


def test_a_list_that_is_not_utf8_is_counted(tmp_path):
    write(tmp_path, "ImageSets/Main/trainval.txt", content=b"caf\xe9\n")
    assert catalogue.problem_of_voc(tmp_path, "trainval", 1) == "incomplete: lacks 1 of 1 images"


def test_voc_archives_are_those_of_torchvision():
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    theirs = {(DATASET_YEAR_DICT[key]["url"], DATASET_YEAR_DICT[key]["md5"]) for key in ("2007", "2007-test", "2012")}
    assert {(part.archive.url, part.archive.md5) for part in catalogue.DATA_SETS["voc"]} == theirs


def test_every_experiment_needs_known_data_and_only_its_own():
    patterns = {part.ids.removesuffix("*") for parts in catalogue.DATA_SETS.values() for part in parts}
    for pair in experiments():
        first = pair.pretrain_id.split("-")[0] + "-"
        assert first in patterns | {"random-", "given-"}, pair
        assert pair.transfer_id.split("-")[0] + "-" in patterns, pair


def test_the_report_tells_a_line_a_part(server, tmp_path):
    fetch.get("coco", tmp_path)
    for name, content in voc_files("trainval", 3).items():
        write(tmp_path / "VOCdevkit/VOC2007", name, content=content)
    (tmp_path / "VOCdevkit/VOC2007/JPEGImages/trainval2.jpg").unlink()
    report = catalogue.report(tmp_path)
    lines = {line.split("  ")[0]: line for line in report.splitlines()}
    assert lines["val.zip"].endswith("present, verified")
    assert lines["trainval.tar"].endswith("incomplete: lacks 1 of 3 images")
    assert lines["test.tar"].endswith("missing")
    assert lines["IN-100"].split() == ["IN-100", "in100-*", "imagenet/train", "14.7", "GB", "missing"]
    whole = report.replace("\n            ", " ")
    tables = dict(line.split(maxsplit=1) for line in whole.splitlines() if line.startswith("  ") and "-*" in line)
    assert tables["mini-*"].startswith("mini, mini-coco, ") and tables["mini-*"].endswith(", carry-over")
    assert {"in100-voc", "windows-frozen"} <= set(tables["voc-*"].split(", ")) & set(tables["in100-*"].split(", "))
    assert "`resim-bench data get voc` downloads 0.0 GB" in report
    assert "data get coco" not in report


def test_the_real_report_fits_and_needs_no_torch(tmp_path):
    code = (
        "import sys; from resim_bench.data import catalogue as c; print(c.report()); assert 'torch' not in sys.modules"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("missing") == sum(map(len, catalogue.DATA_SETS.values()))
    assert max(map(len, run.stdout.splitlines())) <= 100
    assert "data get voc` downloads 2.9 GB" in run.stdout
    assert "data get coco` downloads 20.4 GB" in run.stdout
