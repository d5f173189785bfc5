#include "io/array_file.hpp"

#include <cmath>

#include "tests/io/support.hpp"

namespace lolcats::io {
namespace {

using namespace testing;

TEST(ArrayFile, RoundTrip) {
    const ScratchDirectory scratch;
    const auto path = scratch / "a.h5";
    const std::vector<double> wide = {1.0 + 1e-15, -2, 3, 4, 5, 6};
    const std::vector<float> single = {0.1F, -2.5F};
    const double scalar = 7.25;
    ArrayFile file(path);
    file.write("model.layers.0.weight", {2, 3}, wide.data());
    file.write("single", {2}, single.data());
    file.write("loss", {}, &scalar);
    file.close();
    Shape shape;
    EXPECT_EQ(read_array(path, "/model.layers.0.weight", &shape), wide);
    EXPECT_EQ(shape, (Shape{2, 3}));
    EXPECT_EQ(read_array(path, "single"), (std::vector<double>{0.1F, -2.5F}));
    EXPECT_EQ(read_array(path, "loss", &shape), std::vector<double>{7.25});
    EXPECT_EQ(shape, Shape{});
    EXPECT_FALSE(has_temporaries(scratch.path()));
}

TEST(ArrayFile, RowsInAnyOrderAndMissingOnesAreNaN) {
    const ScratchDirectory scratch;
    const auto path = scratch / "a.h5";
    const std::vector<float> rows = {1, 2, 3, 4};
    ArrayFile file(path);
    for (const auto& [name, dtype] : {std::pair{"f32", DType::f32}, {"f64", DType::f64}}) {
        file.create(name, {4, 2}, dtype);
        file.write_rows(name, 2, 2, rows.data());
        file.write_rows(name, 0, 1, rows.data() + 2);
    }
    file.close();
    for (const char* name : {"f32", "f64"}) {
        const auto values = read_array(path, name);
        ASSERT_EQ(values.size(), 8U);
        EXPECT_EQ(values[0], 3);
        EXPECT_EQ(values[1], 4);
        EXPECT_TRUE(std::isnan(values[2]) && std::isnan(values[3]));
        for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(values[4 + i], rows[i]);
    }
}

TEST(ArrayFile, NothingIsLeftWithoutClose) {
    const ScratchDirectory scratch;
    {
        ArrayFile file(scratch / "a.h5");
        const float x = 1;
        file.write("x", {1}, &x);
    }
    EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

TEST(ArrayFile, MisuseIsRefused) {
    const ScratchDirectory scratch;
    const float x[2] = {1, 2};
    expect_contains(message_of([&] { const ArrayFile none(scratch / "none/a.h5"); }), "none/a.h5");
    ArrayFile file(scratch / "a.h5");
    file.write("x", {2}, x);
    expect_contains(message_of([&] { file.write("x", {2}, x); }), "twice");
    expect_contains(message_of([&] { file.write("a/b", {2}, x); }), "a/b");
    expect_contains(message_of([&] { file.write("", {2}, x); }), "no name");
    expect_contains(message_of([&] { file.write("n", {-2}, x); }), "negative");
    expect_contains(message_of([&] { file.create("i", {2}, DType::i32); }), "F32 or F64");
    expect_contains(message_of([&] { file.write_rows("y", 0, 1, x); }), "not created");
    expect_contains(message_of([&] { file.write_rows("x", 1, 2, x); }), "do not fit");
    expect_contains(message_of([&] { file.write_rows("x", -1, 1, x); }), "do not fit");
    file.close();
    expect_contains(message_of([&] { file.close(); }), "already closed");
    expect_contains(message_of([&] { read_array(scratch / "a.h5", "y"); }), "no dataset y");
    EXPECT_EQ(read_array(scratch / "a.h5", "x"), (std::vector<double>{1, 2}));
}

} // namespace
} // namespace lolcats::io
