"""Atomic file writing: a reader sees the old content or the new, never a part."""

import json
import math

import pytest

from medunet.base.errors import InputError
from medunet.base.files import (
    atomic_write,
    dump_json,
    guess_delimiter,
    hash_value,
    name_on_disk,
    read_json,
    read_json_object,
    write_json,
    write_text,
)


def test_failure_while_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / "scores.csv"
    write_text(path, "old")

    def write_half() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.csv"]


def test_unwritable_folder_is_a_user_error_with_a_hint(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Free disk space or choose a folder"):
        write_text(tmp_path / "file" / "below.txt", "x")


def test_json_keeps_short_lists_on_a_line_and_refuses_nan(tmp_path):
    value = {"patch": [40, 56, 40], "cases": [{"id": f"case_{i}", "path": "x" * 30} for i in range(5)]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert '"patch": [40, 56, 40]' in dump_json(value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", math.nan)
    assert not (tmp_path / "b.json").exists()


def test_broken_json_names_the_file(tmp_path):
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(InputError, match=r"plan\.json: not valid JSON"):
        read_json(tmp_path / "plan.json")


def test_a_key_with_two_values_is_refused(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text('{"labels": {"liver": 1, "tumour": 2, "liver": 3}}')
    with pytest.raises(InputError, match="the key 'liver' has two values"):
        read_json(path)
    path.write_text('{"labels": {"liver": 1, "liver": 1}}')
    assert read_json(path) == {"labels": {"liver": 1}}


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"'])
def test_json_that_is_no_object_is_refused_with_a_hint(tmp_path, text):
    path = tmp_path / "provenance.json"
    path.write_text(text)
    with pytest.raises(
        InputError, match=r"provenance\.json: does not contain a JSON object\. Remove the file"
    ):
        read_json_object(path)
    path.write_text('{"seed": 0}')
    assert read_json_object(path) == {"seed": 0}


def test_hash_ignores_the_order_of_keys():
    assert hash_value({"a": 1, "b": 2}) == hash_value(json.loads('{"b": 2, "a": 1}'))


def test_names_that_some_disks_do_not_tell_apart():
    assert name_on_disk("Müller") == name_on_disk("mu\u0308LLER")
    assert name_on_disk("a") != name_on_disk("b")


@pytest.mark.parametrize("delimiter", list(",;\t|"))
def test_the_delimiter_of_a_table_is_guessed(delimiter):
    assert guess_delimiter(delimiter.join(["case", "a b", "c"])) == delimiter
