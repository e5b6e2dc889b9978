// Dropout by a counter-based generator: a unit's fate depends on the key and its place alone, so that no mask is kept
// and threads need nothing of each other.
#pragma once

#include <cstdint>

namespace selshare {

// result[i] = source[i] * (0 if unit i is dropped, else 65536 / (65536 - threshold)); NaN and Inf times 0 are NaN.
// The two may be the same memory. A unit is dropped if its 16-bit word is below threshold, of 1 ... 65535.
//
// Word of unit i = 128 k + 16 h + l (0 <= h < 8, 0 <= l < 16): half-word h, low half first, of the four 32-bit words
// that Philox4x32-10 makes of counter 16 k + l and of `key`, low words first. Sixteen blocks stand side by side in
// vector registers, and need no transposing so.
// Source: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3, SC 2011. The order is ours.
void dropout(const float* source, float* result, std::int64_t count, std::uint64_t key, std::uint32_t threshold,
             int threads);
void dropout(const double* source, double* result, std::int64_t count, std::uint64_t key, std::uint32_t threshold,
             int threads);

}  // namespace selshare
