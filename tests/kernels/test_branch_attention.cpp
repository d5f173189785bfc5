/// The branches of the student's attention against T x T weights, of which those that do not count are struck out.
#include "kernels/branch_attention.hpp"
#include "lolcats/error.hpp"
#include "tests/kernels/student_case.hpp"
#include "tests/support/compare.hpp"

#include <gtest/gtest.h>

#include <functional>

namespace lolcats::test::test_branch_attention {
namespace {

constexpr int sinks = 3;
const std::vector<Branch> all_branches = {Branch::both, Branch::window, Branch::linear, Branch::window_and_sinks};

struct Taken {
    std::vector<double> y, far, far_softmax;
};

/// Whether query n's weight of key i counts.
bool counts(const StudentForm& form, Branch branch, int n, int i) {
    const bool near = naive_near(form.near, form.window, n, i);
    const bool has_far = !naive_near(form.near, form.window, n, 0);
    if (branch == Branch::window) return near;
    if (branch == Branch::linear) return !near || !has_far;
    if (branch == Branch::window_and_sinks) return near || i < sinks;
    return true;
}

double row_sum(const NaiveWeights& weights, int length, int n, const std::function<bool(int)>& wanted) {
    double sum = 0;
    for (int i = 0; i <= n; ++i) sum += wanted(i) ? weights[static_cast<std::size_t>(n) * length + i] : 0;
    return sum;
}

Taken naive(const StudentCase& c, const NaiveInputs& in, Branch branch) {
    const AttentionShape& s = c.shape;
    NaiveAttention out = naive_attention_outputs(s);
    Taken result;
    std::vector<double> log_sums(s.length);
    for (int b = 0; b < s.batch; ++b)
        for (int h = 0; h < s.heads; ++h) {
            const auto student = naive_student_weights(s, c.form, in, b, h);
            const auto teacher = naive_teacher_weights(s, in, b, h, log_sums.data());
            auto counted = branch == Branch::window_and_sinks ? teacher : student;
            for (int n = 0; n < s.length; ++n) {
                const auto far = [&](int i) { return !naive_near(c.form.near, c.form.window, n, i); };
                const auto all = [](int) { return true; };
                result.far.push_back(row_sum(student, s.length, n, far) / row_sum(student, s.length, n, all));
                result.far_softmax.push_back(row_sum(teacher, s.length, n, far));
                for (int i = 0; i <= n; ++i)
                    if (!counts(c.form, branch, n, i)) counted[static_cast<std::size_t>(n) * s.length + i] = 0;
            }
            naive_apply(s, in, counted, naive_normalizers(s.length, c.form.near, counted), b, h, out.y);
        }
    result.y = out.y;
    return result;
}

template <class Real>
Taken run(const StudentCase& c, const NaiveInputs& in, Branch branch) {
    const StudentRun<Real> both(c, in);
    const auto y = poisoned<Real>(c.rows(), c.query_width());
    const AttentionMass<Real> mass{poisoned<Real>(c.statistic_rows(), c.shape.length),
                                   poisoned<Real>(c.statistic_rows(), c.shape.length)};
    branch_attention(c.shape, both.student(), {branch, sinks}, both.inputs(), y, mass);
    return {values(y), values(mass.far), values(mass.far_softmax)};
}

TEST(BranchAttention, AgreesWithTheFormulas) {
    for (const auto near : {NearKeys::terrace, NearKeys::sliding})
        for (const int length : {1, 16, 33, 71, 150})
            for (const Branch branch : all_branches) {
                // Of the longest, more keys are near than a warp has threads.
                const int window = length == 150 ? 64 : 8;
                const StudentCase c = grouped_case(near, FeatureMapKind::hedgehog, length, window, length == 33);
                const NaiveInputs in = random_inputs(c, 300);
                const Taken expected = naive(c, in, branch);
                const std::string what = case_name(c) + " branch " + std::to_string(static_cast<int>(branch));
                const Taken exact = run<double>(c, in, branch);
                EXPECT_TRUE(close(exact.y, expected.y, 1e-11)) << what;
                EXPECT_TRUE(close(exact.far, expected.far, 1e-11)) << what;
                EXPECT_TRUE(close(exact.far_softmax, expected.far_softmax, 1e-11)) << what;
                EXPECT_TRUE(close(run<float>(c, in, branch).y, expected.y, 3e-6)) << what;
            }
}

TEST(BranchAttention, WithoutAWindowAllIsFar) {
    for (const Branch branch : {Branch::both, Branch::linear}) {
        const StudentCase c = grouped_case(NearKeys::none, FeatureMapKind::t2r, 21, 8);
        const NaiveInputs in = random_inputs(c, 301);
        const Taken expected = naive(c, in, branch);
        const Taken exact = run<double>(c, in, branch);
        EXPECT_TRUE(close(exact.y, expected.y, 1e-11));
        EXPECT_TRUE(close(exact.far, expected.far, 1e-11));
    }
}

TEST(BranchAttention, BothIsTheStudent) {
    const StudentCase c = grouped_case(NearKeys::terrace, FeatureMapKind::exp_dim, 71, 16);
    const NaiveInputs in = random_inputs(c, 302);
    EXPECT_TRUE(close(run<double>(c, in, Branch::both).y, values(StudentRun<double>(c, in).y), 1e-12));
}

TEST(BranchAttention, CountsQueriesWithFarKeys) {
    for (const auto near : all_near_keys)
        for (const int length : {1, 15, 16, 17, 70}) {
            const StudentForm form{near, 8, FeatureMapKind::hedgehog, 4, false};
            int expected = 0;
            for (int n = 0; n < length; ++n) expected += naive_near(near, 8, n, 0) ? 0 : 1;
            EXPECT_EQ(queries_with_far_keys(form, length), expected) << name(near) << " T " << length;
        }
}

TEST(BranchAttention, NamesAreRead) {
    EXPECT_EQ(branch_of("window+sinks"), Branch::window_and_sinks);
    EXPECT_THROW(branch_of("sinks"), Error);
}

} // namespace
} // namespace lolcats::test::test_branch_attention
