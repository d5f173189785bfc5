/// The rows of the embedding, written in place and by way of pinned memory.
#include "src/model/embedding.hpp"

#include "lolcats/model_config.hpp"
#include "tests/support/arrays.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace lolcats {
namespace {

const std::string model = LOLCATS_TEST_DATA "/tiny/model";

class EmbeddingTest : public testing::TestWithParam<Storage> {
protected:
    io::Checkpoint checkpoint{model};
    ModelConfig config = read_model_config(model);

    [[nodiscard]] std::vector<double> expected(const std::vector<std::int32_t>& tokens) const {
        std::vector<double> all;
        const io::Shape shape{config.vocab_size, config.hidden_size};
        std::vector<float> row(config.hidden_size);
        for (const std::int32_t token : tokens) {
            checkpoint.read_rows(embedding_name, shape, token, 1, row.data());
            for (const float value : row)
                all.push_back(GetParam() == Storage::full ? value : to_float(to_bfloat16(value)));
        }
        return all;
    }
};

TEST_P(EmbeddingTest, RowsAreThoseOfTheTokens) {
    const std::vector<std::vector<std::int32_t>> turns{{3}, {0, 1, 2, config.vocab_size - 1}, {5, 5}, {7, 2, 9}};
    for (const bool in_place : {true, false}) {
        if (in_place && !Uploader::host_can_write) continue;
        Embedding embedding(checkpoint, config, GetParam(), in_place);
        std::vector<Matrix<float>> found;
        for (const auto& tokens : turns) {
            found.push_back(test::poisoned<float>(static_cast<int>(tokens.size()), config.hidden_size));
            embedding.rows(tokens, found.back());
        }
        for (std::size_t i = 0; i < turns.size(); ++i) EXPECT_EQ(test::values(found[i]), expected(turns[i])) << i;
    }
}

INSTANTIATE_TEST_SUITE_P(Storages, EmbeddingTest, testing::Values(Storage::full, Storage::bf16, Storage::fp8));

} // namespace
} // namespace lolcats
