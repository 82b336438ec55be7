# Two commands for people: `make demo` and `make test`. Each sets up all that it needs below .venv and .cache.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null || echo $(VENV)/uv/bin/uv)
STAMP := $(VENV)/.synced
# For what the tests call by name.
export PATH := $(PATH):$(abspath $(dir $(UV)))
# Hundreds of processes are started: none compiles what another one has.
unexport PYTHONDONTWRITEBYTECODE
TESTS ?=
# Most tests wait more than they work.
PROCESSES ?= 4
# Browsers, engines and servers of a busy machine stumble: CI gives a failed test a second try, and says why.
RERUNS := $(if $(CI),--reruns 2 --reruns-delay 2 --rerun-show-tracebacks)

.PHONY: demo test test-worker faults bench test-wheel check format lock wheel clean

demo: $(STAMP)
	$(BIN)/prefect-jobs demo

test: $(STAMP)
	$(BIN)/pytest -n $(PROCESSES) --dist worksteal $(RERUNS) $(TESTS)

# What a stock worker's runs promise, promised by those of a worker of the type prefect-jobs.
OURS := $(addprefix tests/,flow life reaching)
test-worker: $(STAMP)
	PREFECT_JOBS_TEST_WORKER=prefect-jobs $(BIN)/pytest -n $(PROCESSES) --dist worksteal $(RERUNS) $(or $(TESTS),$(OURS))

# Plays every fault and writes down what was seen.
faults: $(STAMP)
	FAULTS=docs/faults.md $(BIN)/pytest $(RERUNS) tests/faults

# Side by side with what a user would pick instead; makes Airflow's environment below .cache/bench the first time.
# PEERS=ours,airflow ROUNDS=1 RUNS=8 for a look; BENCH='--many 20' for the rest (BENCH=--help).
bench: $(STAMP)
	PYTHONPATH=tests/support $(BIN)/python -m benchmarks.bench $(if $(PEERS),--peers $(PEERS)) \
	  $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(RUNS),--runs $(RUNS)) $(BENCH)

# The wheel as a user gets it: the newest versions within its bounds, the extra docker, and no checkout to import from.
# WHEEL_TESTS=tests runs all but what makes environments of its own or rewrites code of the checkout.
WHEEL := .cache/wheel
WHEEL_TESTS ?= $(addprefix tests/,apply blocks document request flow/test_states.py flow/test_outcomes.py reaching/test_command_line.py)
LEFT_OUT := install demo examples docs benchmarks
test-wheel: $(UV)
	rm -rf $(WHEEL) build && mkdir -p $(WHEEL)
	$(UV) build --quiet --python $(PYTHON) --wheel --out-dir $(WHEEL)/dist
	$(UV) venv --quiet --python $(PYTHON) $(WHEEL)/venv
	$(UV) pip install --quiet --python $(WHEEL)/venv/bin/python --group dev "$$(echo $(WHEEL)/dist/*.whl)[docker]"
	cp -r pyproject.toml tests examples $(WHEEL)
	cd $(WHEEL) && venv/bin/python -c "import prefect_jobs as p; assert 'site-packages' in p.__file__, p.__file__"
	cd $(WHEEL) && venv/bin/pytest -n $(PROCESSES) --dist worksteal $(RERUNS) $(LEFT_OUT:%=--ignore=tests/%) $(WHEEL_TESTS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every dependency that is developed and tested with, for every platform, with its hashes; without the address of a registry.
# UPGRADE=--upgrade takes the newest of each.
lock: $(UV)
	$(UV) pip compile --universal --python-version 3.11 --extra docker --extra kubernetes --extra s3 --group dev --generate-hashes \
	  --no-header --no-emit-index-url $(UPGRADE) --output-file requirements.lock pyproject.toml

wheel: $(UV)
	rm -rf build dist && $(UV) build --python $(PYTHON) --wheel --sdist --out-dir dist

clean:
	rm -rf $(VENV) .cache build dist *.egg-info

$(STAMP): requirements.lock pyproject.toml | $(UV)
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) --allow-existing $(VENV)
	$(UV) pip sync --quiet $(if $(CI),--compile-bytecode) --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

# uv comes from PyPI where the machine has none, into a virtual environment of its own.
$(VENV)/uv/bin/uv:
	$(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/pip install --quiet 'uv>=0.6'
