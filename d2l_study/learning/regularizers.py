"""The three consistency terms of slide 11, "VAT for MIL" (Miyato et al. 2018).

All work on logits in float32; p̂, the prediction on the clean bag, is held fixed. Random numbers come in as
arguments, so that a step is a pure function of its draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def bernoulli_kl(p_logit: Tensor, q_logit: Tensor) -> Tensor:
    """KL( Bernoulli(σ(p_logit)) ‖ Bernoulli(σ(q_logit)) ), elementwise, in nats; finite for any finite logits."""
    p, not_p = torch.sigmoid(p_logit), torch.sigmoid(-p_logit)  # 1 − p would be 0 from a logit of 17
    return p * (logsigmoid(p_logit) - logsigmoid(q_logit)) + not_p * (logsigmoid(-p_logit) - logsigmoid(-q_logit))


def bernoulli_entropy(logit: Tensor) -> Tensor:
    """H( Bernoulli(σ(logit)) ), elementwise, in nats: between 0 and log 2."""
    return -(torch.sigmoid(logit) * logsigmoid(logit) + torch.sigmoid(-logit) * logsigmoid(-logit))


def unit_directions(direction: Tensor) -> Tensor:
    """Each instance's direction scaled to L2 length 1; a direction of length 0 stays 0. (instances, C, H, W)."""
    flat = direction.flatten(1)
    # Scaling by the largest entry first keeps the squares of tiny gradients from underflowing.
    largest = flat.abs().amax(1, keepdim=True)
    flat = flat / torch.where(largest > 0, largest, torch.ones_like(largest))
    length = flat.norm(dim=1, keepdim=True)
    return (flat / torch.where(length > 0, length, torch.ones_like(length))).view_as(direction)


def boundary_direction(x: Tensor, logit: Tensor, bag_index: Tensor) -> Tensor:
    """`direction: logit`: −sign(logit) ∇_{x_j} logit of unit length, the way towards the decision boundary.

    x: (instances, *shape), a leaf that requires gradients and from which logit (bags,) was computed; that graph is
    kept. With one logit the KL's local Hessian has rank one, and this is its eigenvector. Returns the shape of x,
    detached.
    """
    (gradient,) = torch.autograd.grad(logit.sum(), x, retain_graph=True)
    return _signed_unit_directions(gradient, _sign_towards_boundary(logit)[bag_index])


def boundary_direction_of_loss(
    x: Tensor, logit: Tensor, slope: Tensor, bag_index: Tensor, loss: Tensor, params: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """`boundary_direction` from the backward pass that the parameters need anyway.

    A loss that depends on the clean pass through the bags' logits alone has the gradient slope_b ∇_{x_j} logit_b by an
    instance, slope = ∂ loss / ∂ logit: the same direction, but for the sign. slope: (bags,), nowhere 0 but for bags of
    padding; loss: a scalar, or (R,) of R replicates whose parameters are stacked, (R, …) each. Returns the direction,
    and the loss with its gradients by `params`, which are known now; the graph of the logits is freed.
    """
    gradient, *own = torch.autograd.grad(logit, [x, *params], slope)
    direction = _signed_unit_directions(gradient, (_sign_towards_boundary(logit) * torch.sign(slope))[bag_index])
    return direction, _KnownGradients.apply(loss.detach(), own, *params)


def _sign_towards_boundary(logit: Tensor) -> Tensor:
    """(bags,) −sign(logit): which way along the logit's gradient the boundary lies."""
    return torch.where(logit.detach() >= 0, -1.0, 1.0)


def _signed_unit_directions(gradient: Tensor, sign: Tensor) -> Tensor:
    """gradient: (instances, C, H, W), sign: (instances,)."""
    return unit_directions(gradient) * sign.view(-1, *[1] * (gradient.dim() - 1))


def cross_entropy_slope(logit: Tensor, label: Tensor) -> Tensor:
    """σ(logit) − label, the slope of the binary cross-entropy, elementwise, held away from 0 by a unit of rounding:
    it loses its sign where σ rounds to the label, from a logit of 17 on."""
    logit = logit.detach()
    off = torch.sigmoid(torch.where(label > 0.5, -logit, logit)).clamp(min=torch.finfo(logit.dtype).eps)
    return torch.where(label > 0.5, -off, off)


class _KnownGradients(torch.autograd.Function):
    """A loss as a function of `params`, whose gradients have been computed already. loss: () or (R,)."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Sequence[Tensor], *params: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:
        def scaled(gradient: Tensor) -> Tensor:
            return gradient * (outer.view(-1, *[1] * (gradient.dim() - 1)) if outer.dim() else outer)

        return None, None, *(scaled(gradient) for gradient in ctx.gradients)


def power_direction(
    x: Tensor,
    clean_logit: Tensor,
    start: Tensor,
    logits: Callable[[Tensor], Tensor],
    xi: float | Tensor,
    iterations: int,
) -> Tensor:
    """`direction: power` (Miyato et al. 2018, algorithm 1): d ← ∇_d KL( p̂(X) ‖ p(X + ξ d) ), normalised.

    x: (instances, C, H, W); clean_logit: (bags,); start: (instances, C, H, W) random directions; `logits` maps
    instances to the bags' logits. Returns unit directions, detached: no gradient of the search reaches the
    parameters. Run it in float32, with ξ between 1e-2 and 1: at 1e-6 the KL's gradient drowns in rounding.
    An instance whose first gradient is exactly 0, as that of a dead unit, has no direction; with several iterations the
    later ones normalise what rounding leaves of 0, so that the direction of such an instance differs between machines.
    """
    d = unit_directions(start)
    for _ in range(iterations):
        d = d.detach().requires_grad_(True)
        divergence = bernoulli_kl(clean_logit.detach(), logits(x.detach() + xi * d)).sum()
        (gradient,) = torch.autograd.grad(divergence, d)
        d = unit_directions(gradient)
    return d.detach()


def random_subset(draws: Tensor, bag_index: Tensor, bags: int, drop_rate: float) -> Tensor:
    """Which instances stay in the random subset X_S: each is left out with probability `drop_rate`, never all
    of a bag. draws: (instances,) uniform on [0, 1). Returns (instances,) bool."""
    top = draws.new_full((bags,), -1.0).scatter_reduce(0, bag_index, draws, "amax")
    return (draws >= drop_rate) | (draws == top[bag_index])
