#include "src/train/parameters.hpp"

#include <array>

namespace lolcats {

namespace {

/// Kernels read four floats at once: every array begins at 16 bytes.
constexpr std::size_t vector_length = 4;

std::size_t padded(std::size_t size) {
    return (size + vector_length - 1) / vector_length * vector_length;
}

} // namespace

int ParameterSet::add(const std::string& name, const io::Shape& shape) {
    const auto size = static_cast<std::size_t>(io::element_count(shape, name));
    entries_.push_back({name, shape, size_, size});
    size_ += padded(size);
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
    return gradients_.extent(0) > 0 ? part(gradients_, index) : Vector<double>();
}

void ParameterSet::zero_gradients() const {
    Kokkos::deep_copy(gradients_, 0.0);
}

double ParameterSet::gradient_norm() const {
    return norm(gradients_);
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
