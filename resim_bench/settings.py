"""Settings have types: what the schemas of recipes and protocols are made of, and what they say.

A schema is a pydantic model that takes no word for a number, no flag for one, no fraction for a whole number, nothing
that is not finite, and no name that it does not have. It checks and changes nothing: what is trained and recorded is
what was given. Every type says in words what it takes, so that a mistake is one sentence: the setting as the command
line has it, what was given, what may be given.
"""

import reprlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from resim_bench.errors import UserError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxtuple = 8


def shown(value) -> str:
    """`value` as a sentence shows it, cut where it is long."""
    return _SHORT.repr(value)


def says(what: str) -> WrapValidator:
    """Whatever is wrong with a value of the type in front of it, the sentence is to give `what`."""

    def wrapped(value, handler):
        try:
            return handler(value)
        except (ValueError, OverflowError):  # pydantic's own among them
            raise PydanticCustomError("given", "give {what}", {"what": what}) from None

    return WrapValidator(wrapped)


def accepts(test, what: str) -> Any:
    """The type of the values for which `test(value)` holds, in words `what`."""

    def checked(value):
        if not test(value):
            raise ValueError
        return value

    return Annotated[Any, AfterValidator(checked), says(what)]


def one_of(*known) -> Any:
    """The type of these words, or of these numbers."""
    return accepts(lambda value: type(value) is type(known[0]) and value in known, listed(known))


def listed(known) -> str:
    """`a, b or c`."""
    *rest, last = map(str, known)
    return f"{', '.join(rest)} or {last}" if rest else last


def _ascending(pair):
    if not pair[0] <= pair[1] or pair[1] == 0:
        raise ValueError
    return pair


Whole = Annotated[int, Field(strict=True, ge=1), says("a whole number of at least 1")]
Pixels = Annotated[int, Field(strict=True, ge=1, le=16_384), says("a whole number of pixels from 1 to 16384")]
Natural = Annotated[int, Field(strict=True, ge=0), says("a whole number of at least 0")]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False), says("a number")]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False), says("a number above 0")]
AtLeast0 = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False), says("a number of at least 0")]
Share = Annotated[float, Field(strict=True, ge=0, le=1), says("a number from 0 to 1")]
WholeOrNone = Annotated[Whole | None, says("a whole number of at least 1, or None")]
Flag = Annotated[bool, Strict(), says("true or false")]
Text = accepts(lambda value: isinstance(value, str) and bool(value.strip()), "a name")
# Lists are tuples in configs, and lists from the command line: either will do.
Span = Annotated[
    tuple[AtLeast0, AtLeast0],
    Strict(False),
    AfterValidator(_ascending),
    says("two numbers of at least 0, the smaller first, the larger above 0"),
]


class Schema(BaseModel):
    """Settings by name: those that it has, and no others."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_names(cls, given):
        known = ", ".join(cls.model_fields)
        if not isinstance(given, dict):
            raise PydanticCustomError(
                "given", "give {what}", {"what": f"one of its own settings{', ' * bool(known)}{known}"}
            )
        unknown = [name for name in given if name not in cls.model_fields]
        if unknown and cls.model_config["extra"] == "forbid":
            raise PydanticCustomError("unknown", "has {known}", {"name": str(unknown[0]), "known": known})
        return given


def check(schema: type[BaseModel] | TypeAdapter, given, name: str = "") -> None:
    """Refuse settings that are not of the schema.

    Args:
        given: what is checked; it stays as it is.
        name: of the setting that it is, empty for all of them.

    Raises:
        UserError: the first mistake, and how many more there are.
    """
    validate = schema.validate_python if isinstance(schema, TypeAdapter) else schema.model_validate
    try:
        validate(given)
    except ValidationError as error:
        raise UserError(_sentence(error, given, name)) from None


def check_each(types: dict[str, TypeAdapter], given: dict) -> None:
    """Refuse deep settings of a config whose dotted name matches a pattern of `types` and whose value is no such.

    Raises:
        UserError: names the setting.
    """
    for name, value in nodes(given):
        for pattern, adapter in types.items():
            if fnmatchcase(name, pattern):
                check(adapter, value, name)


def nodes(node, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting below `node` by its dotted name, tables and lists among them."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        dotted = f"{name}.{key}" if name else str(key)
        yield dotted, value
        yield from nodes(value, dotted)


def _sentence(error: ValidationError, given, name: str) -> str:
    first, *others = error.errors(include_url=False)
    setting = _dotted(first["loc"], given, name)
    context = first.get("ctx", {})
    if first["type"] == "unknown":
        whole = f"{setting}.{context['name']}" if setting else context["name"]
        kind = first["input"].get("type")
        kind = f" of type {kind}" if isinstance(kind, str) and kind == shown(kind).strip("'\"") else ""
        said = f"there is no setting {whole}: {setting or 'the top level'}{kind} has {context['known']}"
    elif first["type"] == "missing":
        said = f"{setting} is missing: give it"
    elif first["type"] == "value_error":  # of settings that do not go together
        said = str(context["error"])
    elif first["type"] == "union_tag_not_found":
        said = f"{setting}.type is missing: give it"
    elif first["type"] == "union_tag_invalid":
        value = first["input"].get("type")
        said = f"{setting}.type is {shown(value)}: give {listed(_words(context['expected_tags']))}"
    else:  # a union of schemas cannot be asked for its settings
        what = context.get("what", f"one of its own settings, such as {setting}.type")
        said = f"{setting} is {shown(first['input'])}: give {what}"
    return said + (f" (and {len(others)} more)" if others else "")


def _words(expected_tags: str) -> list[str]:
    return [tag.strip("' ") for tag in expected_tags.split(",")]


def _dotted(location, given, name: str) -> str:
    """A setting's name on the command line; pydantic's location also has the `type` by which a schema was chosen."""
    names, node = [name] if name else [], given
    for part in location:
        if isinstance(node, dict) and part not in node and part == node.get("type"):
            continue
        names.append(str(part))
        inside = isinstance(node, dict) and part in node
        inside |= isinstance(node, list | tuple) and isinstance(part, int) and part < len(node)
        node = node[part] if inside else None
    return ".".join(names)
