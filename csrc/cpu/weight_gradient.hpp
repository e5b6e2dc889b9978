// The gradient of a bank's weights, deltaᵀ · inputs (G, O, I), formed six rows at a time and consumed at once: stored,
// added to a capture, or used to update the weights; see kernels/capture and kernels/fused_step.
#pragma once

#include "cpu/stacked_linear.hpp"

namespace selshare {

// target = gradient
template <class T>
struct Store {
    T* target;
};

// target += scale · gradient
template <class T>
struct Capture {
    T* target;
    double scale;
};

// torch.optim.SGD; buffer is null without momentum, captured without capture.
template <class T>
struct Sgd {
    T *weight, *buffer, *captured;
    double scale, lr, momentum, dampening, decay;
    bool nesterov, maximize;
};

// torch.optim.Adam, or AdamW where decoupled; rate = lr / (1 - beta1^step), root = 1 / sqrt(1 - beta2^step).
template <class T>
struct Adam {
    T *weight, *first, *second, *captured;
    double scale, lr, beta1, beta2, eps, decay, rate, root;
    bool decoupled, maximize;
};

template <class T, class Rule>
void weight_gradient(const Delta<T>& delta, const Inputs<T>& inputs, Sizes sizes, const Rule& rule, int threads);

}  // namespace selshare
