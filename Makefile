# Broadcast Lab. `make` alone lists the targets. Everything is installed into .venv, and nothing outside of it.
#
#   make lab ARGS="--no-browser --port 8899"      hand arguments to JupyterLab
#   make lab PYTHON=/path/to/python3.12           choose the Python that .venv is made from (an existing .venv stays: make clean)

.DEFAULT_GOAL := help
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/ready
NOTEBOOK := notebooks/01_websocket_basics.ipynb
CANDIDATES := $(if $(PYTHON),'$(PYTHON)',python3 python3.14 python3.13 python3.12 python3.11 python)
NEW_ENOUGH := import sys, venv; sys.exit(sys.version_info < (3, 11))
NBVAL := BROADCAST_LAB_STRICT=1 BROADCAST_LAB_LEDGER="$(CURDIR)/build/predictions.json" \
    $(RUN) -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=120

# JupyterLab refuses to run as root, which is who one is in most containers, unless it is told so.
ALLOW_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

# The stamp says for which folder the installation was completed. Where it says another one (the folder was moved or copied), or
# where the Python behind .venv is gone, the set-up is done again.
SET_UP_FOR := $(shell $(RUN) -c 'import pip' 2>/dev/null && cat $(READY) 2>/dev/null)
ifneq "$(SET_UP_FOR)" "$(CURDIR)"
.PHONY: $(READY)
endif

.PHONY: help lab up demo test check long bench bench-full doctor pins clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s%s\n", $$1, $$2}' Makefile

lab: $(READY) ## set up what is missing, and open JupyterLab at notebook 01
	@echo "Opening JupyterLab at $(NOTEBOOK). Ctrl+C twice, here, stops it."
	@exec $(RUN) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/$(NOTEBOOK) $(ALLOW_ROOT) $(ARGS)

up: $(READY) ## the scoreboard: 3 servers, nginx and Redis; Ctrl+C stops them (more: make up ARGS="--servers 5 --port 8000")
	@exec $(RUN) -m labkit up $(ARGS)

demo: $(READY) ## the one-hour demonstration for instructors (the sheet: notebooks/README.md)
	@rm -rf build/demonstration
	@$(RUN) notebooks/demonstration.py build/demonstration
	@BROADCAST_LAB_LEDGER="$(CURDIR)/build/demonstration/predictions.json" exec $(RUN) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" \
	    --LabApp.default_url=/lab/tree/build/demonstration/04_broadcast.ipynb $(ALLOW_ROOT) $(ARGS)

# The faults, the known answers and the notebooks wait more than they work, so they run beside the other tests; two more
# folders make both halves about as long.
BESIDE := tests/browser tests/evidence tests/faults tests/wrong_answers
test: $(READY) ## set up what is missing, and run everything that CI runs
	@mkdir -p build
	$(RUN) tests/notebooks/prepare.py build/notebooks
	{ $(RUN) -m pytest $(BESIDE) && $(NBVAL) build/notebooks; } > build/lessons.txt 2>&1 & lessons=$$!; \
	$(RUN) -m pytest tests $(addprefix --ignore ,$(BESIDE)); others=$$?; \
	wait $$lessons; lessons=$$?; cat build/lessons.txt; test $$others -eq 0 -a $$lessons -eq 0

check: $(READY) ## style, format and the fast tests: under a minute
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest tests -m "not slow and not long"

# pytest ends with 5 where no test is marked `long`. One turn of the answers takes minutes: that is no hanging test.
long: $(READY) ## what takes too long for CI: repetitions, and every notebook twice in one kernel
	$(RUN) -m pytest tests -m long -o faulthandler_timeout=900 || [ $$? -eq 5 ]
	$(RUN) tests/notebooks/prepare.py --twice build/notebooks-twice
	$(NBVAL) build/notebooks-twice

bench: $(READY) ## every way to broadcast, and other servers, against a C loop of send(): a table, a figure, build/bench.json; 15 minutes
	$(RUN) tests/bench/broadcasting.py $(ARGS)

bench-full: $(READY) ## the same for the whole grid, then the laboratory itself, the way through Redis, and bad company; some hours
	$(RUN) tests/bench/broadcasting.py --full $(ARGS)
	$(RUN) tests/bench/laboratory.py
	$(RUN) tests/bench/hop.py
	$(RUN) tests/bench/company.py

doctor: $(READY) ## is this machine ready?
	@$(RUN) -m labkit doctor

# Keeps a .venv that works; otherwise makes one from the first Python that is new enough.
define make_venv
@if $(RUN) -c 'import pip; $(NEW_ENOUGH)' 2>/dev/null; then exit 0; fi; \
for candidate in $(CANDIDATES); do \
    if "$$candidate" -c '$(NEW_ENOUGH)' 2>/dev/null; then \
        echo "Making .venv with $$("$$candidate" --version) ($$(command -v "$$candidate"))."; \
        "$$candidate" -m venv --clear $(VENV) && exit 0; \
        rm -rf $(VENV); \
        echo "That Python cannot make a virtual environment. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; \
        exit 1; \
    fi; \
done; \
echo "Broadcast Lab needs Python 3.11 or newer, and none of these is it:" $(CANDIDATES) >&2; \
echo "Install a newer one, or name one that is elsewhere: make lab PYTHON=/path/to/python3.12" >&2; \
exit 1
endef

# The stamp is written last, so that an interrupted set-up is taken up again. Compiling here what would otherwise be compiled on
# first use takes some seconds, and spares every kernel two where PYTHONDONTWRITEBYTECODE is set, as it is in many containers.
$(READY): pyproject.toml constraints.txt
	@rm -f $(READY)
	$(make_venv)
	@echo "Installing about 110 packages into .venv: half a minute to three minutes, this once."
	@if $(RUN) -m pip install --quiet --disable-pip-version-check --only-binary uv uv \
	    && $(RUN) -m uv pip install --python $(RUN) --compile-bytecode --constraint constraints.txt --editable '.[test,dev]'; \
	then exit 0; fi; \
	echo "uv could not do it here (see above): going on with pip, which takes longer."; \
	$(RUN) -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[test,dev]'
	@echo "Finding this machine's fonts, for the figures."
	@$(RUN) -c 'import matplotlib.font_manager'
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' \
	    > $(VENV)/share/jupyter/lab/settings/overrides.json
	@printf '%s' "$(CURDIR)" > $(READY)
	@echo "The laboratory is set up."

pins: ## constraints.txt again, with the newest versions that pyproject.toml allows
	$(make_venv)
	@$(RUN) -m pip install --quiet --disable-pip-version-check uv
	@$(RUN) -m uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --all-extras --upgrade \
	    --no-annotate --no-emit-index-url --custom-compile-command 'make pins' --output-file constraints.txt pyproject.toml
	@echo "constraints.txt is new. What changed: git diff constraints.txt"

clean: ## remove what make made (.venv and build among it); notebooks stay as they are
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .coverage
	find labkit tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
