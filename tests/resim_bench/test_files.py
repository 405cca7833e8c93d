"""Folders that last as long as their process, and files that are whole."""

import errno
import os
import signal
import tempfile
from pathlib import Path

import pytest

from resim_bench import files


def test_a_file_system_that_may_only_be_read_names_the_file_that_was_asked_for(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "temporary"))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="no space") as error, files.replacing(tmp_path / "wanted"):
        raise OSError(errno.ENOSPC, "no space")
    assert error.value.filename == str(tmp_path / "wanted")


def test_a_temporary_folder_of_a_killed_process_goes_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "mine-own").mkdir()
    with files.temporary("mine-") as living:
        killed = os.fork()
        if not killed:
            with files.temporary("mine-") as folder:
                (folder / "log").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(killed, 0)
        assert len(list(tmp_path.iterdir())) == 3
        child = os.fork()
        if not child:
            with files.temporary("mine-"):
                os._exit(not living.is_dir() or len(list(tmp_path.iterdir())) != 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert living.is_dir()
    with files.temporary("mine-"):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine-own"]
