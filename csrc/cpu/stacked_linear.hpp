// Linear layers of all branches of a bank at once; see kernels/stacked_linear.
#pragma once

#include "cpu/tile.hpp"

namespace selshare {

// The inputs (S, B, I) of G layers: layer g reads inputs[source(g)].
template <class T>
struct Inputs {
    const T* data;
    Index from, sample, feature;  // strides of S, B and I
    const Index* source;          // (G,), or null: layer g reads inputs[g], or inputs[0] where S is 1
    Index sources, features;      // S, I
    bool rectify;                 // the layers read max(input, 0)

    Index of(Index g) const { return source ? source[g] : sources == 1 ? 0 : g; }
};

// G, B, O of the layers.
struct Sizes {
    Index layers, samples, outputs;

    Index multiply_adds(Index features) const { return layers * samples * outputs * features; }
};

// outputs (G, O, B) = weight (G, O, I) · inputsᵀ + bias (G, O); bias may be null.
template <class T>
void stacked_linear(const Inputs<T>& inputs, Sizes sizes, const T* weight, const T* bias, T* outputs, int threads);

// The derivative by the inputs, (S, I, B), and by the bias, (G, O); either may be null. delta has shape (G, B, O).
template <class T>
struct Delta {
    const T* data;
    Index layer, sample, output;  // strides
};
template <class T>
void stacked_linear_backward(const Delta<T>& delta, const Inputs<T>& inputs, Sizes sizes, const T* weight,
                             T* grad_inputs, T* grad_bias, int threads);

}  // namespace selshare
