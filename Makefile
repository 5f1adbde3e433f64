# make lesson: train the three experiments and leave the executed lesson in build/
# make test:   lint, tests and every notebook in its short setting
# make lab:    open the notebooks in JupyterLab
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# A notebook runs in its own folder, where a relative path would lead elsewhere.
ifdef MNIST_ROOT
export MNIST_ROOT := $(abspath $(MNIST_ROOT))
endif

.PHONY: lesson test lab notebooks

lesson: $(READY)
	CHECKPOINTS=$(abspath build/checkpoints) $(BIN)/python -m tools.run_notebook notebooks/Session6_1.ipynb --out build
	rm -rf build/checkpoints  # done: the next run trains anew, a killed one continues

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	SMOKE_TEST=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --nbval-lax tests notebooks

lab: $(READY)
	$(BIN)/jupyter lab notebooks

# Executes the notebooks at full settings and keeps the outputs, for committing them.
notebooks: $(READY)
	$(BIN)/python -m tools.run_notebook notebooks/*.ipynb --in-place
	$(BIN)/python -m exercises.build

$(READY): requirements.txt constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --constraint constraints.txt
	touch $@
