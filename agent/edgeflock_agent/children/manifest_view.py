"""What an inference child is told of a manifest: plain values for its `load`, so that it needs no pydantic.

Known here: a manifest before version 3 promises the file's own tensors, so there is nothing to tell.
"""

from __future__ import annotations

from typing import Any

from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.tensors import TensorSpec


def told(manifest: Manifest) -> dict[str, Any] | None:
    """The application's view of a bundle as `view.View` and `child` take it; None: the file's own tensors.

    Args:
        manifest: the bundle's, which has been believed.
    """
    if manifest.held_inputs is None or manifest.held_outputs is None:
        return None
    return {
        "inputs": [_tensor(spec, place) for place, spec in enumerate(manifest.inputs)],
        "outputs": [_tensor(spec, place) for place, spec in enumerate(manifest.outputs)],
        "state": [[pair.output, pair.input] for pair in manifest.state],
        "max_batch": manifest.max_batch,
    }


def _tensor(spec: TensorSpec, place: int) -> dict[str, Any]:
    return {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "limit": None if spec.limit is None else list(spec.limit),
        "of": place if spec.of is None else spec.of,
        "steps": [step.model_dump(mode="json") for step in spec.steps],
    }
