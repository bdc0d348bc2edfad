import argparse

import pytest

from virtex_det.cli.parsers import as_classes, positive, split_overrides
from virtex_det.errors import UserError


@pytest.mark.parametrize(
    "text", ["0", "-1", "1.5", "", " 1", "1_0", "１", "²", "9" * 10, "9" * 5000, "nan", "1e3"]
)
def test_anything_but_a_positive_integer_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not an integer from 1 to 2147483647"):
        positive(text)


def test_positive_integers_of_31_bits_are_read():
    assert [positive(text) for text in ("1", "007", "2147483647")] == [1, 7, 2**31 - 1]


def test_overrides_begin_at_the_first_config_key_that_is_not_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MODEL.jpg").touch()
    images = ["b.jpg", "MODEL.jpg"]
    overrides = ["MODEL.WEIGHTS", "a.pth", "SEED", "3"]
    assert split_overrides([*images, *overrides]) == (images, overrides)
    assert split_overrides(images) == (images, [])


def test_classes_are_names_or_a_list_as_in_a_config():
    assert as_classes("") == ()
    assert as_classes("bolt,nut") == ("bolt", "nut")
    assert as_classes('["*", ["screw", "bolt"], ["", "nut"]]') == (
        "*",
        ("screw", "bolt"),
        ("", "nut"),
    )
    assert as_classes("('bolt',)") == ("bolt",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[bolt, nut]", "'bolt', 'nut'"),
        ("bolt,bolt", "two entries for the class 'bolt'"),
        ("[1]", "CLASSES"),
    ],
)
def test_a_list_that_is_none_of_classes_is_refused_with_the_way_to_write_it(text, said):
    with pytest.raises(UserError, match=said):
        as_classes(text)
