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
_TINY = 2.2250738585072014e-308
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
    # The polynomial of degree 11 with the smallest largest error (4e-18) for |r| <= ln 2 / 2.
    p = 2.4999964543436725e-08
    p = p * r + 2.7630378605597917e-07
    p = p * r + 2.7557587344703163e-06
    p = p * r + 2.4801492762843335e-05
    p = p * r + 0.0001984126950476269
    p = p * r + 0.0013888888943922588
    p = p * r + 0.008333333333495625
    p = p * r + 0.04166666666652919
    p = p * r + 0.1666666666666641
    p = p * r + 0.5000000000000011
    p = p * r + 1.0
    p = p * r + 1.0
    # A NaN must not pass through _times_power, which would carry its low bits into the exponent.
    return _times_power(p, t) if x >= _LOWEST else y - _LOWEST


def _exp32(x):
    y = _LOWEST32 if x < _LOWEST32 else x
    t = y * np.float32(_LOG2E) + _MAGIC32
    k = t - _MAGIC32
    r = (y - k * _LN2_HI32) - k * _LN2_LO32
    p = np.float32(0.0014035763766199279)
    p = p * r + np.float32(0.00837232952182942)
    p = p * r + np.float32(0.041665549880607125)
    p = p * r + np.float32(0.1666648801185887)
    p = p * r + np.float32(0.5)
    p = (p * r) * r + r + np.float32(1.0)
    return _times_power(p, t) if x >= _LOWEST32 else y - _LOWEST32


def _log64(x):
    # With f = m - 1 and s = f / (2 + f): log m = 2 s + s z p(z), z = s^2 <= 0.0295. The last line
    # writes 2 s as f - s f, so that f, which is exact, is the largest term.
    m, t = _split_power(x)
    k = t - _MAGIC
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    # Error 5e-18; interpolates log at Chebyshev points.
    p = 0.14617807492803847
    p = p * z + 0.15331611694570085
    p = p * z + 0.18182892433364564
    p = p * z + 0.22222211089368124
    p = p * z + 0.2857142862625391
    p = p * z + 0.3999999999989889
    p = p * z + 0.666666666666667
    half = 0.5 * f * f
    y = k * _LN2_HI + (f - (half - (s * (half + z * p) + k * _LN2_LO)))
    # The bit tricks above know normal numbers only.
    special = x if x >= _TINY else -math.inf if x >= 0.0 else math.nan
    return y if _TINY <= x < math.inf else special


if config.DISABLE_JIT:
    vmax, vmin = np.maximum, np.minimum

    def exp(x):
        """Exponential of a number up to about 0 (valid to 709, in float32 to 88)."""
        lowest = _LOWEST32 if isinstance(x, np.float32) else _LOWEST
        return type(x)(0.0 if x < lowest else math.exp(x))

    def log(x):
        """Logarithm, in float64; 0 and subnormal numbers give -inf, negative ones NaN."""
        x = float(x)
        return math.log(x) if x >= _TINY else -math.inf if x >= 0 else math.nan

else:
    vmax, vmin = _extremum("maximum"), _extremum("minimum")
    _exp64 = kernel(fastmath=EXACT, inline=True)(_exp64)
    _exp32 = kernel(fastmath=EXACT, inline=True)(_exp32)
    _log64 = kernel(fastmath=EXACT, inline=True)(_log64)

    def exp(x):
        """Exponential of a number up to about 0 (valid to 709, in float32 to 88)."""
        raise TypeError("for use inside kernels")

    def log(x):
        """Logarithm, in float64; 0 and subnormal numbers give -inf, negative ones NaN."""
        raise TypeError("for use inside kernels")

    @overload(exp)
    def _exp(x):
        if x == types.float32:
            return lambda x: _exp32(x)
        return lambda x: _exp64(x)

    @overload(log)
    def _log(x):
        return lambda x: _log64(np.float64(x))
