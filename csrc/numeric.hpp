// Arithmetic shared by the CPU and the CUDA kernels. T is float or double (one matrix per CUDA thread) or
// Lanes<T> (csrc/cpu/lanes.hpp: one matrix per SIMD lane); nothing here branches on values.
#pragma once

#include <cmath>
#include <limits>

#if defined(__CUDACC__)
#define SELSHARE_SHARED __host__ __device__ __forceinline__
#else
#define SELSHARE_SHARED inline __attribute__((always_inline))
#endif

namespace selshare {

SELSHARE_SHARED float root(float x) { return sqrtf(x); }
SELSHARE_SHARED double root(double x) { return sqrt(x); }
SELSHARE_SHARED float magnitude(float x) { return fabsf(x); }
SELSHARE_SHARED double magnitude(double x) { return fabs(x); }
SELSHARE_SHARED float where(bool condition, float yes, float no) { return condition ? yes : no; }
SELSHARE_SHARED double where(bool condition, double yes, double no) { return condition ? yes : no; }

template <class T>
struct Constant {
    static SELSHARE_SHARED T of(double x) { return static_cast<T>(x); }
};

template <class T>
struct Rotation {
    T cosine, sine, tangent;
};

// The Jacobi rotation that makes the off-diagonal entry pq of [[pp, pq], [pq, qq]] zero: the smaller of the two
// angles. Entries below the cut, pq² <= relative² |pp qq| + smallest, count as zero and give the identity. With
// entries of at most 1 (scaled by the caller) nothing overflows.
// Source: Golub and Van Loan, Matrix Computations, 4th edition, section 8.5.2, with t = 2 pq sign(d) / (|d| + h),
// h = sqrt(d² + 4 pq²), d = qq - pp, which needs no quotient d / pq.
template <class T>
SELSHARE_SHARED Rotation<T> jacobi_rotation(T pp, T qq, T pq, T relative, T smallest) {
    const T zero = Constant<T>::of(0), one = Constant<T>::of(1);
    const T d = qq - pp, twice = pq + pq;
    const auto rotate = pq * pq > relative * relative * magnitude(pp * qq) + smallest;
    const T denominator = magnitude(d) + root(d * d + twice * twice);
    const T signed_twice = where(d < zero, zero - twice, twice);
    const T tangent = where(rotate, signed_twice / where(rotate, denominator, one), zero);
    const T cosine = one / root(one + tangent * tangent);
    return {cosine, tangent * cosine, tangent};
}

// (x, y) -> (c x - s y, s x + c y)
template <class T>
SELSHARE_SHARED void rotate(const Rotation<T>& by, T& x, T& y) {
    const T a = x, b = y;
    x = by.cosine * a - by.sine * b;
    y = by.sine * a + by.cosine * b;
}

}  // namespace selshare
