"""The contract of the committed lessons, and their set-up cell played as Colab plays it.

That their code runs and their claims hold is what nbval tests.
"""

import ast
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from unittest.mock import MagicMock

import nbformat
import pytest
from conftest import ROOT

from backstage import setup
from backstage.publish.notebooks import REPOSITORY, SET_UP, figures, paths, set_up

NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in paths()}


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=NOTEBOOKS)
def notebook(request):
    return NOTEBOOKS[request.param]


def test_the_lessons_are_there():
    assert [name[:10] for name in NOTEBOOKS] == [f"Session6_{i}" for i in range(len(NOTEBOOKS))]


def test_begins_with_the_set_up_cell_of_all_with_twelve_lines_at_most(notebook):
    assert len([line for line in SET_UP.splitlines() if line]) <= 12
    assert REPOSITORY.sub('REPOSITORY = ""', code(notebook)[0].source) == SET_UP


def test_is_committed_executed_from_top_to_bottom(notebook):
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_has_no_debris_in_its_outputs(notebook):
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    text = json.dumps([{**o, "data": {**o.get("data", {}), "image/png": ""}} for o in outputs])
    assert not re.search(r"(?<![\w.])/(root|home|work|tmp|Users)/", text)
    assert "it/s" not in text and "widget-view" not in text and "Warning" not in text


def test_is_prose_first_and_short(notebook):
    """At least four words to a line of code, folded solutions not counted; no long cell."""
    cells = code(notebook)
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    words = len(re.sub(r"<details.*?</details>", " ", prose, flags=re.DOTALL).split())
    lengths = [len(cell.source.splitlines()) for cell in cells]
    assert words >= 4 * sum(lengths) and words <= 2_300 and len(notebook.cells) <= 75
    assert max(lengths) <= 30 and not any("Markdown(" in cell.source for cell in cells)


def test_every_figure_has_a_text_of_its_own(notebook):
    texts = [f.metadata["image/png"]["alt"] for cell in notebook.cells for f in figures(cell)]
    assert texts and all(len(text.split()) > 5 for text in texts)


def test_is_not_too_heavy_to_open():
    assert all(path.stat().st_size <= 700_000 for path in paths())


# --------------------------------------------------------------------------------- the set-up cell


WHERE = """
from importlib.util import find_spec  # finds what `import` would, in a moment
print(find_spec("utils").origin, find_spec("s6_model").origin, sep="\\n")
"""


def play(source, folder):
    """Runs the set-up cell in the folder, in a fresh process: where utils and s6_model are then."""
    command, env = [sys.executable, "-c", source + WHERE], os.environ | {"PYTHONPATH": ""}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return done.stdout.splitlines()[-2:] if done.returncode == 0 else done.stderr


def copy_code(folder):
    for name in ("s6_model.py", "utils.py", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "backstage", folder / "backstage")


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """A repository to clone from, with the files as they are here."""
    folder = tmp_path_factory.mktemp("remote")
    copy_code(folder)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder.as_uri()


def two_files(folder):
    return [str(folder / name) for name in ("utils.py", "s6_model.py")]


def test_it_clones_when_the_notebook_is_alone(remote, tmp_path):
    (tmp_path / "s6_model.py").write_text("raise ImportError('a learner’s own')")
    clone = two_files(tmp_path / "normalization-lesson")
    assert play(set_up(remote), tmp_path) == clone
    assert play(set_up(), tmp_path) == clone  # a second time it is found


def test_it_finds_the_course_it_lies_in_and_the_course_s_own_utils(tmp_path):
    copy_code(tmp_path)
    folder = tmp_path / "somewhere" / "below"
    folder.mkdir(parents=True)
    (folder / "utils.py").write_text("another = True")
    assert play("import utils\n" + SET_UP, folder) == two_files(tmp_path)


@pytest.fixture
def private():
    """The address of a server that asks for a name and a password."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/someone/private"
    server.shutdown()
    server.server_close()


MISTAKES = {  # the address, and what is said
    "none": ("", "Needs git, and the course's address in REPOSITORY."),
    "no git": ("https://example.org/a/b", "Needs git, and the course's address in REPOSITORY."),
    "private": ("private", r"Authentication failed .*\n.*Check address and network"),
    "closed port": ("http://127.0.0.1:9/a/b", r"Failed to connect .*\n.*Check address and network"),
    "a shell": ("a; touch x", r"'a; touch x' does not exist\n.*Check address and network"),
    "half a clone": ("good", r"already exists .*\n.*delete a folder in the way"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_it_says_what_to_do_where_nothing_can_be_cloned(
    case, private, remote, tmp_path, monkeypatch
):
    address, said = MISTAKES[case]
    address = {"private": private, "good": remote}.get(address, address)
    if case == "half a clone":
        (tmp_path / "normalization-lesson" / ".git").mkdir(parents=True)
    if case == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    assert re.search(f"^AssertionError: (.*\n)*?.*{said}", play(set_up(address), tmp_path), re.M)
    assert not (tmp_path / "x").exists()


# -------------------------------------------------------------------------------- what it installs


def test_what_is_installed_is_the_notebooks_part_of_the_requirements(tmp_path, monkeypatch, capsys):
    file = tmp_path / "requirements.txt"
    file.write_text("# why\ntorch>=2\nno-such-thing>=1\n# --- the rest\npytest-is-not-needed\n")
    commands = []
    monkeypatch.setattr(setup.subprocess, "run", lambda command, check: commands.append(command))
    setup.install_what_is_missing(file)
    assert [command[-1] for command in commands] == ["no-such-thing>=1"]
    assert "torch" not in " ".join(commands[0]) and "no-such-thing" in capsys.readouterr().out


def test_nothing_is_installed_where_all_is_there(monkeypatch):
    monkeypatch.setattr(setup.subprocess, "run", functools.partial(pytest.fail, "installed"))
    setup.begin()


def test_an_old_python_is_told_so(monkeypatch):
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit, match=r"This is Python 3\.9: the course needs 3\.\d+ or later"):
        setup.begin()


def test_under_the_smoke_test_loops_that_train_end_after_10_steps_and_no_others():
    loops = "for i in range(3):\n for j in range(99):\n  loss.backward()\nfor k in range(99): pass"
    loss, scope = MagicMock(), {}
    tree = setup.ShortLoops().visit(ast.parse(loops))
    exec(compile(tree, "cell", "exec"), scope | {"loss": loss}, scope)
    assert loss.backward.call_count == 3 * 10
    assert (scope["i"], scope["j"], scope["k"]) == (2, 9, 98)
