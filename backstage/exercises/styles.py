"""Right answers to the norms' exercises, written in different ways: all of them must pass.

By loops and by reshapes, as functions and as modules, in float32 and float64, in place and not.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

# --------------------------------------------------------------- what is averaged, forward


def means_by_permuting(x, groups):
    n, c = x.shape[0], x.shape[1]
    first = x.permute(1, 0, 2, 3).reshape(c, -1).mean(-1)
    return {"IN": x.mean((-1, -2)), "BN": first, "LN": x.reshape(n, -1).mean(1, keepdim=True),
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


class OfModule(nn.Module):
    """A layer made with (channels, eps), in channels-last."""

    dims = (0, 1, 2)

    def __init__(self, channels, eps):
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        last = x.movedim(1, -1)
        centred = last - last.mean(self.dims, keepdim=True)
        sigma = (centred.pow(2).mean(self.dims, keepdim=True) + self.eps).sqrt()
        return (centred / sigma * self.weight + self.bias).movedim(-1, 1)


class OfGammaAndBeta(nn.Module):
    """By the names of the formula."""

    def __init__(self, channels, eps):
        super().__init__()
        self.gamma, self.beta = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )
        self.eps = eps

    def forward(self, x):
        return F.batch_norm(x, None, None, self.gamma, self.beta, True, 0.1, self.eps)


class LayerNormModule(OfModule):
    dims = (1, 2, 3)


class InstanceNormModule(OfModule):
    dims = (1, 2)


def ln_from_moments(x, gamma, beta, eps):
    m, m2 = x.mean((1, 2, 3)), (x**2).mean((1, 2, 3))
    xhat = torch.einsum("nchw,n->nchw", x - m.view(-1, 1, 1, 1), (m2 - m**2 + eps) ** -0.5)
    return torch.einsum("nchw,c->nchw", xhat, gamma) + beta.view(1, -1, 1, 1)


def ln_by_torch(x, gamma, beta, eps):
    return F.layer_norm(x, x.shape[1:], eps=eps) * gamma.view(-1, 1, 1) + beta.view(-1, 1, 1)


def in_by_torch(x, gamma, beta, eps):
    return F.batch_norm(
        x.reshape(1, -1, *x.shape[2:]), None, None, gamma.repeat(len(x)), beta.repeat(len(x)),
        training=True, eps=eps,
    ).view_as(x)  # fmt: skip


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
    return [running_mean[None, :, None, None], running_var]


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


def gn_backward_by_image(dy, x, gamma, groups, eps):
    dx, dgamma = torch.zeros_like(x), torch.zeros_like(gamma)
    size = x.shape[1] // groups
    for i in range(len(x)):
        for k in range(groups):
            part = slice(k * size, (k + 1) * size)
            v, g = x[i, part], gamma[part, None, None] * dy[i, part]
            s = torch.sqrt(v.var(correction=0) + eps)
            h = (v - v.mean()) / s
            dx[i, part] = (g - g.mean() - h * (g * h).mean()) / s
            dgamma[part] += (dy[i, part] * h).sum((1, 2))
    return dx, dgamma, dy.sum((0, 2, 3))


def gn_backward_by_jacobian(dy, x, gamma, groups, eps):
    b = torch.zeros_like(gamma)
    _, pull = torch.func.vjp(lambda x, g, b: F.group_norm(x, groups, g, b, eps), x, gamma, b)
    return pull(dy)


NORM_STYLES = {
    "index_sets": (means_by_permuting, means_by_sums, means_in_lists),
    "bn_forward": (bn_by_channel, bn_in_float32, OfModule, OfGammaAndBeta),
    "running_statistics": (update_by_lerp, update_copies_in_place, update_stacked, update_by_map),
    "bn_eval": (eval_by_loops, eval_in_float32),
    "batch_norm": (OwnBatchNorm, ReboundBatchNorm, WrappedBatchNorm, made_by_a_function),
    "layer_norm": (ln_from_moments, ln_by_torch, LayerNormModule),
    "instance_norm": (in_by_torch, InstanceNormModule),
    "group_norm": (gn_by_chunks, gn_in_five_dimensions),
    "bn_backward": (bn_backward_step_by_step, bn_backward_in_rows),
    "gn_backward": (gn_backward_by_image, gn_backward_by_jacobian),
    "ghost_batch_norm": (ghosts_by_recursion, ghosts_by_slices),
}
