// What a CUDA source needs to compile as C++ and to run on the CPU, one fiber per CUDA thread.
// The kernels themselves are compiled with -fsanitize=thread,undefined; the calls that this puts
// at every load, store and doubtful operation end in runtime.cpp, which checks them.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <type_traits>
#include <utility>

namespace cuda_on_cpu {

struct Dim {
  unsigned x, y, z;
};

enum Collective { SYNC, SHUFFLE, SHUFFLE_UP, SHUFFLE_DOWN, SHUFFLE_XOR, BALLOT };

// Wait for the whole block; returns how many threads voted true.
int barrier(const char* site, bool vote = false);
// Wait for the lanes in `mask`; returns the bits of the source lane, or the ballot.
uint64_t collective(const char* site, Collective what, unsigned mask, uint64_t bits, int operand,
                    int width);
// Check an atomic access, and let other threads run before it now and then.
void atomic_access(const void* address, size_t size, void* caller);

extern char* dynamic_shared;

template <class T>
T shuffle(const char* site, Collective what, unsigned mask, T value, int operand, int width = 32) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4, "no CUDA shuffle takes this type");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = collective(site, what, mask, bits, operand, width);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

inline unsigned ballot(const char* site, unsigned mask, int predicate) {
  return (unsigned)collective(site, BALLOT, mask, predicate != 0, 0, 32);
}

inline void sync_warp(const char* site, unsigned mask = 0xffffffffu) {
  collective(site, SYNC, mask, 0, 0, 32);
}

template <class T, class Change>
__attribute__((noinline, no_sanitize_thread)) T atomic(T* address, Change change) {
  atomic_access(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  *address = change(old);
  return old;
}

template <class T, class... Allowed>
constexpr bool is_one_of = (std::is_same_v<T, Allowed> || ...);

template <class T>
constexpr bool is_atomic_integer =
    is_one_of<T, int, unsigned, long, unsigned long, long long, unsigned long long>;

template <class T>
struct Plain {
  using type = T;
};

// A parameter of this type does not take part in deducing T, so arguments convert to it.
template <class T>
using As = typename Plain<T>::type;

template <class To, class From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// What Python must know to check the arguments of a launch.
struct Parameter {
  char kind;  // f, i, u, b as in NumPy; V: a struct
  bool pointer, constant;
  unsigned size;
};

struct Kernel {
  void (*call)(void** arguments);
  const Parameter* parameters;
  unsigned count;
};

template <class P>
constexpr Parameter parameter() {
  using Target = std::remove_pointer_t<P>;
  using V = std::remove_cv_t<Target>;
  constexpr char kind = std::is_same_v<V, bool>       ? 'b'
                        : std::is_floating_point_v<V> ? 'f'
                        : !std::is_integral_v<V>      ? 'V'
                        : std::is_signed_v<V>         ? 'i'
                                                      : 'u';
  return {kind, std::is_pointer_v<P>, std::is_const_v<Target>, sizeof(V)};
}

template <auto kernel>
struct Entry;

template <class... P, void (*kernel)(P...)>
struct Entry<kernel> {
  static constexpr Parameter parameters[] = {parameter<P>()...};

  template <size_t... k>
  static void spread(void** arguments, std::index_sequence<k...>) {
    kernel(*static_cast<P*>(arguments[k])...);
  }

  static void call(void** arguments) { spread(arguments, std::index_sequence_for<P...>()); }

  static constexpr Kernel described() { return {call, parameters, sizeof...(P)}; }
};

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_TEXT(x) #x
#define CUDA_ON_CPU_LINE(x) CUDA_ON_CPU_TEXT(x)
#define CUDA_ON_CPU_SITE __FILE__ ":" CUDA_ON_CPU_LINE(__LINE__)

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
// Thread-local variables of a library lie in one piece, whose place the runtime can find;
// a block has the one OS thread to itself.
#define __shared__ static thread_local

extern cuda_on_cpu::Dim threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

#define __syncthreads() ::cuda_on_cpu::barrier(CUDA_ON_CPU_SITE)
#define __syncthreads_count(...) ::cuda_on_cpu::barrier(CUDA_ON_CPU_SITE, (__VA_ARGS__) != 0)
#define __syncthreads_or(...) (__syncthreads_count(__VA_ARGS__) > 0)
#define __syncthreads_and(...) (__syncthreads_count(!(__VA_ARGS__)) == 0)
#define __syncwarp(...) ::cuda_on_cpu::sync_warp(CUDA_ON_CPU_SITE, ##__VA_ARGS__)
#define CUDA_ON_CPU_SHUFFLE(what, ...) \
  ::cuda_on_cpu::shuffle(CUDA_ON_CPU_SITE, ::cuda_on_cpu::what, __VA_ARGS__)
#define __shfl_sync(...) CUDA_ON_CPU_SHUFFLE(SHUFFLE, __VA_ARGS__)
#define __shfl_up_sync(...) CUDA_ON_CPU_SHUFFLE(SHUFFLE_UP, __VA_ARGS__)
#define __shfl_down_sync(...) CUDA_ON_CPU_SHUFFLE(SHUFFLE_DOWN, __VA_ARGS__)
#define __shfl_xor_sync(...) CUDA_ON_CPU_SHUFFLE(SHUFFLE_XOR, __VA_ARGS__)
#define __ballot_sync(mask, ...) ::cuda_on_cpu::ballot(CUDA_ON_CPU_SITE, mask, (__VA_ARGS__) != 0)
#define __any_sync(mask, ...) (__ballot_sync(mask, __VA_ARGS__) != 0)
#define __all_sync(mask, ...) (__ballot_sync(mask, !(__VA_ARGS__)) == 0)

template <class T>
inline T atomicAdd(T* address, cuda_on_cpu::As<T> value) {
  static_assert(cuda_on_cpu::is_one_of<T, int, unsigned, unsigned long long, float, double>);
  return cuda_on_cpu::atomic(address, [=](T old) { return T(old + value); });
}

template <class T>
inline T atomicSub(T* address, cuda_on_cpu::As<T> value) {
  static_assert(cuda_on_cpu::is_one_of<T, int, unsigned>);
  return cuda_on_cpu::atomic(address, [=](T old) { return T(old - value); });
}

template <class T>
inline T atomicMax(T* address, cuda_on_cpu::As<T> value) {
  static_assert(cuda_on_cpu::is_atomic_integer<T>);
  return cuda_on_cpu::atomic(address, [=](T old) { return old > value ? old : value; });
}

template <class T>
inline T atomicMin(T* address, cuda_on_cpu::As<T> value) {
  static_assert(cuda_on_cpu::is_atomic_integer<T>);
  return cuda_on_cpu::atomic(address, [=](T old) { return old < value ? old : value; });
}

template <class T>
inline T atomicOr(T* address, cuda_on_cpu::As<T> value) {
  static_assert(cuda_on_cpu::is_atomic_integer<T>);
  return cuda_on_cpu::atomic(address, [=](T old) { return T(old | value); });
}

template <class T>
inline T atomicExch(T* address, cuda_on_cpu::As<T> value) {
  static_assert(cuda_on_cpu::is_one_of<T, int, unsigned, unsigned long long, float>);
  return cuda_on_cpu::atomic(address, [=](T) { return value; });
}

template <class T>
inline T atomicCAS(T* address, cuda_on_cpu::As<T> compare, cuda_on_cpu::As<T> value) {
  static_assert(cuda_on_cpu::is_one_of<T, int, unsigned, unsigned long long>);
  return cuda_on_cpu::atomic(address, [=](T old) { return old == compare ? value : old; });
}

inline int __float_as_int(float x) { return cuda_on_cpu::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return cuda_on_cpu::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return cuda_on_cpu::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return cuda_on_cpu::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_on_cpu::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_on_cpu::bit_cast<double>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }

template <class T>
inline T __ldg(const T* address) {
  return *address;
}

inline double __dmul_rn(double x, double y) { return x * y; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float rsqrt(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }

// As on a GPU, floating extrema ignore a NaN and mixed arguments meet in their common type.
template <class A, class B>
inline std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return fmax(T(a), T(b));
  return T(a) > T(b) ? T(a) : T(b);
}

template <class A, class B>
inline std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return fmin(T(a), T(b));
  return T(a) < T(b) ? T(a) : T(b);
}
