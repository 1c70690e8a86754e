"""Element functions that vectorise inside Numba loops.

`math.exp` in a Numba loop is a scalar library call (5 to 7 ns); the polynomial below runs in
vector registers (below 1 ns) at one unit in the last place. With the compiler off
(`NUMBA_DISABLE_JIT=1`, used to measure coverage) plain Python twins stand in.
"""

import math

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

from .jit import EXACT, kernel

_LOG2E = 1.4426950408889634
# ln 2 in two parts: k * _LN2_HI is exact for every exponent k that occurs.
_LN2_HI, _LN2_LO = 0.693145751953125, 1.42860682030941723e-6
_LN2_HI32, _LN2_LO32 = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Adding 1.5 * 2^52 rounds to an integer, which then sits in the low bits of the mantissa.
_MAGIC, _MAGIC32 = 6755399441055744.0, np.float32(12582912.0)
_LOWEST, _LOWEST32 = -708.0, np.float32(-87.0)
_SQRT_HALF = math.sqrt(0.5)


def _floats_only(name, *arguments):
    if len(set(arguments)) > 1 or arguments[0] not in (types.float32, types.float64):
        raise TypingError(f"{name} needs floats of one type, got {arguments}")


def _extremum(llvm_name):
    @intrinsic
    def extremum(typingctx, x, y):
        _floats_only(llvm_name, x, y)

        def codegen(context, builder, signature, args):
            number = context.get_value_type(x)
            suffix = "f32" if x == types.float32 else "f64"
            function = builder.module.declare_intrinsic(
                f"llvm.{llvm_name}.{suffix}", (), ir.FunctionType(number, (number, number))
            )
            return builder.call(function, args)

        return x(x, x), codegen

    return extremum


@intrinsic
def _times_power(typingctx, p, t):
    """p * 2^k, where the low bits of t hold the integer k."""
    _floats_only("_times_power", p, t)

    def codegen(context, builder, signature, args):
        bits, mantissa = (32, 23) if p == types.float32 else (64, 52)
        integer = ir.IntType(bits)
        k = builder.shl(builder.bitcast(args[1], integer), ir.Constant(integer, mantissa))
        scaled = builder.add(builder.bitcast(args[0], integer), k)
        return builder.bitcast(scaled, context.get_value_type(p))

    return p(p, t), codegen


@intrinsic
def _split_power(typingctx, x):
    """(m, t): x = m * 2^k with sqrt(1/2) <= m < sqrt(2), and t = _MAGIC + k."""
    if x != types.float64:
        raise TypingError(f"_split_power needs a float64, got {x}")

    def codegen(context, builder, signature, args):
        integer = ir.IntType(64)

        def constant(value):
            return ir.Constant(integer, value)

        root = int(np.float64(_SQRT_HALF).view(np.int64))
        bits = builder.bitcast(args[0], integer)
        k = builder.ashr(builder.sub(bits, constant(root)), constant(52))
        m = builder.sub(bits, builder.shl(k, constant(52)))
        t = builder.add(k, constant(int(np.float64(_MAGIC).view(np.int64))))
        number = context.get_value_type(types.float64)
        parts = [builder.bitcast(m, number), builder.bitcast(t, number)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(types.float64, 2)(x), codegen


def _exp64(x):
    y = _LOWEST if x < _LOWEST else x  # in this order NaN stays NaN
    t = y * _LOG2E + _MAGIC
    k = t - _MAGIC
    r = (y - k * _LN2_HI) - k * _LN2_LO
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return 0.0 if x < _LOWEST else _times_power(p, t)


def _exp32(x):
    y = _LOWEST32 if x < _LOWEST32 else x
    t = y * np.float32(_LOG2E) + _MAGIC32
    k = t - _MAGIC32
    r = (y - k * _LN2_HI32) - k * _LN2_LO32
    p = np.float32(1.0 / 5040.0)
    p = p * r + np.float32(1.0 / 720.0)
    p = p * r + np.float32(1.0 / 120.0)
    p = p * r + np.float32(1.0 / 24.0)
    p = p * r + np.float32(1.0 / 6.0)
    p = p * r + np.float32(0.5)
    p = (p * r) * r + r + np.float32(1.0)
    return np.float32(0.0) if x < _LOWEST32 else _times_power(p, t)


def _log64(x):
    # log m = 2 atanh(s) with s = (m - 1) / (m + 1), |s| <= 0.172.
    m, t = _split_power(x)
    k = t - _MAGIC
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 2.0 / 21.0
    p = p * z + 2.0 / 19.0
    p = p * z + 2.0 / 17.0
    p = p * z + 2.0 / 15.0
    p = p * z + 2.0 / 13.0
    p = p * z + 2.0 / 11.0
    p = p * z + 2.0 / 9.0
    p = p * z + 2.0 / 7.0
    p = p * z + 2.0 / 5.0
    p = p * z + 2.0 / 3.0
    return k * _LN2_HI + (2.0 * s + (p * z * s + k * _LN2_LO))


if config.DISABLE_JIT:
    vmax, vmin, log = max, min, math.log

    def exp(x):
        """Exponential of a number up to about 0 (valid to 709, in float32 to 88)."""
        return type(x)(0.0 if x < _LOWEST else math.exp(x))

else:
    vmax, vmin = _extremum("maximum"), _extremum("minimum")
    _exp64 = kernel(fastmath=EXACT, inline=True)(_exp64)
    _exp32 = kernel(fastmath=EXACT, inline=True)(_exp32)
    _log64 = kernel(fastmath=EXACT, inline=True)(_log64)

    def exp(x):
        """Exponential of a number up to about 0 (valid to 709, in float32 to 88)."""
        raise TypeError("for use inside kernels")

    def log(x):
        """Logarithm of a positive, normal number (computed in float64)."""
        raise TypeError("for use inside kernels")

    @overload(exp)
    def _exp(x):
        if x == types.float32:
            return lambda x: _exp32(x)
        return lambda x: _exp64(x)

    @overload(log)
    def _log(x):
        return lambda x: _log64(np.float64(x))
