// Threads over layers. The six rows by one panel that multiply() hands over lie in the innermost cache; the rows of
// weight and state that the next six need are fetched meanwhile, so that memory is read while products are computed.
#include "cpu/weight_gradient.hpp"

#include <algorithm>
#include <cmath>

#include "cpu/widths.hpp"
#include "cpu/workspace.hpp"

namespace selshare {
namespace {

// A rule's `arrays` are what it reads (null where absent), and `consume` takes the gradient's `count` elements from
// `at` on. What does not depend on the element is decided outside the loops.

template <class T>
struct StoreRule : Store<T> {
    static constexpr int STREAMS = 1;
    const void* arrays(int) const { return this->target; }
    SELSHARE_INLINE void consume(Index at, Index count, const T* g) const {
        T* to = this->target + at;
        for (Index j = 0; j < count; ++j) to[j] = g[j];
    }
};

template <class T>
SELSHARE_INLINE void add_scaled(T* __restrict to, Index count, const T* __restrict g, double scale) {
    const T factor = T(scale);
    for (Index j = 0; j < count; ++j) to[j] += factor * g[j];
}

template <class T>
struct CaptureRule : Capture<T> {
    static constexpr int STREAMS = 1;
    const void* arrays(int) const { return this->target; }
    SELSHARE_INLINE void consume(Index at, Index count, const T* g) const {
        add_scaled(this->target + at, count, g, this->scale);
    }
};

template <class T>
struct SgdRule : Sgd<T> {
    static constexpr int STREAMS = 3;
    const void* arrays(int i) const { return i == 0 ? this->weight : i == 1 ? this->buffer : this->captured; }
    SELSHARE_INLINE void consume(Index at, Index count, const T* g) const {
        if (this->captured) add_scaled(this->captured + at, count, g, this->scale);
        if (this->buffer == nullptr)
            plain(this->weight + at, count, g);
        else if (this->nesterov)
            with_momentum<true>(this->weight + at, this->buffer + at, count, g);
        else
            with_momentum<false>(this->weight + at, this->buffer + at, count, g);
    }
    SELSHARE_INLINE void plain(T* __restrict w, Index count, const T* __restrict g) const {
        const T scale = T(this->maximize ? -this->scale : this->scale), decay = T(this->decay), lr = T(this->lr);
        for (Index j = 0; j < count; ++j) w[j] -= lr * (scale * g[j] + decay * w[j]);
    }
    template <bool NESTEROV>
    SELSHARE_INLINE void with_momentum(T* __restrict w, T* __restrict m, Index count, const T* __restrict g) const {
        const T scale = T(this->maximize ? -this->scale : this->scale), decay = T(this->decay), lr = T(this->lr);
        const T momentum = T(this->momentum), keep = T(1.0 - this->dampening);
        for (Index j = 0; j < count; ++j) {
            const T d = scale * g[j] + decay * w[j];
            m[j] = momentum * m[j] + keep * d;
            w[j] -= lr * (NESTEROV ? d + momentum * m[j] : m[j]);
        }
    }
};

template <class T>
struct AdamRule : Adam<T> {
    static constexpr int STREAMS = 4;
    const void* arrays(int i) const {
        return i == 0 ? this->weight : i == 1 ? this->first : i == 2 ? this->second : this->captured;
    }
    SELSHARE_INLINE void consume(Index at, Index count, const T* g) const {
        if (this->captured) add_scaled(this->captured + at, count, g, this->scale);
        update(this->weight + at, this->first + at, this->second + at, count, g);
    }
    SELSHARE_INLINE void update(T* __restrict w, T* __restrict m, T* __restrict v, Index count,
                                const T* __restrict g) const {
        const T scale = T(this->maximize ? -this->scale : this->scale), eps = T(this->eps);
        const T coupled = T(this->decoupled ? 0.0 : this->decay);
        const T shrink = T(this->decoupled ? 1.0 - this->lr * this->decay : 1.0);
        const T grow1 = T(1.0 - this->beta1), beta2 = T(this->beta2), grow2 = T(1.0 - this->beta2);
        const T rate = T(this->rate), root = T(this->root);
        for (Index j = 0; j < count; ++j) {
            const T d = scale * g[j] + coupled * w[j];
            m[j] += grow1 * (d - m[j]);
            v[j] = beta2 * v[j] + grow2 * d * d;
            w[j] = shrink * w[j] - rate * m[j] / (std::sqrt(v[j]) * root + eps);
        }
    }
};

template <class T>
StoreRule<T> rule_of(const Store<T>& what) {
    return {what};
}
template <class T>
CaptureRule<T> rule_of(const Capture<T>& what) {
    return {what};
}
template <class T>
SgdRule<T> rule_of(const Sgd<T>& what) {
    return {what};
}
template <class T>
AdamRule<T> rule_of(const Adam<T>& what) {
    return {what};
}

template <class T, class Rule>
struct Job {
    Delta<T> delta;
    Inputs<T> inputs;
    Sizes sizes;
    Rule rule;
};

template <class T>
SELSHARE_INLINE Strided<T> natural(const Inputs<T>& inputs, Index from) {
    return {inputs.data + from * inputs.from, inputs.sample, inputs.feature};
}

// One layer. `shared` is the packed input of all layers, or null; scratch takes a packed one.
template <int BYTES>
struct GradientLayer {
    template <class T, class Rule>
    static SELSHARE_INLINE void run(const Job<T, Rule>* job, Index g, const T* shared, T* scratch) {
        constexpr int STREAMS = Rule::STREAMS;
        const Index I = job->inputs.features, B = job->sizes.samples, O = job->sizes.outputs;
        const T* packed = shared;
        if (packed == nullptr) {
            const Strided<T> x = natural(job->inputs, job->inputs.of(g));
            packed = x.data;
            if (job->inputs.rectify || !is_packed<T, BYTES>(x, I)) {
                pack<T, BYTES>(x, B, I, job->inputs.rectify, scratch);
                packed = scratch;
            }
        }
        const Strided<T> delta{job->delta.data + g * job->delta.layer, job->delta.output, job->delta.sample};
        const Rule rule = job->rule;
        // The state of the next six rows, and delta and input of the next layer.
        const Index next = std::min(g + 1, job->sizes.layers - 1), size = sizeof(T);
        Stream streams[STREAMS + 2];
        for (int s = 0; s < STREAMS; ++s) {
            const T* array = static_cast<const T*>(rule.arrays(s));
            streams[s] = {array ? array + (g * O + TILE_ROWS) * I : delta.data, array ? I * size : 0};
        }
        streams[STREAMS] = {job->delta.data + next * job->delta.layer, B * size};
        streams[STREAMS + 1] = {job->inputs.data + job->inputs.of(next) * job->inputs.from,
                                shared ? 0 : B * I * size / O};
        multiply<T, BYTES, STREAMS + 2>(
            delta, packed, O, I, B, streams,
            [&](Index row, Index column, Index count, const T* values) SELSHARE_INLINED {
                rule.consume((g * O + row) * I + column, count, values);
            });
    }
};

template <int BYTES>
struct PackNatural {
    template <class T>
    static SELSHARE_INLINE void run(const Inputs<T>* inputs, Index samples, T* packed) {
        pack<T, BYTES>(natural(*inputs, 0), samples, inputs->features, inputs->rectify, packed);
    }
};

}  // namespace

template <class T, class Rule>
void weight_gradient(const Delta<T>& delta, const Inputs<T>& inputs, Sizes sizes, const Rule& what, int threads) {
    if (sizes.layers * sizes.outputs * inputs.features == 0) return;
    threads = useful_threads(threads, sizes.multiply_adds(inputs.features));
    const auto rule = rule_of(what);
    using Consumer = std::remove_const_t<decltype(rule)>;
    const Job<T, Consumer> job{delta, inputs, sizes, rule};
    const Index packed = sizes.samples * ((inputs.features + 15) / 16 * 16);
    const bool shared = inputs.sources == 1;
    Workspace<T> scratch(packed, shared ? 1 : threads);
    if (shared) widest<PackNatural, const Inputs<T>*, Index, T*>()(&inputs, sizes.samples, scratch.mine());
    const T* ready = shared ? scratch.mine() : nullptr;
    const auto layer = widest<GradientLayer, const Job<T, Consumer>*, Index, const T*, T*>();
    const Index chunk = chunk_of(sizes.layers, threads);
#pragma omp parallel for schedule(dynamic, chunk) num_threads(threads)
    for (Index g = 0; g < sizes.layers; ++g) layer(&job, g, ready, shared ? nullptr : scratch.mine());
}

#define SELSHARE_INSTANTIATE(T, RULE) \
    template void weight_gradient<T, RULE<T>>(const Delta<T>&, const Inputs<T>&, Sizes, const RULE<T>&, int);
SELSHARE_INSTANTIATE(float, Store)
SELSHARE_INSTANTIATE(float, Capture)
SELSHARE_INSTANTIATE(float, Sgd)
SELSHARE_INSTANTIATE(float, Adam)
SELSHARE_INSTANTIATE(double, Store)
SELSHARE_INSTANTIATE(double, Capture)
SELSHARE_INSTANTIATE(double, Sgd)
SELSHARE_INSTANTIATE(double, Adam)

}  // namespace selshare
