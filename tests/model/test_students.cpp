#include "src/model/students.hpp"

#include "io/safetensors.hpp"
#include "tests/io/support.hpp"

#include <gtest/gtest.h>

namespace lolcats {
namespace {

TEST(FeatureMapFilesTest, AreInTheOrderOfBlocks) {
    const io::testing::ScratchDirectory directory;
    const float value = 1;
    for (const std::string block : {"block_100", "block_99", "block_02", "block_101", "block_11"})
        io::write_safetensors(directory / (block + ".safetensors"), {{block, io::DType::f32, {1}, &value}}, {});
    std::vector<std::string> found;
    for (const auto& file : FeatureMapFiles(directory.path()).files()) found.push_back(file.stem());
    EXPECT_EQ(found, (std::vector<std::string>{"block_02", "block_11", "block_99", "block_100", "block_101"}))
        << "logs beside them are read in this order";
}

} // namespace
} // namespace lolcats
