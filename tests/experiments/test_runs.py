import dataclasses
import json
import sys
from pathlib import Path

import pytest

import virtex_det_commands
from tests.experiments.fake_runs import FINISH, FakeRun, fake_run, wait_until
from virtex_det.benchmark.records import sha256_of
from virtex_det.config import get_cfg
from virtex_det.config.identity import config_sha256
from virtex_det.errors import UserError
from virtex_det.experiments.local import LocalLauncher
from virtex_det.experiments.runs import Run, train_all


def make_run(folder: Path, *options: str, dataset: str = "scenes_val") -> Run:
    return Run(folder, Path("some_config.yaml"), options, 4, dataset)


def finish(run: Run, make_record, **fields) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "model_final.pth").touch()
    dataclasses.replace(make_record(iteration=4), **fields).write(run.folder)


def test_the_command_is_what_a_user_would_type(tmp_path):
    command = make_run(tmp_path / "run", "SEED", "3").command()
    assert command[:3] == [sys.executable, virtex_det_commands.__file__, "train"]
    assert command[3:7] == ["--resume", "--config-file", "some_config.yaml", "SEED"]
    assert command[7:] == ["3", "OUTPUT_DIR", str(tmp_path / "run")]


def test_several_gpus_are_a_process_each(tmp_path):
    assert make_run(tmp_path).command(gpus=8)[3:5] == ["--num-gpus", "8"]


def test_a_probe_is_a_command_of_its_own_and_one_process(tmp_path):
    probe = dataclasses.replace(make_run(tmp_path / "run"), iterations=None)
    assert probe.command(gpus=8)[2:6] == ["probe", "svm", "--resume", "--config-file"]
    assert probe.done_iterations() == 0


def test_a_probe_is_complete_with_its_record_alone(tmp_path, make_record):
    probe = dataclasses.replace(make_run(tmp_path), iterations=None)
    assert not probe.is_finished()
    make_record(iteration=4).write(tmp_path)
    assert not probe.is_finished(), "a record of a training"
    make_record(iteration=None).write(tmp_path)
    assert probe.is_finished() and probe.final_record().iteration is None


def test_an_evaluated_run_is_complete_with_weights_and_the_record_of_its_last_iteration(
    tmp_path, make_record
):
    run = make_run(tmp_path)
    finish(run, make_record, iteration=2)
    assert not run.is_finished()
    assert make_run(tmp_path, dataset="").is_finished()
    finish(run, make_record)
    assert run.is_finished() and run.record().iteration == 4


def test_a_run_without_weights_is_not_complete(tmp_path, make_record):
    make_record(iteration=4).write(tmp_path)
    assert not make_run(tmp_path).is_finished()


def test_the_record_of_another_dataset_is_not_its_own(tmp_path, make_record):
    finish(make_run(tmp_path), make_record, dataset="scenes_train")
    assert make_run(tmp_path).record() is None


def test_a_later_evaluation_with_other_settings_does_not_take_the_place_of_its_own(
    tmp_path, make_record
):
    (tmp_path / "config.yaml").write_text("SEED: 0\n")
    finish(
        make_run(tmp_path),
        make_record,
        config_sha256=sha256_of("SEED: 0\n"),
        metrics={"bbox": {"AP": 1.0}},
    )
    finish(
        make_run(tmp_path),
        make_record,
        config_sha256=sha256_of("SEED: 1\n"),
        metrics={"bbox": {"AP": 2.0}},
    )
    assert make_run(tmp_path).record().metrics == {"bbox": {"AP": 1.0}}


def test_a_run_that_was_moved_or_went_on_elsewhere_is_complete(tmp_path, make_record):
    measured = get_cfg()
    measured.merge_from_list(["OUTPUT_DIR", "/first", "MODEL.WEIGHTS", "/first/start.pth"])
    finish(make_run(tmp_path), make_record, config_sha256=config_sha256(measured))
    for change in (["OUTPUT_DIR", "/moved"], ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 1]):
        now = get_cfg()
        now.merge_from_list(["MODEL.WEIGHTS", "/moved/start.pth", *change])
        (tmp_path / "config.yaml").write_text(now.dump())
        assert make_run(tmp_path).is_finished()
    now.merge_from_list(["TEST.DETECTIONS_PER_IMAGE", 7])
    (tmp_path / "config.yaml").write_text(now.dump())
    assert not make_run(tmp_path).is_finished()


def test_the_evaluation_of_another_runs_weights_is_not_its_own(tmp_path, make_record):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(get_cfg().dump())
    own, run = config_sha256(get_cfg()), make_run(tmp_path / "run")
    for folder, is_finished in (("other", False), ("run", True)):
        evaluated = {"path": str(tmp_path / folder / "model_final.pth")}
        finish(run, make_record, config_sha256=own, evaluated=evaluated)
        assert run.is_finished() == is_finished


def test_a_record_half_written_by_a_crash_does_not_complete_a_run(tmp_path, make_record):
    run = make_run(tmp_path)
    finish(run, make_record)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-100])
    assert not run.is_finished()


def test_a_log_line_being_written_does_not_stop_the_progress(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 2}\n')
    assert make_run(tmp_path).done_iterations() == 3
    (tmp_path / "metrics.json").write_text('{"iteration": 2}\n{"itera')
    assert make_run(tmp_path).done_iterations() == 0


def test_what_is_complete_is_not_run_again(tmp_path):
    (tmp_path / "model_final.pth").touch()
    train_all([fake_run(tmp_path, "sys.exit(1)")], LocalLauncher(1))
    assert not (tmp_path / "stdout.txt").exists()


def test_a_run_begins_when_its_weights_are_there(tmp_path):
    weights = fake_run(tmp_path / "weights", "time.sleep(0.8)", FINISH)
    looks = "assert pathlib.Path('../weights/model_final.pth').exists()"
    train_all(
        [fake_run(tmp_path / "cell", looks, FINISH, after=weights), weights], LocalLauncher(2)
    )
    assert (tmp_path / "cell" / "model_final.pth").exists()


def test_a_cell_does_not_wait_for_the_weights_of_another(tmp_path):
    ended = "pathlib.Path('../early/model_final.pth').exists()"
    slow = fake_run(tmp_path / "slow", wait_until(ended), FINISH)
    early = fake_run(
        tmp_path / "early", "assert not pathlib.Path('../slow/model_final.pth').exists()", FINISH
    )
    train_all([slow, early, fake_run(tmp_path / "late", after=slow)], LocalLauncher(2))


def test_no_more_run_at_once_than_allowed(tmp_path):
    begin = "os.close(os.open('../busy', os.O_CREAT | os.O_EXCL))"
    lines = (begin, "time.sleep(0.1)", "os.remove('../busy')", FINISH)
    train_all([fake_run(tmp_path / str(n), *lines) for n in range(3)], LocalLauncher(1))


def test_a_run_that_fails_stops_no_other_but_those_that_need_its_weights(tmp_path):
    bad = fake_run(tmp_path / "bad", "print('out of luck', flush=True)", "sys.exit(3)")
    runs = [bad, fake_run(tmp_path / "needs", after=bad), fake_run(tmp_path / "good")]
    with pytest.raises(UserError, match=r"1 run failed(?s:.*)bad: exit status 3(?s:.*)out of luck"):
        train_all(runs, LocalLauncher(1))
    assert (tmp_path / "good" / "model_final.pth").exists() and not (tmp_path / "needs").exists()


def test_a_killed_run_is_named_and_the_next_call_does_only_that(tmp_path):
    is_new = "been = pathlib.Path('been').exists(); pathlib.Path('been').touch()"
    runs = [
        fake_run(tmp_path / "killed", is_new, "been or os.kill(os.getpid(), 9)", FINISH),
        fake_run(tmp_path / "good", "print('done')", FINISH),
    ]
    with pytest.raises(UserError, match="killed: killed by signal 9"):
        train_all(runs, LocalLauncher(2))
    train_all(runs, LocalLauncher(2))
    assert (tmp_path / "killed" / "model_final.pth").exists()
    assert (tmp_path / "good" / "stdout.txt").read_text() == "done\n"


def test_a_run_that_ends_well_without_its_weights_has_failed(tmp_path):
    with pytest.raises(UserError, match="ended without"):
        train_all([fake_run(tmp_path / "idle", "pass")], LocalLauncher(1))


def test_of_many_failures_three_tails_are_shown_and_the_others_named(tmp_path):
    runs = [fake_run(tmp_path / f"run{n}", "print('\\n' * 50)", "sys.exit(1)") for n in range(5)]
    with pytest.raises(UserError) as caught:
        train_all(runs, LocalLauncher(5))
    message = str(caught.value)
    assert message.startswith("5 runs failed") and len(message.splitlines()) < 40
    assert all(f"run{n}" in message for n in range(5))


def test_an_edited_record_is_put_aside_and_the_run_done_again(tmp_path, make_record, capsys):
    finish(make_run(tmp_path), make_record)
    path = tmp_path / "results.jsonl"
    good = path.read_text()
    path.write_text(good.replace('"AP": 10.0', '"AP": 99.0'))
    (tmp_path / "good.jsonl").write_text(good)
    again = "pathlib.Path('good.jsonl').replace('results.jsonl')"
    train_all(
        [dataclasses.replace(fake_run(tmp_path, again), dataset="scenes_val")], LocalLauncher(1)
    )
    assert path.read_text() == good
    assert (
        json.loads((tmp_path / "results.jsonl.damaged").read_text())["metrics"]["bbox"]["AP"]
        == 99.0
    )
    assert "edited by hand" in capsys.readouterr().err


def test_runs_are_ended_with_the_command_that_began_them(tmp_path):
    class Interrupted(LocalLauncher):
        def start(self, run):
            if self.jobs:
                raise KeyboardInterrupt
            return super().start(run)

    launcher = Interrupted(2)
    with pytest.raises(KeyboardInterrupt):
        train_all([fake_run(tmp_path / str(n), "time.sleep(600)") for n in range(2)], launcher)
    assert not launcher.jobs[0].is_running()


def test_progress_counts_all_runs(tmp_path, capfd):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "model_final.pth").touch()
    log = "pathlib.Path('metrics.json').write_text('{\"iteration\": 3}\\n')"
    train_all(
        [fake_run(tmp_path / "done"), fake_run(tmp_path / "new", log, FINISH)], LocalLauncher(1)
    )
    assert "8/8" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("log", "doing"),
    [
        ("", ""),
        ("eta: 0:01:00  iter: 19  total_loss: 3.2  lr: 0.1", ""),
        ("iter: 19  lr: 0.1\nStart inference on 200 batches", "evaluating 0/200"),
        (
            "Start inference on 200 batches\nInference done 11/200. Data: 0.1 s/iter. ETA=0:09:00",
            "evaluating 11/200, 0:09:00 left",
        ),
        ("Inference done 11/200. ETA=0:09:00\nTotal inference time: 0:09:01", "measuring"),
        ("features of a:   0%|  | 0/9\rfeatures of a:  33%|", "reading features 33%"),
        ("features of a: 100%|###| 9/9\nSVMs:   5%|", "fitting SVMs 5%"),
        ("Inference done 11/200. ETA=0:09:00\ntraining: 1 of 9 done, 3 s each", ""),
        ("Running precise-BN for 200 iterations", "precise batch norm"),
        ("Inference done 11/200. ETA=0:09:00" + "." * 5000, ""),
    ],
)
def test_what_a_run_does_besides_training_is_read_from_the_end_of_its_log(tmp_path, log, doing):
    run = fake_run(tmp_path / "run")
    run.folder.mkdir(exist_ok=True)
    (run.folder / "stdout.txt").write_text(log)
    assert run.doing() == doing


def test_the_bar_says_what_runs_do_that_train_no_step(tmp_path, capfd, monkeypatch):
    doing = FakeRun.doing

    def doing_and_mark(run):
        if found := doing(run):
            (run.folder / "read").touch()
        return found

    monkeypatch.setattr(FakeRun, "doing", doing_and_mark)
    evaluating = "print('Inference done 11/200. Total: 1 s/iter. ETA=0:09:00', flush=True)"
    is_read = wait_until("pathlib.Path('read').exists()")
    log = "pathlib.Path('metrics.json').write_text('{\"iteration\": 3}\\n')"
    train_all([fake_run(tmp_path / "new", evaluating, is_read, log, FINISH)], LocalLauncher(1))
    assert "new evaluating 11/200, 0:09:00 left" in capfd.readouterr().err
