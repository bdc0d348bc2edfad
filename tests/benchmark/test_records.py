import dataclasses
import json
import re
import subprocess

import pytest

from virtex_det.benchmark import records
from virtex_det.benchmark.records import ResultRecord, read_records, record_from
from virtex_det.errors import UserError


def test_results_json_holds_the_newest_and_the_history_keeps_all(make_record, tmp_path):
    make_record(5.0, iteration=100).write(tmp_path)
    make_record(7.0, iteration=200).write(tmp_path)
    newest = json.loads((tmp_path / "results.json").read_text())
    assert newest["metrics"]["bbox"]["AP"] == 7.0
    assert [record.iteration for record in read_records(tmp_path)] == [100, 200]


def test_a_record_survives_the_round_trip(make_record, tmp_path):
    record = make_record(5.0, None)
    record.write(tmp_path)
    assert read_records(tmp_path) == [record]


def test_a_record_says_where_it_comes_from(make_record):
    record = make_record()
    assert record.versions["torch"] and record.versions["hotcoco"]
    assert record.hardware["cores"] >= 1
    assert record.created.startswith("20")


def test_a_folder_without_evaluations_has_no_records(tmp_path):
    assert read_records(tmp_path) == []


def test_the_hash_is_of_every_other_field(make_record):
    record = make_record()
    others = [field.name for field in dataclasses.fields(ResultRecord) if field.name != "sha256"]
    changed = {dataclasses.replace(record, **{name: ("another",)}).sha256 for name in others}
    assert len(record.sha256) == 64
    assert len(changed | {record.sha256}) == len(others) + 1


def change(path, **values):
    """Change fields in the last line of a file of records."""
    *before, last = path.read_text().splitlines()
    content = json.loads(last)
    content.update(values)
    path.write_text("\n".join([*before, json.dumps(content)]) + "\n")


@pytest.mark.parametrize(
    "values",
    [
        {"metrics": {"bbox": {"AP": 99.0}}},
        {"seed": 5},
        {"dataset_version": {"images": 5, "sha256": "1" * 64}},
        {"train_datasets": None},
        {"sha256": "0" * 64},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_record_changed_by_hand_is_refused_with_its_place(make_record, tmp_path, values):
    make_record().write(tmp_path)
    make_record().write(tmp_path)
    change(tmp_path / "results.jsonl", **values)
    with pytest.raises(
        UserError, match=r"results\.jsonl, line 2: .*edited by hand or damaged\. Evaluate again"
    ):
        read_records(tmp_path)


def test_a_field_that_is_not_known_is_named(make_record, tmp_path):
    make_record().write(tmp_path)
    change(tmp_path / "results.jsonl", better=True)
    with pytest.raises(UserError, match="line 1: unknown or missing fields: better"):
        read_records(tmp_path)


def test_a_record_of_an_earlier_schema_says_what_to_do(make_record, tmp_path):
    make_record().write(tmp_path)
    change(tmp_path / "results.jsonl", schema=1)
    with pytest.raises(UserError, match="has schema 1, .*reads 2.*\n.*--eval-only"):
        read_records(tmp_path)


@pytest.mark.parametrize("content", [[], 3, {}, {"metrics": {}}], ids=str)
def test_json_that_is_no_record_is_refused(content):
    with pytest.raises(UserError, match="here is not a result record"):
        record_from(content, "here")


@pytest.mark.parametrize(
    "kept", [1, 40, -1], ids=["a byte", "a few bytes", "all but the last byte"]
)
def test_a_half_written_last_line_is_left_out_with_a_warning(make_record, tmp_path, caplog, kept):
    make_record(iteration=100).write(tmp_path)
    path = tmp_path / "results.jsonl"
    line = path.read_bytes()
    path.write_bytes(line + line.rstrip(b"\n")[:kept])
    assert [record.iteration for record in read_records(tmp_path)] == [100]
    assert "half-written" in caplog.text


def test_the_next_record_takes_the_place_of_a_half_written_one(make_record, tmp_path):
    make_record(iteration=100).write(tmp_path)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"protocol": "sce')
    make_record(iteration=200).write(tmp_path)
    assert [record.iteration for record in read_records(tmp_path)] == [100, 200]


def test_a_whole_line_without_its_end_counts(make_record, tmp_path):
    make_record(iteration=100).write(tmp_path)
    path = tmp_path / "results.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    make_record(iteration=200).write(tmp_path)
    assert [record.iteration for record in read_records(tmp_path)] == [100, 200]


def test_zeros_that_a_crash_of_the_machine_left_are_a_half_written_line(make_record, tmp_path):
    make_record().write(tmp_path)
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(bytes(100))
    assert len(read_records(tmp_path)) == 1


def test_damage_before_the_last_line_is_an_error(make_record, tmp_path):
    make_record().write(tmp_path)
    path = tmp_path / "results.jsonl"
    path.write_text('{"protocol"\n' + path.read_text())
    with pytest.raises(UserError, match=r"line 1 is not JSON"):
        read_records(tmp_path)


def test_a_number_that_json_does_not_have_is_not_written(make_record, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        make_record(float("nan")).write(tmp_path)
    assert read_records(tmp_path) == []


def test_code_installed_below_another_repository_is_not_of_it(tmp_path, monkeypatch):
    package = tmp_path / "venv" / "virtex_det"
    package.mkdir(parents=True)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(records, "__file__", str(package / "records.py"))
    assert records.code_revision() == "unknown"


@pytest.mark.parametrize(
    ("changed", "is_dirty"),
    [
        ("virtex_det/benchmark/records.py", True),
        ("virtex_det/new.py", True),
        ("configs/run.yaml", True),
        ("results/scenes.jsonl", False),
    ],
)
def test_code_is_dirty_by_its_files_and_not_by_records(changed, is_dirty, tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    files = ["virtex_det/benchmark/records.py", "configs/run.yaml", "results/scenes.jsonl"]
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("before")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(records, "__file__", str(tmp_path / files[0]))
    clean = records.code_revision()
    assert re.fullmatch("[0-9a-f]{12}", clean)
    (tmp_path / changed).write_text("after")
    assert records.code_revision() == (f"{clean}-dirty" if is_dirty else clean)


def test_only_a_record_with_plugins_has_that_field_so_earlier_ones_are_read(tmp_path, make_record):
    plain = make_record()
    plain.write(tmp_path)
    assert "plugins" not in json.loads((tmp_path / "results.json").read_text())
    dataclasses.replace(plain, plugins={"mine.py": "4" * 64}).write(tmp_path)
    first, second = read_records(tmp_path)
    assert (first.plugins, second.plugins) == ({}, {"mine.py": "4" * 64})
    assert first == plain and first.sha256 != second.sha256
