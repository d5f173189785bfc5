/// Arrays arrive whole, whatever the size of the buffers they travel in.
#include "src/model/uploader.hpp"

#include "tests/support/arrays.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace lolcats {
namespace {

constexpr int rows = 37;
constexpr int columns = 5;

/// Rows of 0, 1, 2, ... that were asked for, and in what pieces.
struct Source {
    std::vector<std::int64_t> counts;

    void operator()(std::int64_t first, std::int64_t count, float* out) {
        EXPECT_EQ(first, std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
        counts.push_back(count);
        std::iota(out, out + count * columns, static_cast<float>(first * columns));
    }
};

Source expect_filled(Uploader& uploader) {
    const auto matrix = test::poisoned<float>(rows, columns);
    Source source;
    uploader.fill(matrix, source);
    std::vector<double> expected(rows * columns);
    std::iota(expected.begin(), expected.end(), 0.0);
    EXPECT_EQ(test::values(matrix), expected);
    return source;
}

TEST(Uploader, RowsTravelInBuffersOfAnySize) {
    for (const std::size_t rows_at_once : {1, 2, 3, 36, 37, 100}) {
        Uploader uploader(rows_at_once * columns * sizeof(float) + 3, false);
        const Source source = expect_filled(uploader);
        EXPECT_EQ(source.counts.size(), (rows + rows_at_once - 1) / rows_at_once);
        expect_filled(uploader); // and again, from used buffers
    }
}

TEST(Uploader, ARowLongerThanTheBuffersTravelsAlone) {
    Uploader uploader(1, false);
    EXPECT_EQ(expect_filled(uploader).counts, std::vector<std::int64_t>(rows, 1));
}

TEST(Uploader, HostMemoryIsFilledInPlace) {
    Uploader uploader(1, true);
    EXPECT_EQ(expect_filled(uploader).counts, std::vector<std::int64_t>{rows});
}

} // namespace
} // namespace lolcats
