// Python module selshare._native: every function takes raw pointers and a thread count, and runs without the GIL.
// Shapes, types and contiguity are checked in Python before the call (kernels/*/native.py).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>

#include "cpu/eigh.hpp"
#include "cpu/sketch.hpp"
#include "cpu/stacked_linear.hpp"
#include "cpu/weight_gradient.hpp"

namespace py = pybind11;
using Pointer = std::uintptr_t;
using Unlocked = py::call_guard<py::gil_scoped_release>;

// batched_eigh_f32/_f64(matrices, values, vectors, count, n, threads) -> -1, or a matrix that did not converge
template <class T>
std::int64_t batched_eigh(Pointer matrices, Pointer values, Pointer vectors, std::int64_t count, int n, int threads) {
    return selshare::batched_eigh(reinterpret_cast<const T*>(matrices), reinterpret_cast<T*>(values),
                                  reinterpret_cast<T*>(vectors), count, n, threads);
}

// sketch_gradients_f32/_f64(delta, its strides of branches and samples, projected, accumulator, branches, samples,
// outputs, per_output, scale, threads)
template <class T>
void sketch_gradients(Pointer delta, std::int64_t branch_stride, std::int64_t sample_stride, Pointer projected,
                      Pointer accumulator, std::int64_t branches, std::int64_t samples, std::int64_t outputs,
                      std::int64_t per_output, T scale, int threads) {
    selshare::sketch_gradients({reinterpret_cast<const T*>(delta), branch_stride, sample_stride,
                                reinterpret_cast<const T*>(projected), reinterpret_cast<T*>(accumulator), branches,
                                samples, outputs, per_output, scale},
                               threads);
}

// The layers' tensors as numbers, in the order of kernels/stacked_linear/native.py: inputs are data, strides of S, B
// and I, data of source (0: none), S, I, rectify; delta is data, strides of G, B and O; sizes are G, B, O.
using InputNumbers = std::array<std::int64_t, 8>;
using DeltaNumbers = std::array<std::int64_t, 4>;
using SizeNumbers = std::array<std::int64_t, 3>;

template <class T>
T* pointer(std::int64_t address) {
    return reinterpret_cast<T*>(address);
}
template <class T>
selshare::Inputs<T> inputs_of(const InputNumbers& n) {
    return {pointer<const T>(n[0]), n[1], n[2], n[3], pointer<const std::int64_t>(n[4]), n[5], n[6], n[7] != 0};
}
template <class T>
selshare::Delta<T> delta_of(const DeltaNumbers& n) {
    return {pointer<const T>(n[0]), n[1], n[2], n[3]};
}

// stacked_linear(inputs, sizes, weight, bias or 0, outputs, threads)
template <class T>
void stacked_linear(const InputNumbers& inputs, const SizeNumbers& n, Pointer weight, Pointer bias, Pointer outputs,
                    int threads) {
    selshare::stacked_linear<T>(inputs_of<T>(inputs), {n[0], n[1], n[2]}, pointer<const T>(weight),
                                pointer<const T>(bias), pointer<T>(outputs), threads);
}

// stacked_linear_backward(delta, inputs, sizes, weight, grad_inputs or 0, grad_bias or 0, threads)
template <class T>
void stacked_linear_backward(const DeltaNumbers& delta, const InputNumbers& inputs, const SizeNumbers& n,
                             Pointer weight, Pointer grad_inputs, Pointer grad_bias, int threads) {
    selshare::stacked_linear_backward<T>(delta_of<T>(delta), inputs_of<T>(inputs), {n[0], n[1], n[2]},
                                         pointer<const T>(weight), pointer<T>(grad_inputs), pointer<T>(grad_bias),
                                         threads);
}

template <class T, class Rule>
void weight_gradient(const DeltaNumbers& delta, const InputNumbers& inputs, const SizeNumbers& n, const Rule& rule,
                     int threads) {
    selshare::weight_gradient<T, Rule>(delta_of<T>(delta), inputs_of<T>(inputs), {n[0], n[1], n[2]}, rule, threads);
}

// store_gradient(delta, inputs, sizes, target, threads)
template <class T>
void store_gradient(const DeltaNumbers& delta, const InputNumbers& inputs, const SizeNumbers& n, Pointer target,
                    int threads) {
    weight_gradient<T>(delta, inputs, n, selshare::Store<T>{pointer<T>(target)}, threads);
}

// capture_gradients(delta, inputs, sizes, accumulator, scale, threads)
template <class T>
void capture_gradients(const DeltaNumbers& delta, const InputNumbers& inputs, const SizeNumbers& n, Pointer target,
                       double scale, int threads) {
    weight_gradient<T>(delta, inputs, n, selshare::Capture<T>{pointer<T>(target), scale}, threads);
}

// fused_sgd_step(delta, inputs, sizes, (weight, buffer or 0, accumulator or 0),
//                (scale, lr, momentum, dampening, weight_decay), nesterov, maximize, threads)
template <class T>
void fused_sgd_step(const DeltaNumbers& delta, const InputNumbers& inputs, const SizeNumbers& n,
                    const std::array<std::int64_t, 3>& state, const std::array<double, 5>& x, bool nesterov,
                    bool maximize, int threads) {
    const selshare::Sgd<T> rule{pointer<T>(state[0]), pointer<T>(state[1]), pointer<T>(state[2]),
                                x[0], x[1], x[2], x[3], x[4], nesterov, maximize};
    weight_gradient<T>(delta, inputs, n, rule, threads);
}

// fused_adam_step(delta, inputs, sizes, (weight, exp_avg, exp_avg_sq, accumulator or 0),
//                 (scale, lr, beta1, beta2, eps, weight_decay, rate, root), decoupled, maximize, threads)
template <class T>
void fused_adam_step(const DeltaNumbers& delta, const InputNumbers& inputs, const SizeNumbers& n,
                     const std::array<std::int64_t, 4>& state, const std::array<double, 8>& x, bool decoupled,
                     bool maximize, int threads) {
    const selshare::Adam<T> rule{pointer<T>(state[0]), pointer<T>(state[1]), pointer<T>(state[2]), pointer<T>(state[3]),
                                 x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], decoupled, maximize};
    weight_gradient<T>(delta, inputs, n, rule, threads);
}

PYBIND11_MODULE(_native, m) {
    m.doc() = "Compiled kernels of selshare; see selshare.kernels for the public operations.";
    m.def("batched_eigh_f32", &batched_eigh<float>, Unlocked());
    m.def("batched_eigh_f64", &batched_eigh<double>, Unlocked());
    m.def("sketch_gradients_f32", &sketch_gradients<float>, Unlocked());
    m.def("sketch_gradients_f64", &sketch_gradients<double>, Unlocked());
    m.def("stacked_linear_f32", &stacked_linear<float>, Unlocked());
    m.def("stacked_linear_f64", &stacked_linear<double>, Unlocked());
    m.def("stacked_linear_backward_f32", &stacked_linear_backward<float>, Unlocked());
    m.def("stacked_linear_backward_f64", &stacked_linear_backward<double>, Unlocked());
    m.def("store_gradient_f32", &store_gradient<float>, Unlocked());
    m.def("store_gradient_f64", &store_gradient<double>, Unlocked());
    m.def("capture_gradients_f32", &capture_gradients<float>, Unlocked());
    m.def("capture_gradients_f64", &capture_gradients<double>, Unlocked());
    m.def("fused_sgd_step_f32", &fused_sgd_step<float>, Unlocked());
    m.def("fused_sgd_step_f64", &fused_sgd_step<double>, Unlocked());
    m.def("fused_adam_step_f32", &fused_adam_step<float>, Unlocked());
    m.def("fused_adam_step_f64", &fused_adam_step<double>, Unlocked());
}
