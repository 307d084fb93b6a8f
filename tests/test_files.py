"""Files from strangers: only regular ones are read, up to a size, and whatever is wrong with them is one short line."""

from __future__ import annotations

import errno
import os
import stat
import time

import pytest
import yaml

from simplepose.core import files
from simplepose.core.errors import UserError, shown
from simplepose.core.files import parse_json, parse_yaml, read_json, read_text, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        MERGE_BOMB,
        "&a [*a]",
        "[" * 20_000,
        "{a: " * 20_000,
        "- " * 20_000,
        "a: 2001-13-45",
        "a: !!int abc",
        "a: !!int ''",
        "a: !!float ''",
        "a: !!bool maybe",
        "a: !!timestamp soon",
        "a: !!python/object/apply:os.system ['true']",
        "a: " + 5000 * "9",
        "a: \x1b[2J",
        "[" + "1," * 60_000 + "]",
        "? {a: b}\n: c",
    ],
    ids=lambda text: text[:20].encode("unicode_escape").decode(),
)
def test_hostile_yaml_is_one_short_line_soon(text):
    started = time.process_time()
    with pytest.raises(UserError, match=r"^a\.yaml is not valid YAML") as caught:
        parse_yaml(text, "a.yaml")
    assert len(str(caught.value)) < 500 and str(caught.value).isprintable()
    assert time.process_time() - started < 8


def test_aliases_that_people_write_are_read():
    same = [256, 256]
    text = yaml.safe_dump({"a": same, "b": same})  # as PyYAML itself writes such a configuration
    assert "*id001" in text
    assert parse_yaml(text + "c: &c {x: 1}\nd: {<<: *c, y: 2}", "a")["d"] == {"x": 1, "y": 2}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "{'a': 1}", "", b"\xff\xfe\x00"])
def test_hostile_json_is_one_short_line(text):
    with pytest.raises(UserError, match=r"^a\.json is not valid JSON") as caught:
        parse_json(text, "a.json")
    assert len(str(caught.value)) < 500 and str(caught.value).isprintable()


def test_only_regular_files_are_read(tmp_path):
    for read in (read_yaml, read_text):
        with pytest.raises(UserError, match="a folder, not a configuration file"):
            read(tmp_path, "configuration")
        with pytest.raises(UserError, match="no such configuration file"):
            read(tmp_path / "a" / "b", "configuration")
        with pytest.raises(UserError, match="cannot read"):
            read("a\0b", "configuration")
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", "/dev/zero"):
            with pytest.raises(UserError, match="pipe or a device"):
                read_json(path)


def test_files_larger_than_any_of_their_kind_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a.yaml"
    path.touch()
    os.truncate(path, files.SETTINGS_BYTES + 1)  # nothing is stored of it
    with pytest.raises(UserError, match=r"too large: 0\.3 MB, more than any configuration file has"):
        read_yaml(path, "configuration")
    assert read_text(path, "list").strip("\0") == ""


@pytest.mark.skipif(os.name != "posix", reason="folders are flushed on POSIX systems only")
def test_a_file_system_that_cannot_flush_folders_keeps_files_all_the_same(tmp_path, monkeypatch):
    flush = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    with files.written_whole(tmp_path / "a") as scratch:
        scratch.write_text("whole")
    assert (tmp_path / "a").read_text() == "whole"


def test_messages_are_one_printable_line_of_some_length():
    message = str(UserError("a\x1b[2J\nb\u202ec\ud800 头部.jpg " + 10_000 * "x" + " replace it"))
    assert message.startswith(r"a\x1b[2J\nb\u202ec\ud800 头部.jpg x") and message.endswith("x replace it")
    assert len(message) < 2100 and message.isprintable()


def test_quoted_values_are_clipped():
    assert shown("手腕") == "'手腕'" and shown([1, "a", None]) == "[1, 'a', None]"
    assert len(shown("x" * 10_000)) <= 100 and len(shown([["x" * 10_000] * 1000] * 1000)) < 10_000
    assert shown(10**5000) == "a whole number of about 4983 digits"  # Python itself refuses to spell it out
