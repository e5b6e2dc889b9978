// Minimum spanning trees: Prim's on a matrix, Kruskal's on a list of edges, and the search for edges that shorten one.
#pragma once

#include <cstdint>

#include "reachability.hpp"

namespace selshare {

// The tree of max(matrix[i][j], cores[i], cores[j]) that is minimal in the order (weight, i, j); tree is (n - 1, 3).
void prim(const double* matrix, const double* cores, std::int64_t n, double* tree);

// Kruskal's forest of edges (a, b) in the order (weight, i, j); returns how many edges it has, chosen holds their
// positions in that order.
// leaves is an order of the points in which every tree of the growing forest was contiguous, and heights[t] the weight
// of the edge that joined the trees of leaves[t] and leaves[t + 1], infinite where none did.
std::int64_t forest(std::int64_t n, const std::int32_t* a, const std::int32_t* b, const double* weights,
                    std::int64_t count, std::int64_t* chosen, std::int32_t* leaves, double* heights);

// A block of inner products of points in leaf order, against the longest edge on the forest's path between two of them.
template <class T>
struct Crossing {
    Block<T> block;
    const T* norms;         // (n,) a pair's squared distance is at least norms[i] - 2 (g - half[j])
    const double* cores;    // (n,)
    const double* heights;  // (n - 1,)
    const double* within;   // (rows,) longest edge from a row to the block's last row
    const double* beyond;   // (columns,) longest edge from the block's last row to a column; off the diagonal only
    const T* shifted;       // (columns,) half[j] - beyond[j] / 2, rounded down

    bool sum;               // whether distances are norms of sums

    // Whether the cores of two points and the longest edge between them leave an edge open. Of differences, edges of
    // weight 0 connect equal points, and all edges between those weigh 0.
    bool open(std::int64_t i, std::int64_t j, double longest) const {
        return (longest > 0.0 || sum) && cores[i] <= longest && cores[j] <= longest;
    }
};

// The pairs (in leaf order) that may be shorter than, or as long as, the longest edge between them, unless that has
// length 0; returns how many.
template <class T>
std::int64_t crossing_pairs(Crossing<T> crossing, Pairs found, int threads);

}  // namespace selshare
