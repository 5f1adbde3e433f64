"""The two files work alone: copied into an empty folder, with nothing else of the course."""

import os
import shutil
import subprocess
import sys

from conftest import ROOT

SCRIPT = """
import sys
from dataclasses import replace

import matplotlib
import torch

matplotlib.use("agg")
import s6_model
import utils

if __name__ == "__main__":
    data = utils.load_data("digits")
    data = utils.split_validation(utils.Data(data.name, data.train[:500], data.test), 100)
    two = [replace(e, epochs=2) for e in utils.THREE_EXPERIMENTS[:2]]
    save = utils.Checkpoint.save
    utils.Checkpoint.save = lambda kept, epochs: save(kept, epochs) or 1 / (len(epochs) - 1)
    try:
        utils.fit(two[0], data, "kept")
    except ZeroDivisionError:
        utils.Checkpoint.save = save
    runs = utils.fit_together(two, data, "kept", device="cpu")
    again = utils.fit(two[0], data, "kept", device="cpu")
    assert again.history.epochs == runs[0].history.epochs
    logits = {run.experiment.label: utils.predict(run.model, data.test) for run in runs}
    first = logits["GN + L1"]
    assert utils.evaluate(runs[0].model, data.test)[1] == runs[0].history["test_accuracy"][-1]
    utils.plot_curves([run.history for run in runs])
    utils.most_confident_errors(first, data.test.y)
    utils.shared_and_own_errors(logits, data.test.y)
    utils.plot_normalization_axes()
    utils.accuracy_interval(9, 10)
    print(s6_model.summary(runs[0].model))
    assert not [name for name in sys.modules if name.startswith("backstage")]
"""


def test_the_two_files_work_alone(tmp_path):
    for name in ("s6_model.py", "utils.py"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env["OMP_NUM_THREADS"] = "1"  # the suite may share the machine
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "total" in done.stdout and "one experiment after another" not in done.stdout
