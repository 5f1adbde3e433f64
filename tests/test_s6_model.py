"""The network and the penalties, held against torch's own layers, optimizers and autograd."""

import contextlib

import pytest
import torch
from torch import nn

import s6_model
from s6_model import AXES, NORMS, Affine, Net, l1_loss, l1_mean_loss, l2_loss, make_norm, summary


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


ORACLES = {
    "BN": nn.BatchNorm2d(8, affine=False),
    "LN": nn.LayerNorm([8, 5, 7], elementwise_affine=False),
    "GN": nn.GroupNorm(4, 8, affine=False),
    "IN": nn.InstanceNorm2d(8),
    "none": nn.Identity(),
}


@pytest.mark.parametrize("norm", ORACLES)
def test_a_norm_is_torchs_statistics_with_a_scale_and_shift_per_channel(norm):
    torch.manual_seed(0)
    layer = make_norm(norm, 8, groups=4).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(6, 8, 5, 7, dtype=torch.double) * 3 + 1
    expected = ORACLES[norm].double()(x) * layer.weight.view(8, 1, 1) + layer.bias.view(8, 1, 1)
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


@pytest.mark.parametrize("norm", AXES)
def test_the_axes_are_those_torchs_layers_average_over(norm):
    torch.manual_seed(0)
    x = torch.randn(6, 8, 5, 7, dtype=torch.double) * 3 + 1
    sets = x.view(6, 4, 2, 5, 7)
    mean = sets.mean(AXES[norm], keepdim=True)
    variance = sets.var(AXES[norm], correction=0, keepdim=True)
    found = ((sets - mean) / (variance + 1e-5).sqrt()).view_as(x)
    torch.testing.assert_close(found, ORACLES[norm].double()(x))


REFUSED = [
    (lambda: Net(lambda channels: None), r"norm\(8\) returned a NoneType: return an nn.Module"),
    (lambda: Net("bn"), "BN, LN, GN, IN or none"),
    (lambda: Net(None), "BN, LN, GN, IN or none"),
    (lambda: Net("GN", groups=3), "8 channels into 3 "),
    (lambda: Net("GN", groups=0), "8 channels into 0 "),
    (lambda: Net("GN", groups=2.0), "8 channels into 2.0 "),
    (lambda: Net()(torch.zeros(1, 28, 28)), r"\(N, 1, H, W\)"),
    (lambda: Net()(torch.zeros(2, 3, 28, 28)), r"\(N, 1, H, W\)"),
    (lambda: Net()(torch.zeros(2, 1, 11, 28)), r"\(N, 1, H, W\)"),
    (lambda: Net()(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)), "floating-point"),
]


@pytest.mark.parametrize(("call", "sentence"), REFUSED)
def test_refuses_what_cannot_work_and_says_what_can(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()


def test_penalties_are_sums_over_weights_only():
    net = Net("GN").double()
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    flat = torch.cat([w.detach().reshape(-1) for w in weights]).numpy()
    assert l1_loss(net).item() == pytest.approx(abs(flat).sum(), rel=1e-12)
    assert l2_loss(net).item() == pytest.approx((flat**2).sum() / 2, rel=1e-12)


def test_l1_as_a_mean_pulls_small_tensors_harder_and_scales_and_shifts_too():
    net = Net("BN").double()
    l1_mean_loss(net).backward()
    for p in net.parameters():
        torch.testing.assert_close(p.grad, p.detach().sign() / p.numel())


def test_penalty_gradients_are_sign_and_weight_and_leave_the_rest_alone():
    net = Net("LN")
    (3 * l1_loss(net) + 5 * l2_loss(net)).backward()
    for name, p in net.named_parameters():
        if p.ndim >= 2:
            torch.testing.assert_close(p.grad, 3 * p.detach().sign() + 5 * p.detach())
        else:
            assert p.grad is None, name


@pytest.mark.parametrize(
    ("optimizer", "equal"),
    [(torch.optim.SGD, True), (torch.optim.Adam, True), (torch.optim.AdamW, False)],
)
def test_the_l2_loss_is_weight_decay_under_sgd_and_adam_but_not_under_adamw(optimizer, equal):
    torch.manual_seed(0)
    x, rate, l2 = torch.randn(8, 1, 28, 28).double(), 0.01, 0.03
    with_loss, with_decay = Net("BN").double(), Net("BN").double()
    with_decay.load_state_dict(with_loss.state_dict())
    weights = [p for p in with_decay.parameters() if p.ndim >= 2]
    rest = [p for p in with_decay.parameters() if p.ndim < 2]
    groups = [{"params": weights, "weight_decay": l2}, {"params": rest, "weight_decay": 0}]
    steps = [
        optimizer(with_loss.parameters(), lr=rate, weight_decay=0),
        optimizer(groups, lr=rate),
    ]
    for _ in range(5):
        (with_loss(x).square().sum() + l2 * l2_loss(with_loss)).backward()
        with_decay(x).square().sum().backward()
        for one in steps:
            one.step()
            one.zero_grad()
    gap = max(
        (a - b).abs().max().item()
        for a, b in zip(with_loss.parameters(), with_decay.parameters(), strict=True)
    )
    assert (gap < 1e-12) == equal


def test_frozen_weights_are_not_penalized():
    net = Net("GN").double()
    net.head.requires_grad_(False)
    convolutions = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]
    expected = sum(w.detach().abs().sum().item() for w in convolutions)
    assert l1_loss(net).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("model", [nn.ReLU(), nn.BatchNorm2d(3), Net().requires_grad_(False)])
def test_a_model_without_weights_to_penalize_has_a_penalty_of_0(model):
    assert l1_loss(model).item() == l2_loss(model).item() == 0


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
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("size", [(28, 28), (4, 4)])  # the second is too small for the network
def test_summary_leaves_every_module_in_its_mode(size):
    net = Net("BN")
    net.features[1].eval()  # a frozen BN
    modes = [m.training for m in net.modules()]
    with contextlib.suppress(RuntimeError):
        summary(net, size)
    assert [m.training for m in net.modules()] == modes and modes.count(False) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_summary_takes_a_model_of_any_precision(dtype):
    assert summary(Net().to(dtype)) == summary(Net())


def test_imports_nothing_but_torch():
    source = s6_model.__loader__.get_source("s6_model")
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert all(
        line.split()[1].split(".")[0] in ("torch", "collections", "contextlib") for line in imports
    )
