"""Ghost batches against torch's BatchNorm2d chunk by chunk, and BN's other statistics."""

import dataclasses
import functools

import pytest
import torch
from torch import nn

from backstage.evidence import bn_statistics, sweep
from backstage.evidence.measures import batch_size, ghost
from backstage.evidence.measures.ghost import GhostBatchNorm
from s6_model import Net, make_norm
from utils import Experiment, fit, normalize

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
    settings = ghost.settings().values()
    assert {(e.batch_size, e.norm_batch) for e in settings} == {
        (batch, n) for batch in (32, 128) for n in (2, 4, 8, 16, 32)
    }
    plain = batch_size.settings()
    for e in settings:
        assert (e.lr, e.epochs, e.norm) == (plain[f"BN, batch {e.batch_size}"].lr, 6, "BN")


def test_whole_ghost_batches_train_as_plain_bn():
    data = sweep.data_of("digits", 300)
    whole = dataclasses.replace(ghost.settings()["BN 32 in 32"], epochs=1)
    plain = Experiment(**{f.name: getattr(whole, f.name) for f in dataclasses.fields(Experiment)})
    ours, theirs = ghost.measure(whole, 1, data), batch_size.measure(plain, 1, data)
    assert ours.keys() == theirs.keys()
    for column in ("train_loss", "test_loss", "precise_test_loss", "batch_test_loss"):
        assert ours[column] == pytest.approx(theirs[column], rel=0.02)
    fewer = ghost.measure(dataclasses.replace(whole, norm_batch=2), 1, data)
    assert fewer["train_loss"] != pytest.approx(theirs["train_loss"], rel=0.02)


# ------------------------------------------------------------------------- BN's other statistics


@pytest.fixture(scope="module")
def trained():
    data = sweep.data_of("digits", 300)
    return fit(Experiment(norm="BN", epochs=1, batch_size=8), data, device="cpu"), data


def pixels(images):
    return normalize(images.x.float() / 255)


def test_precise_statistics_are_those_of_all_images_at_once(trained):
    run, data = trained
    before = [buffer.clone() for buffer in run.model.buffers()]
    precise = bn_statistics.with_precise_statistics(run.model, data.train)
    first = precise.features[0](pixels(data.train)).double()
    bn = precise.features[1]
    assert torch.allclose(bn.running_mean.double(), first.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(bn.running_var.double(), first.var((0, 2, 3)), rtol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.buffers(), strict=True))


def test_batch_statistics_are_those_of_training_mode(trained):
    run, data = trained
    loss, accuracy = bn_statistics.evaluate_by_batch(run.model, data.test, 360)
    oracle = Net("BN")
    oracle.load_state_dict(run.model.state_dict())
    logits = oracle.train()(pixels(data.test))
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, data.test.y).item(), rel=1e-4)
    right = (logits.argmax(1) == data.test.y).float().mean().item()
    assert accuracy == pytest.approx(right, abs=0.003)


@pytest.mark.parametrize("norm", ["GN", "LN", "none", "BN"])
def test_batch_mates_move_an_image_under_bn_alone(norm):
    layer = make_norm(norm, 16)
    x, others = torch.randn(8, 16, 7, 7), 3 * torch.randn(8, 16, 7, 7) + 1
    others[0] = x[0]
    moved = (layer(x)[0] - layer(others)[0]).abs().max()
    assert moved > 1 if norm == "BN" else moved <= 1e-6
