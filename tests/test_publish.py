"""What all notebooks have alike: set-up cell, badges, folded cells; Colab played by a stand-in."""

import http.server
import json
import threading
import urllib.parse

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from test_notebooks import remote  # noqa: F401

from backstage import setup
from backstage.publish import publish
from backstage.publish.contents import paths
from backstage.publish.folding import fold

ADDRESS = "https://github.com/someone/a-course"


def notebooks(folder):
    return [nbformat.read(folder / path, as_version=4) for path in paths(folder)]


# ----------------------------------------------------------------------- the set-up cell in Colab


@pytest.fixture
def colab(monkeypatch):
    """Colab's list of sessions, as its kernel can read it; gives a function to say what is open."""
    told = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path == "/api/sessions"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(json.dumps([told] if known else "what?").encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
    monkeypatch.setenv("KMP_TARGET_PORT", str(server.server_port))
    yield lambda file: told.update(name="X.ipynb", path="fileId=" + urllib.parse.quote(file, ""))
    server.shutdown()
    server.server_close()


def play(source, folder, monkeypatch):
    """Runs the set-up cell in a fresh kernel in the folder; gives the place that it has found."""
    monkeypatch.setenv("PYTHONPATH", "")
    cells = [nbformat.v4.new_code_cell(text) for text in (source, "print(setup.__file__)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook.cells[1].outputs[0].text.strip()


def on_github(monkeypatch, address, folder):
    """Whoever clones the address gets what is in the folder."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{folder}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", address)


def test_in_colab_a_notebook_from_github_finds_its_repository(
    colab,
    remote,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    colab(f"{ADDRESS}/blob/main/notebooks/X.ipynb")
    on_github(monkeypatch, ADDRESS, remote)
    found = play(publish.set_up("https://github.com/someone/else"), tmp_path, monkeypatch)
    assert found == str(tmp_path / "normalization-lesson" / "backstage" / "setup.py")


def test_in_colab_a_notebook_from_elsewhere_takes_the_form_s_repository(
    colab,
    remote,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    colab("1aBcDeF")  # as a file on Drive
    on_github(monkeypatch, ADDRESS, remote)
    found = play(publish.set_up(ADDRESS), tmp_path, monkeypatch)
    assert found == str(tmp_path / "normalization-lesson" / "backstage" / "setup.py")


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
    monkeypatch.setattr(setup.subprocess, "run", pytest.fail)
    setup.install_what_is_missing()


def test_an_old_python_is_told_so(monkeypatch):
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit, match=r"This is Python 3\.9: the course needs 3\.\d+ or later"):
        setup.install_what_is_missing()


# ------------------------------------------------------------------------------------ publishing


@pytest.mark.parametrize(
    "text",
    [
        "https://github.com/a/b.c",
        "https://github.com/a/b.c.git",
        "https://github.com/a/b.c/",
        "git@github.com:a/b.c.git",
        "ssh://git@github.com/a/b.c",
    ],
)
def test_addresses_of_github_are_understood(text):
    assert publish.address_of(text) == "https://github.com/a/b.c"


@pytest.mark.parametrize("text", ["", "/srv/x.git", "https://example.org/a/b", "github.com"])
def test_other_addresses_are_none(text):
    assert publish.address_of(text) is None


def copy_of_notebooks(folder):
    for path in paths():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes((ROOT / path).read_bytes())
    (folder / "README.md").write_bytes((ROOT / "README.md").read_bytes())
    return folder


def test_publishing_writes_badges_and_addresses_and_can_be_undone(tmp_path, capsys):
    before = notebooks(copy_of_notebooks(tmp_path))
    assert publish.main([ADDRESS], tmp_path) == 0
    for path, old, new in zip(paths(tmp_path), before, notebooks(tmp_path), strict=True):
        link = f"github/someone/a-course/blob/main/{path.as_posix()})"
        assert new.cells[0].source.count(link) == 1
        assert new.cells[0].source.splitlines()[0] == old.cells[0].source.splitlines()[0]
        assert [c.get("outputs") for c in new.cells] == [c.get("outputs") for c in old.cells]
        assert f'REPOSITORY = "{ADDRESS}"  # @param' in "".join(c.source for c in new.cells)
    once = [(tmp_path / path).read_bytes() for path in paths(tmp_path)]
    publish.main([ADDRESS], tmp_path)  # a second time, nothing changes
    assert [(tmp_path / path).read_bytes() for path in paths(tmp_path)] == once
    publish.main([], tmp_path)  # there is no clone, so no origin
    assert notebooks(tmp_path) == before and "point nowhere" in capsys.readouterr().out


def test_what_is_no_address_is_refused_and_nothing_written(tmp_path, capsys):
    before = notebooks(copy_of_notebooks(tmp_path))
    with pytest.raises(SystemExit):
        publish.main(["https://example.org/x"], tmp_path)
    assert "no address like https" in capsys.readouterr().err
    assert notebooks(tmp_path) == before


def test_every_notebook_has_the_set_up_cell_of_this_program():
    for notebook in notebooks(ROOT):
        source = next(c.source for c in notebook.cells if c.cell_type == "code")
        assert publish.REPOSITORY.sub('REPOSITORY = ""', source) == publish.SET_UP


# --------------------------------------------------------------------------------------- folding


def test_tags_are_turned_into_every_reader_s_marks():
    tags = ([], ["hide-input"], ["x", "hide-output"], ["hide-input", "hide-output"])
    cells = [nbformat.v4.new_code_cell("1", metadata={"tags": list(t)}) for t in tags]
    notebook = nbformat.v4.new_notebook(cells=cells)
    fold(notebook)
    marks = [(c.metadata.get("jupyter"), c.metadata.get("cellView")) for c in cells]
    hidden = {"source_hidden": True}, {"outputs_hidden": True}
    assert marks == [(None, None), (hidden[0], "form"), (hidden[1], None)] + [
        (hidden[0] | hidden[1], "form")
    ]
    cells[3].metadata["tags"] = []
    fold(notebook)
    assert dict(cells[3].metadata) == {"tags": []}
    nbformat.validate(notebook)
