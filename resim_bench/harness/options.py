"""Options of the command line in a config: found, merged, and named where they do not fit."""

import contextlib

from mmengine.config import Config

from resim_bench import settings
from resim_bench.errors import UserError


def find(cfg: Config, setting: str):
    """The value of a dotted setting.

    Raises:
        UserError: `cfg` does not have it; the sentence says what there is where the name ends to be known.
    """
    above: list[str] = []
    node = cfg
    for part in setting.split("."):
        if _has_items(node) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict | Config) and part in node:
            node = node[part]
        else:
            raise UserError(f"there is no setting {setting}: {'.'.join(above) or 'the top level'} {_inside(node)}")
        above.append(part)
    return node


def _has_items(node) -> bool:
    """Whether it is a list of tables, as hooks and transforms are; other lists are given as a whole."""
    return isinstance(node, list) and bool(node) and all(isinstance(item, dict) for item in node)


def _inside(node) -> str:
    if isinstance(node, dict | Config):
        return f"has {', '.join(map(str, node)) or 'none'}"
    if _has_items(node):
        return f"has the items 0 to {len(node) - 1}"
    return f"is {settings.shown(node)} and has none of its own"


def merge_options(cfg: Config, options: dict) -> Config:
    """`cfg` with `{dotted setting: value}` from the command line.

    Raises:
        UserError: a setting that `cfg` does not have (a typing error would otherwise change nothing, silently), or two
            of which one is a part of the other.
    """
    for setting, value in options.items():
        find(cfg, setting)
        parts = [other for other in options if other.startswith(f"{setting}.")]
        if parts and not isinstance(value, dict):
            raise UserError(f"{parts[0]} is a part of {setting}, which is given, too: give one of them")
    try:
        cfg.merge_from_dict(options)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a table where there is a number, and the like
        raise UserError(
            f"{', '.join(options)} cannot be changed like this ({first_line(error)}): name the settings inside"
        ) from None
    return cfg


def first_line(error: Exception) -> str:
    """What an error of somebody else's says, as far as a sentence can hold it."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


@contextlib.contextmanager
def built_from(options: dict):
    """Around the building of models, loaders and the like: what it raises is the options' fault, if there are any.

    Which of them, nobody knows here: the sentence names all. Without options the fault is ours, and a traceback right.

    Raises:
        UserError: naming the options; one that was raised inside passes, as do errors of the operating system.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if not options:
            raise
        given = " and ".join(f"{name}={settings.shown(value)}" for name, value in options.items())
        what = f"the options {given} do" if len(options) > 1 else f"the option {given} does"
        raise UserError(
            f"{what} not make anything that can be trained ({type(error).__name__}: {first_line(error)}): change or "
            "leave out what does not fit"
        ) from error
