import json
import subprocess
import sys
from pathlib import Path

import edgeflock_deploy
from edgeflock_deploy.peak_memory import METHOD, PeakMemory, measure_here, peak_rss_bytes

DATA = Path(__file__).parents[2] / "data"
WARM = Path(edgeflock_deploy.__file__).with_name("warm.tflite")


def test_a_small_model_is_measured_in_a_process_of_its_own() -> None:
    measured = peak_rss_bytes(DATA / "tiny.tflite")
    assert measured.runs
    assert measured.reason is None
    assert measured.peak_rss_bytes is not None
    assert 0 <= measured.peak_rss_bytes < 4 << 20


def test_the_peak_is_split_into_what_files_back_and_what_is_anonymous() -> None:
    measured = peak_rss_bytes(DATA / "tiny_slow.tflite")
    assert measured.peak_rss_bytes is not None
    assert measured.file_bytes is not None
    assert measured.anonymous_bytes is not None
    assert 0 <= measured.file_bytes <= measured.peak_rss_bytes
    assert measured.anonymous_bytes == measured.peak_rss_bytes - measured.file_bytes
    assert PeakMemory(None).anonymous_bytes is None


def test_the_command_prints_one_json_object() -> None:
    command = [sys.executable, "-m", "edgeflock_deploy.peak_memory", str(WARM)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["method"] == METHOD


def test_a_file_that_does_not_load_has_no_number_but_a_reason() -> None:
    measured = peak_rss_bytes(DATA / "corrupt.tflite")
    assert (measured.peak_rss_bytes, measured.runs) == (None, False)
    assert measured.reason


def test_a_kernel_that_does_not_tell_gives_a_reason_and_no_number(tmp_path: Path) -> None:
    measured = measure_here(DATA / "tiny.tflite", proc=tmp_path / "no-proc")
    assert (measured.peak_rss_bytes, measured.runs) == (None, True)
    assert "no-proc" in str(measured.reason)


def test_asking_for_a_measurement_imports_neither_numpy_nor_the_runtime() -> None:
    code = (
        "import sys, edgeflock_deploy.peak_memory; "
        "print([name for name in ('numpy', 'ai_edge_litert', 'pydantic') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
