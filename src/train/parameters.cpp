#include "src/train/parameters.hpp"

#include <array>
#include <cmath>

namespace lolcats {

int ParameterSet::add(const std::string& name, const io::Shape& shape) {
    const auto size = static_cast<std::size_t>(io::element_count(shape, name));
    entries_.push_back({name, shape, size_, size});
    size_ += size;
    return static_cast<int>(entries_.size()) - 1;
}

void ParameterSet::allocate(bool trained) {
    values_ = Vector<float>("parameters", size_);
    if (!trained) return;
    gradients_ = Vector<double>("gradients", size_);
    first_moments_ = Vector<float>("first_moments", size_);
    second_moments_ = Vector<float>("second_moments", size_);
}

Vector<double> ParameterSet::gradients(int index) const {
    return is_trained() ? part(gradients_, index) : Vector<double>();
}

void ParameterSet::zero_gradients() const {
    Kokkos::deep_copy(gradients_, 0.0);
}

double ParameterSet::gradient_norm() const {
    constexpr std::size_t piece = 4096;
    const std::size_t pieces = (size_ + piece - 1) / piece;
    const auto gradients = gradients_;
    const std::size_t size = size_;
    Vector<double> partial(uninitialized("squared_norms"), pieces);
    Kokkos::parallel_for(
        "gradient_norm", Kokkos::RangePolicy<Execution>(0, pieces), KOKKOS_LAMBDA(std::size_t i) {
            double sum = 0;
            const std::size_t end = (i + 1) * piece < size ? (i + 1) * piece : size;
            for (std::size_t j = i * piece; j < end; ++j) sum += gradients(j) * gradients(j);
            partial(i) = sum;
        });
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, partial);
    double total = 0;
    for (std::size_t i = 0; i < pieces; ++i) total += host(i);
    return std::sqrt(total);
}

void ParameterSet::step(const AdamWSettings& settings, double learning_rate, double gradient_norm, double clip) {
    // PyTorch's clip_grad_norm_ divides by the norm plus 1e-6.
    const double scale = clip > 0 && gradient_norm > clip ? clip / (gradient_norm + 1e-6) : 1.0;
    adamw(settings, learning_rate, scale, ++steps_, gradients_, first_moments_, second_moments_, values_);
}

Vector<float> ParameterSet::array(Role role, int index) const {
    const std::array<const Vector<float>*, 4> all{&values_, &first_moments_, &second_moments_, &kept_};
    const Vector<float>& whole = *all.at(static_cast<std::size_t>(role));
    return whole.extent(0) > 0 ? part(whole, index) : Vector<float>();
}

void ParameterSet::keep() {
    if (kept_.extent(0) != size_) kept_ = Vector<float>(uninitialized("kept_parameters"), size_);
    Kokkos::deep_copy(kept_, values_);
}

void ParameterSet::restore() const {
    if (kept_.extent(0) > 0) Kokkos::deep_copy(values_, kept_);
}

} // namespace lolcats
