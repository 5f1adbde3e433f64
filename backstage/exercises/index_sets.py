"""Which values are averaged together: the norms' means, and batches split into ghost batches."""

from collections.abc import Callable

import torch
from torch import Tensor

from backstage.exercises import norms
from backstage.exercises.cases import activations, forward_and_backward
from backstage.exercises.exercise import Exercise, Mistake, Unfit, finished

# --------------------------------------------------------------------------- ghost batches


def ghost_recipe(
    chunks: Callable = lambda x, size: x.split(size), each: Callable = norms.batch_norm
):
    def forward(x, gamma, beta, size, eps):
        return torch.cat([each(part, gamma, beta, eps) for part in chunks(x, size)])

    return forward


def strided(x: Tensor, size: int) -> list[Tensor]:
    """Every k-th image in the same ghost batch."""
    count = -(-len(x) // size)
    return [x[i::count] for i in range(count)]


def evenly(x: Tensor, size: int):
    return x.chunk(-(-len(x) // size))


def ghost_cases() -> list[dict]:
    order = ("x", "gamma", "beta", "size", "eps")
    cases = activations(size=(1, 1, 2, 2))
    cases[0]["x"] = cases[0]["x"].repeat(2, 1, 1, 1) + torch.tensor([0.0, 1, 3, 8]).view(4, 1, 1, 1)
    cases[0]["size"] = 2
    cases[3]["x"] = torch.cat([cases[3]["x"], 2 * cases[3]["x"].flip(0) + 1])
    cases.append(cases[3] | {"size": 6})
    return [{key: case[key] for key in order} for case in cases]


GHOST_MISTAKES = (
    Mistake(
        "statistics of the whole batch",
        "Each ghost batch is normalized by itself: split x along N first.",
        {"chunks": lambda x, size: (x,)},
    ),
    Mistake(
        "`size` taken for the number of ghost batches",
        "`size` says how many images each has: compare torch's split() with chunk().",
        {"chunks": lambda x, size: x.chunk(size)},
    ),
    Mistake(
        "every k-th image put in the same ghost batch",
        "A ghost batch is made of images that follow one another.",
        {"chunks": strided},
    ),
    Mistake(
        "the ghost batches made equally large",
        "All have `size` images, and only the last may have fewer.",
        {"chunks": evenly},
    ),
    Mistake(
        "images normalized one by one",
        "Within a ghost batch the statistics are batch norm's: over its images as well.",
        {"each": norms.instance_norm},
    ),
    Mistake(
        "the unbiased variance used to normalize",
        "The variance is divided by the number of values, not by one less.",
        {"each": norms.without_groups("BN")(variance=norms.unbiased)},
    ),
)


# ------------------------------------------------------------------------------ index sets

DIMS = {"BN": (0, 2, 3), "LN": (1, 2, 3), "IN": (2, 3)}


def means_of(answer, x: Tensor, groups: int):
    found = finished(answer(x, groups))
    if not isinstance(found, dict) or not {"BN", "LN", "IN", "GN"} <= set(found):
        raise Unfit("return a dict with the keys 'BN', 'LN', 'IN' and 'GN'.")
    for name in ("BN", "LN", "IN", "GN"):
        yield f"{name}'s means", found[name]


def means_recipe(
    dims: dict = DIMS, split: Callable = norms.blocks, over=(2, 3, 4), mean: Callable = Tensor.mean
):
    def means(x, groups):
        found = {name: mean(x, d) for name, d in dims.items()}
        return found | {"GN": mean(split(x, groups), over)}

    return means


def means_by_loops(x: Tensor, groups: int) -> dict[str, Tensor]:
    """Value by value, as the definition says."""
    n, c = x.shape[:2]
    by_group = [[part.mean() for part in image.split(c // groups)] for image in x]
    return {
        "BN": torch.stack([x[:, k].mean() for k in range(c)]),
        "LN": torch.stack([image.mean() for image in x]),
        "IN": torch.stack([torch.stack([plane.mean() for plane in image]) for image in x]),
        "GN": torch.tensor(by_group),
    }


def means_cases() -> list[dict]:
    cases = activations(groups=(1, 2, 4, 2))
    return [{"x": case["x"], "groups": case["groups"]} for case in cases]


INDEX_MISTAKES = (
    Mistake(
        "BN and LN swapped",
        "BN keeps the channel, so C is not averaged over; LN keeps the image, N.",
        {"dims": DIMS | {"BN": DIMS["LN"], "LN": DIMS["BN"]}},
    ),
    Mistake(
        "a BN that averages over the batch alone",
        "All pixels of a channel share one mean: H and W belong to `dim` too.",
        {"dims": DIMS | {"BN": (0,)}},
    ),
    Mistake(
        "a dimension that is kept named as one that is averaged",
        "`dim` names the dimensions that disappear: BN is to have one mean per channel.",
        {"dims": {"BN": (1,), "LN": (0,), "IN": (0, 1)}},
    ),
    Mistake(
        "an LN that averages over the channels alone",
        "An image has one mean in LN: H and W belong to `dim` too.",
        {"dims": DIMS | {"LN": (1,)}},
    ),
    Mistake(
        "sums for means",
        "They are larger by the number of values in the set.",
        {"mean": Tensor.sum},
    ),
    *norms.GROUP_MISTAKES[:2],
    Mistake(
        "a GN that averages over the batch",
        "Each image has group means of its own: N is not averaged over.",
        {"over": (0, 2, 3, 4)},
    ),
)

EXERCISES = (
    Exercise("index_sets", means_by_loops, means_recipe, INDEX_MISTAKES, means_cases, means_of),
    Exercise(
        "ghost_batch_norm",
        lambda x, gamma, beta, size, eps: torch.cat(
            [norms.batch_norm(part, gamma, beta, eps) for part in x.split(size)]
        ),
        ghost_recipe,
        GHOST_MISTAKES,
        ghost_cases,
        forward_and_backward,
    ),
)
