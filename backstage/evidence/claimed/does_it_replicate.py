"""GN + L1 supersedes the others and is steadier: what the lesson's first source says."""

from pathlib import Path

from backstage.evidence.claim import Claim, Family, Line, judged_lines
from backstage.evidence.results import RESULTS
from backstage.evidence.tables import log_std_around_line

NOTEBOOK = "Session6_5_does_it_replicate"
EQUIVALENT_POINTS = 0.1  # of accuracy on all of MNIST: a sixth of the mean error there, 0.6%

SUPERSEDES = Family("supersedes", NOTEBOOK)
SOURCE = Family("source", NOTEBOOK)
STEADY = Family("steady", NOTEBOOK, log_std_around_line, ratio=True)

OURS, BN, LN = "GN + L1", "BN + L1 + L2", "LN + L2"
CLAIMS = [
    Claim("GN + L1 beats BN + L1 + L2 on MNIST (10 epochs)", SUPERSEDES, "replicate", OURS, BN),
    Claim("GN + L1 beats LN + L2", SUPERSEDES, "replicate", OURS, LN),
    Claim("It is L1 that helps: GN + L1 beats GN", SUPERSEDES, "replicate", OURS, "GN"),
    Claim(
        "GN + L1 beats BN + L1 + L2 with the source's penalties (L1 a mean per tensor, over every "
        "parameter)",
        *(SOURCE, "source", OURS, BN),
    ),
    Claim("GN + L1 beats LN + L2 with the source's penalties", *(SOURCE, "source", OURS, LN)),
    Claim(
        "GN + L1 is steadier than BN + L1 + L2: SD around the trend of the last 5 epochs, constant "
        "learning rate (a measure chosen after seeing the data)",
        *(STEADY, "constant", BN, OURS),
    ),
    Claim("GN + L1 is steadier than LN + L2, likewise", STEADY, "constant", LN, OURS),
    Claim(
        "It is L1 that steadies: GN + L1 is steadier than GN, likewise (one-cycle learning rate)",
        *(STEADY, "replicate", "GN", OURS),
    ),
    Claim(
        "It is L2 that unsteadies BN: BN + L1 is steadier than BN + L1 + L2, likewise (one-cycle "
        "learning rate)",
        *(STEADY, "replicate", BN, "BN + L1"),
    ),
]


def lines(folder: Path = RESULTS) -> list[Line]:
    return judged_lines(CLAIMS, folder)
