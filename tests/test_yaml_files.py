import time

import pytest

from virtex_det.errors import UserError
from virtex_det.yaml_files import MAX_BYTES, MAX_DEPTH, read_yaml


def repeated(first: str, form: str, times: int, levels: int) -> bytes:
    """A text in which each level repeats the one before it."""
    lines = [f"l0: &l0 {first}"]
    for n in range(1, levels):
        lines.append(f"l{n}: &l{n} " + form.format(", ".join([f"*l{n - 1}"] * times)))
    return "\n".join(lines).encode()


HOSTILE = {
    "alias within itself": (b"a: &a [*a]\n", "alias .a is inside the value that it repeats"),
    "alias within its mapping": (b"a: &a {b: *a}\n", "alias .a is inside"),
    "alias of the whole file": (b"&a\nb: [1, {c: *a}]\n", "alias .a is inside"),
    "alias as a key within itself": (b"a: &a\n  ? *a\n  : 1\n", "alias .a is inside"),
    "alias of an unknown anchor": (b"a: *b\n", "undefined alias"),
    "aliases of aliases": (repeated("[x, x]", "[{}]", 9, 12), "more than 200,000 values"),
    "merges of merges": (repeated("{x: 1}", "{{<<: [{}]}}", 9, 12), "more than 200,000 values"),
    "a ladder of aliases": (repeated("[x]", "[{}]", 1, 2000), f"more than {MAX_DEPTH} deep"),
    "lists in lists": (b"a: " + b"[" * 100_000, "nest"),
    "mappings in mappings": (b"{a: " * 5000, f"more than {MAX_DEPTH} deep"),
    "blocks in blocks": (
        b"".join(b" " * n + b"a:\n" for n in range(300)),
        f"more than {MAX_DEPTH} deep",
    ),
    "many values": (b"a: [" + b"1," * 300_000 + b"]", "more than 200,000 values"),
    "many bytes": (b"a: " + b"x" * MAX_BYTES, "more than 4,194,304 bytes"),
    "a huge number": (b"a: " + b"9" * 5000, "plain YAML"),
    "a huge hexadecimal number": (b"a: 0x" + b"f" * 10_000, "more than 64 bits"),
    "a huge number of minutes": (b"a: 1" + b":59" * 5000, "more than 64 bits"),
    "a day by its tag": (b"a: !!timestamp 2001-01-01\n", "!!timestamp is not a plain value"),
    "a set": (b"a: !!set {x, y}\n", "!!set is not a plain value"),
    "pairs": (b"a: !!pairs [x: 1]\n", "!!pairs is not a plain value"),
    "an ordered mapping": (b"a: !!omap [x: 1]\n", "!!omap is not a plain value"),
    "bytes in base64": (b"a: !!binary aGVsbG8=\n", "!!binary is not a plain value"),
    "an invalid truth value": (b"a: !!bool x\n", "plain YAML"),
    "an invalid number": (b"a: !!float x\n", "plain YAML"),
    "tabs": (b"a:\n\tb: 1\n", "by spaces, not by tabs"),
    "a tag that makes objects": (b"a: !!python/object/new:os.system [x]\n", "plain YAML"),
    "a tag that names a function": (b"a: !!python/name:os.system\n", "plain YAML"),
    "an unknown tag": (b"a: !x 1\n", "plain YAML"),
    "bad base64": (b"a: !!binary x\n", "plain YAML"),
    "a list as a key": (b"? [1, 2]\n: 1\n", "plain YAML"),
    "a key twice": (b"A:\n  B: 1\n  B: 2\n", "line 3: the key 'B' occurs twice"),
    "two documents": (b"a: 1\n---\nb: 2\n", "plain YAML"),
    "bytes": (bytes(range(256)), "plain YAML"),
    "zeros": (bytes(1000), "plain YAML"),
    "a picture": (b"\xff\xd8\xff\xe0\0\x10JFIF", "plain YAML"),
    "broken UTF-16": (b"\xff\xfea\0:", "plain YAML"),
    "half a surrogate": (b'a: "\\ud800"\n', "plain YAML"),
    "a character beyond Unicode": (b'a: "\\U7fffffff"\n', "plain YAML"),
    "a merge of text": (b"a:\n  <<: x\n", "plain YAML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_at_once(name, tmp_path):
    content, message = HOSTILE[name]
    (tmp_path / "x.yaml").write_bytes(content)
    began = time.process_time()
    with pytest.raises(UserError, match=message) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert time.process_time() - began < 5
    assert str(tmp_path / "x.yaml") in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_aliases_and_merges_within_bounds_work(tmp_path):
    (tmp_path / "x.yaml").write_text(
        "a: &a {x: 1, y: [1, 2]}\nb: &b {<<: *a, x: 2}\nc: [*a, {<<: *a}]\n"
    )
    a, b = {"x": 1, "y": [1, 2]}, {"x": 2, "y": [1, 2]}
    assert read_yaml(tmp_path / "x.yaml") == {"a": a, "b": b, "c": [a, a]}


def test_yaml_in_utf_16_or_with_a_byte_order_mark_is_read(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "x.yaml").write_text("a: ü\n", encoding=encoding)
        assert read_yaml(tmp_path / "x.yaml") == {"a": "ü"}


@pytest.mark.parametrize("text", ["2024-01-01", "2024-13-45", "2024-01-01 10:00:00", "1:30:x"])
def test_a_date_is_text(text, tmp_path):
    (tmp_path / "x.yaml").write_text(f"a: {text}\n{text}: b\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": text, text: "b"}
