"""Right answers to the exercises, written in different ways: all of them must pass."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from torch.nn.utils import parameters_to_vector

# --------------------------------------------------------------- what is averaged, forward


def means_by_permuting(x, groups):
    n, c = x.shape[0], x.shape[1]
    first = x.permute(1, 0, 2, 3).reshape(c, -1).mean(-1)
    return {"IN": x.mean((-1, -2)), "BN": first, "LN": x.reshape(n, -1).mean(1),
            "GN": x.unflatten(1, (groups, -1)).flatten(2).mean(-1)}  # fmt: skip


def means_in_lists(x, groups):
    size = x.shape[1] // groups
    return {
        "BN": [x[:, c].mean() for c in range(x.shape[1])],
        "LN": [image.mean() for image in x],
        "IN": [image.mean((1, 2)) for image in x],
        "GN": [[part.mean() for part in image.split(size)] for image in x],
    }


def means_by_sums(x, groups):
    pixels = x.shape[2] * x.shape[3]
    sums = x.sum((2, 3))
    in_groups = torch.stack([part.sum(1) for part in sums.chunk(groups, 1)], 1)
    return {
        "BN": sums.sum(0) / (len(x) * pixels),
        "LN": sums.sum(1) / (x.shape[1] * pixels),
        "IN": sums / pixels,
        "GN": in_groups * groups / (x.shape[1] * pixels),
    }


def bn_by_channel(x, gamma, beta, eps):
    out = []
    for c in range(x.shape[1]):
        v = x[:, c]
        m = v.sum() / v.numel()
        s2 = ((v - m) ** 2).sum() / v.numel()
        out.append(gamma[c] * (v - m) / (s2 + eps) ** 0.5 + beta[c])
    return torch.stack(out, 1)


def bn_in_float32(x, gamma, beta, eps):
    x, gamma, beta = x.float(), gamma.float(), beta.float()
    var, mu = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    return gamma[None, :, None, None] * (x - mu) * torch.rsqrt(var + eps) + beta[:, None, None]


def ln_from_moments(x, gamma, beta, eps):
    m, m2 = x.mean((1, 2, 3)), (x**2).mean((1, 2, 3))
    xhat = torch.einsum("nchw,n->nchw", x - m.view(-1, 1, 1, 1), (m2 - m**2 + eps) ** -0.5)
    return torch.einsum("nchw,c->nchw", xhat, gamma) + beta.view(1, -1, 1, 1)


def ln_by_torch(x, gamma, beta, eps):
    return F.layer_norm(x, x.shape[1:], eps=eps) * gamma.view(-1, 1, 1) + beta.view(-1, 1, 1)


def gn_by_chunks(x, gamma, beta, groups, eps):
    parts = [ln_by_torch(part, g, b, eps) for part, g, b in zip(
        x.chunk(groups, 1), gamma.chunk(groups), beta.chunk(groups), strict=True)]  # fmt: skip
    return torch.cat(parts, dim=1)


def gn_in_five_dimensions(x, gamma, beta, groups, eps):
    n, c, h, w = x.size()
    z = x.view(n, groups, c // groups, h, w)
    z = z - z.mean([2, 3, 4], keepdim=True)
    z = z / torch.sqrt(torch.mean(z * z, dim=[2, 3, 4], keepdim=True) + eps)
    return torch.addcmul(beta.view(1, c, 1, 1), gamma.view(1, c, 1, 1), z.view(n, c, h, w))


def ghosts_by_recursion(x, gamma, beta, size, eps):
    y = bn_by_channel(x[:size], gamma, beta, eps)
    rest = x[size:]
    return torch.cat([y, ghosts_by_recursion(rest, gamma, beta, size, eps)]) if len(rest) else y


def ghosts_by_slices(x, gamma, beta, size, eps):
    y = [bn_in_float32(x[i : i + size], gamma, beta, eps) for i in range(0, len(x), size)]
    return torch.vstack(y)


# -------------------------------------------------------------------- batch norm's memory


def update_by_lerp(running_mean, running_var, x, momentum):
    v, m = torch.var_mean(x, dim=(0, 2, 3))
    return running_mean.lerp(m, momentum), running_var.lerp(v, momentum)


def update_copies_in_place(running_mean, running_var, x, momentum):
    running_mean, running_var = running_mean.clone(), running_var.clone()
    n = x.numel() / x.shape[1]
    running_mean += momentum * (x.mean((0, 2, 3)) - running_mean)
    biased = x.transpose(0, 1).flatten(1).var(1, unbiased=False)
    running_var.mul_(1 - momentum).add_(momentum * biased * n / (n - 1))
    return [running_mean, running_var]


def update_stacked(running_mean, running_var, x, momentum):
    var, mean = torch.var_mean(x, (0, 2, 3))
    old, new = torch.stack([running_mean, running_var]), torch.stack([mean, var])
    return old * (1 - momentum) + momentum * new


def update_by_map(running_mean, running_var, x, momentum):
    pairs = [(running_mean, x.mean((0, 2, 3))), (running_var, x.var((0, 2, 3)))]
    return map(lambda pair: torch.lerp(*pair, momentum), pairs)


def eval_by_loops(x, running_mean, running_var, gamma, beta, eps):
    y = torch.empty_like(x)
    for c in range(x.shape[1]):
        sigma = math.sqrt(running_var[c] + eps)
        y[:, c] = gamma[c] * (x[:, c] - running_mean[c]) / sigma + beta[c]
    return y


def eval_in_float32(x, running_mean, running_var, gamma, beta, eps):
    mu, var, g, b = (v.float().view(1, -1, 1, 1) for v in (running_mean, running_var, gamma, beta))
    return (x.float() - mu) / torch.sqrt(var + eps) * g + b


class OwnBatchNorm(nn.Module):
    """Both modes in one formula."""

    def __init__(self, features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum, self.features = eps, momentum, features
        self.bias = nn.Parameter(torch.zeros(features, dtype=torch.float32))
        self.weight = nn.Parameter(torch.ones(features, dtype=torch.float32))
        for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((features,), value, dtype=torch.float32))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def forward(self, batch):
        m, v = self.running_mean, self.running_var
        if self.training:
            m, v = batch.mean((0, 2, 3)), batch.var((0, 2, 3), unbiased=False)
            n = batch[:, 0].numel()
            self.running_mean += self.momentum * (m.detach() - self.running_mean)
            self.running_var += self.momentum * (v.detach() * n / (n - 1) - self.running_var)
            self.num_batches_tracked.add_(1)
        a = self.weight / (v + self.eps) ** 0.5
        return batch * a[:, None, None] + (self.bias - m * a)[:, None, None]


class ReboundBatchNorm(OwnBatchNorm):
    """New tensors for the buffers, under no_grad."""

    def forward(self, batch):
        if self.training:
            with torch.no_grad():
                var, mean = torch.var_mean(batch, (0, 2, 3))
                self.running_mean = self.running_mean.lerp(mean, self.momentum)
                self.running_var = self.running_var.lerp(var, self.momentum)
                self.num_batches_tracked = self.num_batches_tracked + 1
            return F.batch_norm(batch, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return super().forward(batch)


class WrappedBatchNorm(nn.BatchNorm2d):
    """PyTorch's own, by inheritance."""

    def forward(self, x):
        self.num_batches_tracked += self.training
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                            self.training, self.momentum, self.eps)  # fmt: skip


def made_by_a_function(channels, eps=1e-5, momentum=0.1):
    return nn.BatchNorm2d(channels, eps, momentum)


# ------------------------------------------------------------------------- gradients by hand


def bn_backward_step_by_step(dy, x, gamma, eps):
    n = x.numel() / x.shape[1]
    mu = x.mean((0, 2, 3), keepdim=True)
    var = ((x - mu) ** 2).mean((0, 2, 3), keepdim=True)
    std = torch.sqrt(var + eps)
    dxhat = dy * gamma[:, None, None]
    dvar = (dxhat * (x - mu) * -0.5 * std**-3).sum((0, 2, 3), keepdim=True)
    dmu = (-dxhat / std).sum((0, 2, 3), keepdim=True)
    dx = dxhat / std + dvar * 2 * (x - mu) / n + dmu / n
    return dx, (dy * (x - mu) / std).sum((0, 2, 3)), dy.sum((0, 2, 3))


def bn_backward_in_rows(dy, x, gamma, eps):
    rows, grad = (v.transpose(0, 1).flatten(1) for v in (x, dy))
    c = rows - rows.mean(1, keepdim=True)
    s = (c.square().mean(1, keepdim=True) + eps).rsqrt()
    h, db = c * s, grad.sum(1, keepdim=True)
    dg = (grad * h).sum(1, keepdim=True)
    dx = gamma[:, None] * s * (grad - db / rows.shape[1] - h * dg / rows.shape[1])
    dx = dx.view(x.shape[1], len(x), *x.shape[2:]).transpose(0, 1)
    return dx, dg[:, 0], db[:, 0]


NORM_STYLES = {
    "index_sets": (means_by_permuting, means_by_sums, means_in_lists),
    "bn_forward": (bn_by_channel, bn_in_float32),
    "running_statistics": (update_by_lerp, update_copies_in_place, update_stacked, update_by_map),
    "bn_eval": (eval_by_loops, eval_in_float32),
    "batch_norm": (OwnBatchNorm, ReboundBatchNorm, WrappedBatchNorm, made_by_a_function),
    "layer_norm": (ln_from_moments, ln_by_torch),
    "group_norm": (gn_by_chunks, gn_in_five_dimensions),
    "bn_backward": (bn_backward_step_by_step, bn_backward_in_rows),
    "ghost_batch_norm": (ghosts_by_recursion, ghosts_by_slices),
}


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
    return loss.item()


@torch.inference_mode()
def evaluate_all_at_once(model, batches):
    modes = {m: m.training for m in model.modules()}
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    logits = model.eval()(x)
    [setattr(m, "training", mode) for m, mode in modes.items()]
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


STYLES = NORM_STYLES | {
    "l1_loss": (l1_by_layers, l1_as_a_vector, l1_by_signs),
    "l2_loss": (l2_by_dots, l2_from_norms),
    "train_step": (step_with_two_backwards, step_by_gradients),
    "evaluate": (evaluate_all_at_once, evaluate_on_a_copy),
    "fold_bn": (fold_by_probing, fold_in_place_of_a_copy),
    "mcnemar": (mcnemar_by_binomial, mcnemar_by_hand),
    "effective_rate": (rate_by_loop, rate_by_einsum),
    "precise_statistics": (precise_in_one_pass, precise_at_once),
    "prox_l1": (prox_by_relus, prox_by_where),
    "paired_interval": (interval_by_scipy, interval_by_hand, interval_as_an_array),
}  # fmt: skip
