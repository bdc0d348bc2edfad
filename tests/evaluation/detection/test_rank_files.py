import json
from pathlib import Path

import pytest

from virtex_det.errors import UserError
from virtex_det.evaluation.detection.rank_files import (
    RankFiles,
    RankOutput,
    merge_entries,
    read_states,
)


def part_of(
    folder: Path, name: str, entries: str, states: dict[str, bytes] | None = None
) -> RankOutput:
    (folder / f"{name}.json").write_text(entries)
    paths = {task: folder / f"{name}_{task}" for task in states or {}}
    for task, path in paths.items():
        path.write_bytes((states or {})[task])
    return RankOutput(folder / f"{name}.json", paths, {})


def test_what_was_added_is_merged_in_its_order(tmp_path):
    rank_files = RankFiles(tmp_path)
    for entries in ([], [{"a": 1}, {"a": 2}], [], [{"a": 3}]):
        rank_files.add(entries)
    [part] = rank_files.close({"bbox": b"state"}, {"images": 4})
    merge_entries([part], tmp_path / "merged.json")
    assert json.loads((tmp_path / "merged.json").read_text()) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert list(read_states([part], "bbox")) == [b"state"] and part.counts == {"images": 4}


@pytest.mark.parametrize(
    "texts", [[], [""], ["", '{"a":1}'], ['{"a":1}', "", '{"a":2},\n{"a":3}'], ["", ""]]
)
def test_parts_of_several_processes_make_one_list(texts, tmp_path):
    parts = [part_of(tmp_path, f"part {place}", text) for place, text in enumerate(texts)]
    merge_entries(parts, tmp_path / "merged.json")
    assert json.loads((tmp_path / "merged.json").read_text()) == json.loads(
        f"[{','.join(filter(None, texts))}]"
    )


def test_a_task_that_one_process_did_not_meet_has_the_states_of_the_others(tmp_path):
    parts = [
        part_of(tmp_path, "a", "", {"bbox": b"1"}),
        part_of(tmp_path, "b", "", {"bbox": b"2", "segm": b"3"}),
    ]
    assert list(read_states(parts, "bbox")) == [b"1", b"2"]
    assert list(read_states(parts, "segm")) == [b"3"]


def test_nothing_is_left_once_it_is_removed(tmp_path):
    rank_files = RankFiles(tmp_path)
    rank_files.close({}, {})
    rank_files.remove()
    assert not list(tmp_path.iterdir())


def test_what_an_evaluation_that_was_cut_short_left_goes_with_the_next(tmp_path):
    cut_short = RankFiles(tmp_path)
    cut_short.add([{"a": 1}])
    rank_files = RankFiles(tmp_path)
    assert not cut_short.folder.exists() and rank_files.folder.exists()


def test_a_file_that_the_main_process_does_not_see_is_an_error(tmp_path):
    rank_files = RankFiles(tmp_path)
    (rank_files.folder / f"{rank_files.name}.json").unlink()
    with pytest.raises(UserError, match="folder that all machines share"):
        rank_files.close({}, {})


def test_a_merge_that_fails_leaves_the_last_results_file(tmp_path, monkeypatch):
    (tmp_path / "merged.json").write_text("[1]")
    monkeypatch.setattr(
        "shutil.copyfileobj", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(OSError, match="No space left"):
        merge_entries([part_of(tmp_path, "part", '{"a":1}')], tmp_path / "merged.json")
    assert (tmp_path / "merged.json").read_text() == "[1]"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged.json", "part.json"]
