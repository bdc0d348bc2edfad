import hashlib
import json
import logging
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer, hooks
from detectron2.solver import build_lr_scheduler, build_optimizer
from torch import nn

from tests.checkpoint.conftest import own_pretraining, torchvision_tensors, virtex_training_file
from virtex_det.checkpoint import TransferCheckpointer
from virtex_det.errors import UserError


class Run:
    """A training run of one layer with Detectron2's optimizer, schedule and hooks in a folder."""

    def __init__(self, folder: Path, cfg: CfgNode, features: int = 4) -> None:
        self.model = nn.Linear(features, 1)
        self.optimizer = build_optimizer(cfg, self.model)
        self.scheduler = build_lr_scheduler(cfg, self.optimizer)
        self.trainer = SimpleTrainer(self.model, (), self.optimizer)
        self.trainer.iter = 0
        self.trainer.register_hooks([hooks.LRScheduler(self.optimizer, self.scheduler)])
        self.checkpointer = TransferCheckpointer(self.model, str(folder), trainer=self.trainer)

    def step(self, times: int) -> None:
        for _ in range(times):
            self.optimizer.zero_grad()
            self.model(torch.ones(2, self.model.in_features)).sum().backward()
            self.optimizer.step()
            self.scheduler.step()
            self.trainer.iter += 1

    @property
    def momentum(self) -> torch.Tensor:
        return self.optimizer.state[self.model.weight]["momentum_buffer"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def run(folder, cfg):
    """A run that has saved model_first after 3 steps and model_last after 5."""
    run = Run(folder, cfg)
    run.step(3)
    run.checkpointer.save("model_first")
    run.step(2)
    run.checkpointer.save("model_last")
    return run


@pytest.fixture
def foreign_cwd(tmp_path, monkeypatch):
    """A working directory with a last_checkpoint of somebody else's."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    torch.save({"model": nn.Linear(4, 1).state_dict()}, elsewhere / "model_foreign.pth")
    (elsewhere / "last_checkpoint").write_text("model_foreign.pth")
    monkeypatch.chdir(elsewhere)
    return elsewhere


def read_report(folder: Path) -> dict:
    return json.loads((folder / "load_report.json").read_text())


def test_foreign_weights_leave_a_report_in_the_run_folder_and_the_log(
    fpn, folder, save, cfg, backbone_tensors, caplog
):
    path = save(virtex_training_file(backbone_tensors))
    checkpointer = TransferCheckpointer(fpn(), str(folder), cfg=cfg)
    with caplog.at_level(logging.INFO):
        rest = checkpointer.load(path)
    report = read_report(folder)
    assert report["format"] == "virtex" and report["path"] == path and len(report["loaded"]) == 318
    assert report["sha256"] == checkpointer.report.sha256
    assert "res5" in caplog.text and "virtex" in caplog.text
    assert rest == {}


def test_a_worker_other_than_the_first_writes_no_report(fpn, folder, save, backbone_tensors):
    checkpointer = TransferCheckpointer(fpn(), str(folder), save_to_disk=False)
    checkpointer.load(save(torchvision_tensors(backbone_tensors)))
    assert checkpointer.report.loaded and not folder.exists()


def test_a_refused_file_leaves_no_report(fpn, folder, save, backbone_tensors):
    checkpointer = TransferCheckpointer(fpn(DEPTH=101), str(folder))
    with pytest.raises(UserError):
        checkpointer.load(save(torchvision_tensors(backbone_tensors)))
    assert checkpointer.report is None and not folder.exists()


def test_a_partial_load_must_be_allowed(fpn, folder, save, backbone_tensors):
    path = save(torchvision_tensors(backbone_tensors))
    checkpointer = TransferCheckpointer(fpn(DEPTH=101), str(folder), allow_partial=True)
    checkpointer.load(path)
    assert read_report(folder)["partial"]


def test_a_config_that_contradicts_the_weights_is_refused(fpn, save, cfg, backbone_tensors):
    bgr = cfg.clone()
    bgr.INPUT.FORMAT = "BGR"
    with pytest.raises(UserError, match="INPUT.FORMAT"):
        TransferCheckpointer(fpn(), cfg=bgr).load(save(torchvision_tensors(backbone_tensors)))


def test_no_weights_are_random_init(fpn, folder, caplog):
    model = fpn()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level(logging.INFO):
        TransferCheckpointer(model, str(folder)).resume_or_load("", resume=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert read_report(folder)["format"] == "random init"
    assert "random" in caplog.text


def test_a_pretrained_text_encoder_is_named_by_its_runs_and_by_what_starts_from_them(
    tmp_path, pretraining
):
    model = pretraining()
    model.text_encoder = nn.Identity()
    model.text_encoder.name = "MiniLM"
    first = TransferCheckpointer(model, str(tmp_path / "first"))
    first.load("")
    first.save("model_final")
    assert read_report(tmp_path / "first")["text_encoder"] == "MiniLM"
    second = TransferCheckpointer(pretraining(), str(tmp_path / "second"))
    rest = second.load(str(tmp_path / "first" / "model_final.pth"))
    assert second.report.text_encoder == "MiniLM"
    assert "text encoder: MiniLM" in second.report.table() and rest == {}


def test_no_weights_cannot_be_evaluated(fpn):
    with pytest.raises(UserError, match="MODEL.WEIGHTS"):
        TransferCheckpointer(fpn(), require="model").load("")


def test_other_values_of_an_own_file_are_returned(pretraining, save, backbone_tensors):
    rest = TransferCheckpointer(pretraining(), require="model").load(
        save(own_pretraining(backbone_tensors))
    )
    assert rest == {"iteration": 9}


def test_only_weights_are_loaded_from_a_file_with_a_trainer(
    folder, pretraining, save, cfg, backbone_tensors
):
    run = Run(folder, cfg)
    checkpointer = TransferCheckpointer(pretraining(), str(folder), trainer=run.trainer)
    content = own_pretraining(backbone_tensors) | {"trainer": {"iteration": 70}}
    checkpointer.resume_or_load(save(content), resume=False)
    assert run.trainer.iter == 0


def test_resuming_restores_weights_momentum_learning_rate_and_iteration(run, folder, cfg):
    resumed = Run(folder, cfg)
    resumed.checkpointer.resume_or_load("never/read.pth", resume=True)
    assert torch.equal(resumed.model.weight, run.model.weight)
    assert torch.equal(resumed.momentum, run.momentum)
    assert (
        resumed.optimizer.param_groups[0]["lr"]
        == run.optimizer.param_groups[0]["lr"]
        != Run(folder, cfg).optimizer.param_groups[0]["lr"]
    )
    assert resumed.scheduler.last_epoch == 5 and resumed.trainer.iter == 5
    for each in (run, resumed):
        each.step(2)
    assert torch.equal(resumed.model.weight, run.model.weight)


def test_resuming_returns_other_saved_values(run, folder, cfg):
    run.checkpointer.save("model_more", iteration=5)
    assert Run(folder, cfg).checkpointer.resume() == {"iteration": 5}


def test_resuming_keeps_the_report_of_the_initial_weights(folder, cfg, run):
    (folder / "load_report.json").write_text("{}")
    resumed = Run(folder, cfg)
    resumed.checkpointer.resume_or_load("")
    assert read_report(folder) == {}
    assert resumed.checkpointer.report.format == "own checkpoint"


def test_without_resume_the_runs_own_checkpoint_is_ignored(
    run, folder, pretraining, save, backbone_tensors
):
    TransferCheckpointer(pretraining(), str(folder)).resume_or_load(
        save(own_pretraining(backbone_tensors)), resume=False
    )
    assert read_report(folder)["format"] == "virtex_det_pretraining"


def test_without_a_checkpoint_to_resume_from_the_run_starts_from_its_weights(
    folder, pretraining, save, backbone_tensors, caplog
):
    checkpointer = TransferCheckpointer(pretraining(), str(folder))
    checkpointer.resume_or_load(save(own_pretraining(backbone_tensors)), resume=True)
    assert checkpointer.report.format == "virtex_det_pretraining"
    assert "No checkpoint to resume" in caplog.text


@pytest.mark.parametrize("save_dir", ["", "run"])
def test_a_last_checkpoint_in_the_working_directory_is_ignored(foreign_cwd, cfg, save_dir):
    checkpointer = TransferCheckpointer(nn.Linear(4, 1), save_dir)
    assert not checkpointer.has_checkpoint() and checkpointer.get_checkpoint_file() == ""
    checkpointer.resume_or_load("", resume=True)
    assert checkpointer.report.format == "random init"


@pytest.mark.parametrize(
    "name", ["{elsewhere}/model_foreign.pth", "../elsewhere/model_foreign.pth"]
)
def test_a_last_checkpoint_that_points_elsewhere_is_refused(foreign_cwd, run, folder, cfg, name):
    (folder / "last_checkpoint").write_text(name.format(elsewhere=foreign_cwd))
    with pytest.raises(UserError, match="not a file in this folder"):
        Run(folder, cfg).checkpointer.resume_or_load("")


@pytest.mark.parametrize("tag", ["model_gone.pth", ""])
def test_the_error_for_a_missing_last_checkpoint_names_the_others(run, folder, cfg, tag):
    (folder / "last_checkpoint").write_text(tag)
    with pytest.raises(UserError, match="model_first.pth, model_last.pth"):
        Run(folder, cfg).checkpointer.resume_or_load("")


def test_the_error_for_a_truncated_last_checkpoint_names_the_others(run, folder, cfg):
    last = folder / "model_last.pth"
    last.write_bytes(last.read_bytes()[:-200])
    with pytest.raises(UserError, match="cut short") as caught:
        Run(folder, cfg).checkpointer.resume_or_load("")
    assert "Other checkpoints there: model_first.pth." in str(caught.value)


def test_the_advice_to_resume_from_another_checkpoint_works(run, folder, cfg):
    (folder / "model_last.pth").unlink()
    (folder / "last_checkpoint").write_text("model_first.pth")
    resumed = Run(folder, cfg)
    resumed.checkpointer.resume_or_load("")
    assert resumed.trainer.iter == 3


def test_resuming_another_model_changes_nothing(run, folder, cfg):
    other = Run(folder, cfg, features=7)
    before = other.model.weight.clone()
    with pytest.raises(UserError, match="does not fill the whole model"):
        other.checkpointer.resume_or_load("")
    assert torch.equal(other.model.weight, before) and other.trainer.iter == 0


def test_resuming_from_weights_without_a_trainer_is_refused(run, folder, cfg):
    torch.save({"model": run.model.state_dict()}, folder / "model_last.pth")
    with pytest.raises(UserError, match="has no trainer"):
        Run(folder, cfg).checkpointer.resume_or_load("")


def test_resuming_with_another_optimizer_is_refused(run, folder, cfg):
    other = Run(folder, cfg)
    other.trainer.optimizer = torch.optim.SGD([other.model.weight], lr=1)
    with pytest.raises(UserError, match="state of 'trainer'"):
        other.checkpointer.resume_or_load("")


def test_resumed_values_do_not_change_with_the_file(run, folder, cfg):
    resumed = Run(folder, cfg)
    resumed.checkpointer.resume_or_load("")
    size = (folder / "model_last.pth").stat().st_size
    (folder / "model_last.pth").write_bytes(bytes(size))
    assert torch.equal(resumed.momentum, run.momentum)


def test_a_whole_detector_is_resumed_with_its_heads(c4, folder):
    saved, resumed = c4(extra_norm=True), c4(extra_norm=True)
    TransferCheckpointer(saved, str(folder)).save("model_0000009")
    TransferCheckpointer(resumed, str(folder)).resume_or_load("")
    for name, value in saved.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_a_model_in_data_parallel_is_saved_without_it(fpn, folder):
    model = fpn()
    TransferCheckpointer(nn.DataParallel(model), str(folder)).save("model")
    assert set(torch.load(folder / "model.pth", weights_only=True)["model"]) == set(
        model.state_dict()
    )


def test_a_checkpoint_has_only_tensors_and_plain_values(run, folder):
    content = torch.load(folder / "model_last.pth", weights_only=True)
    assert set(content) == {"model", "trainer"}
    assert set(content["trainer"]) == {"iteration", "hooks", "optimizer"}


def test_a_value_that_cannot_be_read_back_is_refused_when_saving(run, folder):
    with pytest.raises(TypeError, match="numpy"):
        run.checkpointer.save("model_bad", best=np.float64(3))
    assert last_good(folder) == "model_last.pth"


def last_good(folder: Path) -> str:
    """The last checkpoint, seen to be readable, in a folder without half-written files."""
    assert {path.name for path in folder.iterdir()} == {
        "model_first.pth",
        "model_last.pth",
        "last_checkpoint",
    }
    name = (folder / "last_checkpoint").read_text()
    assert torch.load(folder / name, weights_only=True)["trainer"]["iteration"] == 5
    return name


@pytest.mark.parametrize("name", ["model_next", "model_last"])
def test_an_interrupted_save_keeps_the_previous_checkpoint(run, folder, monkeypatch, name):
    def break_off(data, path):
        Path(path).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(UserError, match="No space left on device.*model_last.pth is untouched"):
        run.checkpointer.save(name)
    monkeypatch.undo()
    assert last_good(folder) == "model_last.pth"


@pytest.fixture
def full_disk():
    """Lets no file grow beyond a kilobyte, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_previous_checkpoint(run, folder, full_disk):
    with pytest.raises(UserError, match="Cannot save checkpoint"):
        run.checkpointer.save("model_next")
    assert last_good(folder) == "model_last.pth"


def test_a_checkpointer_that_only_loads_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TransferCheckpointer(nn.Linear(1, 1)).save("model")
    TransferCheckpointer(nn.Linear(1, 1), "run", save_to_disk=False).save("model")
    assert list(tmp_path.iterdir()) == []


class Captioner(nn.Module):
    """A model with a word embedding."""

    def __init__(self, words: int = 6) -> None:
        super().__init__()
        self.textual = nn.ModuleDict(
            {"embedding": nn.ModuleDict({"words": nn.Embedding(words, 2)})}
        )


@pytest.fixture
def with_tokenizer(cfg, tmp_path):
    """Makes configs that name a tokenizer file of some content."""

    def make(content: bytes) -> CfgNode:
        path = tmp_path / "tokenizer.model"
        path.write_bytes(content)
        made = cfg.clone()
        made.INPUT.CAPTION.TOKENIZER = str(path)
        return made

    return make


@pytest.fixture
def captioner_file(with_tokenizer, folder):
    TransferCheckpointer(Captioner(), str(folder), cfg=with_tokenizer(b"one")).save("model_final")
    return str(folder / "model_final.pth")


def test_a_checkpoint_has_the_hash_of_its_tokenizer(captioner_file):
    saved = torch.load(captioner_file, weights_only=True)["tokenizer_sha256"]
    assert saved == hashlib.sha256(b"one").hexdigest()


def test_a_detectors_checkpoint_has_no_tokenizer(folder, cfg):
    TransferCheckpointer(nn.Linear(1, 1), str(folder), cfg=cfg).save("model")
    assert set(torch.load(folder / "model.pth", weights_only=True)) == {
        "model",
        "pixels",
        "network",
    }


def test_the_hash_is_that_of_the_file_at_the_start_of_training(with_tokenizer, folder):
    checkpointer = TransferCheckpointer(Captioner(), str(folder), cfg=with_tokenizer(b"one"))
    with_tokenizer(b"two")
    checkpointer.save("model")
    saved = torch.load(folder / "model.pth", weights_only=True)["tokenizer_sha256"]
    assert saved == hashlib.sha256(b"one").hexdigest()


def test_a_whole_model_is_loaded_with_its_own_tokenizer(
    with_tokenizer, pretraining, backbone_tensors, save, cfg
):
    content = own_pretraining(backbone_tensors) | {
        "tokenizer_sha256": hashlib.sha256(b"one").hexdigest()
    }
    cfg = with_tokenizer(b"one")
    assert TransferCheckpointer(pretraining(), cfg=cfg, require="model").load(save(content)) == {
        "iteration": 9
    }
    with pytest.raises(UserError, match="another vocabulary than INPUT.CAPTION.TOKENIZER"):
        TransferCheckpointer(pretraining(), cfg=with_tokenizer(b"two"), require="model").load(
            save(content)
        )


@pytest.mark.parametrize("key", ["CONCEPTS", "CLUSTERS"])
@pytest.mark.parametrize("resumes", [True, False])
def test_a_model_with_other_concepts_or_clusters_is_refused(key, resumes, cfg, folder):
    folder.mkdir()
    path = folder / "chosen.json"
    cfg.INPUT.CAPTION[key] = str(path)
    path.write_text("the first")
    TransferCheckpointer(Captioner(), str(folder), cfg=cfg).save("model_final")
    TransferCheckpointer(Captioner(), str(folder), cfg=cfg).resume()
    path.write_text("another")
    checkpointer = TransferCheckpointer(Captioner(), str(folder), cfg=cfg, require="model")
    with pytest.raises(UserError, match=rf"another file than INPUT.CAPTION.{key} .*chosen.json"):
        if resumes:
            checkpointer.resume()
        else:
            checkpointer.load(str(folder / "model_final.pth"))
    path.unlink()  # a missing file is not compared
    TransferCheckpointer(Captioner(), str(folder), cfg=cfg).resume()


def test_the_vocabulary_of_a_berts_folder_has_a_hash_too(with_tokenizer, folder):
    folder.mkdir()
    cfg = with_tokenizer(b"")
    cfg.INPUT.CAPTION.TOKENIZER = str(folder)
    (folder / "vocab.txt").write_text("one")
    TransferCheckpointer(Captioner(), str(folder), cfg=cfg).save("model_final")
    (folder / "vocab.txt").write_text("two")
    with pytest.raises(UserError, match="another vocabulary than INPUT.CAPTION.TOKENIZER"):
        TransferCheckpointer(Captioner(), str(folder), cfg=cfg).resume()


def test_a_backbone_is_loaded_with_any_tokenizer(
    with_tokenizer, pretraining, backbone_tensors, save
):
    content = own_pretraining(backbone_tensors) | {"tokenizer_sha256": "of another"}
    checkpointer = TransferCheckpointer(pretraining(), cfg=with_tokenizer(b"two"))
    checkpointer.load(save(content), checkpointables=[])
    assert checkpointer.report.loaded


def test_another_tokenizer_is_refused_before_anything_is_loaded(captioner_file, with_tokenizer):
    model = Captioner()
    before = model.textual["embedding"]["words"].weight.clone()
    with pytest.raises(UserError, match=r"vocabulary\.model in the folder of the run"):
        TransferCheckpointer(model, cfg=with_tokenizer(b"two"), require="model").load(
            captioner_file
        )
    assert torch.equal(model.textual["embedding"]["words"].weight, before)


def test_a_vocabulary_of_another_size_is_refused_with_both_sizes_on_one_screen(
    captioner_file, with_tokenizer
):
    checkpointer = TransferCheckpointer(Captioner(8), cfg=with_tokenizer(b"two"), require="model")
    with pytest.raises(UserError, match="6 pieces(?s:.*)8 pieces") as error:
        checkpointer.load(captioner_file)
    assert len(str(error.value).splitlines()) < 10


def test_a_vocabulary_of_another_size_is_refused_with_both_sizes_by_a_file_without_a_hash(
    pretraining, backbone_tensors, save, cfg
):
    content = own_pretraining(backbone_tensors)
    content["model"]["textual.embedding.words.weight"] = torch.zeros(6, 2)
    model = pretraining()
    model.textual = Captioner(8).textual
    with pytest.raises(
        UserError, match=r"embedding\.words\.weight \[6, 2\] in the file, \[8, 2\] in the model"
    ) as error:
        TransferCheckpointer(model, cfg=cfg, require="model").load(save(content))
    assert len(str(error.value).splitlines()) < 20


def test_a_run_is_not_resumed_with_another_tokenizer(with_tokenizer, folder):
    TransferCheckpointer(Captioner(), str(folder), cfg=with_tokenizer(b"one")).save("model_last")
    assert TransferCheckpointer(Captioner(), str(folder), cfg=with_tokenizer(b"one")).resume() == {}
    with pytest.raises(UserError, match="Cannot resume(?s:.*)another vocabulary"):
        TransferCheckpointer(Captioner(), str(folder), cfg=with_tokenizer(b"two")).resume()


def test_a_checkpoint_without_a_hash_is_loaded(with_tokenizer, folder):
    TransferCheckpointer(Captioner(), str(folder)).save("model_last")
    assert TransferCheckpointer(Captioner(), str(folder), cfg=with_tokenizer(b"two")).resume() == {}


def test_a_missing_tokenizer_is_not_compared(captioner_file, with_tokenizer, folder):
    cfg = with_tokenizer(b"one")
    cfg.INPUT.CAPTION.TOKENIZER = "nowhere.model"
    assert TransferCheckpointer(Captioner(), str(folder), cfg=cfg).resume() == {}


@pytest.mark.parametrize(("freeze_at", "warned"), [(0, False), (2, True)])
def test_frozen_layers_at_random_init_give_a_warning(pretraining, cfg, caplog, freeze_at, warned):
    frozen = cfg.clone()
    frozen.MODEL.BACKBONE.FREEZE_AT = freeze_at
    with caplog.at_level(logging.WARNING):
        TransferCheckpointer(pretraining(), cfg=frozen).load("")
    assert ("freezes layers at random init" in caplog.text) == warned


def test_a_model_is_evaluated_although_the_prefix_is_that_of_its_initial_weights(
    pretraining, cfg, save, backbone_tensors
):
    began = cfg.clone()
    began.MODEL.WEIGHTS_PREFIX, began.MODEL.WEIGHTS_FORMAT = "encoder_k.", "moco"
    TransferCheckpointer(pretraining(), cfg=began, require="model").load(
        save(own_pretraining(backbone_tensors))
    )


def test_a_prefix_chooses_which_of_two_trained_models_is_evaluated(
    pretraining, cfg, save, backbone_tensors
):
    one = own_pretraining(backbone_tensors)["model"]
    both = {f"teacher.{n}": v for n, v in one.items()} | {
        f"student.{n}": v + 1 for n, v in one.items()
    }
    chosen, model = cfg.clone(), pretraining()
    with pytest.raises(UserError, match="teacher.backbone.(?s:.*)student.backbone."):
        TransferCheckpointer(model, cfg=chosen, require="model").load(save({"model": both}))
    chosen.MODEL.WEIGHTS_PREFIX = "teacher"
    TransferCheckpointer(model, cfg=chosen, require="model").load(save({"model": both}))
    assert all(torch.equal(value, one[name]) for name, value in model.state_dict().items())
