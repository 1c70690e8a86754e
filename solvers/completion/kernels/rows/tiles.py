"""Products of small matrices that stay in registers, for Numba kernels.

Loops that Numba compiles from Python hold one or two results in registers; the ones here are
written as vectors of LLVM and hold a tile of 8 by 16, which is what BLAS does. Rows of all
matrices have a multiple of `BLOCK` columns. With the compiler off (`NUMBA_DISABLE_JIT=1`) plain
NumPy twins stand in.
"""

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from ...._core.kernels.jit import kernel
from . import plain_tiles

# Rows of a tile, and what the number of columns must be a multiple of.
BLOCK = 8
# Entries that `residual_pass` takes at a time.
GROUP = 4
_INT = ir.IntType(64)


def _registers():
    """Return how many rows of a tile, and bytes of a vector, the registers of this CPU hold."""
    features = config.CPU_FEATURES
    if features is None and config.CPU_NAME is None:
        wide = binding.get_host_cpu_features().get("avx512f", False)
    else:
        wide = "+avx512f" in (features or "")
    return (8, 64) if wide else (4, 32)


class _Matrix:
    """Loads and stores of vectors in the rows of an array."""

    def __init__(self, context, builder, kind, value):
        array = context.make_array(kind)(context, builder, value)
        self.builder, self.data = builder, array.data
        self.stride = cgutils.unpack_tuple(builder, array.shape, kind.ndim)[-1]
        self.bytes = kind.dtype.bitwidth // 8

    def place(self, row, col):
        offset = col if row is None else self.builder.add(self.builder.mul(row, self.stride), col)
        return self.builder.gep(self.data, [offset])

    def scalar(self, row, col):
        return self.builder.load(self.place(row, col))

    def load(self, row, col, vector):
        place = self.builder.bitcast(self.place(row, col), vector.as_pointer())
        return self.builder.load(place, align=self.bytes)

    def store(self, value, row, col):
        place = self.builder.bitcast(self.place(row, col), value.type.as_pointer())
        self.builder.store(value, place, align=self.bytes)


def _loop(builder, start, stop, step, carried, body):
    """Emit ``for i in range(start, stop, step): carried = body(i, carried)``; return carried."""
    before = builder.basic_block
    loop, after = builder.append_basic_block(), builder.append_basic_block()
    builder.cbranch(builder.icmp_signed("<", start, stop), loop, after)
    builder.position_at_end(loop)
    i = builder.phi(_INT)
    i.add_incoming(start, before)
    values = [builder.phi(value.type) for value in carried]
    moved = body(i, values)
    following, end = builder.add(i, _INT(step)), builder.basic_block
    i.add_incoming(following, end)
    builder.cbranch(builder.icmp_signed("<", following, stop), loop, after)
    builder.position_at_end(after)
    results = []
    for value, first, last in zip(values, carried, moved, strict=True):
        value.add_incoming(first, before)
        value.add_incoming(last, end)
        result = builder.phi(first.type)
        result.add_incoming(first, before)
        result.add_incoming(last, end)
        results.append(result)
    return results


def _spread(builder, value, vector):
    """Return a vector of equal numbers."""
    nothing = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.IntType(32)(0))
    lanes = ir.VectorType(ir.IntType(32), vector.count)
    return builder.shuffle_vector(one, nothing, ir.Constant(lanes, [0] * vector.count))


def _multiply_add(builder, x, y, z):
    return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))


@intrinsic
def apart(typingctx):
    """Keep the function that calls this out of its callers.

    Inlined everywhere, functions of this size take most of a minute to compile.
    """

    def codegen(context, builder, signature, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


def _tile(name, width):
    """Return the intrinsic that computes a tile of `BLOCK` rows and `width` columns."""

    @intrinsic
    def tile(typingctx, V, first, last, row, col, G):
        def codegen(context, builder, signature, args):
            v, g = (
                _Matrix(context, builder, args_kind, args[n]) for n, args_kind in ((0, V), (5, G))
            )
            first, last, row, col = args[1:5]
            rows, size = _registers()
            lanes = min(size // v.bytes, width)
            count = min(2, width // lanes)
            vector = ir.VectorType(context.get_value_type(V.dtype), lanes)

            def at(place, steps):
                return builder.add(place, _INT(steps))

            def part(top, start):
                """Emit the tile's part that fits into the registers."""
                where = [
                    (at(row, top + r), at(col, start + c * lanes))
                    for r in range(rows)
                    for c in range(count)
                ]
                if name == "set":
                    held = [ir.Constant(vector, None) for _ in where]
                else:
                    held = [g.load(*place, vector) for place in where]

                def body(p, sums):
                    right = [v.load(p, at(col, start + c * lanes), vector) for c in range(count)]
                    moved = []
                    for r in range(rows):
                        x = v.scalar(p, at(row, top + r))
                        x = _spread(builder, builder.fneg(x) if name == "subtract" else x, vector)
                        for c in range(count):
                            total = sums[r * count + c]
                            moved.append(_multiply_add(builder, x, right[c], total))
                    return moved

                sums = _loop(builder, first, last, 1, held, body)
                return list(zip(sums, where, strict=True))

            parts = [
                (top, start)
                for start in range(0, width, count * lanes)
                for top in range(0, BLOCK, rows)
            ]
            done = []
            for top, start in parts:
                # What is set may be read by the parts to come, in the same columns only.
                done += part(top, start)
                if top + rows == BLOCK:
                    for value, place in done:
                        g.store(value, *place)
                    done = []
            return context.get_dummy_value()

        return types.void(V, types.int64, types.int64, types.int64, types.int64, G), codegen

    return tile


_TILES = {(name, w): _tile(name, w) for name in ("add", "subtract", "set") for w in (8, 16)}
_add_8, _add_16 = _TILES["add", 8], _TILES["add", 16]
_subtract_8, _subtract_16 = _TILES["subtract", 8], _TILES["subtract", 16]
_set_8, _set_16 = _TILES["set", 8], _TILES["set", 16]


@kernel()
def add_products(V, first, last, row, col, stop, G):
    """Add ``V[first:last].T @ V[first:last]`` to G, in its block of rows from `row`."""
    apart()
    while col + 16 <= stop:
        _add_16(V, first, last, row, col, G)
        col += 16
    if col < stop:
        _add_8(V, first, last, row, col, G)


@kernel()
def subtract_products(V, first, last, row, col, stop, G):
    """Subtract the same."""
    apart()
    while col + 16 <= stop:
        _subtract_16(V, first, last, row, col, G)
        col += 16
    if col < stop:
        _subtract_8(V, first, last, row, col, G)


@kernel()
def set_products(V, first, last, row, col, stop, G):
    """Replace that part of G by the same; G may be V, and the rows those read."""
    apart()
    while col + 16 <= stop:
        _set_16(V, first, last, row, col, G)
        col += 16
    if col < stop:
        _set_8(V, first, last, row, col, G)


def _pass(name):
    """Return the intrinsic behind `residual_pass` or `normal_pass`."""

    @intrinsic
    def emitted(typingctx, V, rows, x, target, out):
        def codegen(context, builder, signature, args):
            v, at_x, t, o = (
                _Matrix(context, builder, kind, args[n])
                for n, kind in ((0, V), (2, x), (3, target), (4, out))
            )
            number = context.get_value_type(V.dtype)
            vector, zero = ir.VectorType(number, BLOCK), ir.Constant(number, 0.0)
            double = ir.DoubleType()
            total = builder.module.declare_intrinsic(
                f"llvm.vector.reduce.fadd.v{BLOCK}f{8 * v.bytes}",
                (),
                ir.FunctionType(number, (number, vector)),
            )
            k = v.stride

            def group(p, carried):
                places = [builder.add(p, _INT(n)) for n in range(GROUP)]

                def dots(q, sums):
                    y = at_x.load(None, q, vector)
                    return [
                        _multiply_add(builder, v.load(place, q, vector), y, s)
                        for place, s in zip(places, sums, strict=True)
                    ]

                sums = [ir.Constant(vector, None)] * GROUP
                sums = _loop(builder, _INT(0), k, BLOCK, sums, dots)
                r = [builder.call(total, (zero, s), fastmath=("reassoc",)) for s in sums]
                square = carried[0]
                for n, place in enumerate(places):
                    if name == "residual":
                        r[n] = builder.fsub(r[n], t.scalar(None, place))
                    wide = r[n] if number == double else builder.fpext(r[n], double)
                    square = builder.fadd(square, builder.fmul(wide, wide))
                spread = [_spread(builder, value, vector) for value in r]

                def add(q, _):
                    sums = o.load(None, q, vector)
                    for place, value in zip(places, spread, strict=True):
                        sums = _multiply_add(builder, v.load(place, q, vector), value, sums)
                    o.store(sums, None, q)
                    return []

                _loop(builder, _INT(0), k, BLOCK, [], add)
                return [square]

            return _loop(builder, _INT(0), args[1], GROUP, [ir.Constant(double, 0.0)], group)[0]

        return types.float64(V, types.int64, x, target, out), codegen

    return emitted


_residual_pass, _normal_pass = _pass("residual"), _pass("normal")


@kernel()
def residual_pass(V, rows, x, target, out):
    """Add ``V^T r`` to `out` for ``r = V x - target``; return ``r^T r``.

    The first `rows` rows of V count, a multiple of `GROUP`.
    """
    apart()
    return _residual_pass(V, rows, x, target, out)


@kernel()
def normal_pass(V, rows, x, out):
    """Add ``V^T V x`` to `out`; return ``|V x|^2``."""
    apart()
    return _normal_pass(V, rows, x, x, out)


if config.DISABLE_JIT:
    apart = plain_tiles.apart
    add_products = plain_tiles.add_products
    subtract_products = plain_tiles.subtract_products
    set_products = plain_tiles.set_products
    residual_pass = plain_tiles.residual_pass
    normal_pass = plain_tiles.normal_pass
