// A tile is some branches x some directions x one vector of outputs: its sums stay in registers while the samples
// go by, so that each loaded number of delta meets several directions and each projection several branches.
#include "cpu/sketch.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/dispatch.hpp"

namespace selshare {
namespace {

constexpr int BRANCHES = 4, DIRECTIONS = 5;  // 20 sums, 5 projections and a delta: 26 of AVX-512's 32 registers

template <class T, int LANES>
struct Pack {
    typedef T Vector __attribute__((vector_size(LANES * sizeof(T))));
};
template <class T>
struct Pack<T, 1> {
    using Vector = T;
};

template <class T, int LANES, int B, int D>
SELSHARE_INLINE void tile(const SketchArguments<T>& a, std::int64_t branch, std::int64_t direction,
                          std::int64_t output) {
    using Vector = typename Pack<T, LANES>::Vector;
    const std::int64_t size = a.per_output * a.outputs;
    const T* delta = a.delta + branch * a.branch_stride + output;
    const T* projected = a.projected + direction * a.outputs + output;
    T* accumulator = a.accumulator + branch * size + direction * a.outputs + output;
    Vector sums[B][D] = {};
    for (std::int64_t sample = 0; sample < a.samples; ++sample) {
        Vector weights[D];
#pragma GCC unroll 8
        for (int d = 0; d < D; ++d) std::memcpy(&weights[d], projected + d * a.outputs, sizeof(Vector));
#pragma GCC unroll 8
        for (int b = 0; b < B; ++b) {
            Vector errors;
            std::memcpy(&errors, delta + b * a.branch_stride, sizeof(Vector));
#pragma GCC unroll 8
            for (int d = 0; d < D; ++d) sums[b][d] += errors * weights[d];
        }
        delta += a.sample_stride;
        projected += size;
    }
    for (int b = 0; b < B; ++b)
        for (int d = 0; d < D; ++d) {
            Vector total;
            T* here = accumulator + b * size + d * a.outputs;
            std::memcpy(&total, here, sizeof(Vector));
            total += a.scale * sums[b][d];
            std::memcpy(here, &total, sizeof(Vector));
        }
}

template <class T, int LANES, int B>
SELSHARE_INLINE void all_directions(const SketchArguments<T>& a, std::int64_t branch, std::int64_t output) {
    std::int64_t direction = 0;
    for (; direction + DIRECTIONS <= a.per_output; direction += DIRECTIONS)
        tile<T, LANES, B, DIRECTIONS>(a, branch, direction, output);
    for (; direction + 2 <= a.per_output; direction += 2) tile<T, LANES, B, 2>(a, branch, direction, output);
    for (; direction < a.per_output; ++direction) tile<T, LANES, B, 1>(a, branch, direction, output);
}

// Whole vectors of outputs, then quarters of one, then single outputs.
template <class T, int B>
SELSHARE_INLINE void all_outputs(const SketchArguments<T>& a, std::int64_t branch) {
    constexpr int wide = 64 / sizeof(T), narrow = wide / 4;
    std::int64_t output = 0;
    for (; output + wide <= a.outputs; output += wide) all_directions<T, wide, B>(a, branch, output);
    for (; output + narrow <= a.outputs; output += narrow) all_directions<T, narrow, B>(a, branch, output);
    for (; output < a.outputs; ++output) all_directions<T, 1, B>(a, branch, output);
}

template <class T>
SELSHARE_INLINE void block(const SketchArguments<T>& a) {
    if (a.branches == BRANCHES)
        all_outputs<T, BRANCHES>(a, 0);
    else
        for (std::int64_t branch = 0; branch < a.branches; ++branch) all_outputs<T, 1>(a, branch);
}

}  // namespace

// Clones are made of these, not of the parallel loop: its body is outlined before it could be cloned.
SELSHARE_CLONES void sketch_block(const SketchArguments<float>& a) { block(a); }
SELSHARE_CLONES void sketch_block(const SketchArguments<double>& a) { block(a); }

namespace {

// Some branches alone. Their delta is copied into packed, outputs next to each other, where it lies otherwise.
template <class T>
SketchArguments<T> part(SketchArguments<T> a, std::int64_t first, std::int64_t branches, std::vector<T>& packed) {
    a.delta += first * a.branch_stride;
    a.accumulator += first * a.per_output * a.outputs;
    a.branches = branches;
    if (a.output_stride == 1) return a;
    packed.resize(branches * a.samples * a.outputs);
    T* to = packed.data();
    for (std::int64_t branch = 0; branch < branches; ++branch, to += a.samples * a.outputs)
        for (std::int64_t output = 0; output < a.outputs; ++output) {
            const T* from = a.delta + branch * a.branch_stride + output * a.output_stride;
            for (std::int64_t sample = 0; sample < a.samples; ++sample)
                to[sample * a.outputs + output] = from[sample * a.sample_stride];
        }
    a.delta = packed.data();
    a.branch_stride = a.samples * a.outputs;
    a.sample_stride = a.outputs;
    a.output_stride = 1;
    return a;
}

template <class T>
void sketch(const SketchArguments<T>& a, int threads) {
    const std::int64_t blocks = (a.branches + BRANCHES - 1) / BRANCHES;
    threads = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, blocks)));
#pragma omp parallel num_threads(threads)
    {
        std::vector<T> packed;
#pragma omp for schedule(static)
        for (std::int64_t number = 0; number < blocks; ++number) {
            const std::int64_t first = number * BRANCHES;
            sketch_block(part(a, first, std::min<std::int64_t>(BRANCHES, a.branches - first), packed));
        }
    }
}

}  // namespace

void sketch_gradients(const SketchArguments<float>& arguments, int threads) { sketch(arguments, threads); }
void sketch_gradients(const SketchArguments<double>& arguments, int threads) { sketch(arguments, threads); }

}  // namespace selshare
