"""Progress of long work in the log."""

import datetime
import logging
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from detectron2.engine import HookBase

logger = logging.getLogger(__name__)

# Seconds until the first line of slow work, and from one line to the next.
FIRST, BETWEEN = 3.0, 20.0
# Batches after which inference_on_dataset logs its own progress, every five seconds.
_DETECTRON2_EVALUATES = 10


class Progress:
    """Logs the progress of some work and the remaining time; nothing for short work.

    Example:
        >>> progress = Progress("precise batch norm", total=200)
        >>> for done in range(1, 201):
        ...     progress.update(done)
    """

    def __init__(self, what: str, total: int, begin: int = 0) -> None:
        """
        Args:
            what: names the work at the beginning of each line.
            total: number of steps.
            begin: number of steps done before.
        """
        self.what, self.total, self.begin = what, total, begin
        self.started = time.monotonic()
        self.next_line = self.started + FIRST

    def update(self, done: int, detail: str = "") -> None:
        """Log a line if it is time for one.

        Args:
            done: number of steps, including those done before.
            detail: end of the line.
        """
        if time.monotonic() >= self.next_line and done < self.total:
            self.log(done, detail)

    def log(self, done: int, detail: str = "") -> None:
        """Log a line."""
        now = time.monotonic()
        each = (now - self.started) / max(done - self.begin, 1)
        left = datetime.timedelta(seconds=round(each * (self.total - done)))
        logger.info(
            f"{self.what}: {done} of {self.total} done, {each:.3g} s each, "
            f"about {left} left{detail}"
        )
        self.next_line = now + BETWEEN


class FirstSteps(HookBase):
    """Logs the first iteration, and slow ones long before or after Detectron2's line."""

    def __init__(self, period: int = 20) -> None:
        """Leave every ``period``-th iteration to Detectron2's line."""
        self.period = period

    def before_train(self) -> None:
        self.progress = Progress("training", self.trainer.max_iter, self.trainer.start_iter)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.period == 0 or done == self.trainer.max_iter:
            self.progress.next_line = time.monotonic() + BETWEEN
        elif done == self.trainer.start_iter + 1:
            self.progress.log(done, self._loss())
        else:
            self.progress.update(done, self._loss())

    def _loss(self) -> str:
        loss = self.trainer.storage.latest().get("total_loss")
        return f", loss {loss[0]:.4g}" if loss else ""


class EvaluationBatches:
    """An evaluation loader that logs slow first batches; Detectron2 logs the later ones."""

    def __init__(self, loader: Iterable[Any], what: str) -> None:
        """
        Args:
            loader: batches; it has a length.
            what: names the work in the log.
        """
        self.loader, self.what = loader, what

    def __len__(self) -> int:
        assert isinstance(self.loader, Sized)
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        progress = Progress(self.what, len(self))
        for done, batch in enumerate(self.loader):
            if 0 < done <= _DETECTRON2_EVALUATES:
                progress.update(done)
            yield batch
