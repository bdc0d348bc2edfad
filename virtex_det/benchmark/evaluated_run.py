"""What a run folder adds to the record of its run: earlier evaluations, and detections."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from virtex_det.benchmark.records import ResultRecord
from virtex_det.utils import folder_name


class EvaluatedRun(NamedTuple):
    """A run and its folder, which need not exist.

    Attributes:
        folder: of the run.
        record: of its last evaluation.
        others: the records of all evaluations in the folder, oldest first.
    """

    folder: Path
    record: ResultRecord
    others: Sequence[ResultRecord] = ()

    def history(self) -> list[ResultRecord]:
        """Return the records of the training that ended with the last one, one per iteration.

        Other records in the folder are of another file, or were evaluated with other settings.
        """
        last, found = self.record, {}
        for record in self.others:
            is_of_run = (record.dataset, record.config_sha256) == (last.dataset, last.config_sha256)
            if is_of_run and (record == last or not record.evaluated):
                found[record.iteration] = record
        return list(found.values())

    def detections_file(self) -> Path:
        """Return where the evaluation writes detections."""
        folder = self.folder / "inference" / folder_name(self.record.dataset)
        return folder / "coco_instances_results.json"

    def has_own_detections(self) -> bool:
        """Return whether the detections in the folder are those that the record measured.

        An evaluation of other weights, or with other settings, may have replaced them.
        """
        if not self.detections_file().exists():
            return False
        own = self.record
        latest = [each for each in self.others if each.dataset == own.dataset][-1:]
        settings = (own.config_sha256, own.iteration, own.metrics)
        return all((r.config_sha256, r.iteration, r.metrics) == settings for r in latest)
