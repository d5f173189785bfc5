#include "kernels/rope.hpp"

#include "kernels/row_team.hpp"

#include <cmath>
#include <numbers>

namespace lolcats {

namespace {

double scaled_frequency(double frequency, const RopeScaling& scaling) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    const double original = scaling.original_max_position_embeddings;
    if (wavelength < original / scaling.high_freq_factor) return frequency;
    if (wavelength > original / scaling.low_freq_factor) return frequency / scaling.factor;
    const double smooth =
        (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
    return (1 - smooth) * frequency / scaling.factor + smooth * frequency;
}

} // namespace

std::vector<double> rope_frequencies(const RopeForm& form) {
    std::vector<double> frequencies(form.head_dim / 2);
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
        frequencies[i] = std::pow(form.theta, -2.0 * static_cast<double>(i) / form.head_dim);
        if (form.scaling) frequencies[i] = scaled_frequency(frequencies[i], *form.scaling);
    }
    return frequencies;
}

template <class Real>
RopeTable<Real>::RopeTable(const RopeForm& form, int length)
    : cosine(uninitialized("rope_cosine"), length, form.head_dim / 2),
      sine(uninitialized("rope_sine"), length, form.head_dim / 2) {
    const auto frequencies = rope_frequencies(form);
    const auto host_cosine = Kokkos::create_mirror_view(cosine);
    const auto host_sine = Kokkos::create_mirror_view(sine);
    for (int position = 0; position < length; ++position)
        for (std::size_t i = 0; i < frequencies.size(); ++i) {
            host_cosine(position, i) = static_cast<Real>(std::cos(position * frequencies[i]));
            host_sine(position, i) = static_cast<Real>(std::sin(position * frequencies[i]));
        }
    Kokkos::deep_copy(cosine, host_cosine);
    Kokkos::deep_copy(sine, host_sine);
}

template <class Real>
void set_positions(const Vector<double>& frequencies, const Vector<int>& positions, int rows,
                   const RopeTable<Real>& table) {
    const int half = static_cast<int>(frequencies.extent(0));
    const auto cosine = table.cosine;
    const auto sine = table.sine;
    for_each_row(
        "set_positions", rows, KOKKOS_LAMBDA(const RowTeam& team, int row) {
            team.for_each(half, [=](int i) {
                cosine(row, i) = static_cast<Real>(Kokkos::cos(positions(row) * frequencies(i)));
                sine(row, i) = static_cast<Real>(Kokkos::sin(positions(row) * frequencies(i)));
            });
        });
}

template <class Real>
void rotate(const RopeTable<Real>& table, Rotation rotation, int length, int head_dim, const Matrix<Real>& x) {
    const int half = head_dim / 2;
    const int heads = static_cast<int>(x.extent(1)) / head_dim;
    const Real direction = rotation == Rotation::forward ? Real(1) : Real(-1);
    const auto cosine = table.cosine;
    const auto sine = table.sine;
    for_each_row(
        "rotate", x.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const Real* c = &cosine(row % length, 0);
            const Real* s = &sine(row % length, 0);
            Real* out = &x(row, 0);
            team.for_each_pair(heads, half, [=](int head, int i) {
                Real* low = out + head * head_dim;
                Real* high = low + half;
                const Real a = low[i];
                const Real b = high[i];
                low[i] = a * c[i] - direction * b * s[i];
                high[i] = b * c[i] + direction * a * s[i];
            });
        });
}

template struct RopeTable<float>;
template struct RopeTable<double>;
template void set_positions<float>(const Vector<double>&, const Vector<int>&, int, const RopeTable<float>&);
template void set_positions<double>(const Vector<double>&, const Vector<int>&, int, const RopeTable<double>&);
template void rotate<float>(const RopeTable<float>&, Rotation, int, int, const Matrix<float>&);
template void rotate<double>(const RopeTable<double>&, Rotation, int, int, const Matrix<double>&);

} // namespace lolcats
