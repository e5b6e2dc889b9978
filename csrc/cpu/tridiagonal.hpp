// Symmetric eigenproblems by tridiagonal reduction and implicit QL, one matrix per SIMD lane. Matrices are rows of
// `ld` vectors, lower triangles. Entries must be scaled to at most about 1. Lanes that are done take identity
// rotations, so a matrix gives the same bits whatever shares its block.
// Sources: Golub and Van Loan, Matrix Computations, 4th edition, sections 8.3.1 (Householder tridiagonalisation) and
// 8.3.4 (implicit shifts); the order of operations within a QL sweep is EISPACK's tql2.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>

#include "cpu/lanes.hpp"

namespace selshare {

constexpr int SWEEPS_PER_VALUE = 50;  // 1.7 are usual

// Below this, relative to entries of size 1, squares lose digits to underflow, and far below rounding: zero.
template <class T>
SELSHARE_INLINE Lanes<T> negligible() {
    return Constant<Lanes<T>>::of(std::sqrt(std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon()));
}

// Reduces `a` to tridiagonal form: QᵀAQ has diagonal d (n) and off-diagonal e (n - 1, e[n-1] = 0). Row k of `a` right of
// the diagonal then holds the k-th reflector H_k = I - tau[k] v vᵀ (v from column k+1 on, its first entry, 1, included),
// Q = H_0 H_1 …; v, w, p are scratch of n vectors each. Each pass over the trailing matrix applies the rank-2 update of
// the step before and multiplies by the new reflector at once.
template <class T>
SELSHARE_INLINE void tridiagonalise(Lanes<T>* a, int n, int ld, Lanes<T>* d, Lanes<T>* e, Lanes<T>* tau, Lanes<T>* v,
                                    Lanes<T>* w, Lanes<T>* next, Lanes<T>* p) {
    using L = Lanes<T>;
    const L zero = Constant<L>::of(0), one = Constant<L>::of(1), half = Constant<L>::of(0.5);
    const L smallest = negligible<T>() * negligible<T>();
    for (int i = 0; i < n; ++i) v[i] = w[i] = zero;
    for (int k = 0; k < n; ++k) {
        // Column k, brought up to date, and its reflector.
        L square = zero;
        for (int i = k; i < n; ++i) {
            const L x = a[i * ld + k] - v[i] * w[k] - w[i] * v[k];
            a[i * ld + k] = x;
            next[i] = x;
            if (i > k + 1) square = square + x * x;
        }
        d[k] = next[k];
        if (k == n - 1) break;
        const L alpha = next[k + 1];
        const Mask<T> trivial = square < smallest;
        const L norm = root(alpha * alpha + square);
        const L beta = where(trivial, alpha, where(alpha > zero, zero - norm, norm));
        const L scale = one / where(trivial, one, alpha - beta);
        const L factor = where(trivial, zero, (beta - alpha) / where(trivial, one, beta));
        e[k] = beta;
        tau[k] = factor;
        next[k + 1] = one;
        for (int i = k + 2; i < n; ++i) next[i] = where(trivial, zero, next[i] * scale);
        for (int i = k + 1; i < n; ++i) {
            a[k * ld + i] = next[i];
            p[i] = zero;
        }
        multiply_updated(a, n, ld, k + 1, v, w, next, p);
        L dot = zero;
        for (int i = k + 1; i < n; ++i) {
            p[i] = p[i] * factor;
            dot = dot + p[i] * next[i];
        }
        const L correction = half * factor * dot;
        for (int i = k + 1; i < n; ++i) {
            w[i] = p[i] - correction * next[i];
            v[i] = next[i];
        }
    }
    e[n - 1] = zero;
}

// a[first.., first..] -= v wᵀ + w vᵀ on the lower triangle, and p = a x with the symmetric result.
template <class T>
SELSHARE_INLINE void multiply_updated(Lanes<T>* a, int n, int ld, int first, const Lanes<T>* v, const Lanes<T>* w,
                                      const Lanes<T>* x, Lanes<T>* p) {
    constexpr int ROWS = 4;
    using L = Lanes<T>;
    int i = first;
    for (; i + ROWS <= n; i += ROWS) {
        L sum[ROWS];
        for (int r = 0; r < ROWS; ++r) sum[r] = Constant<L>::of(0);
        for (int j = first; j < i; ++j) {
            const L vj = v[j], wj = w[j], xj = x[j];
            L pj = p[j];
            for (int r = 0; r < ROWS; ++r) {
                const L entry = a[(i + r) * ld + j] - v[i + r] * wj - w[i + r] * vj;
                a[(i + r) * ld + j] = entry;
                sum[r] = sum[r] + entry * xj;
                pj = pj + entry * x[i + r];
            }
            p[j] = pj;
        }
        for (int r = 0; r < ROWS; ++r) {
            for (int j = i; j <= i + r; ++j) {
                const L entry = a[(i + r) * ld + j] - v[i + r] * w[j] - w[i + r] * v[j];
                a[(i + r) * ld + j] = entry;
                sum[r] = sum[r] + entry * x[j];
                if (j < i + r) p[j] = p[j] + entry * x[i + r];
            }
            p[i + r] = p[i + r] + sum[r];
        }
    }
    for (; i < n; ++i) {
        L sum = Constant<L>::of(0);
        for (int j = first; j <= i; ++j) {
            const L entry = a[i * ld + j] - v[i] * w[j] - w[i] * v[j];
            a[i * ld + j] = entry;
            sum = sum + entry * x[j];
            if (j < i) p[j] = p[j] + entry * x[i];
        }
        p[i] = p[i] + sum;
    }
}

// Forms Q = H_0 H_1 … in z (rows of ld vectors) from the reflectors, four columns at a time.
template <class T>
SELSHARE_INLINE void accumulate_reflectors(const Lanes<T>* a, const Lanes<T>* tau, int n, int ld, Lanes<T>* z) {
    constexpr int COLUMNS = 4;
    using L = Lanes<T>;
    for (int c = 0; c < n; c += COLUMNS) {
        const int width = std::min(COLUMNS, n - c);
        for (int i = 0; i < n; ++i)
            for (int j = c; j < c + width; ++j) z[i * ld + j] = Constant<L>::of(i == j);
        for (int k = std::min(n - 2, c + width - 2); k >= 0; --k) {
            const L* v = a + k * ld;
            if (width == COLUMNS) {
                L dot[COLUMNS];
                for (int j = 0; j < COLUMNS; ++j) dot[j] = Constant<L>::of(0);
                for (int i = k + 1; i < n; ++i)
                    for (int j = 0; j < COLUMNS; ++j) dot[j] = dot[j] + v[i] * z[i * ld + c + j];
                for (int j = 0; j < COLUMNS; ++j) dot[j] = dot[j] * tau[k];
                for (int i = k + 1; i < n; ++i)
                    for (int j = 0; j < COLUMNS; ++j) z[i * ld + c + j] = z[i * ld + c + j] - v[i] * dot[j];
            } else {
                for (int j = c; j < n; ++j) {
                    L dot = Constant<L>::of(0);
                    for (int i = k + 1; i < n; ++i) dot = dot + v[i] * z[i * ld + j];
                    dot = dot * tau[k];
                    for (int i = k + 1; i < n; ++i) z[i * ld + j] = z[i * ld + j] - v[i] * dot;
                }
            }
        }
    }
}

// A rotation of columns i and i + 1. A sweep takes i from last - 1 down to first; its turn i is at offset + i - first.
template <class T>
struct Turn {
    Lanes<T> cosine, sine;
};
struct Sweep {
    int first, last;
    std::ptrdiff_t offset;
};

// The state of the QL iteration: per lane, rows first .. last form the block being worked on.
template <class T>
class ImplicitQL {
    using L = Lanes<T>;
    using Index = typename Mask<T>::Vector;

  public:
    SELSHARE_INLINE ImplicitQL(L* d, L* e, int n) : d_(d), e_(e), n_(n), first_(Index{}), last_(Index{}) {}

    // Finds each lane's next block, sets e to zero where it is negligible. False when all lanes are diagonal.
    SELSHARE_INLINE bool find_blocks() {
        const L relative = Constant<L>::of(std::numeric_limits<T>::epsilon() / 2), tiny = negligible<T>();
        const L zero = Constant<L>::of(0);
        Index searching = Index{} - 1;
        last_ = Index{} + (n_ - 1);
        for (int i = 0; i + 1 < n_; ++i) {
            const Mask<T> small = magnitude(e_[i]) < relative * (magnitude(d_[i]) + magnitude(d_[i + 1])) + tiny;
            e_[i] = where(small, zero, e_[i]);
            const Index leading = below(i, first_ + 1) & ~below(i, first_) & small.value;
            first_ -= leading;  // true is -1
            const Index ends = ~below(i, first_) & small.value & searching;
            last_ = (ends & i) | (~ends & last_);
            searching &= ~ends;
        }
        return any(open());
    }

    // One sweep with Wilkinson's shift; writes its rotations, at most n - 1, from turns[offset] on.
    SELSHARE_INLINE Sweep sweep(Turn<T>* turns, std::ptrdiff_t offset) {
        const L zero = Constant<L>::of(0), one = Constant<L>::of(1);
        const L smallest = Constant<L>::of(std::numeric_limits<T>::min());
        Sweep range = blocks();
        range.offset = offset;
        // Lanes outside their block hold the identity, so that only g and s need setting where they begin.
        L g = zero, s = zero, c = one, p = zero, final_g = zero, final_p = zero, upper = d_[range.last];
        for (int i = range.last - 1; i >= range.first; --i) {
            const Mask<T> active{~below(i, first_) & below(i, last_)};
            const Mask<T> starts{~below(i + 1, last_) & active.value}, ends{below(i, first_ + 1) & active.value};
            s = where(starts, one, s);
            g = where(starts, start_, g);
            const L f = s * e_[i], b = c * e_[i], lower = d_[i];
            const L square = f * f + g * g;
            const Mask<T> turn = active & (square > smallest);
            const L r = root(square), inverse = one / r;
            s = where(turn, f * inverse, zero);
            c = where(turn, g * inverse, one);
            turns[offset + i - range.first] = {c, s};
            e_[i + 1] = where(active, where(starts, zero, r), e_[i + 1]);
            const L shifted = upper - p;
            const L x = (lower - shifted) * s + (c + c) * b;
            p = s * x;
            g = c * x - b;
            d_[i + 1] = where(active, shifted + p, upper);
            final_g = where(ends, g, final_g);
            final_p = where(ends, p, final_p);
            upper = lower;
        }
        for (int lane = 0; lane < L::count; ++lane) {
            const int first = static_cast<int>(first_[lane]);
            if (first >= n_ - 1) continue;
            d_[first].value[lane] -= final_p.value[lane];
            e_[first].value[lane] = final_g.value[lane];
        }
        return range;
    }

    SELSHARE_INLINE Mask<T> open() const { return {(first_ - (n_ - 1)) >> SIGN}; }

  private:
    static constexpr int SIGN = 8 * static_cast<int>(sizeof(T)) - 1;

    static SELSHARE_INLINE Index below(int i, Index bound) { return (i - bound) >> SIGN; }

    // The rows that any lane's block covers, and each lane's first g.
    SELSHARE_INLINE Sweep blocks() {
        const L zero = Constant<L>::of(0), one = Constant<L>::of(1);
        Sweep range{n_, 0, 0};
        L top = zero, next = zero, coupling = one, bottom = zero;
        for (int lane = 0; lane < L::count; ++lane) {
            const int first = static_cast<int>(first_[lane]), last = static_cast<int>(last_[lane]);
            if (first >= n_ - 1) continue;
            range.first = std::min(range.first, first);
            range.last = std::max(range.last, last);
            top.value[lane] = d_[first].value[lane];
            next.value[lane] = d_[first + 1].value[lane];
            coupling.value[lane] = e_[first].value[lane];
            bottom.value[lane] = d_[last].value[lane];
        }
        const L ratio = (next - top) / (coupling + coupling);
        const L reach = root(ratio * ratio + one);
        start_ = bottom - top + coupling / (ratio + where(ratio < zero, zero - reach, reach));
        return range;
    }

    L *d_, *e_, start_;
    int n_;
    Index first_, last_;
};

// Applies the rotations of several sweeps to the columns of z, four rows at a time, which stay in cache meanwhile.
template <class T>
SELSHARE_INLINE void apply_turns(Lanes<T>* z, int rows, int ld, const Turn<T>* turns, const Sweep* sweeps, int count) {
    constexpr int ROWS = 4;
    using L = Lanes<T>;
    int j = 0;
    for (; j + ROWS <= rows; j += ROWS) {
        L* row = z + j * ld;
        for (const Sweep* sweep = sweeps; sweep < sweeps + count; ++sweep) {
            const Turn<T>* turn = turns + sweep->offset - sweep->first;
            L carried[ROWS];
            for (int r = 0; r < ROWS; ++r) carried[r] = row[r * ld + sweep->last];
            for (int i = sweep->last - 1; i >= sweep->first; --i) {
                const L c = turn[i].cosine, s = turn[i].sine;
                for (int r = 0; r < ROWS; ++r) {
                    const L x = row[r * ld + i];
                    row[r * ld + i + 1] = s * x + c * carried[r];
                    carried[r] = c * x - s * carried[r];
                }
            }
            for (int r = 0; r < ROWS; ++r) row[r * ld + sweep->first] = carried[r];
        }
    }
    for (; j < rows; ++j)
        for (const Sweep* sweep = sweeps; sweep < sweeps + count; ++sweep)
            for (int i = sweep->last - 1; i >= sweep->first; --i) {
                const Turn<T> turn = turns[sweep->offset + i - sweep->first];
                const L x = z[j * ld + i], y = z[j * ld + i + 1];
                z[j * ld + i + 1] = turn.sine * x + turn.cosine * y;
                z[j * ld + i] = turn.cosine * x - turn.sine * y;
            }
}

// Turns unit vectors of the diagonal form into eigenvectors of the tridiagonal one: multiplies COLUMNS vectors of
// length n, one after the other in x, from the left by the rotations of all sweeps. Cheaper than apply_turns where
// few vectors are wanted.
template <int COLUMNS, class T>
SELSHARE_INLINE void unwind_turns(Lanes<T>* x, int n, const Turn<T>* turns, const Sweep* sweeps, int count) {
    using L = Lanes<T>;
    for (int k = count - 1; k >= 0; --k) {
        const Sweep sweep = sweeps[k];
        const Turn<T>* turn = turns + sweep.offset - sweep.first;
        L carried[COLUMNS];
        for (int j = 0; j < COLUMNS; ++j) carried[j] = x[j * n + sweep.first];
        for (int i = sweep.first; i < sweep.last; ++i) {
            const L c = turn[i].cosine, s = turn[i].sine;
            for (int j = 0; j < COLUMNS; ++j) {
                const L y = x[j * n + i + 1];
                x[j * n + i] = c * carried[j] + s * y;
                carried[j] = c * y - s * carried[j];
            }
        }
        for (int j = 0; j < COLUMNS; ++j) x[j * n + sweep.last] = carried[j];
    }
}

// Multiplies COLUMNS vectors of length n, one after the other in x, by Q = H_0 H_1 …, see tridiagonalise.
template <int COLUMNS, class T>
SELSHARE_INLINE void apply_reflectors(const Lanes<T>* a, const Lanes<T>* tau, int n, int ld, Lanes<T>* x) {
    using L = Lanes<T>;
    for (int k = n - 2; k >= 0; --k) {
        L dot[COLUMNS];
        for (int j = 0; j < COLUMNS; ++j) dot[j] = Constant<L>::of(0);
        for (int i = k + 1; i < n; ++i) {
            const L v = a[k * ld + i];
            for (int j = 0; j < COLUMNS; ++j) dot[j] = dot[j] + v * x[j * n + i];
        }
        for (int j = 0; j < COLUMNS; ++j) dot[j] = dot[j] * tau[k];
        for (int i = k + 1; i < n; ++i) {
            const L v = a[k * ld + i];
            for (int j = 0; j < COLUMNS; ++j) x[j * n + i] = x[j * n + i] - v * dot[j];
        }
    }
}

}  // namespace selshare
