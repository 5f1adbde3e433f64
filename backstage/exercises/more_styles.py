"""Right answers to the other exercises, written in different ways: all of them must pass."""

import copy
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from torch.nn.utils import parameters_to_vector

from backstage.exercises.styles import NORM_STYLES

# ------------------------------------------------------------------- penalties and training


def of_layers(model):
    return [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def l1_by_layers(model):
    total = torch.zeros(())
    for w in of_layers(model):
        total = total + torch.linalg.vector_norm(w, 1)
    return total


def l1_as_a_vector(model):
    return parameters_to_vector(of_layers(model)).float().abs().sum()


def l1_by_signs(model):
    return sum(torch.where(w > 0, w, -w).sum() for w in of_layers(model))


def l2_by_dots(model):
    return sum((w.flatten() @ w.flatten()) / 2 for w in of_layers(model))


def l2_from_norms(model):
    return torch.stack([w.norm() for w in of_layers(model)]).square().sum().mul(0.5)


def step_with_two_backwards(model, opt, images, labels, lam1, lam2):
    model.train()
    opt.zero_grad(set_to_none=False)
    data = nn.CrossEntropyLoss()(model(images), labels)
    data.backward()
    (lam1 * l1_by_layers(model) + lam2 * l2_by_dots(model)).backward()
    opt.step()
    return float(data)


def step_by_gradients(model, opt, x, y, l1, l2):
    model.train()
    for p in model.parameters():
        p.grad = None
    loss = F.nll_loss(model(x).log_softmax(1), y)
    loss.backward()
    with torch.no_grad():
        for w in of_layers(model):
            w.grad += l1 * torch.sign(w) + l2 * w
    opt.step()
    return loss.detach()


@torch.inference_mode()
def evaluate_all_at_once(model, batches):
    mode = model.training
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    logits = model.eval()(x)
    model.train(mode)
    return F.cross_entropy(logits, y), (logits.argmax(-1) == y).float().mean()


def evaluate_on_a_copy(model, batches):
    model, n = copy.deepcopy(model).eval(), sum(len(y) for _, y in batches)
    with torch.no_grad():
        outcomes = [(model(x), y) for x, y in batches]
    return [
        sum(len(y) * F.cross_entropy(z, y).item() for z, y in outcomes) / n,
        np.mean([bool(t) for z, y in outcomes for t in z.max(1).indices == y]),
    ]


def fold_by_probing(conv, bn):
    """Finds scale and shift from what the norm does to 0 and to 1."""
    n = conv.out_channels
    with torch.no_grad():
        shift = bn(torch.zeros(1, n, 1, 1)).flatten()
        scale = bn(torch.ones(1, n, 1, 1)).flatten() - shift
        kept = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        new = nn.Conv2d(conv.in_channels, n, **{key: getattr(conv, key) for key in kept})
        new.weight.copy_(torch.einsum("oikl,o->oikl", conv.weight, scale))
        new.bias.copy_(shift + (0 if conv.bias is None else conv.bias * scale))
    return new


def fold_in_place_of_a_copy(conv, bn):
    new = copy.deepcopy(conv)
    inverse = (bn.running_var.data + bn.eps) ** -0.5
    new.weight.data *= (bn.weight.data * inverse).reshape(-1, 1, 1, 1)
    old = torch.zeros(len(inverse)) if conv.bias is None else conv.bias.data
    new.bias = nn.Parameter((old - bn.running_mean) * inverse * bn.weight.data + bn.bias.data)
    return new


# ----------------------------------------------------------------------- other measurements


def norms_by_retaining(model, x, y):
    outputs, handles = {}, []

    def hook(name):
        def keep(_, __, out):
            out.retain_grad()
            outputs[name] = out

        return keep

    for name, m in model.named_modules():
        if len(m._parameters):
            handles.append(m.register_forward_hook(hook(name)))
    F.cross_entropy(model(x), y).backward()
    [h.remove() for h in handles]
    model.zero_grad()
    return {name: out.grad.norm().item() for name, out in outputs.items()}


def norms_by_hooks_before(model, x, y):
    seen = {}
    handles = [
        m.register_full_backward_pre_hook(
            lambda _, grads, name=name: seen.update({name: grads[0].norm()})
        )
        for name, m in model.named_modules()
        if m._parameters
    ]
    F.cross_entropy(model(x), y).backward()
    for handle in handles:
        handle.remove()
    for p in model.parameters():
        p.grad = None
    return seen


def norms_by_tensor_hooks(model, x, y):
    seen = {}

    def forward(m, _, out):
        out.register_hook(lambda g: seen.update({names[m]: math.sqrt(g.pow(2).sum())}))

    names = {m: n for n, m in model.named_modules() if hasattr(m, "weight")}
    handles = [m.register_forward_hook(forward) for m in names]
    loss = F.cross_entropy(model(x), y)
    torch.autograd.grad(loss, list(model.parameters()))
    for handle in handles:
        handle.remove()
    return seen


def rate_by_loop(weight, lr):
    return [lr / (w * w).sum().item() for w in weight]


def rate_by_einsum(weight, lr):
    return lr * torch.einsum("oikl,oikl->o", weight, weight).reciprocal()


def precise_in_one_pass(batches):
    n = s = q = 0
    for x in batches:
        n, s, q = n + x[:, :1].numel(), s + x.sum((0, 2, 3)), q + (x * x).sum((0, 2, 3))
    return s / n, (q - s * s / n) / (n - 1)


def precise_at_once(batches):
    var, mean = torch.var_mean(torch.cat(batches).float(), (0, 2, 3))
    return mean, var


def prox_by_relus(w, grad, lr, l1):
    v = w - lr * grad
    return F.relu(v - lr * l1) - F.relu(-v - lr * l1)


def prox_by_where(w, grad, lr, l1):
    v, t = w.sub(grad, alpha=lr), lr * l1
    return torch.where(v > t, v - t, torch.where(v < -t, v + t, 0.0))


# ------------------------------------------------------------------------ what they prove


def mcnemar_by_binomial(a_right, b_right):
    a, b = np.asarray(a_right), np.asarray(b_right)
    n01, n10 = int(np.sum(a < b)), int(np.sum(a > b))
    return min(1.0, 2 * stats.binom.cdf(min(n01, n10), n01 + n10, 0.5))


def mcnemar_by_hand(a_right, b_right):
    differ = a_right != b_right
    n, k = int(differ.sum()), int((a_right & differ).sum())
    tail = sum(math.comb(n, i) for i in range(min(k, n - k) + 1)) / 2**n
    return torch.tensor(2 * tail).clamp(max=1)


def interval_by_scipy(a, b):
    d = np.subtract(a, b)
    return (d.mean(), *stats.t.interval(0.95, len(d) - 1, d.mean(), stats.sem(d)))


def interval_by_hand(a, b):
    d = [p - q for p, q in zip(a, b, strict=True)]
    mean = sum(d) / len(d)
    error = math.sqrt(sum((v - mean) ** 2 for v in d) / (len(d) - 1) / len(d))
    half = -stats.t(df=len(d) - 1).ppf(0.025) * error
    return [mean, mean - half, mean + half]


def interval_as_an_array(a, b):
    d = np.subtract(a, b)
    return d.mean() + stats.t.ppf(0.975, len(d) - 1) * stats.sem(d) * np.array([0, -1, 1])


def verdict_by_select(low, high):
    return np.select([low > 0, high < 0], ["supported", "contradicted"], "not detected")


def verdict_by_signs(low, high):
    if low * high <= 0:
        return "not detected"
    return ("contradicted", "supported")[low > 0]


def verdict_by_cases(low, high):
    match low > 0, high < 0:
        case True, _:
            return "supported"
        case _, True:
            return "contradicted"
    return "not detected"


def holm_by_numpy(p):
    p = np.array(p)
    order = p.argsort()
    out = np.empty_like(p)
    out[order] = np.minimum(1, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    return out


def holm_by_accumulating(p):
    ranked = sorted((v, i) for i, v in enumerate(p))
    raised = itertools.accumulate(((len(p) - k) * v for k, (v, _) in enumerate(ranked)), max)
    found = {i: min(v, 1) for (_, i), v in zip(ranked, raised, strict=True)}
    return torch.tensor([found[i] for i in range(len(p))], dtype=torch.float32)


def holm_one_by_one(p):
    ranked = sorted(range(len(p)), key=p.__getitem__)
    for i in range(len(p)):
        before = ranked[: ranked.index(i) + 1]
        yield min(1.0, max((len(p) - k) * p[j] for k, j in enumerate(before)))


STYLES = NORM_STYLES | {
    "workbook_cell": ("=VAR.P(P8:Q15)", "=SUMSQ(P8:Q15)/16-P16^2", "=VAR(P8:Q15)*15/16",
                      '=IF(COUNT($P$8:$Q$15)=16,SUMPRODUCT((P8:Q15-bn_mean_2)^2)/16,"?")',
                      "=VARP(p8:p15,q8:q15)", "=VARPA('Illustration'!P8:Q15)",
                      "=DEVSQ(P8:Q11,P12:Q15)/(ROWS(P8:Q15)*COLUMNS(P8:Q15))",
                      "=COVAR(P8:Q15,P8:Q15)", "=ROUND(COVARIANCE.P(P8:Q15,P8:Q15),7)",
                      "=DEVSQ(P8:Q15)/COUNTA(P8:Q15)", "=SUMSQ(P8:Q15)/16-(-P16)^2"),
    "l1_loss": (l1_by_layers, l1_as_a_vector, l1_by_signs),
    "l2_loss": (l2_by_dots, l2_from_norms),
    "train_step": (step_with_two_backwards, step_by_gradients),
    "evaluate": (evaluate_all_at_once, evaluate_on_a_copy),
    "fold_bn": (fold_by_probing, fold_in_place_of_a_copy),
    "mcnemar": (mcnemar_by_binomial, mcnemar_by_hand),
    "gradient_norms": (norms_by_retaining, norms_by_tensor_hooks, norms_by_hooks_before),
    "effective_rate": (rate_by_loop, rate_by_einsum),
    "precise_statistics": (precise_in_one_pass, precise_at_once),
    "prox_l1": (prox_by_relus, prox_by_where),
    "paired_interval": (interval_by_scipy, interval_by_hand, interval_as_an_array),
    "verdict": (verdict_by_signs, verdict_by_cases, verdict_by_select),
    "holm": (holm_by_numpy, holm_by_accumulating, holm_one_by_one),
}  # fmt: skip
