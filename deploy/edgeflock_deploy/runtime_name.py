"""The name of the installed runtime, found without loading it: an agent's own process must stay free of numpy."""

from __future__ import annotations

from edgeflock_deploy.errors import BadInput

_FAMILIES = (("ai-edge-litert", "litert"), ("tflite-runtime", "tflite-runtime"))


def runtime_name() -> str:
    """Family and version of the installed runtime, e.g. `litert2.3` or `tflite-runtime2.14`.

    Raises:
        BadInput: no runtime is installed.
    """
    import importlib.metadata  # it brings the email package: an inference child, which only needs the error, pays not

    for distribution, family in _FAMILIES:
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        return family + ".".join(version.split(".")[:2])
    raise runtime_missing()


def runtime_missing() -> BadInput:
    """The error of a machine without a runtime, with its mend."""
    return BadInput(
        "model runtime", "neither ai-edge-litert nor tflite-runtime is installed", "pip install 'edgeflock[agent]'"
    )
