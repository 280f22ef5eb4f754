"""Plans and parameters from anywhere: each ends in content or in one short message, in bounded time and memory."""

import os
import time
import tracemalloc
from pathlib import Path
from typing import Literal

import pytest
import yaml

from metseg.cli.settings import read_parameters
from metseg.errors import UsageError
from metseg.plan.document import MAX_YAML_BYTES, Section, YamlFileError, document_sha256, read_yaml, show_value
from metseg.plan.plan import Plan, load_plan

MEMBER = {"name": "a", "weights": "a.safetensors", "sha256": "0" * 64}
LAUGHS = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" if n else "l0: &l0 [x]\n" for n in range(12))
MERGES = "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}\n" if n else "m0: &m0 {a: 1}\n" for n in range(12)
)


def write(tmp_path, text):
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "a: !!int ''", "a: !!int x", "a: !!bool x", "a: !!timestamp x", "a: 2001-13-45", "a: " + "9" * 5000,
        "a: !!float x", "a: !!python/object/apply:os.system [exit]", "a: *unknown", "? [a]\n: b", "[" * 5000, "\x00",
        "a: b: c", "%YAML 9.9\n---\na", "--- a\n--- b\n",
    ],
)  # fmt: skip
def test_what_looks_like_yaml_and_is_none_is_said(tmp_path, text):
    with pytest.raises(YamlFileError) as raised:
        read_yaml(write(tmp_path, text))
    assert str(raised.value).startswith("not YAML: ")
    assert len(str(raised.value)) < 300


def test_content_is_what_the_safe_loader_gives(tmp_path):
    text = "a: [1, 2.5, x, null, true]\nb: &b {c: 2020-01-02}\nd: *b\n"
    assert read_yaml(write(tmp_path, text)) == yaml.safe_load(text)
    assert read_yaml(write(tmp_path, f"a: {2**63 - 1}")) == {"a": 2**63 - 1}
    assert read_yaml(write(tmp_path, "")) is None


@pytest.mark.parametrize("text", [LAUGHS, MERGES], ids=["aliases", "merge keys"])
def test_a_kilobyte_does_not_become_gigabytes(tmp_path, text):
    assert len(text) < 2000
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(UsageError) as raised:
        load_plan(write(tmp_path, text))
    assert time.process_time() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()
    assert len(str(raised.value)) < 10_000


def test_a_pipe_a_folder_and_a_long_file_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(YamlFileError, match="not a regular file"):
        read_yaml(tmp_path / "pipe")
    with pytest.raises(YamlFileError, match="not a regular file"):
        read_yaml(tmp_path)
    with pytest.raises(YamlFileError, match="can't be read: No such file"):
        read_yaml(tmp_path / "none")
    path = write(tmp_path, "")
    os.truncate(path, 2**40)
    with pytest.raises(YamlFileError, match=f"at most {MAX_YAML_BYTES}"):
        read_yaml(path)
    path.unlink()
    path.write_bytes(b"a: \xff")
    with pytest.raises(YamlFileError, match="not UTF-8 text"):
        read_yaml(path)


def test_values_in_messages():
    assert show_value(1) == "1"
    assert show_value("x") == "'x'"
    assert show_value(None) == "None"
    assert show_value(16**5000) == "a very long int"
    assert "..." in show_value([[[[[1]]]]])
    assert len(show_value(["y" * 1000] * 1000)) <= 80


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("spacing_mm: .inf", "spacing_mm"),
        ("spacing_mm: .nan", "spacing_mm"),
        (f"tta: {{seed: 0x{'f' * 5000}}}", r"line \d+: a whole number of more than 63 bits"),
        (f"fusion: {{max_iterations: -0x{'f' * 16}}}", "more than 63 bits"),
        ("tta: {noise_std_max: .inf}", "noise_std_max"),
        ("window: {size: [0, 8, 8]}", "window"),
    ],
)
def test_numbers_without_end_are_no_plan(tmp_path, section, message):
    path = write(tmp_path, yaml.safe_dump({"name": "p", "members": [MEMBER]}) + section + "\n")
    with pytest.raises(UsageError, match=message):
        load_plan(path)


def test_a_thousand_wrong_keys_make_one_readable_message(tmp_path):
    path = write(tmp_path, "".join(f"k{'x' * 200}{number}: {number}\n" for number in range(500)))
    with pytest.raises(UsageError, match=r"and 4\d\d more") as raised:
        load_plan(path)
    assert len(str(raised.value)) < 12_000


@pytest.mark.parametrize("content", ["weights: [a]", "plan: {a: b}", "device: 3", "on_error: no"])
def test_parameters_are_texts(tmp_path, content):
    with pytest.raises(UsageError, match="expected a text"):
        read_parameters(write(tmp_path, content))


class Inner(Section):
    size: int = 3


class Before(Section):
    name: str
    kind: Literal["one"] = "one"
    inner: Inner = Inner()
    members: tuple[Inner, ...] = ()


class InnerLater(Inner):
    colour: str | None = None
    share: float = 0.5


class Later(Before):
    inner: InnerLater = InnerLater()
    members: tuple[InnerLater, ...] = ()
    added: tuple[int, ...] = (1, 2)


CONTENTS = [{"name": "a"}, {"name": "a", "inner": {"size": 4}, "members": [{"size": 5}, {}]}]


@pytest.mark.parametrize("content", CONTENTS)
def test_a_field_that_joins_later_changes_no_hash_of_older_documents(content):
    assert document_sha256(Before(**content)) == document_sha256(Later(**content))
    assert document_sha256(Later(**content, added=(1,))) != document_sha256(Later(**content))


def test_a_hash_tells_values_and_kinds_apart():
    class Other(Before):
        kind: Literal["two"] = "two"

    documents = [Before(**content) for content in CONTENTS] + [Other(name="a"), Before(name="b")]
    assert len({document_sha256(document) for document in documents}) == len(documents)


def test_the_bundled_plans_keep_their_hash_when_a_default_is_written_out():
    for path in sorted((Path(__file__).parents[3] / "weights").glob("*/plan.yaml")):
        plan = load_plan(path)
        stated = plan.model_dump(mode="json")
        stated["fusion"] = {**stated["fusion"], "langerak_alpha": 1.0}
        assert Plan.model_validate(stated).sha256 == plan.sha256
