#include "kernels/scaled_float8.hpp"

#include "kernels/rounding.hpp"
#include "kernels/row_team.hpp"

#include <limits>

namespace lolcats {

ScaledFloat8::ScaledFloat8(Matrix<Float8> values, Vector<float> scales)
    : values(std::move(values)), scales(std::move(scales)) {}

ScaledFloat8::ScaledFloat8(const std::string& label, int rows, int columns)
    : values(uninitialized(label), rows, columns), scales(uninitialized(label + "_scales"), rows) {}

ScaledFloat8 ScaledFloat8::rows(int first, int count) const {
    const auto range = Kokkos::make_pair(first, first + count);
    return {Kokkos::subview(values, range, Kokkos::ALL), Kokkos::subview(scales, range)};
}

void round_to_float8(const Matrix<float>& x, const ScaledFloat8& out) {
    const int width = static_cast<int>(x.extent(1));
    for_each_row(
        "round_to_float8", x.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const float* in = &x(row, 0);
            const float largest = team.largest_magnitude(width, in);
            // At least a normal number, so that the inverse is finite. An infinite scale makes all NaN: 0 times
            // infinity.
            const float scale = Kokkos::fmax(largest / largest_float8, std::numeric_limits<float>::min());
            const float inverse = 1 / scale;
            Float8* to = &out.values(row, 0);
            team.for_each(width, [=](int j) { to[j] = to_float8(in[j] * inverse); });
            team.once([&] { out.scales(row) = scale; });
        });
}

template <class T>
void widen(const ScaledFloat8& x, T* out) {
    const int width = static_cast<int>(x.values.extent(1));
    for_each_row(
        "widen_float8", x.values.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const Float8* in = &x.values(row, 0);
            const float scale = x.scales(row);
            T* to = out + static_cast<std::size_t>(row) * width;
            team.for_each(width, [=](int j) { to[j] = rounded_to<T>(scale * to_float(in[j])); });
        });
}

template void widen<float>(const ScaledFloat8&, float*);
template void widen<double>(const ScaledFloat8&, double*);
template void widen<BFloat16>(const ScaledFloat8&, BFloat16*);

} // namespace lolcats
