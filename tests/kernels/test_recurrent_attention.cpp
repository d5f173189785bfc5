/// Attention that takes its tokens piece by piece, and then one by one, against its T x T form: every split of a short
/// sequence, for student and teacher.
#include "kernels/attention_state.hpp"
#include "tests/kernels/student_case.hpp"
#include "tests/support/compare.hpp"

#include <gtest/gtest.h>

#include <functional>

namespace lolcats::test {
namespace {

constexpr int batch = 2;       ///< of grouped_case
constexpr int spare_slots = 1; ///< so that slots are not rows

/// Takes the sequences of a case through the kernels that continue. Sequence b is in slot batch - b, not in slot b.
template <class Real>
class Recurrence {
public:
    Recurrence(const StudentCase& c, const NaiveInputs& in, bool teacher)
        : c_(c), teacher_(teacher), q_(matrix<Real>(c.rows(), c.query_width(), in.q)),
          k_(matrix<Real>(c.rows(), c.kv_width(), in.k)), v_(matrix<Real>(c.rows(), c.kv_width(), in.v)),
          parameters_(student_parameters<Real>(c, in)),
          state_(c.shape, batch + spare_slots, teacher ? 0 : features(c.form.map, c.form.feature_dim),
                 teacher ? c.shape.length : ring_places(c.form.near, c.form.window)),
          rows_{Vector<int>("slots", batch), Vector<int>("positions", batch)},
          y_(poisoned<Real>(c.rows(), c.query_width())) {
        for (int slot = 0; slot < batch + spare_slots; ++slot) state_.clear(slot);
        const Real nan = std::numeric_limits<Real>::quiet_NaN();
        Kokkos::deep_copy(state_.keys, nan); // a place is not read before it is written
        Kokkos::deep_copy(state_.values, nan);
    }

    /// Tokens `begin` .. end - 1 of sequence b at once.
    void take(int b, int begin, int end) {
        if (begin == end) return;
        AttentionShape shape = c_.shape;
        shape.batch = 1;
        shape.length = end - begin;
        const auto rows = Kokkos::make_pair(b * c_.shape.length + begin, b * c_.shape.length + end);
        const auto part = [&](const Matrix<Real>& all) -> Matrix<Real> {
            return Kokkos::subview(all, rows, Kokkos::ALL);
        };
        const AttentionInputs<Real> inputs{part(q_), part(k_), part(v_)};
        const AttentionOutputs<Real> outputs{part(y_), poisoned<Real>(shape.heads, shape.length)};
        const SequencePlace place{slot(b), begin};
        if (teacher_) {
            continue_softmax_attention(shape, inputs, state_, place, outputs);
            return;
        }
        const std::size_t most = ring_places(c_.form.near, c_.form.window) + shape.length;
        const KeyRun<Real> run{Tensor3<Real>("run_keys", shape.kv_heads, most, shape.head_dim),
                               Tensor3<Real>("run_values", shape.kv_heads, most, shape.head_dim)};
        continue_student_attention(shape, {c_.form, parameters_}, inputs, state_, place, run, outputs);
    }

    /// The token at positions[b] of each sequence b.
    void step(const std::vector<int>& positions) {
        AttentionShape shape = c_.shape;
        shape.length = 1;
        const auto slots = Kokkos::create_mirror_view(rows_.slots);
        const auto at = Kokkos::create_mirror_view(rows_.positions);
        for (int b = 0; b < batch; ++b) {
            slots(b) = slot(b);
            at(b) = positions[b];
        }
        Kokkos::deep_copy(rows_.slots, slots);
        Kokkos::deep_copy(rows_.positions, at);
        const auto gathered = [&](const Matrix<Real>& all) {
            const Matrix<Real> part("part", batch, all.extent(1));
            for (int b = 0; b < batch; ++b)
                Kokkos::deep_copy(Kokkos::subview(part, b, Kokkos::ALL), row_of(all, b, positions[b]));
            return part;
        };
        const AttentionInputs<Real> inputs{gathered(q_), gathered(k_), gathered(v_)};
        const auto y = poisoned<Real>(batch, c_.query_width());
        if (teacher_)
            step_softmax_attention(shape, inputs, state_, rows_, y);
        else
            step_student_attention(shape, {c_.form, parameters_}, inputs, state_, rows_, y);
        for (int b = 0; b < batch; ++b)
            Kokkos::deep_copy(row_of(y_, b, positions[b]), Kokkos::subview(y, b, Kokkos::ALL));
    }

    [[nodiscard]] std::vector<double> y() const { return values(y_); }

private:
    [[nodiscard]] int slot(int b) const { return batch - b; }
    auto row_of(const Matrix<Real>& all, int b, int n) const {
        return Kokkos::subview(all, b * c_.shape.length + n, Kokkos::ALL);
    }

    StudentCase c_;
    bool teacher_;
    Matrix<Real> q_, k_, v_;
    StudentParameters<Real> parameters_;
    AttentionState<Real> state_;
    StepRows rows_;
    Matrix<Real> y_;
};

/// All tokens of both sequences: pieces up to `first` and `second`, then step by step.
template <class Real>
std::vector<double> split_in(const StudentCase& c, const NaiveInputs& in, bool teacher, int first, int second) {
    Recurrence<Real> recurrence(c, in, teacher);
    for (int b = 0; b < batch; ++b) {
        recurrence.take(b, 0, first);
        recurrence.take(b, first, second);
    }
    for (int n = second; n < c.shape.length; ++n) recurrence.step(std::vector<int>(batch, n));
    return recurrence.y();
}

TEST(RecurrentAttention, IsTheParallelFormAtAnySplit) {
    for (const NearKeys near : all_near_keys)
        for (const int window : {1, 4, 5}) {
            const StudentCase c = grouped_case(near, FeatureMapKind::hedgehog, 17, window);
            const NaiveInputs in = random_inputs(c, 40);
            const auto expected = naive_student(c.shape, c.form, in).y;
            const int stride = runs_on_host ? 1 : 5; // each step of thousands is a dozen small kernels
            for (int first = 0; first <= c.shape.length; first += stride)
                for (int second = first; second <= c.shape.length; second += stride) {
                    EXPECT_TRUE(close(split_in<double>(c, in, false, first, second), expected, 1e-11))
                        << case_name(c) << " split at " << first << " and " << second;
                    if (first % 5 != 0) continue; // floats split in the same way
                    EXPECT_TRUE(close(split_in<float>(c, in, false, first, second), expected, 3e-6))
                        << case_name(c) << " split at " << first << " and " << second;
                }
        }
}

TEST(RecurrentAttention, HasAllFeatureMapsAndWindows) {
    for (const NearKeys near : all_near_keys)
        for (const auto map : all_feature_maps)
            for (const int window : {3, 16, 40}) {
                const StudentCase c = grouped_case(near, map, 37, window, true);
                const NaiveInputs in = random_inputs(c, 50);
                const auto expected = naive_student(c.shape, c.form, in).y;
                for (const auto& [first, second] : {std::pair{0, 0}, std::pair{11, 20}, std::pair{37, 37}})
                    EXPECT_TRUE(close(split_in<double>(c, in, false, first, second), expected, 1e-11))
                        << case_name(c) << " split at " << first << " and " << second;
            }
}

TEST(RecurrentAttention, OfTheTeacherIsItsParallelForm) {
    const StudentCase c = grouped_case(NearKeys::terrace, FeatureMapKind::hedgehog, 133, 16);
    const NaiveInputs in = random_inputs(c, 60);
    const auto expected = naive_teacher(c.shape, in).y;
    for (const auto& [first, second] : {std::pair{0, 0}, std::pair{0, 64}, std::pair{5, 131}, std::pair{70, 133}}) {
        EXPECT_TRUE(close(split_in<double>(c, in, true, first, second), expected, 1e-11)) << first << " " << second;
        EXPECT_TRUE(close(split_in<float>(c, in, true, first, second), expected, 3e-6)) << first << " " << second;
    }
}

/// Pieces of more queries than keys are packed for at once, where the piece does not begin with a tile of keys.
TEST(RecurrentAttention, OfTheTeacherTakesLongPieces) {
    const StudentCase c = grouped_case(NearKeys::terrace, FeatureMapKind::hedgehog, 480, 16);
    const NaiveInputs in = random_inputs(c, 61);
    const auto expected = naive_teacher(c.shape, in).y;
    EXPECT_TRUE(close(split_in<double>(c, in, true, 70, 479), expected, 1e-11));
    EXPECT_TRUE(close(split_in<float>(c, in, true, 70, 479), expected, 3e-6));
}

/// Sequences at different positions share steps.
TEST(RecurrentAttention, KeepsSequencesApart) {
    constexpr int ahead = 9;
    for (const NearKeys near : all_near_keys) {
        const StudentCase c = grouped_case(near, FeatureMapKind::hedgehog, 31, 4);
        const NaiveInputs in = random_inputs(c, 70);
        Recurrence<double> recurrence(c, in, false);
        recurrence.take(1, 0, ahead);
        for (int n = 0; n + ahead < c.shape.length; ++n) recurrence.step({n, n + ahead});
        recurrence.take(0, c.shape.length - ahead, c.shape.length);
        EXPECT_TRUE(close(recurrence.y(), naive_student(c.shape, c.form, in).y, 1e-11)) << name(near);
    }
}

} // namespace
} // namespace lolcats::test
