"""The layers that the documentation shows, against finite differences."""

import importlib.util

import numpy as np
import pytest
from conftest import ROOT

from tests import oracles

REG = 0.7


def snippet(name):
    """Import a file that the documentation includes."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "snippets" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(rng):
    """Logits of both weights, and a cost: free parameters whose masses stay equal."""
    a, b, C = oracles.cloud_problem(rng, 6, 5)
    return np.log(a), np.log(b), C


def test_the_torch_layer_passes_gradcheck_in_all_outputs(data):
    torch = pytest.importorskip("torch")
    Transport = snippet("ot_torch").Transport

    def layer(u, v, C):
        return Transport.apply(torch.softmax(u, 0), torch.softmax(v, 0), C, REG)

    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in data]
    assert torch.autograd.gradcheck(layer, inputs, eps=1e-4, atol=1e-5, rtol=1e-4)


def test_a_torch_model_trains_through_the_plan(data):
    torch = pytest.importorskip("torch")
    Transport = snippet("ot_torch").Transport
    a, b, C = (torch.tensor(x) for x in (np.exp(data[0]), np.exp(data[1]), data[2]))
    # Which cost makes this plan optimal? Any that differs by potentials, so start from zero.
    target = Transport.apply(a, b, C, REG)[3]
    guess = torch.zeros_like(C, requires_grad=True)
    optimiser = torch.optim.LBFGS([guess], max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        plan = Transport.apply(a, b, guess, REG)[3]
        loss = 1e3 * ((plan - target) ** 2).sum()
        loss.backward()
        return loss

    start = closure().item()
    optimiser.step(closure)
    assert closure().item() < 1e-4 * start


@pytest.fixture
def jax():
    """JAX with float64, as the page asks for."""
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield jax
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("compiled", [False, True], ids=["called", "jitted"])
def test_the_jax_function_has_the_gradients_of_finite_differences(jax, data, rng, compiled):
    transport = snippet("ot_jax").transport
    coefficients = [rng.normal(size=shape) for shape in ((), (6,), (5,), (6, 5))]

    def loss(u, v, C):
        outputs = transport(jax.nn.softmax(u), jax.nn.softmax(v), C, REG)
        return sum((c * x).sum() for c, x in zip(coefficients, outputs, strict=True))

    data = [jax.numpy.asarray(x) for x in data]
    gradient = jax.grad(loss, argnums=(0, 1, 2))
    back = (jax.jit(gradient) if compiled else gradient)(*data)
    t = 1e-4
    for k, part in enumerate(back):
        step = rng.normal(size=part.shape)
        up, down = (
            loss(*(x + s * t * step if i == k else x for i, x in enumerate(data))) for s in (1, -1)
        )
        expected = float(up - down) / (2 * t)
        assert float((part * step).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-6)
