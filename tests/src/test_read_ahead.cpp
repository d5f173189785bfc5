#include "lolcats/error.hpp"
#include "src/stages/read_ahead.hpp"

#include <gtest/gtest.h>

#include <atomic>

namespace lolcats {
namespace {

constexpr int rows_each = 3, width = 5, most = 2;

/// Every number says which sequence and place it is of.
void write_rows(const Sequences& sequences, float* out) {
    for (const std::int64_t sequence : sequences)
        for (int i = 0; i < rows_each * width; ++i) *out++ = static_cast<float>(100 * sequence + i);
}

void expect_rows_of(const Sequences& sequences, const Matrix<float>& x) {
    std::vector<float> expected(sequences.size() * rows_each * width);
    write_rows(sequences, expected.data());
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, x);
    EXPECT_EQ(std::vector<float>(host.data(), host.data() + host.size()), expected);
}

Matrix<float> room_for(const Sequences& sequences) {
    return Matrix<float>("x", sequences.size() * rows_each, width);
}

TEST(ReadAhead, GivesWhatIsAskedForWhateverWasExpected) {
    int reads = 0;
    ReadAhead ahead(
        [&](const Sequences& sequences, float* out) {
            ++reads;
            write_rows(sequences, out);
        },
        rows_each, width, most);
    const auto fetch = [&](const Sequences& sequences) {
        const auto x = room_for(sequences);
        ahead.fetch(sequences, x);
        expect_rows_of(sequences, x);
    };
    fetch({7, 2}); // nothing was expected
    ahead.expect({4});
    fetch({4});
    EXPECT_EQ(reads, 2);
    ahead.expect({5, 6});
    fetch({6, 5}); // something else
    ahead.expect({});
    fetch({1});
    fetch({1}); // once more: it was used up
    EXPECT_EQ(reads, 6);
}

TEST(ReadAhead, ReadsWhileTheCallerGoesOn) {
    std::atomic<bool> caller_went_on = false;
    ReadAhead ahead(
        [&](const Sequences& sequences, float* out) {
            caller_went_on.wait(false);
            write_rows(sequences, out);
        },
        rows_each, width, most);
    ahead.expect({3});
    caller_went_on = true;
    caller_went_on.notify_all();
    const auto x = room_for({3});
    ahead.fetch({3}, x);
    expect_rows_of({3}, x);
}

TEST(ReadAhead, AnErrorShowsOnlyToWhoAsksForThoseRows) {
    ReadAhead ahead(
        [&](const Sequences& sequences, float* out) {
            if (sequences.front() == 9) fail("sequence 9 is damaged");
            write_rows(sequences, out);
        },
        rows_each, width, most);
    ahead.expect({9});
    const auto x = room_for({1});
    ahead.fetch({1}, x);
    expect_rows_of({1}, x);
    ahead.expect({9});
    EXPECT_THROW(ahead.fetch({9}, x), Error);
    ahead.expect({9}); // and it may die with one
}

} // namespace
} // namespace lolcats
