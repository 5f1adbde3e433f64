"""Other means and variances for a trained BN network than its running averages."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from utils import Data, Images, Run, evaluate, normalize


def _bn_layers(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if hasattr(layer, "running_var")]


@torch.no_grad()
def with_precise_statistics(model: nn.Module, images: Images) -> nn.Module:
    """A copy of the model whose BN layers have the mean and variance of all images.

    The images form one batch, not augmented, and momentum 1 stores that batch's statistics in place
    of an average (arXiv 2105.07576, section 3, where batches have to be added up). 10,000 of the
    lesson's images take about 0.5 GB.
    """
    # In training's channels_last layout, float32 sums over so many values are off by 0.1%.
    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format).eval()
    for layer in _bn_layers(model):
        layer.train().momentum = 1.0
    model(normalize(images.x.float() / 255, images.mean, images.std))
    return model.eval()


@torch.no_grad()
def evaluate_by_batch(
    model: nn.Module, images: Images, batch_size: int, seed: int = 0
) -> tuple[float, float]:
    """Loss in nats and accuracy in 0..1 if BN uses the statistics of each test batch.

    The batches are drawn at random, as in training: neighbours in MNIST share their writer.
    """
    model = copy.deepcopy(model).eval()  # in training mode, BN would overwrite its running averages
    for layer in _bn_layers(model):
        layer.train()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    x = images.x.float() / 255
    batches = (normalize(x[i], images.mean, images.std) for i in order.split(batch_size))
    logits = torch.cat([model(batch) for batch in batches])
    accuracy = (logits.argmax(dim=1) == images.y[order]).double().mean().item()
    return F.cross_entropy(logits, images.y[order]).item(), accuracy


def with_other_statistics(run: Run, data: Data, batch_size: int) -> dict[str, float]:
    """Test loss and accuracy under precise and batch statistics; the running ones are fit's."""
    precise = evaluate(with_precise_statistics(run.model, data.train), data.test)
    batch = evaluate_by_batch(run.model, data.test, batch_size, run.experiment.seed)
    names = ("precise_test_loss", "precise_test_accuracy", "batch_test_loss", "batch_test_accuracy")
    return dict(zip(names, precise + batch, strict=True))
