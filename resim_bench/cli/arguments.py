"""Arguments of the command line: what a word may be, and how a mistake is said."""

import argparse
import math
import os
from pathlib import Path

from resim_bench.errors import one_line

LAST_SEED = 2**32 - 1  # numpy's
MOST = 1_000_000  # trials, units, GPUs
LONGEST = 255  # bytes of a file's name, on all usual file systems


class _Once(argparse.Action):
    """argparse's storing of a value, which an option may have but once: of two, nobody knows which is meant."""

    def __call__(self, parser, namespace, values, option_string=None):
        given = namespace.__dict__.setdefault("_given", set())
        if option_string and self.dest in given:
            raise argparse.ArgumentError(self, "it is given twice: give it once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class Version(argparse.Action):
    """Prints version and commit, which take a moment to find out."""

    def __init__(self, option_strings, dest, **kwargs):
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        """Exit with code 0."""
        import importlib.metadata

        from resim_bench.harness import runs

        print(f"resim-bench {importlib.metadata.version('resim-bench')}, commit {runs.commit()}")
        parser.exit(0)


class Parser(argparse.ArgumentParser):
    """argparse whose refusal is one sentence, and that takes options between what they belong to."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register("action", None, _Once)
        self._intermixes = False

    def parse_known_args(self, args=None, namespace=None):
        """Those of a command may come in any order: `tables mini --details mini-coco`."""
        if self._subparsers or self._intermixes:
            return super().parse_known_args(args, namespace)
        self._intermixes = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixes = False

    def error(self, message):
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


def _whole(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or len(text) > 20 or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text[:40]} is not a whole number from {least} to {most}")
    return int(text)


def a_seed(text: str) -> int:
    """The seed of a run."""
    return _whole(text, 0, LAST_SEED)


def a_count(text: str) -> int:
    """How many of something, at least one."""
    return _whole(text, 1, MOST)


def a_price(text: str) -> float:
    """What something costs, in whatever currency."""
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 < price <= MOST:
        raise argparse.ArgumentTypeError(f"{text[:40]} is no price, a number above 0 and up to {MOST}")
    return price


def a_name(text: str) -> str:
    """A name, which may be one of a file."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a name is missing: give one")
    if any(len(os.fsencode(part)) > LONGEST for part in text.split(os.sep)):
        raise argparse.ArgumentTypeError(f"{text[:40]}… is too long a name for a file: give a shorter one")
    return text


def some_logs(text: str) -> tuple[str, ...]:
    """Where else progress is to go.

    Raises:
        UserError: one is unknown, or its package is not installed.
    """
    from resim_bench.harness import logs

    return logs.check(text.split(","))


def a_path(text: str) -> Path:
    """A place in the file system."""
    return Path(a_name(text))


def a_folder(text: str) -> Path:
    """A folder that is there."""
    folder = a_path(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}: name the one that is meant")
    return folder
