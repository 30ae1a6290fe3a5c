"""RGA, SIA and the comparison blocks as loops in float64, without code of reidkit."""

from __future__ import annotations

import torch
from slow_blocks import (
    from_positions,
    positions,
    slow_linear,
    slow_norm,
    slow_softmax,
)


def slow_sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def slow_conv_norm_relu(nodes, weights, prefix, *, training):
    """[B][N] vectors through linear, batch norm over all nodes of all images, ReLU."""
    rows = torch.stack([slow_linear(v, weights, f"{prefix}0") for image in nodes for v in image])
    rows = slow_norm(rows, weights, f"{prefix}1", training=training).clamp(min=0)
    size = len(nodes[0])
    return [list(rows[i * size : (i + 1) * size]) for i in range(len(nodes))]


def slow_relation_attention(nodes, weights, *, embedding="asymmetric", training):
    """RGA eq. 1 to 3 on [B][N] feature vectors: attention [B][N]."""
    B, N = len(nodes), len(nodes[0])
    stacked = [[[] for _ in range(N)] for _ in range(B)]
    if "own.0.weight" in weights:
        own = slow_conv_norm_relu(nodes, weights, "own.", training=training)
        for b in range(B):
            for i in range(N):
                stacked[b][i].append(own[b][i].sum() / len(own[b][i]))
    if "related.0.weight" in weights:
        theta = phi = nodes
        if embedding != "none":
            theta = slow_conv_norm_relu(nodes, weights, "theta.", training=training)
            phi = theta
        if embedding == "asymmetric":
            phi = slow_conv_norm_relu(nodes, weights, "phi.", training=training)
        relations = []
        for b in range(B):
            r = [[(theta[b][i] * phi[b][j]).sum() for j in range(N)] for i in range(N)]
            relations.append(
                [
                    torch.stack([r[i][j] for j in range(N)] + [r[j][i] for j in range(N)])
                    for i in range(N)
                ]
            )
        related = slow_conv_norm_relu(relations, weights, "related.", training=training)
        for b in range(B):
            for i in range(N):
                stacked[b][i].extend(related[b][i])
    joined = [[torch.stack(values) for values in image] for image in stacked]
    hidden = slow_conv_norm_relu(joined, weights, "attend.", training=training)
    last = torch.stack([slow_linear(v, weights, "attend.3") for image in hidden for v in image])
    last = slow_norm(last, weights, "attend.4", training=training)[:, 0]
    return [[slow_sigmoid(last[b * N + i]) for i in range(N)] for b in range(B)]


def under(weights, prefix):
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def slow_rga(x, weights, *, arrangement, embedding="asymmetric", training):
    """RGA on [B, C, H, W]."""
    B, C, H, W = x.shape

    def over_positions(x):
        nodes = [[x[b, :, h, w] for h in range(H) for w in range(W)] for b in range(B)]
        found = slow_relation_attention(
            nodes, under(weights, "spatial."), embedding=embedding, training=training
        )
        out = torch.empty_like(x)
        for b in range(B):
            for h in range(H):
                for w in range(W):
                    out[b, :, h, w] = x[b, :, h, w] * found[b][h * W + w]
        return out

    def over_channels(x):
        nodes = [[x[b, c].reshape(-1) for c in range(C)] for b in range(B)]
        found = slow_relation_attention(
            nodes, under(weights, "channel."), embedding=embedding, training=training
        )
        return torch.stack(
            [torch.stack([x[b, c] * found[b][c] for c in range(C)]) for b in range(B)]
        )

    if arrangement == "s":
        return over_positions(x)
    if arrangement == "c":
        return over_channels(x)
    if arrangement == "sc":
        return over_channels(over_positions(x))
    if arrangement == "cs":
        return over_positions(over_channels(x))
    return (over_positions(x) + over_channels(x)) / 2


def slow_spatial_update(
    x,
    weights,
    *,
    contexts=(1, 2, 3),
    fusion="product",
    relations="semantic",
    sigmas=(5.0, 10.0),
    scaled=False,
    training,
):
    """IANet eq. 1 to 6 and batch norm, on [B, C, H, W]."""

    def fused(values):
        if fusion == "product":
            return torch.stack(values).prod()
        return sum(values) if fusion == "sum" else torch.stack(values).max()

    B, C, H, W = x.shape
    cells = [(h, w) for h in range(H) for w in range(W)]
    context = torch.empty_like(x)
    for b in range(B):

        def at(h, w, b=b):
            inside = 0 <= h < H and 0 <= w < W
            return x[b, :, h, w] if inside else torch.zeros(C, dtype=x.dtype)

        for i in cells:
            located = []
            for j in cells:
                across, down = (j[1] - i[1]) / sigmas[0], (j[0] - i[0]) / sigmas[1]
                located.append(torch.tensor(-(across**2 + down**2) / 2, dtype=x.dtype).exp())
            location = [v / sum(located) for v in located]
            maps = []
            for K in contexts:
                offsets = range(-((K - 1) // 2), K // 2 + 1)
                raw = [
                    sum(
                        (at(i[0] + dh, i[1] + dw) * at(j[0] + dh, j[1] + dw)).sum()
                        for dh in offsets
                        for dw in offsets
                    )
                    / (C**0.5 if scaled else 1)
                    for j in cells
                ]
                maps.append(slow_softmax(raw))
            if len(maps) == 1:
                appearance = maps[0]
            else:
                appearance = slow_softmax([fused(values) for values in zip(*maps, strict=True)])
            if relations == "location":
                weight = location
            elif relations == "appearance":
                weight = appearance
            else:
                pairs = zip(appearance, location, strict=True)
                weight = slow_softmax([fused(pair) for pair in pairs])
            context[b, :, i[0], i[1]] = sum(
                weight[n] * x[b, :, h, w] for n, (h, w) in enumerate(cells)
            )
    clip = context.unsqueeze(1)
    rows = slow_norm(positions(clip), weights, "norm", training=training)
    return from_positions(rows, clip.shape).squeeze(1)


def slow_non_local(x, weights, *, training):
    """Embedded Gaussian over all positions of a clip [B, T, C, H, W]."""
    B, T, _, H, W = x.shape
    cells = [(t, h, w) for t in range(T) for h in range(H) for w in range(W)]
    rows = []
    for b in range(B):
        seen = {
            name: [slow_linear(x[b, t, :, h, w], weights, name) for t, h, w in cells]
            for name in ("theta", "phi", "g")
        }
        for i in range(len(cells)):
            weight = slow_softmax(
                [(seen["theta"][i] * seen["phi"][j]).sum() for j in range(len(cells))]
            )
            mixed = sum(weight[j] * seen["g"][j] for j in range(len(cells)))
            rows.append(slow_linear(mixed, weights, "out"))
    normed = slow_norm(torch.stack(rows), weights, "norm", training=training)
    return x + from_positions(normed, x.shape)


def slow_simplified_non_local(x, weights, *, training):
    B, T, _, H, W = x.shape
    rows = []
    for b in range(B):
        cells = [x[b, t, :, h, w] for t in range(T) for h in range(H) for w in range(W)]
        weight = slow_softmax([slow_linear(cell, weights, "key")[0] for cell in cells])
        context = sum(a * cell for a, cell in zip(weight, cells, strict=True))
        rows.append(slow_linear(context, weights, "value"))
    residual = slow_norm(torch.stack(rows), weights, "norm", training=training)
    return x + residual[:, None, :, None, None]


def two_layers(vector, weights, prefix):
    return slow_linear(
        slow_linear(vector, weights, f"{prefix}0").clamp(min=0), weights, f"{prefix}2"
    )


def slow_squeeze_excite(x, weights):
    images = []
    for clip in x:
        T, C, H, W = clip.shape
        mean = torch.stack([clip[:, c].sum() / (T * H * W) for c in range(C)])
        scale = slow_sigmoid(two_layers(mean, weights, "excite."))
        images.append(clip * scale[None, :, None, None])
    return torch.stack(images)


def slow_cbam_channel(x, weights):
    gates = []
    for image in x:
        mean = torch.stack([c.sum() / c.numel() for c in image])
        top = torch.stack([c.max() for c in image])
        both = two_layers(mean, weights, "shared.") + two_layers(top, weights, "shared.")
        gates.append(slow_sigmoid(both))
    return torch.stack(gates)[:, :, None, None]


def slow_cbam_spatial(x, weights, *, training):
    B, C, H, W = x.shape
    kernel = weights["conv.weight"][0]
    rows = []
    for b in range(B):
        pooled = [x[b].sum(0) / C, x[b].max(0).values]
        for h in range(H):
            for w in range(W):
                total = torch.zeros((), dtype=x.dtype)
                for k in range(2):
                    for dh in range(-3, 4):
                        for dw in range(-3, 4):
                            if 0 <= h + dh < H and 0 <= w + dw < W:
                                value = pooled[k][h + dh, w + dw]
                                total = total + kernel[k, dh + 3, dw + 3] * value
                rows.append(total)
    normed = slow_norm(torch.stack(rows).unsqueeze(1), weights, "norm", training=training)
    return slow_sigmoid(normed).reshape(B, 1, H, W)


def slow_fc_channel(x, weights, *, training):
    B, _, H, W = x.shape
    nodes = [[x[b, :, h, w] for h in range(H) for w in range(W)] for b in range(B)]
    embedded = slow_conv_norm_relu(nodes, weights, "embed.", training=training)
    means = [sum(image) / (H * W) for image in embedded]
    gates = [slow_sigmoid(slow_linear(mean, weights, "dense")) for mean in means]
    return torch.stack(gates)[:, :, None, None]


def slow_fc_spatial(x, weights, *, training):
    B, _, H, W = x.shape
    nodes = [[x[b, :, h, w] for h in range(H) for w in range(W)] for b in range(B)]
    embedded = slow_conv_norm_relu(nodes, weights, "embed.", training=training)
    gates = []
    for image in embedded:
        pooled = torch.stack([v.sum() / len(v) for v in image])
        gates.append(slow_sigmoid(two_layers(pooled, weights, "dense.")))
    return torch.stack(gates).reshape(B, 1, H, W)


def slow_parameter_free(x, *, rescaling):
    """PFSA eq. 1, or the released division by the map's own sum."""
    out = []
    for image in x:
        _, H, W = image.shape
        sums = [image[:, h, w].sum() for h in range(H) for w in range(W)]
        share = slow_softmax(sums) if rescaling == "softmax" else [s / sum(sums) for s in sums]
        out.append(image * torch.stack(share).reshape(1, H, W))
    return torch.stack(out)
