// Subnormal numbers, those between 0 and the smallest number of full precision, cost a processor some hundred cycles
// an operation. A mode of each thread counts them as zero, as operands and as results.
#pragma once

namespace selshare {

// Set the mode in the calling thread and in the threads of its parallel loops. False: this processor has no such mode.
bool set_subnormals_as_zero(bool zero, int threads);

}  // namespace selshare
