"""Detectron2's DefaultTrainer with complete loads, exact resume, records and CPU processes."""

import itertools
import logging
import math
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from detectron2.config import CfgNode
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    hooks,
)
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, TensorboardXWriter
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from virtex_det.checkpoint import TransferCheckpointer
from virtex_det.config import with_options
from virtex_det.config.data_names import short_names
from virtex_det.config.precision import computes_in_bfloat16, scales_losses
from virtex_det.data.build import build_test_loader, build_train_loader, lending_images
from virtex_det.data.classes import compare_classes, training_classes
from virtex_det.data.datasets import dataset_version
from virtex_det.data.seeding import seed_process
from virtex_det.engine.cost import CostCounter
from virtex_det.engine.explain import MODEL_KEYS, building, diverged
from virtex_det.engine.hooks import (
    BrokenImages,
    EvalHook,
    Numbers,
    PeriodicCheckpointer,
    PeriodicWriter,
    PreciseBN,
    StopOnSignal,
    share_buffers,
)
from virtex_det.engine.metrics_file import MetricsWriter, Recent, recent, restore
from virtex_det.engine.origin import Origin, follow_origin, schedule_departures, schedule_of
from virtex_det.engine.preflight import check_training
from virtex_det.engine.progress import EvaluationBatches, FirstSteps
from virtex_det.engine.results import (
    cut_records,
    recorded_results,
    warn_of_lost_records,
    write_records,
)
from virtex_det.engine.run_folder import keep_classes, keep_config, keep_files
from virtex_det.engine.trained_config import as_trained
from virtex_det.engine.training_state import check_optimizer, check_training_state
from virtex_det.engine.watchdog import watching_each_other
from virtex_det.errors import UserError
from virtex_det.evaluation import build_evaluator
from virtex_det.evaluation.detection.box_masks import UnpastedMasks
from virtex_det.evaluation.detection.evaluator import DetectionEvaluator
from virtex_det.modeling import build_model
from virtex_det.signals import StopLater, Stopped, command
from virtex_det.solver import build_optimizer
from virtex_det.utils import folder_name

logger = logging.getLogger(__name__)

_LOG_PERIOD = 20  # iterations between two lines of metrics.json, and of the log


class Trainer(DefaultTrainer):
    """Trains any registered meta-architecture, pretraining model or detector, from a config.

    It is a DefaultTrainer in all but construction: DefaultTrainer's own ``__init__`` hands GPU ids
    to DDP (so that several CPU processes cannot run) and builds a checkpointer that loads whatever
    part of a file happens to fit.

    The order of construction matters: DDP gives every rank the weights of rank 0, random ones
    included, and afterwards all ranks load the same file. So all ranks are equal before the first
    step.

    A run that was killed and resumed gives the same results as an uninterrupted one: the loader
    continues at the next batch, each step has a seed of its own (see ``seed_process``), and a
    checkpoint holds what the log's next lines depend on. Evaluation and log come after the
    checkpoint of their step; if a kill prevents them, the resumed run makes up for it.

    Example:
        >>> trainer = Trainer(cfg)
        >>> trainer.resume_or_load(resume=False)
        >>> results = trainer.train()
    """

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)
        self.started = time.monotonic()
        self.training_seconds = 0.0
        self.draws_seed = cfg.SEED < 0
        self.cfg = cfg = as_trained(cfg)
        self.recent: Recent = {}
        self.origin: Origin = {}
        self.schedule_changes: list[int] = []
        self.evaluations: list[int] = []  # number of iterations done before each
        self.stop = StopLater("training ends after this step; a second Ctrl-C ends it at once")
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.results: dict[str, Any] | None = None
        self.cost = CostCounter(cfg)
        self._check()

        model = self.build_model(cfg)
        with building(
            "optimizer", cfg, "SOLVER.OPTIMIZER", "SOLVER.LR_SCHEDULER_NAME", "SOLVER.STEPS"
        ):
            optimizer = self.build_optimizer(cfg, model)
            self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        # train() loads the data: only then is the sampler's first iteration known.
        trainer = AMPTrainer if scales_losses(cfg) else SimpleTrainer
        self.step_trainer = trainer(distribute(model), (), optimizer)
        self.checkpointer = TransferCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            cfg=cfg,
            allow_partial=cfg.MODEL.ALLOW_PARTIAL_WEIGHTS,
            trainer=weakref.proxy(self),
        )
        self.register_hooks(self.build_hooks())

    def train(self) -> dict[str, Any] | None:
        """Train from ``start_iter`` to ``SOLVER.MAX_ITER``.

        Returns:
            The last evaluation's results; None if ``DATASETS.TEST`` is empty.
        """
        self.step_trainer.data_loader = SeededSteps(
            self.build_train_loader(self.cfg, self.start_iter), self.cfg.SEED, self.start_iter
        )
        self._keep_classes()
        self.origin = follow_origin(self.cfg, self.origin)
        if comm.is_main_process():
            keep_config(self.cfg)
            keep_files(self.cfg)  # a resumed run gets back the copies that its folder has lost
        with self.stop.watching(), watching_each_other(self.cfg.SOLVER.PROCESS_TIMEOUT):
            TrainerBase.train(self, self.start_iter, self.max_iter)
        if self.cfg.TEST.EXPECTED_RESULTS and comm.is_main_process():
            verify_results(self.cfg, self.results)
        return self.results

    # DefaultTrainer reads these from its own attributes.
    @property
    def model(self) -> nn.Module:
        """The model in training, wrapped by DDP when there are several processes."""
        return self.step_trainer.model

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of ``model``."""
        return self.step_trainer.optimizer

    @property
    def data_loader(self) -> Iterable:
        """The endless loader of training batches."""
        return self.step_trainer.data_loader

    def run_step(self) -> None:
        started = time.perf_counter()
        self.step_trainer.iter = self.iter
        try:
            # TorchScript, as in RetinaNet's focal loss, uses other kernels from its third call on.
            with self._first_step_explained(), torch.jit.optimized_execution(False):
                self.step_trainer.run_step()
        except FloatingPointError as error:
            raise diverged(error, self.optimizer, self.cfg) from error
        self.training_seconds += time.perf_counter() - started

    def _first_step_explained(self) -> AbstractContextManager[None]:
        """Explain errors of the first step, in which parts that do not fit together fail."""
        if self.iter != self.start_iter:
            return nullcontext()
        return building("first step", self.cfg, *MODEL_KEYS, "DATALOADER.MAPPER")

    def end(self, number: int, is_saved: bool = True) -> NoReturn:
        """End between two steps because of a signal; see SOLVER.CHECKPOINT_ON_SIGNAL.

        Args:
            number: of the signal.
            is_saved: at the last step: whether its checkpoint is written.

        Raises:
            Stopped: always; says what was saved and how to go on.
        """
        self._save_steps(is_saved)
        done = min(self.iter + 1, self.max_iter)
        last = self.checkpointer.get_checkpoint_file() or "none"
        state = f"{done} of {self.max_iter} iterations are done, the last checkpoint is {last}"
        raise Stopped(number, f"{state}. To go on: {command('--resume')}")

    def _save_steps(self, last_is_saved: bool = True) -> None:
        """Save the steps since the start or the resume, if SOLVER.CHECKPOINT_ON_SIGNAL."""
        end = self.max_iter - 1 if last_is_saved else self.max_iter
        if self.cfg.SOLVER.CHECKPOINT_ON_SIGNAL and self.start_iter <= self.iter < end:
            self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)

    def before_train(self) -> None:
        restore(self.storage, self.recent)
        if comm.is_main_process():
            cut_records(self.cfg, self.start_iter)
            warn_of_lost_records(self.cfg, self.evaluations)
        super().before_train()

    def after_train(self) -> None:
        # In a resumed complete run the iteration is beyond the last one.
        self.iter: int = min(self.iter, self.max_iter)
        super().after_train()

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step and the next line of the log depend on, except the model.

        That is the iteration, the state of the hooks, the seconds of training by the clock and of
        the processors, the seed, the last logged values, the optimizer (in ``step``) and, with AMP,
        the gradient scaler.
        """
        return TrainerBase.state_dict(self) | {
            "step": self.step_trainer.state_dict(),
            "training_seconds": self.training_seconds,
            "cpu_seconds": self.cost.cpu_seconds,
            "seed": self.cfg.SEED,
            "recent": recent(self.storage) if hasattr(self, "storage") else {},
            "origin": self.origin,
            "schedule": schedule_of(self.cfg),
            "schedule_changes": self.schedule_changes,
            "evaluations": self.evaluations,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        check_training_state(state_dict)
        seed = state_dict.get("seed", self.cfg.SEED)
        if seed != self.cfg.SEED and not self.draws_seed:
            raise UserError(
                f"The checkpoint is of another run: its SEED is {seed}, and this run has SEED "
                f"{self.cfg.SEED}.\nPut the run's own checkpoint in its place."
            )
        TrainerBase.load_state_dict(self, state_dict)
        self.step_trainer.load_state_dict(state_dict["step"])
        check_optimizer(self.optimizer)
        # Checkpoints of earlier versions have fewer entries.
        self.training_seconds = state_dict.get("training_seconds", math.nan)
        self.cost.resume(state_dict.get("cpu_seconds", math.nan))
        self.recent = state_dict.get("recent", {})
        self.origin = state_dict.get("origin", {})
        self.evaluations = list(state_dict.get("evaluations", ()))
        self.cfg = with_options(self.cfg, ["SEED", seed])
        self._follow_schedule(state_dict)

    def _follow_schedule(self, state_dict: dict[str, Any]) -> None:
        """Apply a schedule that differs from the checkpoint's, and note it for the records."""
        done = self.iter + 1
        if done > self.max_iter:
            raise UserError(
                f"The run has done {done} iterations, and SOLVER.MAX_ITER is {self.max_iter}.\n"
                f"Set at least SOLVER.MAX_ITER {done}; to evaluate the last checkpoint, use "
                "--eval-only --resume."
            )
        self.schedule_changes = list(state_dict.get("schedule_changes", ()))
        began = state_dict.get("schedule")
        if began in (None, schedule_of(self.cfg)):
            return
        logger.warning(
            "The schedule changes after %d iterations: %s, now %s",
            done,
            began,
            schedule_of(self.cfg),
        )
        self.schedule_changes.append(done)
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.get_lr(), strict=True):
            group["lr"] = rate

    def build_hooks(self) -> list[hooks.HookBase]:
        cfg = self.cfg
        on_main = comm.is_main_process()
        numbers = Numbers(self.checkpointer.model)
        # Without warm-up the first line after a resume has a time, too.
        timer = hooks.IterationTimer(warmup_iter=0)
        found: list[hooks.HookBase] = [self.cost, timer, hooks.LRScheduler()]
        if cfg.TEST.PRECISE_BN.ENABLED:
            found.append(self._build_precise_bn(numbers))
        found.append(numbers)
        if on_main:
            found.append(PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
        found.append(BrokenImages(cfg.OUTPUT_DIR))
        if on_main:
            found.append(FirstSteps(period=_LOG_PERIOD))
        if cfg.DATASETS.TEST:
            found.append(EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate))
        if on_main:  # after the evaluation, whose results it writes
            found.append(PeriodicWriter(self.build_writers(), period=_LOG_PERIOD))
        found.append(StopOnSignal())
        return found

    def build_writers(self) -> list[EventWriter]:
        folder = Path(self.cfg.OUTPUT_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        return [
            CommonMetricPrinter(self.max_iter),
            MetricsWriter(folder / "metrics.json"),
            TensorboardXWriter(str(folder)),
        ]

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Return the model of ``cfg`` with the faster kernels that the config allows."""
        with building("model", cfg, *MODEL_KEYS):
            return build_model(cfg)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start_iter: int = 0) -> Iterable:
        with building(
            "training data", cfg, "DATASETS.TRAIN", "DATALOADER.MAPPER", "DATALOADER.SAMPLER_TRAIN"
        ):
            return build_train_loader(cfg, start_iter=start_iter)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable:
        with building("evaluation data", cfg, "DATASETS.TEST", "DATALOADER.MAPPER"):
            loader = build_test_loader(cfg, dataset_name, cfg.DATALOADER.TEST_BATCH_SIZE)
        return EvaluationBatches(loader, f"evaluation on {dataset_name}")

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        if cfg.TEST.METRICS_LIBRARY == "reference":
            # Before the evaluator: Detectron2's own write a data set without a file to a dated one,
            # and name that in the metadata.
            dataset_version(dataset_name)
        short = short_names([dataset_name, *cfg.DATASETS.TEST])[dataset_name]
        folder = Path(cfg.OUTPUT_DIR) / "inference" / folder_name(short)
        with building("evaluator", cfg, "DATASETS.TEST", "TEST.METRICS_LIBRARY"):
            return build_evaluator(cfg, dataset_name, str(folder))

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate a model on ``DATASETS.TEST``; a DetectionEvaluator gets masks before pasting.

        Args:
            cfg: the run's config.
            model: wrapped by DDP or not.
            evaluators: one per dataset; by default those of :meth:`build_evaluator`.

        Returns:
            Metrics by task; by dataset and task if there are several datasets.
        """
        if evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        elif isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        # A model may draw in evaluation, as for sampled captions; that depends on the seed alone.
        seed_process(cfg.SEED, "evaluation", comm.get_rank())
        if all(isinstance(evaluator, DetectionEvaluator) for evaluator in evaluators):
            model = UnpastedMasks.of(model, computes_in_bfloat16(cfg))
        return super().test(cfg, model, evaluators)

    def _check(self) -> None:
        """Run the pre-flight checks, except those of methods that a subclass overrides."""

        def is_own(method: str) -> bool:
            return getattr(type(self), method).__func__ is getattr(Trainer, method).__func__

        with building("data", self.cfg, "DATASETS.TRAIN", "DATASETS.TEST", "DATALOADER.MAPPER"):
            check_training(
                self.cfg,
                own_train_loader=is_own("build_train_loader"),
                own_test_loader=is_own("build_test_loader") and is_own("test"),
                own_evaluator=is_own("build_evaluator") and is_own("test"),
            )

    def _keep_classes(self) -> None:
        """Save the class names with the run, and refuse to resume it with others."""
        classes = training_classes(self.cfg)
        if classes and self.checkpointer.classes:
            sides = {"the checkpoint": self.checkpointer.classes, "DATASETS.TRAIN": classes}
            compare_classes(
                sides, advice="Go on with the data that the run began with, or start a new run."
            )
        self.checkpointer.classes = classes
        if classes and comm.is_main_process():
            keep_classes(self.cfg.OUTPUT_DIR, classes)

    def _build_precise_bn(self, numbers: Numbers) -> PreciseBN:
        periods = (self.cfg.TEST.EVAL_PERIOD, self.cfg.SOLVER.CHECKPOINT_PERIOD)
        number, batches = self.cfg.TEST.PRECISE_BN.NUM_ITER, self._precise_bn_batches()
        return PreciseBN(periods, self.model, batches, number, numbers, self._seed_precise_bn)

    def _seed_precise_bn(self) -> None:
        seed_process(self.cfg.SEED, "precise_bn", self.iter, comm.get_rank())

    def _precise_bn_batches(self) -> Iterator[list[dict]]:
        cfg = self.cfg.clone()
        cfg.defrost()
        # A loader of its own leaves training's order unchanged; it need not be fast.
        cfg.DATALOADER.NUM_WORKERS = 0
        with lending_images(getattr(self.data_loader, "loader", None)):
            loader = self.build_train_loader(cfg)
        while True:  # the same images each time, whenever the run was resumed
            yield from itertools.islice(loader, cfg.TEST.PRECISE_BN.NUM_ITER)

    def _evaluate(self) -> dict[str, Any]:
        done = min(self.iter + 1, self.max_iter)
        results = recorded_results(self.cfg, done) if done == self.start_iter else None
        if results is None:
            share_buffers(self.model)
            try:
                with self.stop.at_once():
                    results = self.test(self.cfg, self.model)
            except Stopped as stopped:
                self.end(stopped.number)
            except Exception:  # the evaluation failed, or another process has ended
                self._save_steps()
                raise
            write_records(
                self.cfg,
                results,
                iteration=done,
                wall_seconds=time.monotonic() - self.started,
                training_seconds=self.training_seconds,
                departures=schedule_departures(self.schedule_changes),
                origin=self.origin,
            )
        self.results = results
        if done not in self.evaluations:
            self.evaluations.append(done)
        return results


class SeededSteps:
    """A loader's batches; each is handed over together with the seeds of its step.

    They are set after the loader has made the batch: a new loader draws when it starts, and a
    resumed run has a new loader where the uninterrupted run has none.
    """

    def __init__(self, loader: Iterable, seed: int, start_iter: int) -> None:
        """
        Args:
            loader: of training batches; it has a ``report()``.
            seed: of the run.
            start_iter: iteration of the first batch.
        """
        self.loader = loader
        self.seed = seed
        self.start_iter = start_iter

    def __iter__(self) -> Iterator[Any]:
        for iteration, batch in enumerate(self.loader, self.start_iter):
            seed_process(self.seed, "step", iteration, comm.get_rank())
            yield batch

    def report(self) -> dict[str, list[str]]:
        """Return what the loader skipped."""
        return self.loader.report()  # type: ignore[attr-defined]


def distribute(model: nn.Module) -> nn.Module:
    """Wrap a model for several processes, on GPUs or CPUs; return it unchanged for one."""
    if comm.get_world_size() == 1:
        return model
    if next(model.parameters()).is_cuda:
        return create_ddp_model(model, broadcast_buffers=False)
    return DistributedDataParallel(model, broadcast_buffers=False)
