// Threads over layers, or over rows of a layer where there are few. A layer's outputs lie (O, B), samples last: then
// a weight, read in the order it has in memory, is the operand that needs no packing, in this product and the next.
#include "cpu/stacked_linear.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/widths.hpp"
#include "cpu/workspace.hpp"

namespace selshare {
namespace {

// Partial sums of the derivative by an input that all layers read; fixed, so that the sum's rounding does not depend
// on the number of threads.
constexpr Index PARTS = 16;

template <class T>
struct Forward {
    Inputs<T> inputs;
    Sizes sizes;
    const T *weight, *bias;
    T* outputs;
    Index blocks;  // pieces the rows of a layer are cut into, each of `rows`
    Index rows;
};

template <class T>
SELSHARE_INLINE Strided<T> transposed(const Inputs<T>& inputs, Index from) {
    return {inputs.data + from * inputs.from, inputs.feature, inputs.sample};
}

// One piece of one layer. `shared` is the packed input of all layers, or null; scratch takes a packed one.
template <int BYTES>
struct ForwardPiece {
    template <class T>
    static SELSHARE_INLINE void run(const Forward<T>* job, Index piece, const T* shared, T* scratch) {
        const Index I = job->inputs.features, B = job->sizes.samples, O = job->sizes.outputs;
        const Index g = piece / job->blocks, first = piece % job->blocks * job->rows;
        const Index rows = std::min(job->rows, O - first);
        const T* packed = shared;
        if (packed == nullptr) {
            const Strided<T> x = transposed(job->inputs, job->inputs.of(g));
            packed = x.data;
            if (job->inputs.rectify || !is_packed<T, BYTES>(x, B)) {
                pack<T, BYTES>(x, I, B, job->inputs.rectify, scratch);
                packed = scratch;
            }
        }
        const T* weight = job->weight + (g * O + first) * I;
        T* outputs = job->outputs + (g * O + first) * B;
        const T* bias = job->bias ? job->bias + g * O + first : nullptr;
        // The next rows of the weight, and input and outputs of the layer that follows.
        const Index next = std::min(g + 1, job->sizes.layers - 1), size = sizeof(T);
        const T* following = job->inputs.data + job->inputs.of(next) * job->inputs.from;
        const Stream streams[3] = {{weight + TILE_ROWS * I, I * size},
                                   {outputs + rows * B, B * size},
                                   {following, shared ? 0 : I * B * size / rows}};
        multiply<T, BYTES, 3>(
            {weight, I, 1}, packed, rows, B, I, streams,
            [&](Index row, Index column, Index count, const T* values) SELSHARE_INLINED {
                const T add = bias ? bias[row] : T(0);
                T* to = outputs + row * B + column;
                for (Index j = 0; j < count; ++j) to[j] = values[j] + add;
            });
    }
};

template <int BYTES>
struct PackShared {
    template <class T>
    static SELSHARE_INLINE void run(const Inputs<T>* inputs, Index samples, T* packed) {
        pack<T, BYTES>(transposed(*inputs, 0), inputs->features, samples, inputs->rectify, packed);
    }
};

// Upper bound of packed_size over the vector widths.
template <class T>
Index packed_bound(Index K, Index N) {
    return K * ((N + 15) / 16 * 16);
}

template <class T>
struct Backward {
    Delta<T> delta;
    Inputs<T> inputs;
    Sizes sizes;
    const T* weight;
    T *grad_inputs, *grad_bias;
    std::vector<Index> order, start;  // layers of segment s: order[start[s]] … order[start[s + 1] - 1]
    bool parts;                       // segments are parts of one sum, and grad_inputs their partial sums
};

// The layers of one segment: the sum over them of weightᵀ deltaᵀ (I, B), and each one's bias gradient.
template <int BYTES>
struct BackwardSegment {
    template <class T>
    static SELSHARE_INLINE void run(const Backward<T>* job, Index segment, T* scratch) {
        const Index I = job->inputs.features, B = job->sizes.samples, O = job->sizes.outputs;
        const Index first = job->start[segment], last = job->start[segment + 1];
        T* sum = job->grad_inputs ? job->grad_inputs + segment * I * B : nullptr;
        if (sum && first == last) std::memset(sum, 0, I * B * sizeof(T));
        for (Index at = first; at < last; ++at) {
            const Index g = job->order[at];
            const Strided<T> delta{job->delta.data + g * job->delta.layer, job->delta.output, job->delta.sample};
            if (job->grad_bias) sum_samples<T>(delta, O, B, job->grad_bias + g * O);
            if (sum == nullptr) continue;
            const T* packed = delta.data;
            if (!is_packed<T, BYTES>(delta, B)) {
                pack<T, BYTES>(delta, O, B, false, scratch);
                packed = scratch;
            }
            // What the layer that follows will read and write.
            const Index next = at + 1 < static_cast<Index>(job->order.size()) ? job->order[at + 1] : g;
            const Index size = sizeof(T), from = job->inputs.of(next) * job->inputs.from;
            const Stream streams[4] = {{job->weight + next * O * I, O * size},
                                       {job->delta.data + next * job->delta.layer, O * B * size / I},
                                       {sum + (at + 1 == last ? I * B : 0), B * size},
                                       {job->inputs.data + from, job->inputs.rectify ? B * size : 0}};
            const T* weight = job->weight + g * O * I;
            const bool mask = job->inputs.rectify && !job->parts && at + 1 == last && job->inputs.sample == 1;
            const T* x = mask ? job->inputs.data + segment * job->inputs.from : nullptr;
            add_product<T, BYTES>(weight, packed, I, B, O, streams, sum, at > first, x, job->inputs.feature);
        }
        if (sum && job->inputs.rectify && !job->parts && job->inputs.sample != 1) mask(job->inputs, segment, I, B, sum);
    }

    template <class T>
    static SELSHARE_INLINE void sum_samples(const Strided<T>& delta, Index O, Index B, T* out) {
        for (Index o = 0; o < O; ++o) {
            const T* row = delta.data + o * delta.row;
            T lanes[16] = {};
            Index b = 0;
            if (delta.column == 1)
                for (; b + 16 <= B; b += 16)
                    for (int j = 0; j < 16; ++j) lanes[j] += row[b + j];
            T total = 0;
            for (; b < B; ++b) total += row[b * delta.column];
            for (int half = 8; half > 0; half /= 2)
                for (int j = 0; j < half; ++j) lanes[j] += lanes[j + half];
            out[o] = total + lanes[0];
        }
    }

    // sum (I, B) = or += weightᵀ (I, O) · packed (O, B), and zero where x (row i at x + i * x_row) is not positive.
    template <class T, int WIDTH>
    static SELSHARE_INLINE void add_product(const T* weight, const T* packed, Index I, Index B, Index O,
                                            const Stream (&streams)[4], T* sum, bool add, const T* x, Index x_row) {
        multiply<T, WIDTH, 4>(
            {weight, 1, I}, packed, I, B, O, streams,
            [&](Index row, Index column, Index count, const T* values) SELSHARE_INLINED {
                T* __restrict to = sum + row * B + column;
                if (add)
                    for (Index j = 0; j < count; ++j) to[j] += values[j];
                else
                    for (Index j = 0; j < count; ++j) to[j] = values[j];
                if (x == nullptr) return;
                const T* at = x + row * x_row + column;
                for (Index j = 0; j < count; ++j) to[j] = at[j] <= 0 ? T(0) : to[j];
            });
    }

    // Zero where the input was not positive.
    template <class T>
    static SELSHARE_INLINE void mask(const Inputs<T>& inputs, Index from, Index I, Index B, T* sum) {
        for (Index i = 0; i < I; ++i) {
            const T* x = inputs.data + from * inputs.from + i * inputs.feature;
            T* to = sum + i * B;
            if (inputs.sample == 1)
                for (Index b = 0; b < B; ++b) to[b] = x[b] <= 0 ? T(0) : to[b];
            else
                for (Index b = 0; b < B; ++b) to[b] = x[b * inputs.sample] <= 0 ? T(0) : to[b];
        }
    }
};

// Sorts the layers by the input they read; many layers on one input become PARTS segments.
template <class T>
void find_segments(Backward<T>& job) {
    const Index G = job.sizes.layers, S = job.inputs.sources;
    job.parts = S == 1 && G > 1;
    const Index segments = job.parts ? std::min(G, PARTS) : S;
    const auto segment_of = [&](Index g) { return job.parts ? g * segments / G : job.inputs.of(g); };
    job.start.assign(segments + 1, 0);
    for (Index g = 0; g < G; ++g) ++job.start[segment_of(g) + 1];
    for (Index s = 0; s < segments; ++s) job.start[s + 1] += job.start[s];
    job.order.resize(G);
    std::vector<Index> next(job.start.begin(), job.start.end() - 1);
    for (Index g = 0; g < G; ++g) job.order[next[segment_of(g)]++] = g;
}

}  // namespace

template <class T>
void stacked_linear(const Inputs<T>& inputs, Sizes sizes, const T* weight, const T* bias, T* outputs, int threads) {
    if (sizes.layers * sizes.samples * sizes.outputs == 0) return;
    threads = useful_threads(threads, sizes.multiply_adds(inputs.features));
    const Index most = std::max<Index>(1, sizes.outputs / (4 * TILE_ROWS));
    const Index wanted = std::clamp<Index>(2 * threads / sizes.layers, 1, most);
    const Index rows = (sizes.outputs + wanted - 1) / wanted;
    const Index blocks = (sizes.outputs + rows - 1) / rows;  // none is empty, however many were wanted
    const Forward<T> job{inputs, sizes, weight, bias, outputs, blocks, rows};
    const Index packed = packed_bound<T>(inputs.features, sizes.samples);
    const bool shared = inputs.sources == 1;
    Workspace<T> scratch(packed, shared ? 1 : threads);
    if (shared) widest<PackShared, const Inputs<T>*, Index, T*>()(&inputs, sizes.samples, scratch.mine());
    const T* ready = shared ? scratch.mine() : nullptr;
    const auto piece = widest<ForwardPiece, const Forward<T>*, Index, const T*, T*>();
    const Index chunk = chunk_of(sizes.layers * blocks, threads);
#pragma omp parallel for schedule(dynamic, chunk) num_threads(threads)
    for (Index i = 0; i < sizes.layers * blocks; ++i) piece(&job, i, ready, shared ? nullptr : scratch.mine());
}

template <class T>
void stacked_linear_backward(const Delta<T>& delta, const Inputs<T>& inputs, Sizes sizes, const T* weight,
                             T* grad_inputs, T* grad_bias, int threads) {
    threads = useful_threads(threads, sizes.multiply_adds(inputs.features));
    if (inputs.features * sizes.samples == 0) grad_inputs = nullptr;
    Backward<T> job{delta, inputs, sizes, weight, grad_inputs, grad_bias, {}, {}, false};
    find_segments(job);
    const Index segments = static_cast<Index>(job.start.size()) - 1, size = inputs.features * sizes.samples;
    std::vector<T> partial(job.parts && grad_inputs ? segments * size : 0);
    if (!partial.empty()) job.grad_inputs = partial.data();
    Workspace<T> scratch(packed_bound<T>(sizes.outputs, sizes.samples), threads);
    const auto run = widest<BackwardSegment, const Backward<T>*, Index, T*>();
    const Index chunk = chunk_of(segments, threads);
#pragma omp parallel for schedule(dynamic, chunk) num_threads(threads)
    for (Index s = 0; s < segments; ++s) run(&job, s, scratch.mine());
    if (partial.empty()) return;
    for (Index part = 1; part < segments; ++part)
        for (Index i = 0; i < size; ++i) partial[i] += partial[part * size + i];
    if (inputs.rectify) BackwardSegment<16>::mask(inputs, 0, inputs.features, sizes.samples, partial.data());
    std::memcpy(grad_inputs, partial.data(), size * sizeof(T));
}

#define SELSHARE_INSTANTIATE(T)                                                                                    \
    template void stacked_linear<T>(const Inputs<T>&, Sizes, const T*, const T*, T*, int);                         \
    template void stacked_linear_backward<T>(const Delta<T>&, const Inputs<T>&, Sizes, const T*, T*, T*, int);
SELSHARE_INSTANTIATE(float)
SELSHARE_INSTANTIATE(double)

}  // namespace selshare
