import json

from virtex_det.data.datasets.annotation_content import parsing_once, read_annotations


def test_within_the_block_a_file_is_parsed_once_until_it_changes(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    with parsing_once():
        first = read_annotations(path, "a list")
        with parsing_once():
            assert read_annotations(str(path), "a list") is first
        assert read_annotations(path, "a list") is first
        path.write_text("[1, 2]")
        assert read_annotations(path, "a list") == [1, 2]


def test_outside_of_it_nothing_is_kept(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": 1}))
    with parsing_once():
        first = read_annotations(path, "an object")
    assert read_annotations(path, "an object") is not first
    with parsing_once():
        assert read_annotations(path, "an object") is not first
