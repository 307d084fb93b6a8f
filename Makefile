# Each target sets itself up: a virtual environment in .venv, then what it needs.
# Without make, or on Windows: the same commands, one by one, in docs/zh/install.md and docs/en/install.md.

PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10 python3.9 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
PY := $(VENV)/bin/python
MINI := experiments/mini/resnet18/128x128_d128x3_adam_lr1e-3.yaml
# Tests of one file share what they train.
TWO_AT_ONCE := -n 2 --dist loadfile
CFG := experiments/lspet/resnet18/128x128_d256x3_adam_lr1e-3.yaml

.PHONY: quickstart reproduce demo test test-slow bench lint clean

quickstart: $(VENV)/runtime
	$(PY) pose_estimation/make_mini.py --output data/mini
	$(PY) pose_estimation/train.py --cfg $(MINI)
	$(PY) pose_estimation/mean_pose.py --cfg $(MINI)
	$(PY) pose_estimation/valid.py --cfg $(MINI) --flip-test
	$(PY) pose_estimation/infer.py --cfg $(MINI) --flip-test --img-file data/mini/images/300000002.jpg --bbox 23,24,186,186 --output output/quickstart.jpg --overwrite

# From data to docs/results/: make reproduce CFG=experiments/... (default: LSPET, hours on a CPU; data/README.md)
reproduce: $(VENV)/runtime
	$(PY) pose_estimation/reproduce.py --cfg $(CFG)

# The page of demo/ in output/demo, served on this machine, with the bundled network or MODEL=posenet.onnx of export.py
demo: demo/node_modules
	$(PYTHON) demo/serve.py $(if $(MODEL),--model $(MODEL))

demo/node_modules: demo/package-lock.json
	npm ci --prefix demo --ignore-scripts --no-fund --no-audit
	@touch $@

test: $(VENV)/dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest $(TWO_AT_ONCE) -m "not slow"

test-slow: $(VENV)/dev $(VENV)/parity $(VENV)/scale
	$(PY) -m pytest $(TWO_AT_ONCE) -m "slow or parity"

# Everything that should be fast, beside its peer; benchmarks/README.md
bench: $(VENV)/dev $(VENV)/parity
	$(PY) benchmarks/bench.py

lint: $(VENV)/dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.9-3.13 found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime: requirements.txt | $(VENV)/bin/python
	$(PY) -m pip install -r requirements.txt
	@touch $@

# TrackEval, which scores tracking, wants newer packages than Paddle 2.6 allows: then its tests are skipped and say so.
$(VENV)/dev: tests/requirements.txt tests/requirements-tracking.txt $(VENV)/runtime
	$(PY) -m pip install -r tests/requirements.txt
	$(PY) -m pip install -r tests/requirements-tracking.txt || echo "TrackEval is not to be had: its tests will be skipped"
	@touch $@

# PyTorch to compare with, where the requirements name one (Python 3.11 on Linux); elsewhere those tests are skipped
# and say so.
$(VENV)/parity: tests/requirements-parity.txt | $(VENV)/dev
	$(PY) -m pip install -r $< && touch $@ || echo "PyTorch is not to be had: the tests beside it will be skipped"

# Ray, for inference on a cluster; where it has no wheel, those tests are skipped and say so.
$(VENV)/scale: tests/requirements-scale.txt | $(VENV)/dev
	$(PY) -m pip install -r $< && touch $@ || echo "Ray is not to be had: the tests of infer_many.py will be skipped"

clean:
	rm -rf $(VENV) output log data/mini demo/node_modules
