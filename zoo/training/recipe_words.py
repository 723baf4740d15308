"""A recipe's fields and mistakes in plain words. The bounds are read from the JSON schema, so each is written once."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

IN_WORDS = {
    "integer": ("a whole number", "whole numbers"),
    "number": ("a number", "numbers"),
    "boolean": ("true or false", "true or false"),
    "string": ("a text in quotes", "texts"),
    "object": ("a table", "tables"),
}
"""Type in the JSON schema -> one of them, several of them."""
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


@dataclass(frozen=True)
class Words:
    """Beside a field's type: how an error goes on after `must`, where the schema does not say it well."""

    type: str = ""
    bounds: str = ""


@cache
def schema_of(recipe: type) -> dict[str, Any]:
    """The JSON schema of a pydantic dataclass, without the titles that only repeat names."""
    schema = TypeAdapter(recipe).json_schema()
    schema["description"] = schema["description"].partition("\n\n")[0]
    for field in schema["properties"].values():
        del field["title"]
        if "description" in field:
            field["description"] = " ".join(field["description"].split())
    return schema


def describe(field: Mapping[str, Any]) -> str:
    """A field of the schema in words: `a number, above 0`."""
    if "anyOf" in field:
        return ", or ".join(describe(choice) for choice in field["anyOf"])
    if "enum" in field:
        return f"{', '.join(field['enum'][:-1])} or {field['enum'][-1]}"
    if field["type"] == "array":
        return _several(field)
    return ", ".join(filter(None, (IN_WORDS[field["type"]][0], bounds_of(field))))


def bounds_of(field: Mapping[str, Any]) -> str:
    """`between 0 and 1`, `above 0 and at most 1`, or nothing."""
    if "minimum" in field and "maximum" in field:
        return f"between {field['minimum']:g} and {field['maximum']:g}"
    return " and ".join(f"{words} {field[key]:g}" for key, words in BOUNDS.items() if key in field)


def _several(field: Mapping[str, Any]) -> str:
    items = field["items"]
    return ", ".join(filter(None, (f"a list of {IN_WORDS[items['type']][1]}", bounds_of(items))))


def mistake(recipe: type, values: Mapping[str, Any], error: ValidationError) -> str:
    """The first thing that is wrong with a recipe's values, in one line.

    An unknown key comes first: it is often a misspelt one, which is then missing too.
    """
    rank = {"unexpected_keyword_argument": 0, "missing": 2}
    errors = sorted(error.errors(include_url=False), key=lambda each: rank.get(each["type"], 1))
    place = errors[0]["loc"]
    if not place:
        return _cause(errors[0])
    key = str(place[0])
    say = MISTAKES.get(errors[0]["type"], _wrong_value)
    return say(recipe, key, values.get(key), [each for each in errors if each["loc"][0] == key])


def unknown_key(recipe: type, key: str) -> str:
    """Names the nearest key, or all."""
    known = list(schema_of(recipe)["properties"])
    near = difflib.get_close_matches(key, known, 1)
    return f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"keys are {', '.join(known)}")


def wrong_type(recipe: type, key: str, value: Any, inside: bool = False) -> str:
    """`inside` says that the value is a list, as it should be, of something else."""
    field = schema_of(recipe)["properties"][key]
    kinds = {**{name: kind for name, (kind, _) in IN_WORDS.items()}, "array": "a list in brackets"}
    kind = _words(recipe, key).type or f"be {_several(field) if inside and 'items' in field else kinds[field['type']]}"
    optional = value is None and key not in schema_of(recipe)["required"]
    return f"{key} must {kind}, not {_shown(value)}" + ("; leave it out for its default" if optional else "")


def _unknown_key(recipe: type, key: str, value: Any, errors: Sequence[ErrorDetails]) -> str:
    return unknown_key(recipe, key)


def _missing(recipe: type, key: str, value: Any, errors: Sequence[ErrorDetails]) -> str:
    return f"{key!r} is missing; a recipe needs {' and '.join(schema_of(recipe)['required'])}"


def _own_words(recipe: type, key: str, value: Any, errors: Sequence[ErrorDetails]) -> str:
    return f"{key} {_cause(errors[0])}"


def _cause(error: ErrorDetails) -> str:
    """The words of the ValueError that a validator raised."""
    return str(error.get("ctx", {}).get("error", error["msg"]))


def _no_choice(recipe: type, key: str, value: Any, errors: Sequence[ErrorDetails]) -> str:
    return f"unknown {key} {value!r}; choices are {', '.join(schema_of(recipe)['properties'][key]['enum'])}"


def _not_finite(recipe: type, key: str, value: Any, errors: Sequence[ErrorDetails]) -> str:
    kind = "a list of finite numbers" if isinstance(value, list | tuple) else "a finite number"
    return f"{key} must be {kind}, not {_shown(value)}"


def _wrong_value(recipe: type, key: str, value: Any, errors: Sequence[ErrorDetails]) -> str:
    """Of the wrong type, or out of bounds.

    A field of several types has an error for each of them. Those deepest inside a list are the cause: a list with a
    wrong item counts as too short besides.
    """
    depth = max(len(each["loc"]) for each in errors)
    if all(each["type"].endswith("_type") for each in errors if len(each["loc"]) == depth):
        return wrong_type(recipe, key, value, inside=depth > 1)
    field = schema_of(recipe)["properties"][key]
    bounds = _words(recipe, key).bounds or f"be {_several(field) if 'items' in field else bounds_of(field)}"
    return f"{key} must {bounds}, not {_shown(value)}"


MISTAKES: dict[str, Callable[[type, str, Any, Sequence[ErrorDetails]], str]] = {
    "unexpected_keyword_argument": _unknown_key,
    "missing": _missing,
    "value_error": _own_words,
    "literal_error": _no_choice,
    "finite_number": _not_finite,
}
"""Type of pydantic's error -> its sentence; for all others `_wrong_value`."""


def _words(recipe: Any, key: str) -> Words:
    return next((each for each in recipe.__pydantic_fields__[key].metadata if isinstance(each, Words)), Words())


def _shown(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)
