#pragma once
/// Loops over the rows of an array: on the host a thread takes whole rows, on a device a team of threads shares each.
#include "kernels/tile.hpp"

namespace lolcats {

/// The one thread of a row. The order of a sum's terms depends on their number alone.
struct HostRow {
    template <class Body>
    void for_each(int count, const Body& body) const {
        for (int j = 0; j < count; ++j) body(j);
    }

    /// store(j, load(j)) for all j; what is stored must not be what is still to be loaded.
    template <class Load, class Store>
    void transform(int count, const Load& load, const Store& store) const {
        for (int j = 0; j < count; ++j) store(j, load(j));
    }

    /// body(i, j)
    template <class Body>
    void for_each_pair(int rows, int columns, const Body& body) const {
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < columns; ++j) body(i, j);
    }

    template <class Sum, class Term>
    [[nodiscard]] Sum sum(int count, const Term& term) const {
        Sum total = 0;
#pragma omp simd reduction(+ : total)
        for (int j = 0; j < count; ++j) total += term(j);
        return total;
    }

    template <class Real>
    [[nodiscard]] Real dot(int count, const Real* a, const Real* b) const {
        return tile::dot(count, a, b);
    }

    /// NaN does not count; 0 where there is nothing else.
    template <class Real>
    [[nodiscard]] Real largest_magnitude(int count, const Real* a) const {
        Real largest = 0;
#pragma omp simd reduction(max : largest)
        for (int j = 0; j < count; ++j) largest = Kokkos::abs(a[j]) > largest ? Kokkos::abs(a[j]) : largest;
        return largest;
    }

    /// Index of the first of the largest elements.
    template <class Real>
    [[nodiscard]] int first_largest(int count, const Real* a) const {
        int best = 0;
        for (int j = 1; j < count; ++j) best = a[j] > a[best] ? j : best;
        return best;
    }

    /// Calls `body()` in one thread of the row's.
    template <class Body>
    void once(const Body& body) const {
        body();
    }
};

/// The same for a team. Every member ends with its results visible to all threads of the row.
struct DeviceRow {
    const Team& team;

    template <class Body>
    KOKKOS_INLINE_FUNCTION void for_each(int count, const Body& body) const {
        tile::for_each(team, count, body);
    }

    /// A thread loads four elements at a time, so that it waits for memory once.
    template <class Load, class Store>
    KOKKOS_INLINE_FUNCTION void transform(int count, const Load& load, const Store& store) const {
        constexpr int batch = 4;
        const int step = team.team_size();
        int j = team.team_rank();
        for (; j + (batch - 1) * step < count; j += batch * step) {
            decltype(load(0)) values[batch];
            for (int i = 0; i < batch; ++i) values[i] = load(j + i * step);
            for (int i = 0; i < batch; ++i) store(j + i * step, values[i]);
        }
        for (; j < count; j += step) store(j, load(j));
        team.team_barrier();
    }

    template <class Body>
    KOKKOS_INLINE_FUNCTION void for_each_pair(int rows, int columns, const Body& body) const {
        tile::for_each(team, rows * columns, [&](int at) { body(at / columns, at % columns); });
    }

    template <class Sum, class Term>
    [[nodiscard]] KOKKOS_INLINE_FUNCTION Sum sum(int count, const Term& term) const {
        const int step = team.team_size();
        const auto add_terms = [&](int thread, Sum& part) {
            int j = thread;
            for (; j + 3 * step < count; j += 4 * step) { // four on their way at once
                const Sum first = term(j);
                const Sum second = term(j + step);
                const Sum third = term(j + 2 * step);
                const Sum fourth = term(j + 3 * step);
                part += (first + second) + (third + fourth);
            }
            for (; j < count; j += step) part += term(j);
        };
        Sum total = 0;
        Kokkos::parallel_reduce(Kokkos::TeamThreadRange(team, step), add_terms, total);
        return total;
    }

    template <class Real>
    [[nodiscard]] KOKKOS_INLINE_FUNCTION Real dot(int count, const Real* a, const Real* b) const {
        return sum<Real>(count, [=](int j) { return a[j] * b[j]; });
    }

    template <class Real>
    [[nodiscard]] KOKKOS_INLINE_FUNCTION Real largest_magnitude(int count, const Real* a) const {
        Real largest = 0;
        Kokkos::parallel_reduce(
            Kokkos::TeamThreadRange(team, count),
            [&](int j, Real& part) { part = Kokkos::abs(a[j]) > part ? Kokkos::abs(a[j]) : part; },
            Kokkos::Max<Real>(largest));
        return largest > 0 ? largest : 0; // with nothing but NaN no part was joined
    }

    template <class Real>
    [[nodiscard]] KOKKOS_INLINE_FUNCTION int first_largest(int count, const Real* a) const {
        using Largest = Kokkos::MaxFirstLoc<Real, int>;
        typename Largest::value_type best;
        Kokkos::parallel_reduce(
            Kokkos::TeamThreadRange(team, count),
            [&](int j, typename Largest::value_type& part) {
                if (a[j] > part.val || (a[j] == part.val && j < part.loc)) part = {a[j], j};
            },
            Largest(best));
        return best.loc < count ? best.loc : 0; // with nothing but NaN no element is the largest
    }

    template <class Body>
    KOKKOS_INLINE_FUNCTION void once(const Body& body) const {
        Kokkos::single(Kokkos::PerTeam(team), body);
        team.team_barrier();
    }
};

using RowTeam = std::conditional_t<runs_on_host, HostRow, DeviceRow>;

/// Calls `body(team, row)` for 0 <= row < rows.
template <class Body>
void for_each_row(const char* label, std::size_t rows, const Body& body) {
    if constexpr (runs_on_host) {
        Kokkos::parallel_for(label, Kokkos::RangePolicy<Execution>(0, rows), [=](int row) { body(HostRow{}, row); });
    } else {
        constexpr int threads = 256;
        Kokkos::parallel_for(
            label, Kokkos::TeamPolicy<Execution>(static_cast<int>(rows), threads),
            KOKKOS_LAMBDA(const Team& team) { body(DeviceRow{team}, team.league_rank()); });
    }
}

} // namespace lolcats
