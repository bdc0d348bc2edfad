import json

from virtex_det.benchmark.records import read_records


def test_results_json_holds_the_newest_and_the_history_keeps_all(make_record, tmp_path):
    make_record(5.0, iteration=100).write(tmp_path)
    make_record(7.0, iteration=200).write(tmp_path)
    newest = json.loads((tmp_path / "results.json").read_text())
    assert newest["metrics"]["bbox"]["AP"] == 7.0
    assert [record.iteration for record in read_records(tmp_path)] == [100, 200]


def test_a_record_survives_the_round_trip(make_record, tmp_path):
    record = make_record(5.0, None)
    record.write(tmp_path)
    read = read_records(tmp_path)[0]
    assert read.metrics == record.metrics
    assert read.versions == record.versions
    assert read.code_revision == record.code_revision


def test_a_record_says_where_it_comes_from(make_record):
    record = make_record()
    assert record.versions["torch"]
    assert record.hardware["cores"] >= 1
    assert record.created.startswith("20")


def test_a_folder_without_evaluations_has_no_records(tmp_path):
    assert read_records(tmp_path) == []
