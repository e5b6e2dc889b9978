#include "spanning_tree.hpp"

#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "dispatch.hpp"
#include "scan.hpp"

namespace selshare {
namespace {

constexpr double INFINITE = std::numeric_limits<double>::infinity();

struct Edge {
    double weight;
    std::int64_t a, b;
    bool operator<(const Edge& other) const {
        if (weight != other.weight) return weight < other.weight;
        return std::minmax(a, b) < std::minmax(other.a, other.b);
    }
};

struct Sortable {
    double weight;
    std::uint64_t ends;
    std::int64_t position;
    Sortable() = default;
    Sortable(double w, std::uint32_t a, std::uint32_t b, std::int64_t e)
        : weight(w), ends(std::uint64_t{std::min(a, b)} << 32 | std::max(a, b)), position(e) {}
    bool operator<(const Sortable& other) const {
        return weight < other.weight || (weight == other.weight && ends < other.ends);
    }
};

std::int64_t root(std::vector<std::int32_t>& parent, std::int64_t point) {
    while (parent[point] != point) point = parent[point] = parent[parent[point]];
    return point;
}

template <class T>
SELSHARE_INLINE T cut_below(T norm, double height) {
    double cut = 0.5 * (static_cast<double>(norm) - height);
    return std::nextafter(static_cast<T>(cut), -std::numeric_limits<T>::infinity());
}

template <class T>
SELSHARE_INLINE void cross_row(const Crossing<T>& c, std::int64_t r, std::vector<std::int32_t>& found) {
    const Block<T>& block = c.block;
    const T* products = block.products + r * block.columns;
    std::int64_t row = block.row + r;
    const T norm = c.norms[row];
    if (block.row != block.column) {
        const T *half = block.half + block.column, *shifted = c.shifted;
        const T near = cut_below(norm, c.within[r]), far = norm / 2;
        scan<T>(
            block.columns,
            [&](std::int64_t j) { return (products[j] - half[j] >= near) | (products[j] - shifted[j] >= far); },
            [&](std::int64_t j) {
                if (c.open(row, block.column + j, std::max(c.within[r], c.beyond[j])))
                    found.push_back(static_cast<std::int32_t>(block.column + j));
            });
        return;
    }
    double longest = -INFINITE;
    for (std::int64_t j = r + 1; j < block.columns; ++j) {
        longest = std::max(longest, c.heights[row + j - r - 1]);
        T value = products[j] - block.half[block.column + j];
        if (value >= cut_below(norm, longest) && c.open(row, block.column + j, longest))
            found.push_back(static_cast<std::int32_t>(block.column + j));
    }
}
SELSHARE_CLONES void cross_f32(Crossing<float> crossing, std::int64_t r, std::vector<std::int32_t>& found) {
    cross_row(crossing, r, found);
}
SELSHARE_CLONES void cross_f64(Crossing<double> crossing, std::int64_t r, std::vector<std::int32_t>& found) {
    cross_row(crossing, r, found);
}
void cross_of(const Crossing<float>& crossing, std::int64_t r, std::vector<std::int32_t>& found) {
    cross_f32(crossing, r, found);
}
void cross_of(const Crossing<double>& crossing, std::int64_t r, std::vector<std::int32_t>& found) {
    cross_f64(crossing, r, found);
}

}  // namespace

void prim(const double* matrix, const double* cores, std::int64_t n, double* tree) {
    std::vector<Edge> best(n);  // from the tree to each point outside, which is b
    for (std::int64_t j = 0; j < n; ++j) best[j] = {INFINITE, n, j};
    std::vector<std::int64_t> outside(n - 1);
    std::iota(outside.begin(), outside.end(), 1);
    std::int64_t newest = 0;
    for (std::int64_t step = 0; step < n - 1; ++step) {
        std::int64_t next = 0;
        for (std::size_t at = 0; at < outside.size(); ++at) {
            std::int64_t j = outside[at];
            Edge edge{std::max({matrix[newest * n + j], cores[newest], cores[j]}), newest, j};
            if (edge < best[j]) best[j] = edge;
            if (best[j] < best[outside[next]]) next = static_cast<std::int64_t>(at);
        }
        newest = outside[next];
        outside[next] = outside.back();
        outside.pop_back();
        tree[3 * step] = static_cast<double>(std::min(best[newest].a, newest));
        tree[3 * step + 1] = static_cast<double>(std::max(best[newest].a, newest));
        tree[3 * step + 2] = best[newest].weight;
    }
}

std::int64_t forest(std::int64_t n, const std::int32_t* a, const std::int32_t* b, const double* weights,
                    std::int64_t count, std::int64_t* chosen, std::int32_t* leaves, double* heights) {
    std::vector<std::int32_t> parent(n), first(n), last(n), next(n, -1);
    std::iota(parent.begin(), parent.end(), 0);
    first = last = parent;
    std::vector<double> joined(n, INFINITE);  // the weight between a point and the next
    std::vector<Sortable> order(count);
    for (std::int64_t e = 0; e < count; ++e) order[e] = Sortable(weights[e], a[e], b[e], e);
    std::sort(order.begin(), order.end());
    std::int64_t edges = 0;
    for (std::int64_t at = 0; at < count && edges < n - 1; ++at) {
        std::int64_t e = order[at].position;
        std::int64_t left = root(parent, a[e]), right = root(parent, b[e]);
        if (left == right) continue;
        chosen[edges++] = e;
        joined[last[left]] = weights[e];
        next[last[left]] = first[right];
        last[left] = last[right];
        parent[right] = static_cast<std::int32_t>(left);
    }
    std::int64_t at = 0;
    for (std::int64_t point = 0; point < n; ++point) {
        if (parent[point] != point) continue;
        for (std::int32_t leaf = first[point]; leaf >= 0; leaf = next[leaf]) {
            leaves[at] = leaf;
            if (at < n - 1) heights[at] = joined[leaf];
            ++at;
        }
    }
    return edges;
}

template <class T>
std::int64_t crossing_pairs(Crossing<T> crossing, Pairs found, int threads) {
    std::int64_t count = 0;
#pragma omp parallel num_threads(threads)
    {
        std::vector<std::int32_t> others;
#pragma omp for schedule(dynamic, 8)
        for (std::int64_t r = 0; r < crossing.block.rows; ++r) {
            others.clear();
            cross_of(crossing, r, others);
            std::int64_t size = static_cast<std::int64_t>(others.size()), at;
            if (size == 0) continue;
#pragma omp atomic capture
            {
                at = count;
                count += size;
            }
            for (std::int64_t t = 0; t < size && at + t < found.capacity; ++t) {
                found.a[at + t] = static_cast<std::int32_t>(crossing.block.row + r);
                found.b[at + t] = others[t];
            }
        }
    }
    return count;
}

template std::int64_t crossing_pairs(Crossing<float>, Pairs, int);
template std::int64_t crossing_pairs(Crossing<double>, Pairs, int);

}  // namespace selshare
