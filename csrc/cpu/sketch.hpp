// Sketched capture: the part that meets every branch.
#pragma once

#include <cstdint>

namespace selshare {

// accumulator[g, j, o] += scale * sum over b of delta[g, b, o] * projected[b, j, o]
// accumulator (branches, per_output, outputs) and projected (samples, per_output, outputs) are contiguous; delta has
// the given strides, in numbers. A branch's result depends neither on the thread count nor on the other branches.
template <class T>
struct SketchArguments {
    const T* delta;
    std::int64_t branch_stride, sample_stride, output_stride;
    const T* projected;
    T* accumulator;
    std::int64_t branches, samples, outputs, per_output;
    T scale;
};

void sketch_gradients(const SketchArguments<float>& arguments, int threads);
void sketch_gradients(const SketchArguments<double>& arguments, int threads);

}  // namespace selshare
