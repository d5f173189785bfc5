/// Frozen weights that one rank reads for all.
#include "src/stages/replica_weights.hpp"
#include "tests/comm/array_forms.hpp"

#include <filesystem>
#include <fstream>

namespace lolcats {
namespace {

const std::filesystem::path model = std::filesystem::path(LOLCATS_TEST_DATA) / "tiny/model";

class WeightBroadcastTest : public ArrayFormTest {};
LOLCATS_TEST_IN_BOTH_FORMS(WeightBroadcastTest);

/// Weights are read from a memory map alone.
bool has_mapped_the_weights() {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);)
        if (line.find(".safetensors") != std::string::npos) return true;
    return false;
}

template <class T>
std::vector<T> values(const Matrix<T>& matrix) {
    return on_host(Vector<T>(matrix.data(), matrix.size()));
}

/// Of numbers whose type has no comparison.
template <class Bits, class T>
std::vector<Bits> bits(const Matrix<T>& matrix) {
    static_assert(sizeof(Bits) == sizeof(T));
    return on_host(Vector<Bits>(reinterpret_cast<Bits*>(matrix.data()), matrix.size()));
}

void expect_same(const Weight<float>& a, const Weight<float>& b) {
    EXPECT_EQ(values(a.full), values(b.full));
    EXPECT_EQ(bits<std::uint16_t>(a.half), bits<std::uint16_t>(b.half));
    EXPECT_EQ(bits<std::uint8_t>(a.float8.values), bits<std::uint8_t>(b.float8.values));
    EXPECT_EQ(on_host(a.float8.scales), on_host(b.float8.scales));
    EXPECT_GT(a.full.size() + a.half.size() + a.float8.values.size(), 0U);
    EXPECT_EQ(on_host(a.bias), on_host(b.bias));
}

void expect_same(const LayerWeights<float>& a, const LayerWeights<float>& b) {
    EXPECT_EQ(on_host(a.input_norm), on_host(b.input_norm));
    EXPECT_EQ(on_host(a.post_attention_norm), on_host(b.post_attention_norm));
    for (const auto member :
         {&LayerWeights<float>::q, &LayerWeights<float>::k, &LayerWeights<float>::v, &LayerWeights<float>::o,
          &LayerWeights<float>::gate, &LayerWeights<float>::up, &LayerWeights<float>::down})
        expect_same(a.*member, b.*member);
}

TEST_P(WeightBroadcastTest, OneRankReadsForAll) {
    const ModelConfig config = read_model_config(model);
    const auto group = make_group();
    for (const Storage storage : {Storage::full, Storage::bf16, Storage::fp8}) {
        std::vector<LayerWeights<float>> layers;
        HeadWeights<float> head;
        {
            const io::Checkpoint checkpoint(model);
            WeightBroadcast sharing(*group);
            const WeightSource source(checkpoint, &sharing);
            for (int layer = 0; layer < config.layers; ++layer)
                layers.push_back(load_layer<float>(source, config, layer, storage));
            head = load_head<float>(source, config, storage);
            EXPECT_EQ(has_mapped_the_weights(), group->rank() == 0);
        }
        EXPECT_FALSE(has_mapped_the_weights());
        const io::Checkpoint own(model);
        for (int layer = 0; layer < config.layers; ++layer)
            expect_same(layers[static_cast<std::size_t>(layer)], load_layer<float>(own, config, layer, storage));
        const auto expected = load_head<float>(own, config, storage);
        EXPECT_EQ(on_host(head.norm), on_host(expected.norm));
        expect_same(head.lm_head, expected.lm_head);
        EXPECT_TRUE(has_mapped_the_weights());
    }
}

} // namespace
} // namespace lolcats
