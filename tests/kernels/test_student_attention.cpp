/// The student's attention and the teacher's against their T x T forms.
#include "tests/kernels/student_case.hpp"
#include "tests/support/compare.hpp"

#include <gtest/gtest.h>

namespace lolcats::test {
namespace {

std::vector<StudentCase> cases() {
    std::vector<StudentCase> all;
    for (const auto near : all_near_keys) {
        for (const int length : {1, 7, 16, 17, 32, 33, 47, 71, 96})
            for (const int window : {4, 5, 16, 64})
                all.push_back(grouped_case(near, FeatureMapKind::hedgehog, length, window, false));
        for (const auto map : all_feature_maps)
            for (const bool affine : {false, true}) all.push_back(grouped_case(near, map, 47, 8, affine));
    }
    return all;
}

TEST(StudentAttention, AgreesWithTheFormulas) {
    for (const StudentCase& c : cases()) {
        const NaiveInputs in = random_inputs(c, 100);
        const NaiveAttention expected = naive_student(c.shape, c.form, in);
        const StudentRun<double> exact(c, in);
        EXPECT_TRUE(close(values(exact.y), expected.y, 1e-11)) << case_name(c);
        EXPECT_TRUE(close(values(exact.normalizer), expected.statistics, 1e-11)) << case_name(c);
        const StudentRun<float> single(c, in);
        EXPECT_TRUE(close(values(single.y), expected.y, 3e-6)) << case_name(c);
    }
}

TEST(StudentAttention, IsTheTeacherWhereNothingIsFar) {
    const StudentCase c = grouped_case(NearKeys::terrace, FeatureMapKind::hedgehog, 32, 16);
    const NaiveInputs in = random_inputs(c, 7);
    EXPECT_TRUE(close(values(StudentRun<double>(c, in).y), naive_teacher(c.shape, in).y, 1e-11));
}

TEST(SoftmaxAttention, AgreesWithTheFormulas) {
    for (const int length : {1, 2, 5, 63, 64, 65, 130, 256, 257, 600})
        for (const int kv_heads : {1, 2, 4}) {
            StudentCase c = grouped_case(NearKeys::terrace, FeatureMapKind::hedgehog, length, 16);
            c.shape.kv_heads = kv_heads;
            const NaiveInputs in = random_inputs(c, 9);
            const NaiveAttention expected = naive_teacher(c.shape, in);
            const StudentRun<double> run(c, in);
            const auto y = poisoned<double>(c.rows(), c.query_width());
            const auto log_sum = poisoned<double>(c.statistic_rows(), length);
            softmax_attention(c.shape, run.inputs(), {y, log_sum});
            EXPECT_TRUE(close(values(y), expected.y, 1e-11)) << "T " << length;
            EXPECT_TRUE(close(values(log_sum), expected.statistics, 1e-11)) << "T " << length;
        }
}

} // namespace
} // namespace lolcats::test
