# `make demo` and `make test` are all a newcomer needs: git, make and python3.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UPSTREAM := .venv-upstream
OLDEST := .venv-oldest/.torch-2.4.1
NEWEST := .venv-newest/.torch-2.14.1
# Threads of one process that spin while they wait take the cores from the other one's.
export OMP_WAIT_POLICY ?= PASSIVE
# The tests start emacheck thousands of times, which need not compile it each time.
unexport PYTHONDONTWRITEBYTECODE
DEMO_DIR ?= work_dirs/demo-$(shell date +%Y%m%d_%H%M%S)

.PHONY: demo test lint slow test-upstream test-oldest test-newest test-slurm docs rules clean

# What a person waits for: all that neither trains nor takes long by itself.
test: lint
	$(BIN)/python -m pytest --numprocesses 2 -m "not slow and not training"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The rest, CI runs both. These tests wait for processes a third of their time, so four at once keep two cores busy.
slow: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --durations 15 -m "slow or training"

# The run tests with the last upstream mmengine, mmcv and mmsegmentation instead of onedl's, in an environment of its own.
test-upstream: $(UPSTREAM)/.upstream
	$(UPSTREAM)/bin/python -m pytest -m "upstream and not slow"

# The quick tests with the oldest torch that is supported; of that there is a build for CUDA only, 5 GB.
test-oldest: $(OLDEST)
	$(<D)/bin/python -m pytest --numprocesses 2 -m "not slow and not training"

# And with the newest one, of which there is a build for CUDA only as well, 6 GB.
test-newest: $(NEWEST)
	$(<D)/bin/python -m pytest --numprocesses 2 -m "not slow and not training"

# emacheck under a real Slurm, set up on this machine for these tests; needs root and Debian's slurm-wlm and munge.
test-slurm: $(INSTALLED)
	$(BIN)/python -m pytest tests/slurm/check_real_slurm.py

demo: $(INSTALLED)
	$(BIN)/emacheck run --device cpu --work-dir $(DEMO_DIR)
	@echo "Open $(DEMO_DIR)/report.html in a browser, or read $(DEMO_DIR)/report.md"

# Writes docs/benchmarks.md anew (about half an hour on two cores).
docs: $(INSTALLED)
	$(BIN)/python benchmarks/run_all.py

# Judges the recorded trainings anew, writes docs/rules-measured.md and draws the README's picture (some minutes).
rules: $(INSTALLED)
	$(BIN)/python benchmarks/rules_study.py
	$(BIN)/python benchmarks/readme_picture.py

%/.installed: pyproject.toml constraints.txt
	test -x $*/bin/python || $(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$*/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[train,test]'
	# opencv-python needs a graphics library that small systems lack; the headless build of the same version does not.
	$*/bin/python -c 'import cv2' 2>/dev/null || $*/bin/python -m pip install --quiet --constraint constraints.txt \
		--force-reinstall --no-deps opencv-python-headless
	touch $@

# Both supply the same import names, so one has to go before the other comes. Upstream mmsegmentation imports the
# compiled operators of mmcv, of which EMANet calls none: here they are named and not compiled.
$(UPSTREAM)/.upstream: $(UPSTREAM)/.installed tests/uncompiled_mmcv.py
	$(UPSTREAM)/bin/python -m pip uninstall --quiet --yes $(foreach name,mmengine mmcv mmsegmentation,onedl-$(name) $(name)) mmcv-lite
	$(UPSTREAM)/bin/python -m pip install --quiet --constraint constraints.txt mmengine==0.10.7
	$(UPSTREAM)/bin/python -m pip install --quiet --no-deps mmcv-lite==2.1.0 mmsegmentation==1.2.2
	cp tests/uncompiled_mmcv.py $$($(UPSTREAM)/bin/python -c 'import mmcv; print(mmcv.__path__[0])')/_ext.py
	touch $@

$(OLDEST) $(NEWEST): pyproject.toml constraints.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	grep --invert-match '^torch==' constraints.txt > $(@D)/constraints.txt
	$(@D)/bin/python -m pip install --quiet --constraint $(@D)/constraints.txt torch==$(@F:.torch-%=%) --editable '.[train,test]'
	$(@D)/bin/python -c 'import cv2' 2>/dev/null || $(@D)/bin/python -m pip install --quiet \
		--constraint constraints.txt --force-reinstall --no-deps opencv-python-headless
	touch $@

clean:
	rm -rf $(VENV) $(UPSTREAM) $(dir $(OLDEST) $(NEWEST)) .mypy_cache .ruff_cache .pytest_cache .hypothesis
