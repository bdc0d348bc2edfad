import errno
from pathlib import Path

import pytest
import torch

from virtex_det.engine import Trainer, with_one_screen_errors
from virtex_det.engine.explain import building, explain
from virtex_det.errors import UserError


def end(function, capsys):
    """Run a function as a command and return its message."""
    with pytest.raises(SystemExit) as stopped:
        with_one_screen_errors(function)
    assert stopped.value.code == 1
    message = capsys.readouterr().err
    assert (
        message.startswith("\nerror: ")
        and "Traceback" not in message
        and len(message.splitlines()) < 15
    )
    return message


def test_a_training_that_diverges_says_when_at_which_rate_and_what_helps(pretraining_cfg, capsys):
    cfg = pretraining_cfg("SOLVER.BASE_LR", 1e30, "SOLVER.CLIP_GRADIENTS.ENABLED", False)
    trainer = Trainer(cfg)
    trainer.checkpointer.save("model_0000000")
    message = end(trainer.train, capsys)
    assert "Training has diverged. Loss became infinite or NaN at iteration=" in message
    for part in (
        "loss_dict",
        "learning rate was",
        "SOLVER.BASE_LR 1e+30",
        "CLIP_GRADIENTS",
        "WARMUP_ITERS",
        "AMP",
    ):
        assert part in message
    assert f"The last checkpoint is {cfg.OUTPUT_DIR}/model_0000000.pth" in message


def test_a_config_that_nothing_can_be_built_from_is_one_screen_and_the_traceback_goes_to_the_log(
    detector_cfg, tmp_path, capsys
):
    (tmp_path / "run").mkdir()
    log = tmp_path / "run/log.txt"
    log.write_text("before\n")
    cfg = detector_cfg(
        "MODEL.FPN.NORM", "GN", "MODEL.FPN.OUT_CHANNELS", 17
    )  # 32 groups of 17 channels
    message = end(lambda: Trainer(cfg), capsys)
    assert "The model does not work with this config: ValueError" in message
    assert (
        "MODEL.BACKBONE.NAME build_caption_resnet_fpn_backbone" in message and str(log) in message
    )
    assert log.read_text().startswith("before\nTraceback") and "num_channels" in log.read_text()


def test_without_a_log_the_message_names_the_variable_that_shows_the_traceback(
    detector_cfg, capsys, monkeypatch
):
    def fail():
        with building("model", detector_cfg(), "MODEL.DEVICE"):
            raise ZeroDivisionError("by nothing")

    assert "VIRTEX_DET_TRACEBACK=1" in end(fail, capsys)
    monkeypatch.setenv("VIRTEX_DET_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        with_one_screen_errors(fail)
    shown = capsys.readouterr().err
    assert (
        "ZeroDivisionError: by nothing" in shown
        and "Traceback" in shown
        and "\nerror: The model" in shown
    )


def test_what_a_user_can_mend_passes_through_as_it_is(detector_cfg):
    with (
        pytest.raises(UserError, match="^this$"),
        building("model", detector_cfg(), "MODEL.DEVICE"),
    ):
        raise UserError("this")
    with pytest.raises(PermissionError), building("model", detector_cfg(), "MODEL.DEVICE"):
        raise PermissionError(errno.EACCES, "no")


WORDS = [
    (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        ("memory", "IMS_PER_BATCH", "nvidia-smi"),
    ),
    (RuntimeError("CUDA error: out of memory\nCompile with ..."), ("memory", "IMS_PER_BATCH")),
    (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 4e9"),
        ("memory is full", "NUM_WORKERS"),
    ),
    (MemoryError(), ("memory is full",)),
    (RuntimeError("DataLoader worker (pid(s) 71) exited unexpectedly"), ("shm", "NUM_WORKERS")),
    (
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is"),
        ("shm", "Bus error"),
    ),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), ("dmesg",)),
    (RuntimeError("unable to open shared memory object </torch_1> in read-write mode"), ("shm",)),
    (RuntimeError("CUDA error: device-side assert triggered"), ("NUM_CLASSES", "MODEL.DEVICE cpu")),
    (RuntimeError("The server socket has failed to listen ... EADDRINUSE"), ("--dist-url", "port")),
    (
        FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged."),
        ("BASE_LR", "diverged"),
    ),
    (FileNotFoundError(errno.ENOENT, "No such file", "/proc/x"), ("/proc/x", "Check the path")),
    (OSError(errno.ENOSPC, "No space left on device", "a.pth"), ("a.pth", "No space left")),
    (OSError(errno.EMFILE, "Too many open files"), ("ulimit",)),
]


@pytest.mark.parametrize(("error", "words"), WORDS, ids=lambda value: type(value).__name__)
def test_what_pytorch_and_the_machine_raise_has_words_of_its_own(error, words):
    message = explain(error)
    assert all(word in message for word in words) and len(message.splitlines()) < 8


@pytest.mark.parametrize(
    "error",
    [
        KeyError("area"),
        RuntimeError("mat1 and mat2"),
        ZeroDivisionError(),
        None,
        FileNotFoundError(2, "no", "a"),
    ],
)
def test_what_only_we_can_mend_has_none(error):
    assert explain(error) is None


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
def test_an_output_folder_of_the_kernels_is_one_message(capsys):
    assert "/proc/x" in end(Path("/proc/x").mkdir, capsys)
