#include "kernels/adamw.hpp"

#include "kernels/sum_in_order.hpp"

#include <cmath>

namespace lolcats {

double norm(const Vector<double>& gradients) {
    constexpr std::size_t piece = 4096;
    const std::size_t size = gradients.extent(0);
    const std::size_t pieces = (size + piece - 1) / piece;
    Vector<double> partial(uninitialized("squared_norms"), pieces);
    Kokkos::parallel_for(
        "gradient_norm", Kokkos::RangePolicy<Execution>(0, pieces), KOKKOS_LAMBDA(std::size_t i) {
            double sum = 0;
            const std::size_t end = (i + 1) * piece < size ? (i + 1) * piece : size;
            for (std::size_t j = i * piece; j < end; ++j) sum += gradients(j) * gradients(j);
            partial(i) = sum;
        });
    return std::sqrt(sum_in_order(partial));
}

void adamw(const AdamWSettings& settings, double learning_rate, double gradient_scale, long step,
           const Vector<double>& gradients, const Vector<float>& first_moments, const Vector<float>& second_moments,
           const Vector<float>& values) {
    const auto beta1 = static_cast<float>(settings.beta1);
    const auto beta2 = static_cast<float>(settings.beta2);
    const auto epsilon = static_cast<float>(settings.epsilon);
    const auto decay = static_cast<float>(1 - learning_rate * settings.weight_decay);
    const auto rate = static_cast<float>(learning_rate / (1 - std::pow(settings.beta1, step)));
    const auto second_scale = static_cast<float>(1 / (1 - std::pow(settings.beta2, step)));
    Kokkos::parallel_for(
        "adamw", Elements(0, static_cast<std::int64_t>(values.extent(0))), KOKKOS_LAMBDA(std::int64_t i) {
            const auto gradient = static_cast<float>(gradients(i) * gradient_scale);
            const float m = beta1 * first_moments(i) + (1 - beta1) * gradient;
            const float v = beta2 * second_moments(i) + (1 - beta2) * gradient * gradient;
            first_moments(i) = m;
            second_moments(i) = v;
            values(i) = decay * values(i) - rate * m / (Kokkos::sqrt(v * second_scale) + epsilon);
        });
}

} // namespace lolcats
