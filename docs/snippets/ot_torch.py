"""Entropic transport as a layer of a PyTorch model."""

import torch
from torch.autograd.function import once_differentiable

import solvers


class Transport(torch.autograd.Function):
    """``value, f, g, plan = Transport.apply(a, b, C, reg)``, differentiable in a, b and C."""

    @staticmethod
    def forward(ctx, a, b, C, reg):
        """Solve, and remember the result."""
        res = solvers.ot.sinkhorn_newton(a.detach(), b.detach(), C.detach(), reg=reg, tol=1e-10)
        ctx.res = res
        ctx.set_materialize_grads(False)  # what was not used comes back as None
        return C.new_tensor(res.value), res.f.clone(), res.g.clone(), res.plan.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, dvalue, df, dg, dP):
        """Add up the gradients that come through the value and through everything else."""
        res, parts = ctx.res, []
        if dvalue is not None:
            parts.append([dvalue * x for x in (res.grad_a, res.grad_b, res.grad_C)])
        if any(cotangent is not None for cotangent in (df, dg, dP)):
            parts.append(res.vjp(df, dg, dP))
        if not parts:
            return None, None, None, None
        return *(sum(part) for part in zip(*parts, strict=True)), None
