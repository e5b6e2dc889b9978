// Python module selshare._native: every function takes raw pointers and a thread count, and runs without the GIL.
// Shapes, types and contiguity are checked in Python before the call (kernels/*/native.py).
#include <pybind11/pybind11.h>

#include <cstdint>

#include "cpu/eigh.hpp"
#include "cpu/sketch.hpp"

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

PYBIND11_MODULE(_native, m) {
    m.doc() = "Compiled kernels of selshare; see selshare.kernels for the public operations.";
    m.def("batched_eigh_f32", &batched_eigh<float>, Unlocked());
    m.def("batched_eigh_f64", &batched_eigh<double>, Unlocked());
    m.def("sketch_gradients_f32", &sketch_gradients<float>, Unlocked());
    m.def("sketch_gradients_f64", &sketch_gradients<double>, Unlocked());
}
