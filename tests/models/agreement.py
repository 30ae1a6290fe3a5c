"""Compares a block with its slow reference: values and gradients in float64."""

import torch


def randomise(block):
    """Moves every parameter and statistic away from its initial value (zero BN, unit variance)."""
    with torch.no_grad():
        for tensor in block.parameters():
            tensor.copy_(torch.randn(tensor.shape) * 0.4)
        for name, tensor in block.named_buffers():
            if name.endswith("running_mean"):
                tensor.copy_(torch.randn(tensor.shape) * 0.3)
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return block.double()


def assert_agree(block, slow, x, *, training, tolerance=1e-9):
    """Asserts that `block(x)` and `slow(x, weights)` have equal values and gradients.

    Both return a tuple of tensors. `weights` are fresh leaf tensors by the block's names.
    """
    block.train(training)
    weights = {name: value.detach().clone() for name, value in block.state_dict().items()}
    learned = {name: p for name, p in block.named_parameters() if p.requires_grad}
    for name in learned:
        weights[name].requires_grad_()
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = block(mine), slow(theirs, weights)
    probes = [torch.randn(e.shape, dtype=e.dtype) for e in expected]
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    sum((a * p).sum() for a, p in zip(found, probes, strict=True)).backward()
    sum((b * p).sum() for b, p in zip(expected, probes, strict=True)).backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=tolerance, atol=tolerance)
    for name, parameter in learned.items():
        expected_grad = weights[name].grad
        if expected_grad is None:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        torch.testing.assert_close(
            parameter.grad, expected_grad, rtol=tolerance, atol=tolerance, msg=name
        )
