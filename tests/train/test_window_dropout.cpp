#include "src/train/window_dropout.hpp"

#include <gtest/gtest.h>

#include <set>

namespace lolcats {
namespace {

constexpr int steps = 4000;
constexpr StudentForm form{NearKeys::terrace, 16, FeatureMapKind::hedgehog, 8, false};

Options options(double share, const std::string& kind, std::uint64_t seed = 1) {
    Options options;
    options.window_dropout = share;
    options.window_dropout_kind = kind;
    options.seed = seed;
    return options;
}

bool is_hit(const StudentForm& found) {
    return found.near != form.near || found.window != form.window;
}

int hits(const WindowDropout& dropout, int begin, int end) {
    int count = 0;
    for (int step = begin; step < end; ++step) count += is_hit(dropout.form(form, step)) ? 1 : 0;
    return count;
}

TEST(WindowDropout, FallsFromItsShareToNothing) {
    const WindowDropout dropout(options(0.8, "branch"), steps);
    // Binomial: means 700 and 100 of 1000, deviations below 16 each.
    EXPECT_NEAR(hits(dropout, 0, 1000), 700, 80);
    EXPECT_NEAR(hits(dropout, 3000, steps), 100, 60);
    EXPECT_EQ(hits(WindowDropout(options(0, "branch"), steps), 0, steps), 0);
    EXPECT_TRUE(is_hit(WindowDropout(options(1, "branch"), steps).form(form, 0)));
}

TEST(WindowDropout, BranchLeavesNoNearKeysAndAllElse) {
    const WindowDropout dropout(options(1, "branch"), steps);
    const StudentForm hit = dropout.form(form, 0);
    EXPECT_EQ(hit.near, NearKeys::none);
    EXPECT_EQ(hit.window, form.window);
    EXPECT_EQ(hit.map, form.map);
    EXPECT_EQ(hit.feature_dim, form.feature_dim);
}

TEST(WindowDropout, SizesAreDrawnFromOneToTheWindow) {
    const WindowDropout dropout(options(1, "size"), steps);
    std::set<int> windows;
    for (int step = 0; step < 400; ++step) {
        const StudentForm found = dropout.form(form, step);
        EXPECT_EQ(found.near, form.near);
        windows.insert(found.window);
    }
    EXPECT_EQ(windows.size(), 16U);
    EXPECT_EQ(*windows.begin(), 1);
    EXPECT_EQ(*windows.rbegin(), 16);
}

TEST(WindowDropout, DependsOnSeedAndStepOnly) {
    const WindowDropout dropout(options(0.5, "branch"), steps);
    const WindowDropout other(options(0.5, "branch", 2), steps);
    int different = 0;
    for (int step = 0; step < 200; ++step) {
        EXPECT_EQ(is_hit(dropout.form(form, step)),
                  is_hit(WindowDropout(options(0.5, "branch"), steps).form(form, step)));
        different += is_hit(dropout.form(form, step)) != is_hit(other.form(form, step)) ? 1 : 0;
    }
    EXPECT_GT(different, 50);
}

TEST(WindowDropout, LeavesAloneWhatHasNoWindow) {
    StudentForm none = form;
    none.near = NearKeys::none;
    for (const char* kind : {"branch", "size"}) {
        const StudentForm found = WindowDropout(options(1, kind), steps).form(none, 0);
        EXPECT_EQ(found.near, NearKeys::none);
        EXPECT_EQ(found.window, none.window);
    }
}

} // namespace
} // namespace lolcats
