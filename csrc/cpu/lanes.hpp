// Lanes<T>: 64 bytes of T with element-wise arithmetic, one matrix of a batch per lane. Compiles to one AVX-512
// register, two AVX2 or four SSE2 ones, whichever the clone (dispatch.hpp) has. Results do not depend on what the
// other lanes hold.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "cpu/dispatch.hpp"
#include "numeric.hpp"

namespace selshare {

template <class T>
struct LaneInteger;
template <>
struct LaneInteger<float> {
    using type = std::int32_t;
};
template <>
struct LaneInteger<double> {
    using type = std::int64_t;
};

template <class T>
struct alignas(64) Lanes {
    static constexpr int count = 64 / sizeof(T);
    typedef T Vector __attribute__((vector_size(64)));
    Vector value;
};

// A condition per lane: all bits set where true. Made from sign bits and applied by bits, as compilers do not turn
// comparisons of vectors wider than the baseline's into the comparisons that a clone has.
template <class T>
struct alignas(64) Mask {
    using Integer = typename LaneInteger<T>::type;
    typedef Integer Vector __attribute__((vector_size(64)));
    Vector value;

    static SELSHARE_INLINE Mask negative(Vector x) { return {x >> (8 * static_cast<int>(sizeof(T)) - 1)}; }
};

template <class T>
struct Constant<Lanes<T>> {
    static SELSHARE_INLINE Lanes<T> of(double x) { return {typename Lanes<T>::Vector{} + static_cast<T>(x)}; }
};

template <class T>
SELSHARE_INLINE typename Mask<T>::Vector bits(Lanes<T> a) {
    return reinterpret_cast<typename Mask<T>::Vector>(a.value);
}
template <class T>
SELSHARE_INLINE Lanes<T> operator+(Lanes<T> a, Lanes<T> b) {
    return {a.value + b.value};
}
template <class T>
SELSHARE_INLINE Lanes<T> operator-(Lanes<T> a, Lanes<T> b) {
    return {a.value - b.value};
}
template <class T>
SELSHARE_INLINE Lanes<T> operator*(Lanes<T> a, Lanes<T> b) {
    return {a.value * b.value};
}
template <class T>
SELSHARE_INLINE Lanes<T> operator/(Lanes<T> a, Lanes<T> b) {
    return {a.value / b.value};
}
template <class T>
SELSHARE_INLINE Mask<T> operator<(Lanes<T> a, Lanes<T> b) {
    return Mask<T>::negative(bits(a - b));
}
template <class T>
SELSHARE_INLINE Mask<T> operator>(Lanes<T> a, Lanes<T> b) {
    return b < a;
}
template <class T>
SELSHARE_INLINE Mask<T> operator|(Mask<T> a, Mask<T> b) {
    return {a.value | b.value};
}
template <class T>
SELSHARE_INLINE Mask<T> operator&(Mask<T> a, Mask<T> b) {
    return {a.value & b.value};
}
template <class T>
SELSHARE_INLINE Mask<T> operator~(Mask<T> a) {
    return {~a.value};
}
template <class T>
SELSHARE_INLINE Lanes<T> where(Mask<T> condition, Lanes<T> yes, Lanes<T> no) {
    const auto chosen = (bits(yes) & condition.value) | (bits(no) & ~condition.value);
    return {reinterpret_cast<typename Lanes<T>::Vector>(chosen)};
}
template <class T>
SELSHARE_INLINE Lanes<T> magnitude(Lanes<T> a) {
    using Integer = typename Mask<T>::Integer;
    const auto cleared = bits(a) & (typename Mask<T>::Vector{} + std::numeric_limits<Integer>::max());
    return {reinterpret_cast<typename Lanes<T>::Vector>(cleared)};
}
template <class T>
SELSHARE_INLINE Lanes<T> root(Lanes<T> a) {
    for (int lane = 0; lane < Lanes<T>::count; ++lane) a.value[lane] = std::sqrt(a.value[lane]);
    return a;
}
template <class T>
SELSHARE_INLINE bool any(Mask<T> condition) {
    typename Mask<T>::Integer result = 0;
    for (int lane = 0; lane < Lanes<T>::count; ++lane) result |= condition.value[lane];
    return result != 0;
}

}  // namespace selshare
