# Two commands for a newcomer: `make demo` runs the main job on real text, `make test` passes the tests. Both make their own
# virtual environment in .venv and install all they need; neither touches anything outside this folder.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The constraint keeps every package that depends on torch from pulling in another build of it.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc kernels -type f)

.PHONY: demo test pylate-test lint cpp-test tsan cuda-check triton-check wheel-test bench clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Python sources are linked into the environment, so only build inputs call for a new install. Of what colpali-engine asks for, all
# that is tested is there; of torchvision there is no build beside torch's for the CPU.
$(VENV)/installed: $(SOURCES) constraints.txt | $(BIN)/python
	$(PIP_INSTALL) torch==2.13.0
	$(PIP_INSTALL) --editable '.[demo,test]'
	$(PIP_INSTALL) --no-deps colpali-engine==0.3.18
	touch $@

# From the installed package's record: to install it with one more extra would compile it once more.
$(VENV)/linters: $(VENV)/installed
	$(BIN)/python -c "from importlib.metadata import requires; \
		print(*(each.split(';')[0] for each in requires('metaindex') if 'extra == \"dev\"' in each), sep='\n')" > $@.txt
	$(PIP_INSTALL) --requirement $@.txt
	touch $@

demo: $(VENV)/installed
	$(BIN)/metaindex demo

test: $(VENV)/installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# PyLate asks for older versions of what is in the environment, so these lie apart and are found first.
build/pylate/installed: tests/encoders/pylate.txt $(VENV)/installed
	rm -rf $(@D)
	$(PIP_INSTALL) --no-deps --target $(@D) --requirement $<
	touch $@

pylate-test: build/pylate/installed
	PYTHONPATH=$(<D) $(BIN)/python -m pytest tests/encoders/test_libraries.py -k pylate

lint: $(VENV)/linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc benchmarks tests \( -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh' \) -print0 | xargs -0 $(BIN)/clang-format --dry-run --Werror
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest metaindex._core --allowlist .ci/stubtest_allowlist.txt
	$(BIN)/lint-imports

cpp-test: $(VENV)/linters
	$(BIN)/cmake -S . -B build/sanitized -DMETAINDEX_CPP_TESTS=ON -DMETAINDEX_PYTHON=OFF \
		-DMETAINDEX_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo
	$(BIN)/cmake --build build/sanitized --parallel 2
	$(BIN)/ctest --test-dir build/sanitized --output-on-failure

# Threads that share documents and the pool, under the thread sanitizer. It can't run beside the address sanitizer.
tsan: $(VENV)/linters
	$(BIN)/cmake -S . -B build/tsan -DMETAINDEX_CPP_TESTS=ON -DMETAINDEX_PYTHON=OFF -DMETAINDEX_SANITIZE=thread \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo
	$(BIN)/cmake --build build/tsan --parallel 2 --target metaindex_threads_tests
	$(BIN)/ctest --test-dir build/tsan --tests-regex threads --output-on-failure

# CUDA files compile for GPUs that need not be here, without spills, and their kernels take what they are known to take.
cuda-check: $(VENV)/installed
	$(BIN)/python -m tests.kernels.compile_cuda

# Triton's kernels compile for GPUs that need not be here, without spills where it counts, and take what they are known to take.
triton-check: $(VENV)/installed
	$(BIN)/python -m tests.kernels.compile_triton

# The wheel and the sdist are built from a clean checkout and used from another folder, as a user would.
wheel-test: $(VENV)/linters
	sh tests/packaging/wheel.sh $(abspath $(BIN)/python)

bench: $(VENV)/installed
	$(PIP_INSTALL) --requirement benchmarks/requirements.txt
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist
