"""The environment variables of a confined process: what it needs to come up, and no secret of whoever starts it."""

from __future__ import annotations

from collections.abc import Mapping

# What Python, the dynamic linker and an emulator of another processor need; nothing else of the agent's environment.
_ENVIRONMENT = ("PYTHON", "LD_", "QEMU_")


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """A confined process's environment: no secret of `own`, and one thread for the linear algebra.

    OpenBLAS reserves address space per thread, which would eat the budget; PYTHONSAFEPATH keeps the current folder out
    of the import path.
    """
    kept = {name: value for name, value in own.items() if name.startswith(_ENVIRONMENT)}
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
