"""A smooth function of the caller, with derivatives from wherever they come."""

from .._core.validation import describe
from ._autodiff import BACKENDS, autodiff
from ._differences import SCHEMES, Differences, along, expected_error, read_pattern
from ._functions import Remembered
from ._matrices import Operator, scaled

STRATEGIES = {"BFGS": "bfgs", "SR1": "sr1"}
MODELS = ("bfgs", "sr1", "lbfgs")
# Dense second derivatives by automatic differentiation up to here, products beyond.
_DENSE = 1000


class Smooth:
    """A function with its derivatives; each is evaluated once for a point.

    Parameters
    ----------
    caller : Caller
    prefix : str
        In front of "fun", "jac" and "hess" in messages.
    fun, jac, hess, hessp : object
        As the caller gave them.
    n : int
        Unknowns.
    room : (array, array)
        Bounds of x, which differences respect.
    eps : float
        Precision of the caller's numbers.
    rel_step : float or array, optional
        For differences.

    Attributes
    ----------
    value, jacobian : Remembered
        Functions of x.
    noise, error : float
        Relative error of the Jacobian, as a guess and as a bound.
    scheme : str or None
        How second derivatives are differenced, if they are.
    model : str or None
        The quasi-Newton model that the caller wants.
    nfev, njev, nhev : int
        How often the caller's functions ran.
    """

    curved = True

    def __init__(self, caller, prefix, fun, jac, hess, hessp, *, n, room, eps, rel_step=None):
        self.caller, self.n, self.eps, self._room, self._fun = caller, n, eps, room, fun
        self._fun_name, self._jac_name, self._hess_name = (
            prefix + word for word in ("fun", "jac", "hess")
        )
        if not callable(fun):
            raise TypeError(f"`{self._fun_name}` came as {describe(fun)}; expected a callable")
        self.noise, self.error = eps, 100 * eps
        self.nfev = self.njev = self.nhev = 0
        self._jac, self._hess, self._hessp = None, None, hessp
        self.scheme = self.model = self._derived = self._differences = None
        self.value = Remembered(self._value, caller.key)
        self.jacobian = Remembered(self._read_jac(jac, eps, rel_step), caller.key)
        self._read_hess(hess, n)

    @property
    def exact(self):
        """Whether there are second derivatives without differences."""
        return self._hess is not None or self._hessp is not None

    @property
    def has_products(self):
        """Whether these are products with vectors."""
        return self._hessp is not None

    # ------------------------------------------------------------ what came
    def _read_jac(self, jac, eps, rel_step):
        if callable(jac):
            self._jac = jac
            return self._jacobian
        if jac is True:
            self._both = Remembered(self._pair, self.caller.key)
            self.value.fresh = lambda x: self._cast(self._both(x)[0])
            return lambda x: self._cast_jac(self._both(x)[1])
        scheme = "3-point" if jac is None or jac is False else _word(
            jac, self._jac_name, (*SCHEMES, *BACKENDS), "a callable"
        )  # fmt: skip
        if scheme in BACKENDS:
            self._derive(scheme)
            self._jac = self._derived.jac
            return self._jacobian
        if scheme == "cs":
            self._needs_complex(self._jac_name)
        differences = Differences(scheme, eps, *self._room, self.caller.xp, rel_step)
        self.noise, self.error = differences.error, expected_error(scheme, eps)
        fresh = self._imaginary if scheme == "cs" else self._value
        self._differences = differences, fresh
        return lambda x: differences.jacobian(fresh, lambda: self.value(x), x)

    def _read_hess(self, hess, n):
        if callable(hess):
            self._hess, self._hessp = hess, None
            return
        if hess is None:
            if self._hessp is None and self._derived is not None:
                self._use_derived(n)
            return
        if hasattr(hess, "update") and hasattr(hess, "get_matrix"):
            self.model = STRATEGIES.get(type(hess).__name__, hess)
            return
        names = (*SCHEMES, *BACKENDS, *MODELS)
        more = "a callable, BFGS(), SR1(), 'lagrangian'"
        word = _word(hess, self._hess_name, names, more)
        if word in MODELS:
            self.model = word
        elif word in BACKENDS:
            self._derive(word)
            self._use_derived(n)
        else:
            self.scheme = word
            if word == "cs":
                self._needs_complex(self._hess_name)

    def _needs_complex(self, name):
        kind = self.caller.io.kind
        if kind not in ("numpy", "cupy") or (self._jac is None and name == self._hess_name):
            raise ValueError(
                f"`{name}` came as 'cs'; expected NumPy or CuPy arrays and, for `hess`, a "
                "callable `jac`: a complex step goes through the function that is differenced"
            )

    def _derive(self, backend):
        if self._derived is None:
            self._derived = autodiff(self._fun, backend)
            self._fun = self._derived.fun

    def _use_derived(self, n):
        if n <= _DENSE:
            self._hess = self._derived.hess
        else:
            self._hessp = self._derived.hessp

    # ------------------------------------------------------------ evaluations
    def _value(self, x):
        self.nfev += 1
        return self._cast(self.caller.ask(self._fun, x))

    def _jacobian(self, x):
        self.njev += 1
        return self._cast_jac(self.caller.ask(self._jac, x))

    def _pair(self, x):
        self.nfev += 1
        self.njev += 1
        both = self.caller.ask(self._fun, x)
        if not isinstance(both, tuple | list) or len(both) != 2:
            raise TypeError(
                f"`{self._fun_name}` returned {describe(both)} with jac=True; expected a pair: "
                "value and derivative"
            )
        return both

    def _imaginary(self, z):
        self.nfev += 1
        value = self.caller.imaginary(self.caller.ask(self._fun, z), self._fun_name)
        return self._cast(value)

    def _imaginary_jac(self, z):
        self.njev += 1
        value = self.caller.imaginary(self.caller.ask(self._jac, z), self._jac_name)
        return self._cast_jac(value)

    # ------------------------------------------------------------ second derivatives
    def hessian(self, x, v):
        """Return the Hessian of ``v @ value``, (n, n), as a matrix of any kind."""
        if self._hess is not None:
            self.nhev += 1
            return self._ask_hess(x, v)
        if self._hessp is not None:
            dot = self._product(x, v)
        elif self.scheme is not None:
            return self._differenced(x, v)
        else:
            dot = lambda p: along(self.slope(v), x, p, self.noise, be=self.caller.be)  # noqa: E731
        return Operator((self.n, self.n), dot, dot)

    def _differenced(self, x, v):
        differences = Differences(self.scheme, self.noise, *self._room, self.caller.xp)
        fresh = self.slope(v)
        if self.scheme == "cs":
            fresh = lambda z: self._pull(self._imaginary_jac(z), v)  # noqa: E731
        H = differences.jacobian(fresh, lambda: self._pull(self.jacobian(x), v), x)
        return 0.5 * (H + H.T)

    def slope(self, v):
        """Return the gradient of ``v @ value`` as a function of x that remembers nothing."""
        return lambda y: self._pull(self.jacobian.fresh(y), v)


class Objective(Smooth):
    """The objective; the `v` of its second derivatives is a number."""

    def _cast(self, value):
        return self.caller.number(value, self._fun_name)

    def _cast_jac(self, value):
        return self.caller.vector(value, self.n, self._jac_name)

    def _pull(self, g, weight):
        return weight * g

    def _ask_hess(self, x, weight):
        H = self.caller.ask(self._hess, x)
        H = self.caller.matrix(H, (self.n, self.n), self._hess_name, hessian=True)
        return H if weight == 1.0 else scaled(H, weight, be=self.caller.be)

    def _product(self, x, weight):
        caller = self.caller

        def dot(p):
            caller.nhvp += 1
            value = caller.ask(self._hessp, x, caller.theirs(p))
            return weight * caller.vector(value, self.n, "hessp")

        return dot


class Rows(Smooth):
    """A constraint ``lb <= fun(x) <= ub``; the Hessian's `v` holds one number for each row.

    Attributes
    ----------
    m : int
        How many rows there are.
    """

    def __init__(self, caller, name, fun, jac, hess, x, *, sparsity=None, **options):
        self.name, self.m = name, None
        super().__init__(caller, f"{name}.", fun, jac, hess, None, n=len(x), **options)
        self.m = len(self.value(x))
        # A model of a single constraint's curvature is no better than differences.
        self.model = None
        if sparsity is not None and self._differences is not None:
            self._use_pattern(sparsity)

    def _use_pattern(self, sparsity):
        be, (differences, fresh) = self.caller.be, self._differences
        name = f"{self.name}.finite_diff_jac_sparsity"
        pattern = read_pattern(sparsity, (self.m, self.n), name, be=be)
        self.jacobian.fresh = lambda x: differences.sparse_jacobian(
            fresh, lambda: self.value(x), x, pattern, be=be
        )

    def _cast(self, value):
        return self.caller.vector(value, self.m, self._fun_name)

    def _cast_jac(self, value):
        return self.caller.matrix(value, (self.m, self.n), self._jac_name)

    def _pull(self, G, v):
        return G.T @ v

    def _ask_hess(self, x, v):
        H = self.caller.ask(self._hess, x, self.caller.theirs(v))
        return self.caller.matrix(H, (self.n, self.n), self._hess_name, hessian=True)

    def _product(self, x, v):
        caller = self.caller

        def dot(p):
            caller.nhvp += 1
            value = caller.ask(self._hessp, x, caller.theirs(p), caller.theirs(v))
            return caller.vector(value, self.n, self._hess_name)

        return dot


def _word(value, name, words, more):
    expected = f"{more} or one of {', '.join(map(repr, words))}"
    if not isinstance(value, str):
        raise TypeError(f"`{name}` came as {describe(value)}; expected {expected}")
    if value not in words:
        raise ValueError(f"`{name}` came as {value!r}; expected {expected}")
    return value
