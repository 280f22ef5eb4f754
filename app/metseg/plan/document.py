"""YAML files that people write or other programs hand over: read within bounded time and memory, whatever they hold.

Plain YAML alone: no tags that make objects, no merge keys (a kilobyte of nested ones expands to gigabytes), no numbers
of thousands of digits, nothing longer than a plan can reasonably be. Anchors and aliases are fine: they share what they
name.
"""

import os
import reprlib
import stat
from pathlib import Path
from typing import Final, NoReturn

import yaml
from typing_extensions import override

MAX_YAML_BYTES: Final = 128 * 2**10
"""The largest file that is parsed; the parser takes some 20 microseconds a byte. Plans have two kilobytes."""

SHOWN_CHARACTERS: Final = 80
"""Of a value in a message."""


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
