import argparse

import pytest

from virtex_det.cli.parsers import positive


@pytest.mark.parametrize(
    "text", ["0", "-1", "1.5", "", " 1", "1_0", "１", "²", "9" * 10, "9" * 5000, "nan", "1e3"]
)
def test_what_is_no_number_of_things_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no whole number from 1 to 2147483647"):
        positive(text)


def test_numbers_of_things_are_whole():
    assert [positive(text) for text in ("1", "007", "2147483647")] == [1, 7, 2**31 - 1]
