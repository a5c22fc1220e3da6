"""How pytest treats the book's notebooks: one thread per kernel, and stderr left out of the comparison."""

import os

import pytest

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # the kernels inherit it; more threads give other last bits


def pytest_collectstart(collector: pytest.Collector) -> None:
    if collector.fspath and collector.fspath.ext == ".ipynb" and hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)  # process numbers and rates differ from run to run
