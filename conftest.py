"""How pytest treats the book's notebooks: one thread per kernel, and outputs compared by meaning."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # the kernels inherit it; more threads give other last bits

pytest_plugins = ("synthbook.course.pytest_plugin",)
