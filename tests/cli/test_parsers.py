import argparse

import pytest

from virtex_det.cli.parsers import positive, split_overrides


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
