import logging

import pytest

from virtex_det.data.skipped import SkipCountingLoader, Skipped, check_run, summarise
from virtex_det.errors import UserError


def batches(*notes):
    """One batch of one example for each list of notes."""
    return SkipCountingLoader(
        [[{"image": 1, **({"left_out": list(found)} if found else {})}] for found in notes]
    )


def test_notes_are_taken_off_the_examples_and_kept_by_reason():
    loader = batches(
        [Skipped("a.jpg", "broken")], [], [Skipped("b.jpg", "broken"), Skipped("c.jpg", "empty")]
    )
    assert list(loader) == [[{"image": 1}]] * 3
    assert loader.report() == {"broken": ["a.jpg", "b.jpg"], "empty": ["c.jpg"]}


def test_a_file_is_counted_and_logged_once_however_often_it_comes(caplog):
    loader = batches(*[[Skipped("a.jpg", "broken")]] * 3)
    with caplog.at_level(logging.WARNING):
        list(loader)
    assert loader.report() == {"broken": ["a.jpg"]} and caplog.text.count("a.jpg (broken)") == 1


def test_the_first_of_each_reason_says_what_to_do(caplog):
    with caplog.at_level(logging.WARNING):
        list(
            batches(
                *[[Skipped(name, "turned", "Mind EXIF.")] for name in "abc"],
                [Skipped("d", "cut", "Fetch it.")],
            )
        )
    assert caplog.text.count("Mind EXIF.") == 1 and caplog.text.count("Fetch it.") == 1


def test_only_the_first_ten_are_logged(caplog):
    with caplog.at_level(logging.WARNING):
        list(batches(*([Skipped(f"{number}.jpg", "broken")] for number in range(30))))
    assert len([record for record in caplog.records if "broken" in record.getMessage()]) == 10
    assert "reported at the end" in caplog.text and "10.jpg" not in caplog.text


def test_several_processes_are_summed_up_with_each_name_once():
    text = summarise([{"broken": ["a", "b", "c"]}, {"broken": ["c", "d"], "empty": ["x"]}, {}])
    assert text == "Left out of training:\n  4 x broken: a, b, c, ...\n  1 x empty: x"


def test_nothing_left_out_gives_no_summary():
    assert summarise([{}, {}]) == ""


def test_a_hundred_in_a_row_are_an_error_and_fewer_are_not():
    check_run([Skipped("a.jpg", "broken")] * 99)
    with pytest.raises(UserError, match=r"100 images in a row.*last is a\.jpg \(broken\)"):
        check_run([Skipped("a.jpg", "broken")] * 100)


@pytest.mark.parametrize(
    ("reason", "is_of_the_disk"),
    [
        ("image cannot be read", True),
        ("image file is missing", True),
        ("invalid annotations", False),
        ("not of the annotated size", False),
    ],
)
def test_only_missing_and_damaged_files_lead_to_the_disk(reason, is_of_the_disk):
    with pytest.raises(UserError) as caught:
        check_run([Skipped("a.jpg", reason)] * 100, UserError("Correct it."))
    assert ("Check the disk" in str(caught.value)) == is_of_the_disk
    assert str(caught.value).endswith("The last one's error:\nCorrect it.")
