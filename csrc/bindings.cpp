// Python module selshare._native: every function takes raw pointers and a thread count, and runs without the GIL.
// Shapes, types and contiguity are checked in Python before the call (kernels/*/native.py).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <vector>

#include "cpu/block_solvers.hpp"
#include "cpu/dropout.hpp"
#include "cpu/eigh.hpp"
#include "cpu/reachability.hpp"
#include "cpu/sketch.hpp"
#include "cpu/spanning_tree.hpp"
#include "cpu/stacked_linear.hpp"
#include "cpu/subnormals.hpp"
#include "cpu/tensor_train.hpp"
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

// The CUDA solvers, run on the CPU to test them: block_eigh(matrices, values, vectors, sweeps, count, n, backwards),
// block_left_svd(matrices, values, vectors, right or 0, sweeps, count, n, m, backwards)
template <class T>
void block_eigh(Pointer matrices, Pointer values, Pointer vectors, Pointer sweeps, std::int64_t count, int n,
                bool backwards) {
    selshare::block_eigh(reinterpret_cast<const T*>(matrices), reinterpret_cast<T*>(values),
                         reinterpret_cast<T*>(vectors), reinterpret_cast<int*>(sweeps), count, n, backwards);
}
template <class T>
void block_left_svd(Pointer matrices, Pointer values, Pointer vectors, Pointer right, Pointer sweeps,
                    std::int64_t count, int n, int m, bool backwards) {
    selshare::block_left_svd(reinterpret_cast<const T*>(matrices), reinterpret_cast<T*>(values),
                             reinterpret_cast<T*>(vectors), reinterpret_cast<T*>(right),
                             reinterpret_cast<int*>(sweeps), count, n, m, backwards);
}

// sketch_gradients_f32/_f64(delta, its strides of branches, samples and outputs, projected, accumulator, branches,
// samples, outputs, per_output, scale, threads)
template <class T>
void sketch_gradients(Pointer delta, std::int64_t branch_stride, std::int64_t sample_stride, std::int64_t output_stride,
                      Pointer projected, Pointer accumulator, std::int64_t branches, std::int64_t samples,
                      std::int64_t outputs, std::int64_t per_output, T scale, int threads) {
    selshare::sketch_gradients({reinterpret_cast<const T*>(delta), branch_stride, sample_stride, output_stride,
                                reinterpret_cast<const T*>(projected), reinterpret_cast<T*>(accumulator), branches,
                                samples, outputs, per_output, scale},
                               threads);
}

// dropout_f32/_f64(source, result, count, key, threshold, threads): csrc/cpu/dropout.hpp
template <class T>
void dropout(Pointer source, Pointer result, std::int64_t count, std::uint64_t key, std::uint32_t threshold,
             int threads) {
    selshare::dropout(reinterpret_cast<const T*>(source), reinterpret_cast<T*>(result), count, key, threshold, threads);
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

// squared_pairs(values, d, sum, a, b, count, out, threads); squared_matrix(values, n, d, sum, out, threads);
// kth_smallest(matrix, n, k, out, threads)
void squared_pairs(Pointer values, std::int64_t d, bool sum, Pointer a, Pointer b, std::int64_t count, Pointer out,
                   int threads) {
    selshare::squared_pairs(reinterpret_cast<const double*>(values), d, sum, reinterpret_cast<const std::int32_t*>(a),
                            reinterpret_cast<const std::int32_t*>(b), count, reinterpret_cast<double*>(out), threads);
}
void squared_matrix(Pointer values, std::int64_t n, std::int64_t d, bool sum, Pointer out, int threads) {
    selshare::squared_matrix(reinterpret_cast<const double*>(values), n, d, sum, reinterpret_cast<double*>(out),
                             threads);
}
void kth_smallest(Pointer matrix, std::int64_t n, std::int64_t k, Pointer out, int threads) {
    selshare::kth_smallest(reinterpret_cast<const double*>(matrix), n, k, reinterpret_cast<double*>(out), threads);
}

template <class T>
selshare::Block<T> block_of(Pointer products, std::int64_t rows, std::int64_t columns, std::int64_t row,
                            std::int64_t column, Pointer half) {
    return {reinterpret_cast<const T*>(products), rows, columns, row, column, reinterpret_cast<const T*>(half)};
}

// keep_nearest_f32/_f64(products, rows, columns, row, column, half, values, indices, last, kept, threads)
template <class T>
void keep_nearest(Pointer products, std::int64_t rows, std::int64_t columns, std::int64_t row, std::int64_t column,
                  Pointer half, Pointer values, Pointer indices, Pointer last, std::int64_t kept, int threads) {
    selshare::keep_nearest(block_of<T>(products, rows, columns, row, column, half),
                           {reinterpret_cast<T*>(values), reinterpret_cast<std::int32_t*>(indices),
                            reinterpret_cast<T*>(last), kept},
                           threads);
}

// pairs_above_f32/_f64(products, rows, columns, column, half, points, cut, a, b, capacity, threads) -> pairs
template <class T>
std::int64_t pairs_above(Pointer products, std::int64_t rows, std::int64_t columns, std::int64_t column, Pointer half,
                         Pointer points, Pointer cut, Pointer a, Pointer b, std::int64_t capacity, int threads) {
    return selshare::pairs_above(block_of<T>(products, rows, columns, 0, column, half),
                                 reinterpret_cast<const std::int32_t*>(points), reinterpret_cast<const T*>(cut),
                                 {reinterpret_cast<std::int32_t*>(a), reinterpret_cast<std::int32_t*>(b), capacity},
                                 threads);
}

// prim(matrix, cores, n, tree)
void prim(Pointer matrix, Pointer cores, std::int64_t n, Pointer tree) {
    selshare::prim(reinterpret_cast<const double*>(matrix), reinterpret_cast<const double*>(cores), n,
                   reinterpret_cast<double*>(tree));
}

// forest(n, a, b, weights, count, chosen, leaves, heights) -> edges; sorts them first
std::int64_t forest(std::int64_t n, Pointer a, Pointer b, Pointer weights, std::int64_t count, Pointer chosen,
                    Pointer leaves, Pointer heights) {
    return selshare::forest(n, reinterpret_cast<const std::int32_t*>(a), reinterpret_cast<const std::int32_t*>(b),
                            reinterpret_cast<const double*>(weights), count, reinterpret_cast<std::int64_t*>(chosen),
                            reinterpret_cast<std::int32_t*>(leaves), reinterpret_cast<double*>(heights));
}

// crossing_pairs_f32/_f64(products, rows, columns, row, column, half, norms, cores, heights, within, beyond, shifted,
// sum, a, b, capacity, threads) -> pairs
template <class T>
std::int64_t crossing_pairs(Pointer products, std::int64_t rows, std::int64_t columns, std::int64_t row,
                            std::int64_t column, Pointer half, Pointer norms, Pointer cores, Pointer heights,
                            Pointer within, Pointer beyond, Pointer shifted, bool sum, Pointer a, Pointer b,
                            std::int64_t capacity, int threads) {
    return selshare::crossing_pairs<T>(
        {block_of<T>(products, rows, columns, row, column, half), reinterpret_cast<const T*>(norms),
         reinterpret_cast<const double*>(cores), reinterpret_cast<const double*>(heights),
         reinterpret_cast<const double*>(within), reinterpret_cast<const double*>(beyond),
         reinterpret_cast<const T*>(shifted), sum},
        {reinterpret_cast<std::int32_t*>(a), reinterpret_cast<std::int32_t*>(b), capacity}, threads);
}

// tt_svd_f32/_f64(tensors, count, modes, caps, allowed, cores, ranks, threads) -> see cpu/tensor_train.hpp
template <class T>
std::int64_t tt_svd(Pointer tensors, std::int64_t count, const std::vector<std::int64_t>& modes,
                    const std::vector<std::int64_t>& caps, double allowed, const std::vector<Pointer>& cores,
                    Pointer ranks, int threads) {
    std::vector<T*> targets;
    for (const Pointer core : cores) targets.push_back(reinterpret_cast<T*>(core));
    const selshare::TrainShape shape{static_cast<int>(modes.size()), modes.data(), caps.data(), allowed};
    return selshare::tt_svd(reinterpret_cast<const T*>(tensors), count, shape, targets.data(),
                            reinterpret_cast<std::int64_t*>(ranks), threads);
}

PYBIND11_MODULE(_native, m) {
    m.doc() = "Compiled kernels of selshare; see selshare.kernels for the public operations.";
    m.def("batched_eigh_f32", &batched_eigh<float>, Unlocked());
    m.def("batched_eigh_f64", &batched_eigh<double>, Unlocked());
    m.def("tt_svd_f32", &tt_svd<float>, Unlocked());
    m.def("tt_svd_f64", &tt_svd<double>, Unlocked());
    m.def("block_eigh_f32", &block_eigh<float>, Unlocked());
    m.def("block_eigh_f64", &block_eigh<double>, Unlocked());
    m.def("block_left_svd_f32", &block_left_svd<float>, Unlocked());
    m.def("block_left_svd_f64", &block_left_svd<double>, Unlocked());
    m.def("sketch_gradients_f32", &sketch_gradients<float>, Unlocked());
    m.def("sketch_gradients_f64", &sketch_gradients<double>, Unlocked());
    m.def("dropout_f32", &dropout<float>, Unlocked());
    m.def("dropout_f64", &dropout<double>, Unlocked());
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
    m.def("squared_pairs", &squared_pairs, Unlocked());
    m.def("squared_matrix", &squared_matrix, Unlocked());
    m.def("kth_smallest", &kth_smallest, Unlocked());
    m.def("keep_nearest_f32", &keep_nearest<float>, Unlocked());
    m.def("keep_nearest_f64", &keep_nearest<double>, Unlocked());
    m.def("pairs_above_f32", &pairs_above<float>, Unlocked());
    m.def("pairs_above_f64", &pairs_above<double>, Unlocked());
    m.def("prim", &prim, Unlocked());
    m.def("forest", &forest, Unlocked());
    m.def("crossing_pairs_f32", &crossing_pairs<float>, Unlocked());
    m.def("crossing_pairs_f64", &crossing_pairs<double>, Unlocked());
    m.def("set_subnormals_as_zero", &selshare::set_subnormals_as_zero, Unlocked());
}
