// Python module selshare._native: every function takes raw pointers and a thread count, and runs without the GIL.
// Shapes, types and contiguity are checked in Python before the call (kernels/*/native.py).
#include <pybind11/pybind11.h>

#include <cstdint>

namespace py = pybind11;

PYBIND11_MODULE(_native, m) {
    m.doc() = "Compiled kernels of selshare; see selshare.kernels for the public operations.";
}
