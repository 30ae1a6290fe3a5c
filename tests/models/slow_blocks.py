"""The IAU blocks as loops, written from the equations, without code of reidkit.

All functions take and return float64 tensors, so that gradients can be compared. `weights` maps
a block's parameter names to tensors.
"""

from __future__ import annotations

import torch


def slow_norm(rows, weights, name, *, training):
    """Batch norm of rows [M, C], column by column."""
    columns = []
    for c in range(rows.shape[1]):
        column = rows[:, c]
        if training:
            mean = sum(column) / len(column)
            var = sum((v - mean) ** 2 for v in column) / len(column)
        else:
            mean, var = weights[f"{name}.running_mean"][c], weights[f"{name}.running_var"][c]
        scaled = (column - mean) / (var + 1e-5) ** 0.5
        columns.append(scaled * weights[f"{name}.weight"][c] + weights[f"{name}.bias"][c])
    return torch.stack(columns, 1)


def slow_linear(row, weights, name):
    """One vector [C_in] through a layer (or a 1x1 convolution) to [C_out]."""
    weight = weights[f"{name}.weight"]
    out = [(weight[o].reshape(-1) * row).sum() for o in range(weight.shape[0])]
    if f"{name}.bias" in weights:
        out = [value + weights[f"{name}.bias"][o] for o, value in enumerate(out)]
    return torch.stack(out)


def slow_softmax(values):
    top = max(float(v.detach()) for v in values)
    powers = [torch.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def positions(x):
    """[B, T, C, H, W] as rows [B·T·H·W, C]."""
    B, T, _C, H, W = x.shape
    return torch.stack(
        [x[b, t, :, h, w] for b in range(B) for t in range(T) for h in range(H) for w in range(W)]
    )


def from_positions(rows, shape):
    B, T, _C, H, W = shape
    out = torch.empty(B, T, rows.shape[1], H, W, dtype=rows.dtype)
    i = 0
    for b in range(B):
        for t in range(T):
            for h in range(H):
                for w in range(W):
                    out[b, t, :, h, w] = rows[i]
                    i += 1
    return out


def slow_channel_update(x, weights, *, prefix="", relation="dot", training):
    """IAUnet eq. 11 to 14 without the residual connection."""
    B, T, C, _H, _W = x.shape
    context = torch.empty_like(x)
    for b in range(B):
        channels = [(t, c) for t in range(T) for c in range(C)]
        for t, c in channels:
            mine = x[b, t, c].reshape(-1)
            related = []
            for s, d in channels:
                other = x[b, s, d].reshape(-1)
                if relation == "dot":
                    related.append((mine * other).sum())
                else:
                    gap = ((mine - other) ** 2).sum()
                    related.append(-(gap**0.5) if gap > 0 else gap * 0)
            weight = slow_softmax(related)
            context[b, t, c] = sum(weight[i] * x[b, s, d] for i, (s, d) in enumerate(channels))
    rows = positions(context)
    if f"{prefix}update.weight" in weights:
        rows = torch.stack([slow_linear(row, weights, f"{prefix}update") for row in rows])
    return from_positions(slow_norm(rows, weights, f"{prefix}norm", training=training), x.shape)


def slow_attention(x, weights, *, prefix, training):
    """IAUnet eq. 8, with batch norm before the sigmoid: [B, T, N, H, W]."""
    rows = torch.stack([slow_linear(r, weights, f"{prefix}conv") for r in positions(x)])
    rows = slow_norm(rows, weights, f"{prefix}norm", training=training)
    return from_positions(1 / (1 + torch.exp(-rows)), x.shape)


def slow_part_exchange(
    x,
    weights,
    *,
    prefix="",
    relation="sub-network",
    pooling="sum",
    interaction="spatial-temporal",
    training,
):
    """IAUnet eq. 1 to 9; the residual [B, T, C] and the attention maps."""
    B, T, C, H, W = x.shape
    maps = slow_attention(x, weights, prefix=f"{prefix}division.", training=training)
    N = maps.shape[2]
    nodes, wholes = [], []
    for b in range(B):
        whole = torch.stack([x[b, :, c].sum() / (T * H * W) for c in range(C)])
        wholes.append(slow_linear(whole, weights, f"{prefix}reduce"))
        for t in range(T):
            for n in range(N):
                part = torch.stack([(maps[b, t, n] * x[b, t, c]).sum() for c in range(C)])
                part = part / (H * W) if pooling == "mean" else part
                nodes.append(slow_linear(part, weights, f"{prefix}reduce"))
    at = lambda b, t, n: nodes[(b * T + t) * N + n]  # noqa: E731

    all_nodes = [(t, n) for t in range(T) for n in range(N)]
    logits = {}
    for b in range(B):
        for i in all_nodes:
            for j in all_nodes:
                gap = at(b, *i) - at(b, *j)
                if relation == "l2":
                    squared = (gap**2).sum()
                    logits[b, i, j] = -(squared**0.5) if squared > 0 else squared * 0
                else:
                    pair = torch.cat((abs(gap), wholes[b]))
                    logits[b, i, j] = slow_linear(pair, weights, f"{prefix}relation")[0]
    if relation == "sub-network":  # batch norm sees every pair, also the forbidden ones
        rows = torch.stack(list(logits.values())).unsqueeze(1)
        normed = slow_norm(rows, weights, f"{prefix}relation_norm", training=training)
        logits = dict(zip(logits, normed[:, 0], strict=True))

    pairs = []
    for b in range(B):
        for t, n in all_nodes:
            spatial = [(t, m) for m in range(N) if m != n]
            temporal = [(s, n) for s in range(T) if s != t]
            known = {"spatial": spatial, "temporal": temporal}.get(interaction, spatial + temporal)
            if known:
                weight = slow_softmax([logits[b, (t, n), j] for j in known])
            else:  # without neighbours, uniform weights
                known = all_nodes
                weight = [1 / len(known)] * len(known)
            context = sum(w * at(b, *j) for w, j in zip(weight, known, strict=True))
            pairs.append(
                slow_linear(torch.cat((at(b, t, n), context)), weights, f"{prefix}part_update")
            )
    updated = slow_norm(torch.stack(pairs), weights, f"{prefix}part_norm", training=training)
    updated = updated.clamp(min=0)

    frames = []
    for b in range(B):
        for t in range(T):
            start = (b * T + t) * N
            mean = sum(updated[start + n] for n in range(N)) / N
            joined = torch.cat((mean, wholes[b]))
            frames.append(slow_linear(joined, weights, f"{prefix}frame_update"))
    residual = slow_norm(torch.stack(frames), weights, f"{prefix}frame_norm", training=training)
    return residual.reshape(B, T, C), maps
