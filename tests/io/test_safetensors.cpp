#include "io/safetensors.hpp"

#include <sys/resource.h>

#include <cstring>
#include <numeric>
#include <thread>

#include "tests/io/support.hpp"

namespace lolcats::io {
namespace {

using namespace testing;

std::string with_length(const std::string& header, const std::string& data) {
    const std::uint64_t length = header.size();
    std::string bytes(sizeof length, '\0');
    std::memcpy(bytes.data(), &length, sizeof length);
    return bytes + header + data;
}

TEST(Safetensors, RoundTripOfEveryType) {
    const ScratchDirectory scratch;
    std::vector<std::byte> data(6 * 8);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i);
    const std::vector<DType> types = {DType::u8,   DType::boolean, DType::i8,  DType::i16, DType::f16,
                                      DType::bf16, DType::i32,     DType::f32, DType::i64, DType::f64};
    std::vector<TensorToWrite> tensors;
    for (const DType dtype : types) tensors.push_back({"t." + std::string(name_of(dtype)), dtype, {2, 3}, data.data()});
    tensors.push_back({"scalar", DType::f32, {}, data.data()});
    tensors.push_back({"empty", DType::f32, {0, 4}, nullptr});
    const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"run", "a \"quoted\"\nline"}};
    write_safetensors(scratch / "a", tensors, metadata);

    const SafetensorsFile file(scratch / "a");
    EXPECT_EQ(file.metadata(), metadata);
    EXPECT_EQ(file.tensors().size(), tensors.size());
    const auto bytes = [&] {
        std::ifstream stream(scratch / "a", std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(stream), {});
    }();
    std::uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    EXPECT_EQ(header % 8, 0U);
    for (const auto& tensor : tensors) {
        const TensorInfo& info = file.info(tensor.name);
        EXPECT_EQ(info.dtype, tensor.dtype);
        EXPECT_EQ(info.shape, tensor.shape);
        EXPECT_EQ(info.begin % size_of(info.dtype), 0U) << tensor.name;
        EXPECT_EQ(std::memcmp(bytes.data() + 8 + header + info.begin, data.data(), info.end - info.begin), 0);
    }
    EXPECT_FALSE(has_temporaries(scratch.path()));
}

TEST(Safetensors, ReadConvertsAndChecksShape) {
    const ScratchDirectory scratch;
    const std::vector<float> f32 = {1, -2.5F, 3.1415927F, 1e-40F, 65504, 0};
    const std::vector<double> f64 = {1, -2.5, 3.141592653589793, 1e-300, 1.0 + 1e-15, 0};
    const std::vector<std::int32_t> i32(6, 7);
    write_safetensors(scratch / "a",
                      {{"f32", DType::f32, {3, 2}, f32.data()},
                       {"f64", DType::f64, {6}, f64.data()},
                       {"i", DType::i32, {6}, i32.data()}},
                      {});
    const SafetensorsFile file(scratch / "a");
    std::vector<float> single(6);
    std::vector<double> wide(6);
    std::vector<BFloat16> narrow(6);
    file.read("f32", {3, 2}, single.data());
    EXPECT_EQ(single, f32);
    file.read("f64", {6}, wide.data());
    EXPECT_EQ(wide, f64);
    file.read("f32", {3, 2}, narrow.data());
    for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(narrow[i].bits, to_bfloat16(f32[i]).bits);
    file.read_rows("f32", {3, 2}, 1, 2, single.data());
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(single[i], f32[i + 2]);
    file.read_rows("f32", {3, 2}, 3, 0, single.data());

    const auto shape = message_of([&] { file.read("f32", {2, 3}, single.data()); });
    expect_contains(shape, (scratch / "a").string());
    expect_contains(shape, "[3, 2], not [2, 3]");
    expect_contains(message_of([&] { file.read("i", {6}, single.data()); }), "I32");
    expect_contains(message_of([&] { file.read("f33", {6}, single.data()); }), "nearest name in it is \"f32\"");
    for (const auto& [first, count] : {std::pair{-1, 1}, {0, 4}, {3, 1}, {1, -1}}) {
        expect_contains(message_of([&] { file.read_rows("f32", {3, 2}, first, count, single.data()); }), "3 rows");
    }
}

TEST(Safetensors, DataOffEvenPlacesIsRead) {
    const ScratchDirectory scratch;
    const float values[] = {1.5F, -2.5F};
    std::string data = "x";
    data.append(reinterpret_cast<const char*>(values), sizeof values);
    write_bytes(scratch / "a", with_length(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                           R"("f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}} )",
                                           data));
    float out[2] = {};
    SafetensorsFile(scratch / "a").read("f", {2}, out);
    EXPECT_EQ(out[0], 1.5F);
    EXPECT_EQ(out[1], -2.5F);
}

TEST(Safetensors, MovedFileStaysReadable) {
    const ScratchDirectory scratch;
    const float value = 3;
    write_safetensors(scratch / "a", {{"x", DType::f32, {1}, &value}}, {});
    write_safetensors(scratch / "b", {{"y", DType::f32, {1}, &value}}, {});
    SafetensorsFile a(scratch / "a");
    SafetensorsFile b(scratch / "b");
    b = std::move(a);
    const SafetensorsFile c(std::move(b));
    float out = 0;
    c.read("x", {1}, &out);
    EXPECT_EQ(out, 3);
    EXPECT_EQ(c.path(), scratch / "a");
}

/// Resident pages of mapped files, in bytes.
std::size_t resident_file_bytes() {
    std::ifstream status("/proc/self/status");
    std::string line;
    while (std::getline(status, line)) {
        if (line.starts_with("RssFile:")) return std::stoul(line.substr(8)) * 1024;
    }
    return 0;
}

TEST(Safetensors, ReadingDoesNotGrowResidentMemory) {
    if (resident_file_bytes() == 0) GTEST_SKIP() << "no RssFile in /proc/self/status";
    const ScratchDirectory scratch;
    const std::vector<float> values(std::size_t{8} << 20, 1);
    write_safetensors(scratch / "a", {{"x", DType::f32, {8, 1 << 20}, values.data()}}, {});
    const SafetensorsFile file(scratch / "a");
    std::vector<float> out(values.size());
    const std::size_t before = resident_file_bytes();
    file.read("x", {8, 1 << 20}, out.data());
    EXPECT_EQ(out, values);
    EXPECT_LT(resident_file_bytes(), before + (std::size_t{2} << 20));
}

TEST(Safetensors, ThreadsReadAtOnce) {
    const ScratchDirectory scratch;
    std::vector<float> values(64 * 4096);
    std::iota(values.begin(), values.end(), 0.0F);
    write_safetensors(scratch / "a", {{"x", DType::f32, {64, 4096}, values.data()}}, {});
    const SafetensorsFile file(scratch / "a");
    std::vector<float> out(values.size());
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int row = t; row < 64; row += 4) file.read_rows("x", {64, 4096}, row, 1, out.data() + row * 4096);
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(out, values);
}

TEST(Safetensors, RepeatedNamesAreNotWritten) {
    const ScratchDirectory scratch;
    const float value = 1;
    const TensorToWrite tensor{"x", DType::f32, {1}, &value};
    expect_contains(message_of([&] { write_safetensors(scratch / "a", {tensor, tensor}, {}); }), "twice");
    EXPECT_FALSE(std::filesystem::exists(scratch / "a"));
}

struct Hostile {
    const char* what;
    std::string bytes;
    const char* message;
};

std::string tensor_file(const std::string& tensor, std::size_t data_bytes = 8) {
    return with_length("{\"x\":" + tensor + "}", std::string(data_bytes, '\0'));
}

std::string nested(std::size_t depth) {
    std::string text;
    for (std::size_t i = 0; i < depth; ++i) text += "{\"a\":";
    return text + "1" + std::string(depth, '}');
}

std::vector<Hostile> hostile_files() {
    const std::string good = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
    return {
        {"empty", "", "0 bytes"},
        {"seven bytes", "1234567", "7 bytes"},
        {"length beyond the file", std::string("\x10\0\0\0\0\0\0\0{}", 10), "cut short"},
        {"huge length", std::string(8, '\x7f') + "{}", "claims a header"},
        {"length of all ones", std::string(8, '\xff') + "{}", "claims a header"},
        {"empty header", with_length("", ""), "not a JSON object"},
        {"a list", with_length("[1, 2]", ""), "not a JSON object"},
        {"broken JSON", with_length(R"({"x":)", ""), "not valid JSON"},
        {"trailing text", with_length("{}x", ""), "not valid JSON"},
        {"invalid UTF-8", with_length("{\"\xff\xfe\":1}", ""), "not valid JSON"},
        {"deep objects", with_length(nested(1'000'000), ""), "nested"},
        {"deep lists", with_length("{\"x\":" + std::string(1'000'000, '['), ""), "nested"},
        {"same tensor twice", with_length("{\"x\":" + good + ",\"x\":" + good + "}", std::string(8, '\0')), "twice"},
        {"same key twice", tensor_file(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"), "twice"},
        {"tensor not an object", tensor_file("3"), "not described by a JSON object"},
        {"no dtype", tensor_file(R"({"shape":[2],"data_offsets":[0,8]})"), "no \"dtype\""},
        {"no shape", tensor_file(R"({"dtype":"F32","data_offsets":[0,8]})"), "no \"shape\""},
        {"no offsets", tensor_file(R"({"dtype":"F32","shape":[2]})"), "no \"data_offsets\""},
        {"unknown dtype", tensor_file(R"({"dtype":"F31","shape":[2],"data_offsets":[0,8]})"), "unknown dtype"},
        {"dtype not text", tensor_file(R"({"dtype":3,"shape":[2],"data_offsets":[0,8]})"), "not a string"},
        {"negative extent", tensor_file(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), "integers >= 0"},
        {"fractional extent", tensor_file(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), "integers >= 0"},
        {"extent as text", tensor_file(R"({"dtype":"F32","shape":["2"],"data_offsets":[0,8]})"), "integers >= 0"},
        {"shape not a list", tensor_file(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})"), "list of integers"},
        {"extent beyond int64", tensor_file(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]})"),
         "too large"},
        {"extent beyond uint64", tensor_file(R"({"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]})"),
         "integers >= 0"},
        {"product overflows to fit",
         tensor_file(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})", 0), "too large"},
        {"bytes overflow to fit",
         tensor_file(R"({"dtype":"F64","shape":[4611686018427387904],"data_offsets":[0,0]})", 0), "do not hold"},
        {"one offset", tensor_file(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})"), "not two numbers"},
        {"negative offset", tensor_file(R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})"), "integers >= 0"},
        {"offsets turned round", tensor_file(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), "outside"},
        {"end beyond the data", tensor_file(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})"), "outside"},
        {"size does not match", tensor_file(R"({"dtype":"F32","shape":[1],"data_offsets":[0,8]})"), "do not hold"},
        {"hole at the start", tensor_file(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"),
         "belong to no tensor"},
        {"hole at the end", tensor_file(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"), "belong to no tensor"},
        {"no tensors but data", with_length("{}", "data"), "belong to no tensor"},
        {"overlap",
         with_length(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                     R"("y":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                     std::string(12, '\0')),
         "overlaps"},
        {"same bytes twice", with_length("{\"x\":" + good + ",\"y\":" + good + "}", std::string(8, '\0')), "overlaps"},
        {"metadata not an object", with_length(R"({"__metadata__":3})", ""), "__metadata__"},
        {"metadata not text", with_length(R"({"__metadata__":{"a":3}})", ""), "not a string"},
        {"line break in a name", with_length("{\"a\\nb\":3}", ""), "a?b"},
        {"pickle", std::string("\x80\x02}q\0X\0\0\0\0", 10), "pickle"},
        {"zip", std::string("PK\x03\x04\x14\0\0\0\0\0", 10), "zip"},
        {"HDF5", std::string("\x89HDF\r\n\x1a\n\0\0", 10), "HDF5"},
        {"GGUF", "GGUF\x03     ", "GGUF"},
        {"LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"},
    };
}

TEST(Safetensors, HostileFilesAreRefused) {
    const ScratchDirectory scratch;
    const auto path = scratch / "bad.safetensors";
    for (const Hostile& hostile : hostile_files()) {
        SCOPED_TRACE(hostile.what);
        write_bytes(path, hostile.bytes);
        const auto message = message_of([&] { const SafetensorsFile file(path); });
        expect_contains(message, path.string());
        expect_contains(message, hostile.message);
    }
    expect_contains(message_of([&] { const SafetensorsFile file(scratch / "absent"); }), "No such file");
    expect_contains(message_of([&] { const SafetensorsFile file(scratch.path()); }), "regular file");
}

TEST(Safetensors, EveryCutAndEveryChangedHeaderByteIsSurvived) {
    const ScratchDirectory scratch;
    const auto path = scratch / "a";
    const float values[] = {1, 2, 3};
    write_safetensors(path, {{"x", DType::f32, {3}, values}}, {{"k", "v"}});
    std::ifstream stream(path, std::ios::binary);
    const std::string good(std::istreambuf_iterator<char>(stream), {});
    for (std::size_t size = 0; size < good.size(); ++size) {
        write_bytes(path, good.substr(0, size));
        EXPECT_THROW(SafetensorsFile{path}, Error) << size;
    }
    for (std::size_t i = 0; i < good.size() - sizeof values; ++i) {
        for (const char change : {'\0', '"', '{', '9', '\xff'}) {
            std::string bad = good;
            bad[i] = change;
            write_bytes(path, bad);
            try {
                const SafetensorsFile file(path); // some changes leave a valid file
                for (const auto& [name, info] : file.tensors()) EXPECT_LE(info.end, sizeof values);
            } catch (const Error&) {
            }
        }
    }
}

} // namespace
} // namespace lolcats::io
