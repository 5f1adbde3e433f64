"""What README.md says in numbers, written from the notebooks and the results.

    python -m tools.readme

Each part stands between two marks, as in "<!-- claim -->" and "<!-- end of claim -->". The table of
notebooks is ``tools.publish``'s.
"""

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from evidence import claims, sentences, statistics, tables
from evidence.results import load_results
from machinery.files import replace_part
from tools.contents import ROOT
from tools.run_notebook import TABLE
from utils import THREE_EXPERIMENTS

LESSON = Path("notebooks/Session6_1.ipynb")
ARMS = [experiment.label for experiment in THREE_EXPERIMENTS]


def final_table(root: Path = ROOT) -> str:
    """The lesson's last table, as its notebook has put it out."""
    cells = nbformat.read(root / LESSON, as_version=4).cells
    cell = next(c for c in cells if TABLE in c.metadata.get("tags", []))
    texts = [o.text for o in cell.outputs if o.output_type == "stream"]
    markdown = [o.data.get("text/markdown") for o in cell.outputs if "data" in o]
    return "\n".join(markdown) if any(markdown) else f"```text\n{''.join(texts).rstrip()}\n```"


def supersedes() -> tuple[pd.DataFrame, dict[str, str]]:
    """The contrasts of "GN + L1 supersedes the others", and with whom each is."""
    found = claims.family("supersedes")
    rivals = {c.contrast: c.b for c in claims.CLAIMS if c.family.name == "supersedes"}
    return found, {name: b for name, b in rivals.items() if b in ARMS}


def best_of_rates() -> pd.Series:
    """Per norm, the mean test accuracy in % at its best rate, after two short epochs of SGD."""
    rows = load_results("with_without")
    rows = rows.assign(norm=rows["setting"].str.partition(",")[0])
    return 100 * rows.groupby(["norm", "setting"])["test_accuracy"].mean().groupby("norm").max()


def in_short() -> str:
    found, rivals = supersedes()
    best, verdict = best_of_rates(), statistics.all_of(list(found.loc[list(rivals), "verdict"]))
    return (
        f"**What came out:** that {ARMS[0]} beats {sentences.listed(rivals.values())} is "
        f"**{verdict}** on {found['seeds'].min()} seeds. But in two short epochs of plain SGD the "
        f"same network reaches {best['BN']:.0f}% with BN, and {best['none']:.0f}% without a norm."
    )


def claim() -> str:
    """What became of "GN + L1 supersedes the others", in two sentences."""
    found, rivals = supersedes()
    said = sentences.superior(found, ARMS[0], rivals).rstrip(".")
    best = statistics.probability_best(tables.accuracies(load_results("replicate"))[ARMS])
    shares = [f"{arm} in {best[arm]:.0%}" for arm in best.sort_values(ascending=False).index]
    return (
        f"On {found['seeds'].min()} seeds, {said}. Whoever trains each of the three once, as is "
        f"usual, finds the best to be {sentences.listed(shares)} of such studies."
    )


def surprises() -> str:
    """Three findings, a line each."""
    best, rows = best_of_rates(), load_results("with_without")
    fast = rows[rows["setting"] == "BN, rate 1"]
    costs = [100 * (b[0] - r[0]) for b, r in fast[["batch_accuracy", "running_accuracy"]].values]
    runs = load_results("replicate")
    images = runs["test_images"].iloc[0]
    missed = np.sum([np.isin(np.arange(images), wrong) for wrong in runs["wrong"]], axis=0)
    hard = missed > len(runs) / 2
    lines = [
        f"The same small network, two short epochs of plain SGD, the best of six learning rates: "
        f"**{best['none']:.0f}%** without a norm, **{best['BN']:.0f}%** with BN.",
        f"The same BN network, the same weights, the same images: `model.eval()` costs "
        f"**{min(costs):.1f} to {max(costs):.1f} points** after one fast epoch, because its "
        "running averages lag behind.",
        f"**{hard.sum()} images** of {images:,} make {missed[hard].sum() / missed.sum():.0%} of "
        f"all mistakes in {len(runs)} runs, whatever the norm, the penalty and the seed.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def parts() -> dict[str, str]:
    return {
        "in short": in_short(),
        "final table": final_table(),
        "claim": claim(),
        "surprises": surprises(),
    }


if __name__ == "__main__":
    for name, text in parts().items():
        replace_part(name, text, ROOT / "README.md")
