"""How the doctor looks: what fails, dies or hangs is a line of its table, and the rest goes on."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from resim_bench.errors import UserError
from resim_bench.machine import doctor
from resim_bench.machine.doctor import LEFT_OUT, NOT_READY, NOTED, READY, Check, Finding

FINE = Check("fine", Finding, (READY, "two of them"))
LOST = Check("lost", doctor.leave_out, ("nobody asks",))


def examined(capsys, *checks, **options):
    """The exit code, and the lines."""
    code = doctor.examine({"a section": lambda folder: checks}, **options)
    return code, capsys.readouterr().out.splitlines()


def test_what_is_ready_ends_with_a_verdict(capsys):
    code, lines = examined(capsys, FINE, LOST)
    assert code == 0
    section, fine, lost, empty, verdict = lines
    assert (section, empty) == ("a section", "")
    assert (fine, lost) == (f"  {'fine':44}ready      two of them", f"  {'lost':44}left out   nobody asks")
    assert verdict.startswith("ready: all of 1, 1 left out; ")


@pytest.mark.parametrize(
    ("look", "said"),
    [
        ((int, ("x",)), "ValueError: invalid literal for int() with base 10: 'x'"),
        ((os.listdir, ("/nowhere",)), "/nowhere: no such file or directory"),
        ((os._exit, (3,)), "its process was ended with code 3"),
        ((os.abort, ()), "its process was ended by SIGABRT"),
        ((time.sleep, (60,)), "it did not end within 1 s"),
    ],
)
def test_what_fails_is_a_line_and_the_rest_goes_on(capsys, look, said):
    seconds = 1 if look[0] is time.sleep else 60
    code, lines = examined(capsys, Check("broken", *look, remedy="mend it", seconds=seconds), FINE)
    assert code == 1
    assert lines[1:3] == [f"  {'broken':44}not ready  {said}", f"  {'fine':44}ready      two of them"]
    assert lines[4].startswith("not ready: 1 of 2; ")
    assert lines[5:] == ["", "what to do", f"  {'broken':44}mend it"]


def test_what_cannot_be_imported_is_a_line(capsys):
    def make(folder):
        raise ImportError("libcudart.so: no such file\nand more")

    assert doctor.examine({"a room": make, "another": lambda folder: [FINE]}) == 1
    out = capsys.readouterr().out
    assert f"  {'a room':44}not ready  ImportError: libcudart.so: no such file\nanother\n  fine" in out
    assert out.endswith(f"  {'a room':44}{doctor.ANEW}\n")


def test_what_is_noted_comes_after_what_is_not_ready():
    findings = [
        ("slow", Finding(NOTED, "", "buy")),
        ("bad", Finding(NOT_READY, "", "mend")),
        ("ok", Finding(READY, "")),
    ]
    first, *rest = doctor.verdict([*findings, ("lost", Finding(LEFT_OUT, ""))], 150)
    assert first == "not ready: 1 of 3, 1 to note, 1 left out; 2.5 min"
    assert rest == ["", "what to do", f"  {'bad':44}mend", "", "worth knowing", f"  {'slow':44}buy"]


def test_what_the_time_is_over_for_is_noted(capsys):
    slow = Check("slow", time.sleep, (60,))
    code, lines = examined(capsys, slow, FINE, minutes=1 / 60)
    assert code == 0
    assert lines[1] == f"  {'slow':44}noted      it had not ended after 1 s, when the time was over"
    assert lines[2] == f"  {'fine':44}noted      no time was left for it"
    assert lines[-1] == f"  {'fine':44}{doctor.QUIET}"


def test_lines_are_as_wide_as_a_terminal(capsys):
    long = Check("a name " * 8, Finding, (READY, "word " * 40))
    _, lines = examined(capsys, long)
    assert max(map(len, lines)) <= 120
    assert lines[1] == "  " + ("a name " * 8) and lines[2].startswith(" " * 46 + "ready      word word")
    assert lines[3].startswith(" " * 57 + "word")


def untidy(seconds):
    """A look that leaves a file, and a process of its own that hangs with it."""
    file = Path(tempfile.mkdtemp()) / "file"
    child = subprocess.Popen(["sleep", "600"])
    file.write_text("left")
    print("noise", flush=True)
    time.sleep(seconds)
    return Finding(READY, f"{file} {child.pid}")


@pytest.mark.parametrize("seconds", [0, 600])
def test_nothing_is_left_behind(tmp_path, monkeypatch, capfd, seconds):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    doctor.examine({"a section": lambda folder: [Check("untidy", untidy, (seconds,), seconds=3 if seconds else 60)]})
    out, err = capfd.readouterr()
    assert not list(tmp_path.iterdir()) and "noise" not in out + err
    if seconds == 0:
        file, child = out.split()[4:6]
        assert Path(file).is_relative_to(tmp_path)
        deadline = time.monotonic() + 20  # it is killed, and a busy machine ends it when it gets to it
        while Path(f"/proc/{child}/cwd").exists():
            assert time.monotonic() < deadline, "of a process that has ended, nothing or a zombie"
            time.sleep(0.1)


def test_processes_know_of_each_other():
    assert doctor.together(2, os.getenv, "RANK") == ["0", "1"]
    assert doctor.together(2, os.getenv, "WORLD_SIZE") == ["2", "2"]


@pytest.mark.parametrize(
    ("work", "said"),
    [((int, "x"), "ValueError: invalid literal"), ((os._exit, 3), "its process was ended with code 3")],
)
def test_one_process_that_fails_ends_all(work, said):
    with pytest.raises(UserError, match=said):
        doctor.together(2, *work)
