"""A path of strengths, from no penalty to far too much: what each does to the weights.

Short runs, three seeds: to look at, not to rank. 200 steps of Adam, the images from
10,000; tested on every fifth test image, which gives an accuracy to about a point. Rows hold
the weights as counts on fixed bins, on a linear and on a logarithmic axis, and the filters of the
first layer.
"""

from dataclasses import replace

import numpy as np

from backstage.evidence.measures.runs import ShortExperiment, part, train, weights
from s6_model import Net
from utils import Data, evaluate

L1 = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
L2 = tuple(10 * strength for strength in L1)  # it pulls with λ·w, and a weight is around 0.1
IMAGES = 10_000

LINEAR = np.linspace(-1, 1, 82)  # edges; an odd number of bins, so that one has 0 in its middle
LOG10 = np.linspace(-8, 1, 37)  # edges, of log10|w|


def settings() -> dict[str, ShortExperiment]:
    """Each norm without a penalty, with L1 and with L2 at each strength."""
    found = {}
    for norm in ("none", "GN", "BN", "LN"):
        plain = ShortExperiment(norm=norm)
        found[norm] = plain
        found |= {f"{norm}, L1 {s:g}": replace(plain, l1=s) for s in L1}
        found |= {f"{norm}, L2 {s:g}": replace(plain, l2=s) for s in L2}
    return found


def counts(values: np.ndarray, edges: np.ndarray) -> list[int]:
    """How many values in each bin; what lies beyond the edges is counted in the outer bins."""
    middle = (edges[:-1] + edges[1:]) / 2
    return np.histogram(np.clip(values, middle[0], middle[-1]), edges)[0].tolist()


def described(model: Net) -> dict:
    """The weights' histograms and shares, in 0..1, and the first layer's filters (8, 6, 6)."""
    w = weights(model).double().numpy()
    size = np.abs(w)
    return {
        "histogram": counts(w, LINEAR),
        "log_histogram": counts(np.log10(np.maximum(size, 1e-30)), LOG10),
        "zeros": float(np.mean(size == 0)),
        "below_1e-3": float(np.mean(size < 1e-3)),
        "below_5e-3": float(np.mean(size < 5e-3)),
        "mean_size": float(size.mean()),
        "filters": np.round(model.features[0].weight.detach().double()[:, 0].numpy(), 3).tolist(),
    }


def measure(experiment: ShortExperiment, seed: int, data: Data) -> dict:
    """Test accuracy in 0..1 and ``described`` of one run."""
    model = train(replace(experiment, seed=seed), part(data.train, IMAGES))
    return {"test_accuracy": evaluate(model, data.test[::5])[1]} | described(model)
