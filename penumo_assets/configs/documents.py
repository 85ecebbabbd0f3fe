"""YAML and JSON that may come from anywhere: plain values, small, every key once, nothing that only some can read."""

import json
import math
from typing import Any

import yaml

MAX_CHARACTERS = 256 * 1024
MAX_DEPTH = 32
_MAX_DIGITS = 100  # of a number in YAML, whose base 60 makes millions of digits or an overflow of a long one
_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}


class DocumentError(ValueError):
    """A document that is not read; the message says why and repeats nothing of it but a key."""


def parse_yaml(text: str) -> Any:
    """The values of one YAML document without tags, anchors or repeated keys.

    Raises
    ------
    DocumentError
    """
    _refuse_long(text)
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DocumentError(f"{error.problem}{where}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DocumentError(f"it cannot be read ({type(error).__name__})") from None


def parse_json(text: str | bytes, max_characters: int | None = MAX_CHARACTERS) -> Any:
    """The values of a JSON text, numbers finite and every key of an object once (RFC 8259 leaves both open).

    Raises
    ------
    DocumentError
    """
    _refuse_long(text, max_characters)
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_once)
    except DocumentError:
        raise
    except json.JSONDecodeError as error:
        raise DocumentError(f"it is not JSON: {error.msg} in line {error.lineno}") from None
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"it cannot be read ({type(error).__name__})") from None


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, which makes no objects, without aliases: a few lines of them can mean gigabytes."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            mark: Any = event.start_mark
            raise yaml.composer.ComposerError(None, None, "an alias (*name) is not read", mark)
        if event.tag is not None:  # most would make something else than plain values, some end in any exception
            mark = event.start_mark
            raise yaml.composer.ComposerError(None, None, f"the tag {_short(event.tag)} is not read", mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"it is more than {MAX_DEPTH} levels deep", None)
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if node.tag in _NUMBERS and len(node.value) > _MAX_DIGITS:
            raise yaml.composer.ComposerError(None, None, "a number is too long", node.start_mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "a merge (<<) is not read", key.start_mark)
            if key.value in names:
                raise yaml.constructor.ConstructorError(None, None, f"a key repeats: {key.value!r}", key.start_mark)
            names.add(key.value)
        return super().construct_mapping(node, deep)


def _refuse_long(text: str | bytes, limit: int | None = MAX_CHARACTERS) -> None:
    if limit is not None and len(text) > limit:
        raise DocumentError(f"it is longer than {limit} characters")


def _refuse_constant(name: str) -> float:
    raise DocumentError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise DocumentError("it holds a number that is too large")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise DocumentError(f"the key {name[:80]!r} repeats")
        names.add(name)
    return dict(pairs)


def _short(tag: str) -> str:
    """A tag as it was written: ``!!bool``, ``!own``."""
    return ascii(tag.replace("tag:yaml.org,2002:", "!!", 1)[:80])
