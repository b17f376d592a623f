# Two commands set everything up by themselves: `make demo` and `make test`.
PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready
ARGS   ?=

.PHONY: help venv demo test test-arm vm check docs lock bench soak steady clean

help:
	@echo "make demo    the whole thread on this machine: train, compress, deploy, promote, roll back   [ARGS=\"--devices 20 --keep\"]"
	@echo "make test    every test that this machine can run (optional parts skip with the reason)"
	@echo "make test-arm  the agent on emulated ARM: 64 and 32 bit userlands, and a virtual board with its power cut"
	@echo "make vm      boot virtual ARM boards that join the controller on this machine   [ARGS=\"--count 3\"]"
	@echo "make check   format, lint, types, layers"
	@echo "make docs    write the generated documentation anew"
	@echo "make bench   the measurements in benchmarks/ (minutes)"
	@echo "make soak    power cuts, kills and failing disks in full, 10,000 fleets in a test tube, and every planted mistake"
	@echo "make steady  the demo 20 times with busy cores (about an hour)"
	@echo "make lock    resolve requirements.lock anew"
	@echo "make clean   remove .venv and build/"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info[:2] <= (3, 13); sys.exit(0 if ok else "Python 3.10-3.13 is needed, this is %d.%d; name another with: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "installing into .venv (once; TensorFlow is large)"
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

venv: $(READY)

demo: $(READY)
	@exec $(BIN)/python examples/demo $(ARGS)

# Three workers also on two cores: many tests wait for processes, brokers and beats.
test: $(READY)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=25 $(ARGS)

# What the machine lacks is fetched into build/arm; what cannot be fetched is a skipped test with the reason.
test-arm: $(READY)
	EDGEFLOCK_TEST_ARM=1 $(BIN)/python -m pytest --durations=5 tests/system/test_arm.py tests/system/test_vm.py $(ARGS)

vm: $(READY)
	$(BIN)/python -m qemu.image
	$(BIN)/edgeflock vm up $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	$(BIN)/python docs/generate.py

bench: $(READY)
	PYTHONPATH=examples/demo:tests/doubles $(BIN)/python -m benchmarks.run $(ARGS)

soak: $(READY)
	PYTHONPATH=tests/doubles $(BIN)/python -m benchmarks.device.power_cuts $(ARGS)
	PYTHONPATH=tests/doubles $(BIN)/python -m benchmarks.device.killed_agent
	PYTHONPATH=tests/doubles $(BIN)/python -m world --seeds 0:10000
	PYTHONPATH=tests/doubles $(BIN)/python -m world --planted
	EDGEFLOCK_SOAK=1 $(BIN)/python -m pytest --durations=5 tests/system/test_vm.py

steady: $(READY)
	PYTHONPATH=examples/demo:tests/doubles $(BIN)/python -m benchmarks.steady $(ARGS)

lock: $(READY)
	$(BIN)/uv pip compile --universal --python-version 3.10 --generate-hashes --all-extras --no-header --no-annotate --quiet pyproject.toml -o requirements.lock

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
