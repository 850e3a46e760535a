# Each target sets up what it needs: a virtual environment with pinned packages, and from Debian
# what is missing, where it may install it. On another system it says what to install.
#
#   make test PYTEST_ARGS="-k policy"
#   make demo TORCH_INDEX_URL=<an index with torch's CPU build, which is far smaller>

PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PYTEST_ARGS ?=
BENCH_ARGS ?=
LOAD_ARGS ?=
ARRAY_API_TESTS ?=
FUZZ_SECONDS ?= 60
MUTANTS_ARGS ?=
TORCH_INDEX_URL ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The tools of the environment (cmake, ninja, ruff, ...) go before the machine's.
export PATH := $(abspath $(VENV))/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
PY := $(abspath $(VENV))/bin/python
READY := $(VENV)/.ready
STARTED := $(shell date +%s)  # so that `make demo` can tell how long its set-up took
# The other libraries lie beside it, and see what is in it.
LIBRARIES_VENV ?= .venv-libraries
LIBRARIES_READY := $(LIBRARIES_VENV)/.ready

# Ours, wherever it is: committed or not, but nothing generated.
CXX_FILES = $(shell find lib bridges tests examples bench -name '*.cpp' -o -name '*.hpp' -o -name '*.[ch]' | sort)
PICTURES = $(patsubst %,demo-output/%.png,digits deblur features processes)  # of the gallery
PY_DIRS = bridges cmake tests examples $(wildcard docs bench)

# $(call debian,packages): installs the missing ones, or says that they are missing and goes on:
# they may be there under another name, and if not the next step fails and this explains it.
define debian
missing=
for package in $(1); do
  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"
done
if [ -n "$$missing" ]; then
  sudo=; [ "$$(id -u)" = 0 ] || sudo="sudo -n"
  if command -v apt-get >/dev/null && $$sudo true 2>/dev/null; then
    echo "installing$$missing"
    $$sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null
  else
    echo "please install (names of Debian's packages):$$missing" >&2
  fi
fi
endef

.PHONY: help demo test wheels matrix libraries peers load doctor sanitize bench instructions fuzz tsan clang aarch64 package site-check matrix-turn build build-asan build-tsan build-fuzz format format-check lint docs mutants nightly clean test-gpu bench-gpu

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# Without the tests, which are most of a build, and without the runtime for CUDA, which it does not use.
demo: build/build.ninja ## Train on handwritten digits across NumPy, SciPy and torch; leaves a picture
	@ready=$$(date +%s)
	$(PY) cmake/progress.py cmake --build build -j $(JOBS) --target dlbridge_python dlbridge_torch_companions
	built=$$(date +%s)
	PYTHONPATH=build/python $(PY) examples/digits.py
	echo "time:     $$((ready - $(STARTED))) s to set up, $$((built - ready)) s to build"

test: build ## Run the C++ tests, then the Python tests
	ctest --preset dev -j $(JOBS)
	PYTHONPATH=build/python $(PY) -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

# A process for each: some of these libraries cannot live in one. Nothing may be skipped for want of
# its library, and pytest says so by its exit status where a whole file is.
libraries: build $(LIBRARIES_READY) ## Run the tests against JAX, TensorFlow, Paddle, MLX and others
	export OCL_ICD_FILENAMES=$(abspath $(LIBRARIES_VENV))/lib/libintelocl.so
	for file in tests/python/libraries/test_*.py; do
	  PYTHONPATH=build/python $(LIBRARIES_VENV)/bin/python -m pytest -q $$file $(PYTEST_ARGS)
	done

peers: build $(LIBRARIES_READY) ## Run other projects' own tests of DLPack against us; ARRAY_API_TESTS=<checkout> too
	export PYTHONPATH=build/python
	$(LIBRARIES_VENV)/bin/python -m pytest -q tests/peers $(PYTEST_ARGS)
	if [ -n "$(ARRAY_API_TESTS)" ]; then
	  $(LIBRARIES_VENV)/bin/python -m pip install -q --disable-pip-version-check -r "$(ARRAY_API_TESTS)/requirements.txt"
	  export PYTHONPATH="$(abspath build/python):$(abspath tests/peers)" ARRAY_API_TESTS_MODULE=strict_exported
	  cd "$(ARRAY_API_TESTS)" && $(abspath $(LIBRARIES_VENV))/bin/python -m pytest -q array_api_tests/test_dlpack.py
	fi

load: build ## Cross 50 million times; what each crossing leaves behind has to be nothing
	PYTHONPATH=build/python $(PY) tests/load/steady.py $(LOAD_ARGS)

wheels: $(READY) ## Build wheels with companions for many torches; PYTHONS="3.11 3.12" TORCHES="2.15.0"
	$(PY) -m pip install -q --disable-pip-version-check -r requirements/wheels.txt
	$(PY) cmake/wheels.py $(if $(PYTHONS),--pythons $(PYTHONS)) $(if $(TORCHES),--torches $(TORCHES))
	$(PY) -m twine check --strict dist/*.whl
	$(PY) -m check_wheel_contents dist/*.whl

# On installed wheels, each in an environment of its own; rows of the table are kept until asked again.
matrix: $(READY) ## Run the Python tests on the wheels, with many torches and NumPys; PYTHONS= TORCHES= NUMPYS= THIRD=0
	@$(call debian,g++ libgtest-dev libgmock-dev)
	$(PY) -m pip install -q --disable-pip-version-check -r requirements/wheels.txt
	$(PY) cmake/matrix.py $(if $(PYTHONS),--pythons $(PYTHONS)) $(if $(TORCHES),--torches $(TORCHES)) \
	  $(if $(NUMPYS),--numpys $(NUMPYS)) $(if $(THIRD),--third $(THIRD)) --jobs $(JOBS) $(PYTEST_ARGS)

# The number of commits says whose turn it is.
matrix-turn: build ## Run some Python tests on a wheel, with one torch and NumPy of the matrix in turn
	$(PY) -m pip install -q --disable-pip-version-check -r requirements/wheels.txt
	turn=$$(git rev-list --count HEAD)
	$(PY) cmake/matrix.py --turn $$turn --jobs $(JOBS) -q tests/python/crossing tests/python/types $(PYTEST_ARGS)

doctor: build $(LIBRARIES_READY) ## Examine all of these libraries; leaves build/doctor.{json,html,md}
	export OCL_ICD_FILENAMES=$(abspath $(LIBRARIES_VENV))/lib/libintelocl.so
	PYTHONPATH=build/python $(LIBRARIES_VENV)/bin/python -m dlbridge doctor \
	  --json build/doctor.json --html build/doctor.html --markdown build/doctor.md

# Python itself is not built with AddressSanitizer, so its runtime has to be loaded first; libstdc++
# beside it, or it finds no exceptions to watch. CPython leaks at exit by design: no leak check there.
sanitize: build-asan ## Run all tests under AddressSanitizer and UBSan
	export UBSAN_OPTIONS=print_stacktrace=1
	ctest --preset asan -j $(JOBS)
	runtime=$$(for lib in libasan.so libubsan.so libstdc++.so.6; do realpath "$$(g++ -print-file-name=$$lib)"; done)
	PYTHONPATH=build-asan/python ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	  PYTHONMALLOC=malloc LD_PRELOAD="$${runtime//$$'\n'/:}" $(PY) -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

bench: $(READY) ## Measure against the libraries' own doors; BENCH_ARGS="--json FILE --plot FILE"
	@$(call debian,libbenchmark-dev)
	cmake --preset dev -DPython3_EXECUTABLE=$(PY) -DDLBRIDGE_BENCH=ON
	cmake --build build -j $(JOBS)
	PYTHONPATH=build/python $(PY) bench/run.py $(BENCH_ARGS)

# For a machine with a GPU and a CUDA toolkit; without them everything here is skipped.
test-gpu: build ## Run the tests that need a GPU
	ctest --preset dev -R '^gpu$$'
	PYTHONPATH=build/python $(PY) -m pytest tests/gpu $(PYTEST_ARGS)

bench-gpu: build ## Measure copies between a GPU and the host; BENCH_ARGS="--json FILE"
	PYTHONPATH=build/python:bench $(PY) bench/gpu.py $(BENCH_ARGS)

# Times wobble, instructions do not: what CI can hold a small crossing to.
instructions: build ## Hold the instructions of small crossings against those agreed on (callgrind)
	@$(call debian,valgrind)
	g++ -O2 -shared -fPIC bench/instructions/switch.cpp -o build/libcallgrind_switch.so
	cmake --build build --target dlbridge_counted_crossings
	PYTHONPATH=build/python $(PY) bench/instructions/check.py build/libcallgrind_switch.so build/dlbridge_counted_crossings

# What reaches something new stays in build-fuzz/corpus; tests/fuzz/corpus has the few that reach
# furthest, and all that ever ended a target. What ends one now is kept as build-fuzz/found-...
# Targets run side by side, JOBS at a time, and say what there is to say when they end.
FUZZ_FLAGS = -max_total_time=$(FUZZ_SECONDS) -max_len=1024 -len_control=0 -timeout=60 -verbosity=0 -print_funcs=0 -print_final_stats=1
fuzz: build build-fuzz ## Fuzz plans, copies, managed tensors, the C interface and the doors; FUZZ_SECONDS=60 for each
	@fuzz() {
	  mkdir -p build-fuzz/corpus/$$1
	  if "$${@:2}" $(FUZZ_FLAGS) -artifact_prefix=build-fuzz/found-$$1- \
	    build-fuzz/corpus/$$1 tests/fuzz/corpus/$$1 > build-fuzz/$$1.log 2>&1; then
	    printf '\n== %s: nothing found\n%s\n' $$1 "$$(grep ^stat:: build-fuzz/$$1.log)"
	  else
	    printf '\n== %s: ended\n%s\n' $$1 "$$(cat build-fuzz/$$1.log)"
	    return 1
	  fi
	}
	export -f fuzz
	export UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=build/python
	{ for name in capsule plan copy message c_interface; do echo $$name build-fuzz/fuzz/$${name}_fuzz; done
	  echo doors $(PY) tests/fuzz/doors_fuzz.py
	} | xargs -P $(JOBS) -I@ bash -c 'fuzz @'

# torch, Python and NumPy themselves are not instrumented; what they lock is seen all the same.
tsan: build-tsan ## Run the C++ tests that have threads under ThreadSanitizer
	ctest --preset tsan -j $(JOBS)

clang: $(READY) ## Build all of it by Clang 19, and run the C++ tests
	@$(call debian,clang-19 libgtest-dev libgmock-dev)
	cmake --preset clang -DPython3_EXECUTABLE=$(PY)
	cmake --build build-clang -j $(JOBS)
	ctest --preset clang -j $(JOBS)

package: build/build.ninja
	@cmake --build build -j $(JOBS) --target dlbridge_package

# A fork while other threads run hangs under QEMU.
aarch64: build-aarch64/build.ninja ## Cross compile for 64-bit ARM, and run the C++ tests under QEMU
	cmake --build build-aarch64 -j $(JOBS)
	GTEST_FILTER='-Fork.*' ctest --preset aarch64 -j $(JOBS)

build: build/build.ninja ## Build the library, the Python module and the tests
	cmake --build build -j $(JOBS)

build-asan: build-asan/build.ninja
	cmake --build build-asan -j $(JOBS)

build-tsan: build-tsan/build.ninja
	cmake --build build-tsan -j $(JOBS) --target thread_tests

build-fuzz: build-fuzz/build.ninja
	cmake --build build-fuzz -j $(JOBS)

# Clang 19 and its libc++ are for tests/install.
build-fuzz/build.ninja: $(READY) CMakePresets.json
	@$(call debian,g++ clang libclang-rt-dev clang-19 libc++-19-dev libc++abi-19-dev)
	cmake --preset fuzz -DPython3_EXECUTABLE=$(PY)
	touch $@

build-aarch64/build.ninja: $(READY) CMakePresets.json cmake/aarch64.cmake
	@$(call debian,g++-aarch64-linux-gnu qemu-user googletest)
	cmake --preset aarch64 -DPython3_EXECUTABLE=$(PY)
	touch $@

# Once; afterwards ninja configures again by itself when it has to.
build/build.ninja build-asan/build.ninja build-tsan/build.ninja: %/build.ninja: $(READY) CMakePresets.json
	@$(call debian,g++ libgtest-dev libgmock-dev)
	cmake --preset $(if $(filter build,$*),dev,$(patsubst build-%,%,$*)) -DPython3_EXECUTABLE=$(PY)
	touch $@

format: $(READY) ## Format C++ and Python
	clang-format -i $(CXX_FILES)
	ruff format -q $(PY_DIRS)
	ruff check -q --fix $(PY_DIRS)

format-check: $(READY) ## Check the format, change nothing
	clang-format --dry-run -Werror $(CXX_FILES)
	ruff format --check $(PY_DIRS)

lint: $(READY) ## ruff and mypy
	ruff check $(PY_DIRS)
	mypy

docs: package ## Build the manual, warnings are errors
	@$(call debian,doxygen)
	$(MAKE) -j $(JOBS) $(PICTURES)
	PYTHONPATH=build/python sphinx-build -q -W --keep-going -b html docs build/docs
	echo "the manual: build/docs/index.html"

# Drawn once, and again when their example has changed.
$(PICTURES): demo-output/%.png: examples/%.py
	@echo "drawing $@"
	PYTHONPATH=build/python $(PY) $< > /dev/null

site-check: docs ## Walk the built manual in a browser: links, search, widths, contrast; pictures in build/site
	@$(call debian,chromium)
	$(PY) -m pip install -q --disable-pip-version-check -r requirements/site.txt
	$(PY) -m pytest -q tests/site $(PYTEST_ARGS)

# Takes long: not in CI. MUTANTS_ARGS="--sample 100"; goes on where it ended.
mutants: $(READY) ## Take out one check, reference or wait after another, and see whether a test notices
	@$(call debian,g++ libgtest-dev libgmock-dev)
	env -u PYTHONDONTWRITEBYTECODE $(PY) tests/mutation/mutate.py $(MUTANTS_ARGS)

# Goes on behind what fails with `make -k nightly`. Mutants come last: they take the longest.
nightly: FUZZ_SECONDS = 600
nightly: MUTANTS_ARGS = --sample 1000000 --processes
nightly: clang aarch64 fuzz load doctor mutants ## Ask what does not fit into CI: Clang, ARM, long fuzzing, load, all libraries, all mutants

clean: ## Remove what was built; the virtual environment stays
	rm -rf build build-asan build-tsan build-fuzz build-clang build-aarch64 build-mutants build-wheels build-matrix dist demo-output

$(READY): requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "dlbridge needs Python 3.10 or later; PYTHON= names one")'
	# Debian keeps venv and the headers in packages of their own.
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(call debian,python3-venv); }
	$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
	  || { $(call debian,python3-dev); }
	echo "setting up $(VENV) (torch is large: a few minutes)"
	[ -x $(PY) ] || $(PYTHON) -m venv $(VENV)
	quiet=-q; [ ! -t 1 ] || quiet=  # on a terminal pip draws how far it is
	$(PY) -m pip install $$quiet --disable-pip-version-check $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL)) -r requirements/dev.txt
	touch $@

$(LIBRARIES_READY): requirements/libraries.txt $(READY)
	@echo "setting up $(LIBRARIES_VENV)"
	[ -x $(LIBRARIES_VENV)/bin/python ] || $(PY) -m venv $(LIBRARIES_VENV)
	site='import sysconfig; print(sysconfig.get_path("purelib"))'
	$(PY) -c "$$site" > "$$($(LIBRARIES_VENV)/bin/python -c "$$site")/environment.pth"
	$(LIBRARIES_VENV)/bin/python -m pip install -q --disable-pip-version-check -r requirements/libraries.txt
	touch $@
