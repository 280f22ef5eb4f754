"""Documents: science in data. A YAML file is read, validated as a section, and known by the hash of its content.

YAML files that people write or other programs hand over are read within bounded time and memory, whatever they hold.

Plain YAML alone: no tags that make objects, no merge keys (a kilobyte of nested ones expands to gigabytes), no numbers
of thousands of digits, nothing longer than a plan can reasonably be. Anchors and aliases are fine: they share what they
name.
"""

import hashlib
import json
import os
import reprlib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from typing_extensions import override

from metseg.errors import UsageError

MAX_YAML_BYTES: Final = 128 * 2**10
"""The largest file that is parsed; the parser takes some 20 microseconds a byte. Plans have two kilobytes."""

SHOWN_CHARACTERS: Final = 80
"""Of a value in a message."""


SHOWN_PROBLEMS: Final = 20
SHOWN_KEY: Final = 80
SHOWN_MESSAGE: Final = 300
"""How much of what is wrong with a document one message holds."""


KIND = "kind"
"""Key that tells one sort of a section from another. A sort that need not be named has it as a class attribute."""


class Section(BaseModel):
    """Base of every part of a document: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _named_kind(cls, content: object) -> object:
        """A sort that need not be named may be named all the same."""
        is_unnamed = hasattr(cls, KIND) and KIND not in cls.model_fields
        if is_unnamed and isinstance(content, Mapping) and content.get(KIND) == getattr(cls, KIND):
            return {key: value for key, value in content.items() if key != KIND}
        return content


Document = TypeVar("Document", bound=Section)


class YamlFileError(Exception):
    """The file can't be read as YAML; the message says why."""


class _PlainLoader(yaml.SafeLoader):
    @override
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                _refuse(f"line {key.start_mark.line + 1}: merge keys (<<) are not read; repeat what they would merge")


def _construct_int(loader: _PlainLoader, node: yaml.ScalarNode) -> int:
    value: int = loader.construct_yaml_int(node)
    if abs(value) >= 2**63:  # Python would neither show it in a message nor hash it
        _refuse(f"line {node.start_mark.line + 1}: a whole number of more than 63 bits")
    return value


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def read_yaml(path: Path) -> object:
    """Reads one YAML document.

    Args:
        path: a regular file of at most MAX_YAML_BYTES.

    Returns:
        Mappings, lists, texts, numbers, dates; None for an empty document.

    Raises:
        YamlFileError: missing, not a regular file, too long, or not plain YAML.
    """
    text = _read_text(path)
    try:
        loader = _PlainLoader(text)  # looks at the characters already
        try:
            content: object = loader.get_single_data()
        finally:
            loader.dispose()
    except YamlFileError:
        raise
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlFileError(f"not YAML: {_shortened(str(error), 3 * SHOWN_CHARACTERS)}") from error
    except Exception as error:
        # A value that looks like a number or a date and is none: the parser lets through what its conversion raises.
        raise YamlFileError(f"not YAML: a value can't be read: {_shortened(str(error))}") from error
    return content


def show_value(value: object) -> str:
    """A value for a message, short even where the value is huge or contains itself."""
    short = reprlib.Repr()
    short.maxlevel = 3
    short.maxstring = short.maxother = SHOWN_CHARACTERS
    try:
        return _shortened(short.repr(value))
    except ValueError:  # Python refuses to write integers of more than 4300 digits
        return f"a very long {type(value).__name__}"


def _read_text(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            _refuse("not a regular file")
        if status.st_size > MAX_YAML_BYTES:
            _refuse(f"{status.st_size} bytes long, expected at most {MAX_YAML_BYTES}")
        with path.open("rb") as file:
            return file.read(MAX_YAML_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise YamlFileError(f"can't be read: {error.strerror or os.strerror(error.errno or 0)}") from error
    except UnicodeDecodeError as error:
        raise YamlFileError(f"not YAML: not UTF-8 text: {error.reason} at byte {error.start}") from error


def _refuse(why: str) -> NoReturn:
    raise YamlFileError(why)


def _shortened(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def read_document(path: Path, kind: type[Document], *, what: str, hint: str) -> Document:
    """Reads and validates a document.

    Args:
        path: a YAML file.
        kind: its class.
        what: how messages call it, such as `plan`.
        hint: where its keys are described.

    Raises:
        UsageError: the file is missing, is not YAML, or breaks the schema; every broken key is named.
    """
    try:
        content = read_yaml(path)
    except YamlFileError as error:
        raise UsageError(f"{what} {path}: {error}", hint=hint) from error
    return validate_document(content, kind, what=f"{what} {path}", hint=hint)


def validate_document(content: object, kind: type[Document], *, what: str, hint: str) -> Document:
    """Validates a document's content; as `read_document`.

    Raises:
        UsageError: it breaks the schema.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        found = [
            f"{'.'.join(str(part) for part in item['loc'])[:SHOWN_KEY] or what.split(maxsplit=1)[0]}: "
            f"{item['msg'][:SHOWN_MESSAGE]} (found {show_value(item['input'])})"
            for item in error.errors(include_url=False)[:SHOWN_PROBLEMS]
        ]
        more = error.error_count() - len(found)
        problems = "; ".join(found) + (f"; and {more} more" if more else "")
        raise UsageError(f"{what}: {problems}", hint=hint) from error


def document_sha256(section: Section) -> str:
    """Hash of what a document states, independent of how its YAML is laid out.

    Fields that have their default value are left out, so that a field that joins a section later does not change the
    hash of an older document.
    """
    return content_sha256(_stated(section, section.model_dump(mode="json")))


def content_sha256(content: object) -> str:
    """Hash of plain data as JSON, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _stated(value: object, plain: Any) -> Any:
    """A value's plain data without the fields that have their default."""
    if isinstance(value, Section):
        return {
            name: _stated(getattr(value, name), plain[name])
            for name, field in type(value).model_fields.items()
            if field.is_required()
            or _tells_kinds_apart(field.annotation)
            or getattr(value, name) != field.get_default(call_default_factory=True)
        }
    if isinstance(value, tuple):
        return [_stated(item, plain_item) for item, plain_item in zip(value, plain, strict=True)]
    return plain


def _tells_kinds_apart(annotation: object) -> bool:
    """Whether a field can have one value only: it says which of several sections this is."""
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1
