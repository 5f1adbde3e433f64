"""GN does not depend on the batch size, and BN does: 1803.08494, section 4.1.

Ghost batches change how many images share BN's statistics and nothing else, so they come first. A
batch that shrinks as a whole changes the gradients and the number of steps, too.
"""

from pathlib import Path

from backstage.evidence.bn_statistics import effect_of_batch_mates
from backstage.evidence.claim import Claim, Family, Line, judged_lines
from backstage.evidence.results import RESULTS, load_results
from backstage.evidence.sentences import interval
from backstage.evidence.statistics import CONTRADICTED, SUPPORTED, all_of, equivalences, widest
from backstage.evidence.tables import accuracies, against_reference, changes, with_precise

NOTEBOOK = "Session6_3_batch_size"
BATCH_POINTS = 0.3  # on 10,000 training images: a sixth of GN's error at the reference, 1.7%

GHOST = Family("ghost batches", NOTEBOOK, with_precise)
GHOST_AND_GN = Family("ghost batches and GN", NOTEBOOK)
SMALL_BATCHES = Family("small batches", NOTEBOOK, changes)
CONTROL = Family("control", NOTEBOOK, changes)
SQUARE_ROOT = Family("square-root rule", NOTEBOOK, changes)

CLAIMS = [
    Claim(
        "BN loses if 2 images in place of 32 share its statistics and all else stays (ghost "
        "batches, optimizer's batch 32)",
        *(GHOST, "ghost", "BN 32 in 32", "BN 2 in 32"),
    ),
    Claim(
        "Likewise within an optimizer's batch of 128",
        *(GHOST, "ghost", "BN 32 in 128", "BN 2 in 128"),
    ),
    Claim(
        "It still does with precise statistics (32): part of the loss is training's",
        *(GHOST, "ghost", "BN 32 in 32, precise", "BN 2 in 32, precise"),
    ),
    Claim(
        "Likewise with precise statistics (128)",
        *(GHOST, "ghost", "BN 32 in 128, precise", "BN 2 in 128, precise"),
    ),
    Claim(
        "GN beats BN whose statistics are of 2 images (optimizer's batch 32)",
        *(GHOST_AND_GN, "batch_size", "GN, batch 32", "BN 2 in 32", "ghost"),
    ),
    Claim(
        "Likewise within an optimizer's batch of 128",
        *(GHOST_AND_GN, "batch_size", "GN, batch 128", "BN 2 in 128", "ghost"),
    ),
    # This one is the sum of the next two, seed by seed: what fixed but precise statistics leave of
    # BN's loss, and what the running average adds to it.
    Claim(
        "BN loses more than GN from batches of 2 in place of 32, the rate in proportion (the "
        "control, a network without a norm, is below)",
        *(SMALL_BATCHES, "batch_size", "GN", "BN"),
    ),
    Claim(
        "It still does with precise statistics: part of the loss is training's",
        *(SMALL_BATCHES, "batch_size", "GN", "BN, precise"),
    ),
    Claim(
        "BN loses more with running than with precise statistics: part of the loss is the running "
        "average's",
        *(SMALL_BATCHES, "batch_size", "BN, precise", "BN"),
    ),
    Claim(
        "The control: BN loses more than a network without a norm, which shrinks its batches and "
        "its rate alike",
        *(CONTROL, "batch_size", "none", "BN"),
    ),
    Claim("BN loses more than LN", CONTROL, "batch_size", "LN", "BN"),
    Claim("GN loses less than a network without a norm", CONTROL, "batch_size", "GN", "none"),
    Claim("LN loses less than a network without a norm", CONTROL, "batch_size", "LN", "none"),
    Claim(
        "With the rate in proportion to the batch's square root, BN loses more than a network "
        "without a norm",
        *(SQUARE_ROOT, "batch_size_sqrt", "none", "BN"),
    ),
    Claim("And more than GN", SQUARE_ROOT, "batch_size_sqrt", "GN", "BN"),
]


def exact_independence() -> Line:
    """GN's output for an image, whatever its batch-mates: no statistics needed."""
    moved = effect_of_batch_mates("GN")
    return Line(
        "GN's output for an image does not depend on the rest of its batch",
        SUPPORTED if moved <= 1e-6 else CONTRADICTED,
        f"moves by at most {moved:.1g} (BN's: {effect_of_batch_mates('BN'):.1f})",
        1,
        NOTEBOOK,
    )


def stability(folder: Path = RESULTS) -> Line:
    """GN's accuracy at every batch size against the reference's."""
    table = accuracies(load_results("batch_size", folder))
    same = equivalences(table, against_reference(table, "GN"), BATCH_POINTS)
    row = widest(same)
    return Line(
        f"GN's accuracy is the same, within ±{BATCH_POINTS} points, at batches of 2 to 128 "
        f"(widest 90% interval: {row.name})",
        all_of(list(same["verdict"])),
        interval(row),
        row["seeds"],
        NOTEBOOK,
    )


def lines(folder: Path = RESULTS) -> list[Line]:
    return [exact_independence(), stability(folder), *judged_lines(CLAIMS, folder)]
