"""Ghost batches against torch's BatchNorm2d, applied to one chunk after another."""

import dataclasses
import functools

import pytest
import torch
from torch import nn

from backstage.evidence import grids
from backstage.evidence.grids import GRIDS
from backstage.evidence.measures.ghost import GhostBatchNorm, ghost_batches
from backstage.evidence.measures.training import bn_statistics
from utils import Experiment

close = functools.partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("images, n", [(32, 2), (32, 8), (32, 32), (20, 8), (4, 8)])
def test_it_is_torchs_layer_on_each_chunk(images, n, memory):
    torch.manual_seed(0)
    ghost, oracle = GhostBatchNorm(n, 3).double(), nn.BatchNorm2d(3).double()
    for layer in (ghost, oracle):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
            layer.bias.copy_(torch.tensor([0.1, 0.0, 3.0]))
    for _ in range(3):  # steps, for the running averages
        x = (2 * torch.randn(images, 3, 4, 5).double() + 1).to(memory_format=memory)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, expected = ghost(ours), torch.cat([oracle(chunk) for chunk in theirs.split(n)])
        close(y, expected)
        weight = torch.randn_like(y)
        (weight * y).sum().backward()
        (weight * expected).sum().backward()
        close(ours.grad, theirs.grad)
    for name in ("weight", "bias"):
        gradients = (getattr(layer, name).grad for layer in (ghost, oracle))
        close(*gradients)
    for name in ("running_mean", "running_var"):
        close(getattr(ghost, name), getattr(oracle, name))
    close(ghost.eval()(x), oracle.eval()(x))


def test_an_image_depends_on_its_ghost_batch_alone():
    torch.manual_seed(0)
    layer, x = GhostBatchNorm(4, 3), torch.randn(8, 3, 4, 4)
    other = torch.cat([x[:4], 5 * torch.randn(4, 3, 4, 4)])
    assert torch.equal(layer(x)[:4], layer(other)[:4])
    other[0] += 1
    assert not torch.allclose(layer(x)[1], layer(other)[1])


def test_only_the_norms_batch_varies():
    settings = GRIDS["ghost"].settings.values()
    assert {(e.batch_size, e.norm_batch) for e in settings} == {
        (batch, n) for batch in (32, 128) for n in (2, 4, 8, 16, 32)
    }
    plain = GRIDS["batch_size"].settings
    for e in settings:
        assert (e.lr, e.epochs, e.norm) == (plain[f"BN, batch {e.batch_size}"].lr, 6, "BN")
        assert dataclasses.asdict(e).keys() - {"norm_batch"} == {
            field.name for field in dataclasses.fields(Experiment)
        }


def test_whole_ghost_batches_train_as_plain_bn():
    data = grids.sweep_data("digits", 300)
    ghost = dataclasses.replace(GRIDS["ghost"].settings["BN 32 in 32"], epochs=1)
    plain = Experiment(**{f.name: getattr(ghost, f.name) for f in dataclasses.fields(Experiment)})
    ours, theirs = ghost_batches(ghost, 1, data), bn_statistics(plain, 1, data)
    assert ours.keys() == theirs.keys()
    for column in ("train_loss", "test_loss", "precise_test_loss", "batch_test_loss"):
        assert ours[column] == pytest.approx(theirs[column], rel=0.02)
    fewer = ghost_batches(dataclasses.replace(ghost, norm_batch=2), 1, data)
    assert fewer["train_loss"] != pytest.approx(theirs["train_loss"], rel=0.02)
