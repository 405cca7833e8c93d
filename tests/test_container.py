"""The container file: what can be said of it without building it."""

import re
import shlex
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "Containerfile").read_text()


def installs(text):
    """Its pip commands, without what only says how much is said or kept, and without the developer's tools."""
    commands = re.findall(r"\bpip ((?:un)?install [^\n&\\]+)", text)
    unimportant = {"--quiet", "--disable-pip-version-check", "--no-cache-dir"}
    return [
        [word.removesuffix("[dev]") for word in shlex.split(command) if word not in unimportant] for command in commands
    ]


def test_its_python_is_one_that_the_suite_allows():
    (python,) = re.findall(r"^FROM python:(\d+\.\d+)-slim$", TEXT, re.M)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert Version(python) in SpecifierSet(project["requires-python"])


def test_it_installs_what_make_installs():
    assert len(installs(TEXT)) == 3
    assert installs(TEXT) == installs((ROOT / "Makefile").read_text())


def test_a_build_for_cpus_satisfies_the_pins_and_comes_first():
    pins = dict(re.findall(r"^(torch|torchvision)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    assert pins.keys() == {"torch", "torchvision"}
    for pin in pins.values():
        assert Version(f"{pin}+cpu") in SpecifierSet(f"=={pin}") and Version(f"{pin}+cpu") > Version(pin)


def test_it_runs_the_command_as_somebody_who_is_not_root():
    lines = TEXT.splitlines()
    assert lines[-1] == 'ENTRYPOINT ["resim-bench"]'
    assert [line.split()[1] for line in lines if line.startswith("USER ")] == ["resim"]
    assert lines.index("USER resim") > max(i for i, line in enumerate(lines) if line.startswith(("RUN", "COPY")))


def test_the_copied_clone_is_whole(tracked):
    """A tracked file that did not come along would make every record's commit a changed one."""
    patterns = (ROOT / ".dockerignore").read_text().split()
    left = {name for name in tracked for pattern in patterns if leaves_out(pattern, name)}
    assert not left and leaves_out("**/__pycache__", "a/__pycache__/b.pyc") and leaves_out("data", "data/x")


def leaves_out(pattern, name):
    """Docker's rule, for the patterns that are used: from the root, a folder with all that is in it."""
    folders = [*Path(name).parents, Path(name)]
    if pattern.startswith("**/"):
        return any(folder.match(pattern[3:]) for folder in folders)
    return any(folder.match(f"/{pattern}") for folder in map(Path("/").joinpath, folders))
