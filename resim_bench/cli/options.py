"""`--cfg-options KEY=VALUE …`: the grammar of mmengine's DictAction, which MMDetection's users know, without its traps.

Numbers, `true`, `false` and `None` are what they look like, all else is a word; `a,b`, `[a,b]` and `(a,b)` are lists,
also within each other. Within a list quotes keep a word together (`['1','palm tree']`).
"""

import argparse
from typing import Any

_CLOSING = {"(": ")", "[": "]"}


class Options(argparse.Action):
    """Collects options into one dictionary; refuses one that is given twice."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Add the options of one `--cfg-options`."""
        options = dict(getattr(namespace, self.dest))
        for text in values:
            try:
                setting, value = parse(text)
                if setting in options:
                    raise ValueError(f"{setting} is given twice: give it once")
            except ValueError as error:
                raise argparse.ArgumentError(self, str(error)) from None
            options[setting] = value
        setattr(namespace, self.dest, options)


def parse(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` as the setting's dotted name and its value.

    Raises:
        ValueError: there is no `=` or no key, or brackets do not match; one sentence.
    """
    setting, equals, value = text.partition("=")
    if not equals or not setting.strip():
        raise ValueError(f"'{text}' is no KEY=VALUE, such as batch=64")
    value = value.strip()
    try:
        return setting.strip(), _value(value[1:-1] if _is_quoted(value) else value)
    except _UnmatchedError:
        raise ValueError(f"the brackets or quotes of '{text}' do not match: close each that is opened") from None


class _UnmatchedError(Exception):
    pass


def _value(text: str):
    if "," not in text and not text.startswith(("(", "[")):
        return _single(text)
    return _items(text) if len(_split(text)) > 1 else _item(text)


def _items(text: str) -> list:
    parts = _split(text)
    return [_item(part) for part in (parts if parts[-1] else parts[:-1])]


def _item(text: str):
    if _is_quoted(text):
        return text[1:-1]
    if not text.startswith(("(", "[")):
        return _single(text)
    if text[-1] != _CLOSING[text[0]]:
        raise _UnmatchedError
    items = _items(text[1:-1])
    return tuple(items) if text[0] == "(" else items


def _split(text: str) -> list[str]:
    """The parts between the commas that stand outside of brackets and quotes; the last is empty after a comma."""
    parts, open_brackets, quote = [""], [], ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and parts[-1].rstrip()[-1:] in ("", "(", "[", ","):
            quote = character
        elif character in _CLOSING:
            open_brackets.append(_CLOSING[character])
        elif character in _CLOSING.values():
            if not open_brackets or open_brackets.pop() != character:
                raise _UnmatchedError
        elif character == "," and not open_brackets:
            parts.append("")
            continue
        parts[-1] += character
    if open_brackets or quote:
        raise _UnmatchedError
    return [part.strip() for part in parts]


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in text[1:-1]


def _single(text: str):
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text.lower(), None if text == "None" else text)
