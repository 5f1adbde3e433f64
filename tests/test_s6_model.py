"""The network and the penalties, held against torch's own layers, optimizers and autograd."""

import pytest
import torch
from torch import nn

import s6_model
from s6_model import NORMS, Affine, Net, l1_loss, l2_loss, make_norm, summary


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [(28, 28), (16, 16), (33, 21)])
def test_gives_ten_logits_for_any_size(norm, size):
    assert Net(norm)(torch.randn(3, 1, *size)).shape == (3, 10)


def test_the_last_block_sees_36x36_pixels():
    net = Net("none").double()
    x = torch.randn(1, 1, 60, 60, dtype=torch.double, requires_grad=True)
    # Smooth activations and averages instead of maxima, so that no path is shut by chance.
    for i, layer in enumerate(net.features):
        if isinstance(layer, nn.ReLU):
            net.features[i] = nn.Softplus()
        if isinstance(layer, nn.MaxPool2d):
            net.features[i] = nn.AvgPool2d(2)
    features = net.features(x)
    features[0, 0, 6, 6].backward()
    seen = x.grad[0, 0].nonzero()
    extent = seen.max(dim=0).values - seen.min(dim=0).values + 1
    assert extent.tolist() == [36, 36]


def test_every_norm_has_the_same_number_of_parameters_below_8000():
    counts = {norm: sum(p.numel() for p in Net(norm).parameters()) for norm in NORMS}
    assert len(set(counts.values())) == 1
    assert counts["BN"] < 8_000


def test_every_norm_starts_from_the_same_weights():
    def weights(norm):
        torch.manual_seed(0)
        return dict(Net(norm).named_parameters())

    reference = weights("BN")
    for norm in NORMS:
        for name, value in weights(norm).items():
            assert torch.equal(value, reference[name]), (norm, name)


def layer_norm_chw(channels):
    return nn.LayerNorm([channels, 5, 7], elementwise_affine=False, dtype=torch.double)


@pytest.mark.parametrize(
    ("norm", "oracle"),
    [
        ("BN", lambda c: nn.BatchNorm2d(c, affine=False, dtype=torch.double)),
        ("LN", layer_norm_chw),
        ("GN", lambda c: nn.GroupNorm(4, c, affine=False, dtype=torch.double)),
        ("none", lambda c: nn.Identity()),
    ],
)
def test_a_norm_is_torchs_statistics_with_a_gain_and_shift_per_channel(norm, oracle):
    torch.manual_seed(0)
    layer = make_norm(norm, 8, groups=4).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(6, 8, 5, 7, dtype=torch.double) * 3 + 1
    expected = oracle(8)(x) * layer.weight.view(8, 1, 1) + layer.bias.view(8, 1, 1)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_only_bn_depends_on_its_batch_mates_and_only_in_training(norm):
    torch.manual_seed(0)
    net = Net(norm).double()
    image, mates = torch.randn(1, 1, 28, 28).double(), torch.randn(2, 4, 1, 28, 28).double()

    def moved():
        a, b = (net(torch.cat([image, others]))[0] for others in mates)
        return (a - b).abs().max().item()

    assert (moved() > 1e-3) == (norm == "BN")
    net.eval()
    assert moved() < 1e-12


def test_groups_reach_the_layers():
    groups = [m.num_groups for m in Net("GN", groups=2).modules() if isinstance(m, nn.GroupNorm)]
    assert groups == [2] * 5


def test_takes_a_callable_as_its_norm():
    made = []

    def own(channels):
        made.append(channels)
        return Affine(channels)

    assert Net(own)(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    assert made == [8, 12, 16, 16, 16]


@pytest.mark.parametrize("norm", ["bn", "IN", "", None])
def test_refuses_an_unknown_norm_and_names_the_valid_ones(norm):
    with pytest.raises(ValueError, match="BN, LN, GN, none"):
        Net(norm)


@pytest.mark.parametrize("groups", [3, 0, 32])
def test_refuses_groups_that_do_not_divide_the_channels(groups):
    with pytest.raises(ValueError, match=rf"8 channels into {groups} "):
        Net("GN", groups=groups)


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 3, 28, 28), (2, 1, 11, 28), (2, 784)])
def test_refuses_images_of_a_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\)"):
        Net()(torch.zeros(shape))


def test_refuses_images_of_a_wrong_type():
    with pytest.raises(TypeError, match="floating-point"):
        Net()(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))


def test_penalties_are_sums_over_weights_only():
    net = Net("GN").double()
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    flat = torch.cat([w.detach().reshape(-1) for w in weights]).numpy()
    assert l1_loss(net).item() == pytest.approx(abs(flat).sum(), rel=1e-12)
    assert l2_loss(net).item() == pytest.approx((flat**2).sum() / 2, rel=1e-12)


def test_penalties_of_everything():
    net = Net("BN").double()
    flat = torch.nn.utils.parameters_to_vector(net.parameters()).detach().numpy()
    assert l1_loss(net, everything=True).item() == pytest.approx(abs(flat).sum(), rel=1e-12)
    assert l2_loss(net, everything=True).item() == pytest.approx((flat**2).sum() / 2, rel=1e-12)


def test_l1_as_a_mean_pulls_small_tensors_harder():
    net = Net("BN").double()
    l1_loss(net, everything=True, reduction="mean").backward()
    for p in net.parameters():
        torch.testing.assert_close(p.grad, p.detach().sign() / p.numel())
    with pytest.raises(ValueError, match="'sum' or 'mean'"):
        l1_loss(net, reduction="none")


def test_penalty_gradients_are_sign_and_weight_and_leave_the_rest_alone():
    net = Net("LN")
    (3 * l1_loss(net) + 5 * l2_loss(net)).backward()
    for name, p in net.named_parameters():
        if p.ndim >= 2:
            torch.testing.assert_close(p.grad, 3 * p.detach().sign() + 5 * p.detach())
        else:
            assert p.grad is None, name


def test_l2_under_sgd_is_weight_decay():
    torch.manual_seed(0)
    x, rate, l2 = torch.randn(8, 1, 28, 28), 0.1, 0.03
    nets = [Net("BN"), Net("BN")]
    nets[1].load_state_dict(nets[0].state_dict())
    decayed = [p for p in nets[1].parameters() if p.ndim >= 2]
    rest = [p for p in nets[1].parameters() if p.ndim < 2]
    optimizers = [
        torch.optim.SGD(nets[0].parameters(), lr=rate),
        torch.optim.SGD([{"params": decayed, "weight_decay": l2}, {"params": rest}], lr=rate),
    ]
    (nets[0](x).square().sum() + l2 * l2_loss(nets[0])).backward()
    nets[1](x).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_penalties_work_in_channels_last():
    net = Net("BN")
    before = l1_loss(net).item(), l2_loss(net).item()
    net = net.to(memory_format=torch.channels_last)
    assert (l1_loss(net).item(), l2_loss(net).item()) == pytest.approx(before)


def test_summary_adds_up_and_leaves_the_model_as_it_was():
    net = Net("BN")
    state = {k: v.clone() for k, v in net.state_dict().items()}
    table = summary(net)
    rows = [line.split() for line in table.splitlines()[1:]]
    counts = [int(row[-1].replace(",", "")) for row in rows]
    assert counts[-1] == sum(counts[:-1]) == sum(p.numel() for p in net.parameters())
    fields = [row[-2] for row in rows if row[0] == "Conv2d"]
    assert fields == ["6", "10", "20", "28", "36"]
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_imports_nothing_but_torch():
    source = s6_model.__loader__.get_source("s6_model")
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert all(line.split()[1].split(".")[0] in ("torch", "collections") for line in imports)
