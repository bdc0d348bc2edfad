"""Result records and what is made from them. Imports nothing of the other rooms."""

from virtex_det.benchmark.records import ResultRecord, read_records

__all__ = ["ResultRecord", "read_records"]
