# make lab:      open the notebooks in JupyterLab
# make lesson:   train the three experiments and leave the executed lesson in build/
# make test:     lint, tests and every notebook in its short setting
# make book:     the course as a website, in build/book/
# make publish:  README, docs/ and badges brought up to date with the notebooks
# TORCH=cpu, with any of them: PyTorch without CUDA's libraries (several GB on Linux)
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# A notebook runs in its own folder, where a relative path would lead elsewhere.
ifdef MNIST_ROOT
export MNIST_ROOT := $(abspath $(MNIST_ROOT))
endif
ifdef FASHION_ROOT
export FASHION_ROOT := $(abspath $(FASHION_ROOT))
endif

.PHONY: lab lesson test notebooks publish book book-test

lab: $(READY)
	$(BIN)/jupyter lab notebooks

lesson: $(READY)
	CHECKPOINTS=$(abspath build/checkpoints) $(BIN)/python -m backstage.publish.run_notebook notebooks/Session6_1.ipynb --out build
	rm -rf build/checkpoints  # done: the next run trains anew, a killed one continues

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	SMOKE_TEST=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --nbval-lax tests notebooks

# Executes the notebooks at full settings and keeps the outputs, for committing them.
notebooks: $(READY)
	$(BIN)/python -m backstage.publish.run_notebook notebooks/*.ipynb --in-place
	$(BIN)/python -m backstage.publish

publish: $(READY)
	$(BIN)/python -m backstage.publish

book: $(READY) .venv/.book
	rm -rf build/book build/book-source && mkdir -p build/book-source
	cp -r README.md CONTRIBUTING.md LICENSE *.xlsx *.py notebooks docs docs/index.md results backstage build/book-source
	$(BIN)/python -m sphinx -q -b html -c docs build/book-source build/book
	@echo "The book: build/book/index.html"

# In a headless Chromium: formulas and search without a network, no dead link.
book-test: book
	$(BIN)/python -m pytest -q docs/test_book.py

$(READY): requirements.txt constraints.txt
	$(PYTHON) -c "from backstage.setup import check_python; check_python()"
	$(PYTHON) -m venv .venv
ifeq ($(TORCH),cpu)
	$(BIN)/python -m pip install --quiet $(shell grep -E '^torch(vision)?==' constraints.txt) --index-url https://download.pytorch.org/whl/cpu
endif
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --constraint constraints.txt
	touch $@

.venv/.book: docs/requirements.txt $(READY)
	$(BIN)/python -m pip install --quiet --requirement $< --constraint constraints.txt
	touch $@
