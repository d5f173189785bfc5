#pragma once
/// Trained parameters: named arrays in one allocation, with gradients and AdamW moments beside them.
#include "io/safetensors.hpp"
#include "kernels/adamw.hpp"
#include "kernels/views.hpp"

#include <string>
#include <vector>

namespace lolcats {

class ParameterSet {
public:
    struct Entry {
        std::string name; ///< as in the safetensors file it goes to
        io::Shape shape;
        std::size_t offset;
        std::size_t size;
    };

    /// Declares an array and returns its index. All are declared before allocate().
    int add(const std::string& name, const io::Shape& shape);
    /// `trained`: with gradients and moments.
    void allocate(bool trained);

    [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }
    [[nodiscard]] Vector<float> values(int index) const { return part(values_, index); }
    /// Empty unless trained.
    [[nodiscard]] Vector<double> gradients(int index) const;
    /// Of all entries, in one array.
    [[nodiscard]] const Vector<double>& gradients() const { return gradients_; }

    void zero_gradients() const;
    /// 2-norm of all gradients; its order of summation does not depend on the number of threads.
    [[nodiscard]] double gradient_norm() const;
    /// One optimiser step with gradients scaled so that their norm is at most `clip` (0: as they are).
    void step(const AdamWSettings& settings, double learning_rate, double gradient_norm, double clip);

    /// Arrays of all entries that make up the state of a training, beside the count of steps.
    enum class Role { values, first_moments, second_moments, kept };
    /// Empty where there is none: nothing was kept, or nothing is trained.
    [[nodiscard]] Vector<float> array(Role role, int index) const;
    [[nodiscard]] long steps() const { return steps_; }
    void set_steps(long steps) { steps_ = steps; }

    /// Remembers the values; restore() brings them back. Nothing happens where nothing was kept.
    void keep();
    void restore() const;

private:
    template <class T>
    [[nodiscard]] Vector<T> part(const Vector<T>& all, int index) const {
        const auto& entry = entries_.at(index);
        return Kokkos::subview(all, Kokkos::make_pair(entry.offset, entry.offset + entry.size));
    }

    std::vector<Entry> entries_;
    std::size_t size_ = 0;
    long steps_ = 0;
    Vector<float> values_;
    Vector<double> gradients_;
    Vector<float> first_moments_;
    Vector<float> second_moments_;
    Vector<float> kept_;
};

} // namespace lolcats
