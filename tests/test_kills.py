"""No kill loses anything: one of each kind here; all points by `python -m tests.kills` (docs/runs.md)."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import kills

ROOT = Path(__file__).resolve().parents[1]
QUICK = [name for name in kills.COMMANDS if name not in ("pretrain", "transfer")]


@pytest.mark.slow
@pytest.mark.parametrize("commands", [["pretrain"], ["transfer"], QUICK], ids=" ".join)
def test_a_kill_of_each_kind_loses_nothing(commands):
    run = subprocess.run(
        [sys.executable, "-m", "tests.kills", "--few", *commands], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "end as if there had been none" in run.stdout


def test_a_kill_that_loses_something_is_seen(tmp_path, monkeypatch, capsys):
    """A command that writes in place, and then takes what it finds for finished."""

    def careless(folder):
        file = folder / "out" / "x"
        if not file.exists():
            file.write_text("whole")

    command = kills.Command(lambda folder: None, careless, kills._files)
    monkeypatch.setitem(kills.COMMANDS, "careless", command)
    count, failures = kills.sweep("careless", only_few=False)
    assert count == 3 and len(failures) == 2, "empty and half, but not whole"
    assert "another result: out/x" in capsys.readouterr().out
