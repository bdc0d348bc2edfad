"""Runs that are looked after more often than every half second."""

import time
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def short_sleeps(monkeypatch):
    clock = SimpleNamespace(
        sleep=lambda seconds: time.sleep(min(seconds, 0.05)), monotonic=time.monotonic
    )
    monkeypatch.setattr("virtex_det.experiments.runs.time", clock)
