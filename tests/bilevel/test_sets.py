import itertools
from pathlib import Path

import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers import bilevel
from solvers._core.backend import get_backend
from solvers.bilevel._coupled import Walls
from solvers.bilevel._faced import FaceDescent
from solvers.bilevel._faces import Faces, OwnSlacks
from solvers.bilevel._region import Region

NUMPY = get_backend("numpy")


def nearest(v, A, b, E=None, f=None):
    """The projection on a polyhedron, by trying every part of the rows as active."""
    E = np.zeros((0, len(v))) if E is None else E
    f = np.zeros(0) if f is None else f
    best = (np.inf, None)
    for k in range(len(A) + 1):
        for active in map(list, itertools.combinations(range(len(A)), k)):
            G, h = np.r_[A[active], E], np.r_[b[active], f]
            p = v - np.linalg.pinv(G) @ (G @ v - h) if len(G) else v
            fits = (A @ p <= b + 1e-9).all() and np.abs(E @ p - f).max(initial=0) < 1e-9
            if fits and np.linalg.norm(p - v) < best[0]:
                best = np.linalg.norm(p - v), p
    return best[1]


def sets(seed=0):
    """Each set of 6 numbers, with a function that returns points in it."""
    rng = np.random.default_rng(seed)
    A, anchor = rng.standard_normal((3, 6)), rng.random(6) / 6
    flat = np.eye(6) - np.linalg.pinv(A) @ A
    return {
        "box": (bilevel.box(-0.3, np.arange(6.0)), lambda: rng.uniform(-0.3, np.arange(6.0))),
        "nonneg": (bilevel.nonneg(), lambda: rng.exponential(size=6)),
        "simplex": (bilevel.simplex(2.0), lambda: 2 * rng.dirichlet(np.ones(6))),
        "ball": (
            bilevel.ball(0.7, anchor),
            lambda: anchor + 0.7 * rng.random() * _unit(rng.standard_normal(6)),
        ),
        "l1_ball": (
            bilevel.l1_ball(1.3),
            lambda: 1.3 * rng.dirichlet(np.ones(6)) * rng.choice([-1, 1], 6),
        ),
        "affine": (
            bilevel.affine(A, A @ anchor),
            lambda: anchor + flat @ rng.standard_normal(6),
        ),
        "polyhedron": (
            bilevel.polyhedron(A, A @ anchor),
            lambda: anchor + flat @ rng.standard_normal(6) - np.linalg.pinv(A) @ rng.random(3),
        ),
    }


def _unit(v):
    return v / np.linalg.norm(v)


@pytest.mark.parametrize("name", list(sets()))
def test_a_projection_makes_no_acute_angle_with_the_set(name):
    a_set, inside = sets()[name]
    rng = np.random.default_rng(1)
    for scale in (0.3, 3.0, 300.0):
        v = scale * rng.standard_normal(6)
        p = a_set.project(v)
        for q in (inside() for _ in range(40)):
            assert (v - p) @ (q - p) <= 1e-11 * scale * (1 + scale)
        np.testing.assert_allclose(a_set(p), p, atol=1e-12 * scale)


@pytest.mark.parametrize("name", list(sets()))
def test_a_projection_keeps_shape_and_precision_and_its_input(name):
    a_set = sets()[name][0]
    v = np.linspace(-2, 2, 6)
    v.flags.writeable = False
    p = a_set.project(v.reshape(2, 3))
    np.testing.assert_array_equal(p.ravel(), a_set.project(v))
    single = a_set.project(v.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, p.ravel(), atol=3e-6)


@pytest.mark.parametrize("name", list(sets()))
def test_points_inside_stay(name):
    a_set, inside = sets()[name]
    v = inside()
    np.testing.assert_allclose(a_set.project(v), v, atol=1e-14)


@pytest.mark.parametrize("seed", range(40))
def test_polyhedra_are_projected_on_exactly_even_with_rows_that_depend_on_each_other(seed):
    rng = np.random.default_rng(seed)
    n, m, k = rng.integers(1, 5), rng.integers(1, 6), rng.integers(0, 2)
    A, E, p = rng.standard_normal((m, n)), rng.standard_normal((k, n)), rng.standard_normal(n)
    if seed % 2:
        A = np.r_[np.round(A[:3]), np.round(A[:1]), -2 * np.round(A[:2])]
    b = A @ p + rng.choice([0.0, 1.0], len(A)) * rng.random(len(A))
    v = p + 10 ** rng.uniform(-2, 2) * rng.standard_normal(n)
    faces = Faces(A, b, E, E @ p, be=NUMPY)
    found, wanted = faces.project(v), nearest(v, A, b, E, E @ p)
    size = max(1, np.abs(v).max())
    np.testing.assert_allclose(found, wanted, atol=1e-8 * size)
    # The duals prove it: what moved the point is a sum of rows, with the right signs.
    np.testing.assert_allclose(v - found, faces.duals @ np.r_[A, E], atol=1e-8 * size)
    assert (faces.duals[: len(A)] >= 0).all()
    # Again, from the duals of a neighbour.
    faces.project(v + 0.1 * rng.standard_normal(n))
    np.testing.assert_allclose(faces.project(v), wanted, atol=1e-8 * size)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_and_rows_together_are_one_polyhedron(seed):
    rng = np.random.default_rng(seed)
    A, p = rng.standard_normal((2, 3)), rng.standard_normal(3)
    lo, hi = p - rng.random(3), p + np.array([0.0, 0.5, np.inf])
    lo[1] = -np.inf
    within = Region(lambda v: np.clip(v, lo, hi), lo, hi)
    loose = Region(lambda v: np.clip(v, lo, hi))
    finite = np.isfinite(np.r_[hi, -lo])
    rows = np.r_[A, np.r_[np.eye(3), -np.eye(3)][finite]]
    sides = np.r_[A @ p, np.r_[hi, -lo][finite]]
    v = p + 3 * rng.standard_normal(3)
    wanted = nearest(v, rows, sides)
    for region, atol in ((within, 1e-9), (loose, 1e-7)):
        found = Faces(A, A @ p, within=region, be=NUMPY).project(v)
        np.testing.assert_allclose(found, wanted, atol=atol)


@pytest.mark.parametrize("seed", range(4))
def test_rows_with_slacks_of_their_own_need_no_dual(seed):
    rng = np.random.default_rng(seed)
    n, p = 30, 4
    A = np.c_[rng.standard_normal((n, p)), np.zeros(n), np.diag(rng.choice([-1, 2.0], n))]
    b, v = rng.standard_normal(n), 3 * rng.standard_normal(n + p + 1)
    plain = Faces(A, b, be=NUMPY)
    slacks = OwnSlacks.find(Faces(A, b, be=NUMPY))
    wanted = plain.project(v)
    np.testing.assert_allclose(slacks.project(v), wanted, atol=1e-10)
    np.testing.assert_allclose(slacks.duals, plain.duals, atol=1e-10)
    w = rng.standard_normal(len(v))
    q = plain.project(wanted)
    slacks.project(wanted)
    for one, other in ((wanted, q), (q, wanted)):
        np.testing.assert_allclose(
            slacks.tangent(one, other, known=False)(w),
            plain.tangent(one, other, known=False)(w),
            atol=1e-9,
        )
    assert OwnSlacks.find(Faces(A[:, : p + 2], b, be=NUMPY)) is None


@pytest.mark.parametrize("seed", range(3))
def test_bounds_on_what_no_row_touches_are_clipped_beside_slacks(seed):
    rng = np.random.default_rng(seed)
    n, p, d = 4, 2, 2
    A = np.c_[np.zeros((n, d)), rng.standard_normal((n, p)), np.diag(rng.choice([-1, 2.0], n))]
    b, v = rng.standard_normal(n), 3 * rng.standard_normal(d + p + n)
    lo, hi = np.full(len(v), -np.inf), np.full(len(v), np.inf)
    lo[:d], hi[1:d] = -1.0, 0.5

    def bounded():
        return Faces(A, b, within=Region(lambda v: np.clip(v, lo, hi), lo, hi), be=NUMPY)

    slacks, kept = OwnSlacks.find(bounded()), v.copy()
    found = slacks.project(v)
    walls = np.r_[np.eye(len(v))[1:d], -np.eye(len(v))[:d]]
    wanted = nearest(v, np.r_[A, walls], np.r_[b, hi[1:d], -lo[:d]])
    np.testing.assert_allclose(found, wanted, atol=1e-8)
    np.testing.assert_array_equal(v, kept)
    plain, w = bounded(), rng.standard_normal(len(v))
    q = plain.project(found)
    slacks.project(found)
    np.testing.assert_allclose(
        slacks.tangent(found, q, known=False)(w),
        plain.tangent(found, q, known=False)(w),
        atol=1e-8,
    )
    # A bound on a slack is no longer apart from its row.
    lo[-1] = 0.0
    assert OwnSlacks.find(bounded()) is None


def test_a_product_gives_every_entry_its_own_set():
    v = {"a": np.array([2.0, -1.0]), "b": [np.full((2, 2), 7.0), np.array([3.0])]}
    walls = bilevel.product(
        {"a": bilevel.simplex(), "b": bilevel.product([None, lambda w: np.minimum(w, 1.0)])}
    )
    p = walls.project(v)
    np.testing.assert_allclose(p["a"], [1, 0])
    np.testing.assert_array_equal(p["b"][0], v["b"][0])
    np.testing.assert_array_equal(p["b"][1], [1.0])
    q = bilevel.product((bilevel.box(0, 1), None)).project([np.array([2.0]), np.array([3.0])])
    assert (q[0], q[1]) == (1.0, 3.0)


@pytest.mark.parametrize("name", ["ball", "l1_ball", "simplex"])
def test_quasi_newton_steps_follow_a_wall_to_the_minimum_on_it(name):
    rng = np.random.default_rng(3)
    Q, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    A, c = (Q * np.geomspace(0.05, 5, 6)) @ Q.T, 3 * rng.standard_normal(6)
    a_set = {
        "ball": bilevel.ball(0.5),
        "l1_ball": bilevel.l1_ball(0.5),
        "simplex": bilevel.simplex(),
    }[name]
    packer = bilevel._packing.Packer(np.zeros(6), "v")
    packer.bind(bilevel._packing.Ingest(**packer.given))
    region = a_set._region(packer, "v")
    run = FaceDescent(
        lambda u: (0.5 * u @ A @ u - c @ u, A @ u - c, 1e-16),
        region.project(np.zeros(6)),
        Walls(region, 6, NUMPY),
    )
    for _ in range(200):
        if run.stat < 1e-9 or not run.step():
            break
    u = run.u
    assert np.abs(u - a_set.project(u - (A @ u - c))).max() < 1e-9


@pytest.mark.parametrize(
    ("make", "error", "start"),
    [
        (lambda: bilevel.box(1.0, 0.0), ValueError, "`lo`"),
        (lambda: bilevel.box(np.nan, 0.0), ValueError, "`lo`"),
        (lambda: bilevel.box([0.0, 1.0], [1.0, 2.0, 3.0]), ValueError, "`lo`"),
        (lambda: bilevel.box(np.inf, np.inf), ValueError, "`lo`"),
        (lambda: bilevel.box("a", 1.0), TypeError, "`lo`"),
        (lambda: bilevel.simplex(0.0), ValueError, "`s`"),
        (lambda: bilevel.ball(-1.0), ValueError, "`r`"),
        (lambda: bilevel.ball("a"), TypeError, "`r`"),
        (lambda: bilevel.ball(1.0, [np.nan]), ValueError, "`center`"),
        (lambda: bilevel.l1_ball(0.0), ValueError, "`r`"),
        (lambda: bilevel.affine(np.ones(3), [1.0]), ValueError, "`A`"),
        (lambda: bilevel.affine(np.ones((2, 3)), [1.0]), ValueError, "`b`"),
        (lambda: bilevel.affine(np.ones((2, 3)), [1.0, 2.0]), ValueError, "`b`"),
        (lambda: bilevel.polyhedron([[np.nan]], [1.0]), ValueError, "`A`"),
        (lambda: bilevel.product(3.0), TypeError, "`sets`"),
        (lambda: bilevel.product([3.0]), TypeError, "`sets"),
        (lambda: bilevel.ball(1.0, np.zeros(3)).project(np.zeros(4)), ValueError, "`v.center`"),
        (lambda: bilevel.box(np.zeros(3), 1.0).project(np.zeros(4)), ValueError, "`v.lo`"),
        (lambda: bilevel.affine([[1.0]], [1.0]).project(np.zeros(4)), ValueError, "`v.A`"),
        (lambda: bilevel.product([None]).project(np.zeros(4)), ValueError, "`v`"),
        (lambda: bilevel.simplex().project([np.nan, 1.0]), ValueError, "`v`"),
    ],
)
def test_bad_sets_are_refused_by_name(make, error, start):
    with pytest.raises(error, match=f"^{start}".replace("[", r"\[")):
        make()


def test_rows_that_contradict_each_other_hold_nothing():
    empty = bilevel.polyhedron([[1.0, 0.0], [-1.0, 0.0]], [0.0, -1.0])
    with pytest.raises(ValueError, match="contradict"):
        empty.project(np.zeros(2))


def test_everything_runs_on_cupy_arrays():
    run_with_standin(Path(__file__).parent / "coupled_on_device.py")
