"""What README.md says in numbers, written from the notebooks and the results.

    python -m backstage.publish.readme

Each part stands between two marks, as in "<!-- claim -->" and "<!-- end of claim -->". The table of
notebooks is ``tools.publish``'s.
"""

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from backstage.evidence import claims, sentences, statistics, tables
from backstage.evidence.results import load_results
from backstage.files import replace_part
from backstage.publish.contents import ROOT
from backstage.publish.run_notebook import TABLE
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
    """Per norm, test accuracy in % after two short epochs of SGD, each seed at its best rate."""
    rows = load_results("with_without")
    return 100 * rows.groupby(["seed", "norm"])["test_accuracy"].max().groupby("norm").mean()


OUTCOME = {  # verdict -> headline, and what became of the claim
    statistics.SUPPORTED: ("{} wins", "{} beats both"),
    statistics.NOT_DETECTED: ("no clear winner", "{} could not be shown to beat both"),
    statistics.CONTRADICTED: ("{} loses", "{} falls behind"),
}


def in_short() -> str:
    found, rivals = supersedes()
    verdicts = found.loc[list(rivals), "verdict"]
    overall = statistics.all_of(list(verdicts))
    headline, outcome = (text.format(ARMS[0]) for text in OUTCOME[overall])
    decided = verdicts if overall == statistics.NOT_DETECTED else verdicts[verdicts == overall]
    names = sentences.listed(rivals[name] for name in decided.index)
    best = best_of_rates().sort_values(ascending=False)
    rates = [f"{share:.0f}% with {norm}" for norm, share in best.drop("none").items()]
    rates[0] = rates[0].replace("%", "% of the test images right")
    rates.append(f"{best['none']:.0f}% without")
    return (
        f"**What came out: {headline}.** Over {found['seeds'].min()} seeds, {outcome} {names}. "
        "**A norm or none is another matter:** after two short epochs of plain SGD, each seed at "
        f"the best of six learning rates, the same network gets {sentences.listed(rates)}."
    )


def claim() -> str:
    """What became of "GN + L1 supersedes the others", in two sentences."""
    found, rivals = supersedes()
    said = sentences.superior(found, ARMS[0], rivals).rstrip(".")
    best = statistics.probability_best(tables.accuracies(load_results("replicate"))[ARMS])
    shares = [f"{arm} in {best[arm]:.0%}" for arm in best.sort_values(ascending=False).index]
    return (
        f"Over {found['seeds'].min()} seeds, {said}; these are mean differences in test accuracy, "
        "with their 95% intervals. If you train each of the three only once, as people usually do, "
        f"luck has its say in which is best: {sentences.listed(shares)} of such studies."
    )


def few_images_line() -> str:
    """What a penalty brings on 300 images, and what its rivals do."""
    penalties = claims.family("few images")["mean"].filter(like=", 300)")
    rivals = claims.family("augmentation and dropout")["mean"]
    (augmentation,), (dropout,) = (rivals.filter(like=w) for w in ("augmentation", "dropout"))
    return (
        f"With 300 training images, turning, slanting and shifting them at random brings "
        f"**{augmentation:+.1f} points** (with GN), dropout {dropout:+.1f}, and the best of "
        f"{len(penalties)} penalties **{penalties.max():+.1f}**."
    )


def eval_line() -> str:
    """What BN's running averages cost after one fast epoch."""
    rows = load_results("with_without")
    fast = rows[rows["setting"] == "BN, rate 1"]
    costs = [100 * (b[0] - r[0]) for b, r in fast[["batch_accuracy", "running_accuracy"]].values]
    return (
        "Switching a network with BN to `model.eval()` costs it "
        f"**{min(costs):.1f} to {max(costs):.1f} points** ({len(costs)} seeds) after one epoch at "
        "a high learning rate: its running averages have not caught up with its weights."
    )


def hard_images_line() -> str:
    """How few images make most of the mistakes."""
    runs = load_results("replicate")
    images = runs["test_images"].iloc[0]
    missed = np.sum([np.isin(np.arange(images), wrong) for wrong in runs["wrong"]], axis=0)
    hard = missed > len(runs) / 2
    return (
        f"**{hard.sum()} of the {images:,} test images** account for "
        f"{missed[hard].sum() / missed.sum():.0%} of all mistakes, over {len(runs)} runs with "
        "different norms, penalties and seeds."
    )


def surprises() -> str:
    """Three findings, a line each."""
    return "\n".join(f"- {line}" for line in (few_images_line(), eval_line(), hard_images_line()))


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
