#include "lolcats/model_config.hpp"
#include "tests/support/errors.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>

#include <unistd.h>

namespace lolcats {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const fs::path data = fs::path(LOLCATS_TEST_DATA);

Json known_good(const std::string& name = "llama-3.1-8b") {
    return Json::parse(std::ifstream(data / "configs" / (name + ".json")));
}

class ModelConfigTest : public ::testing::Test {
protected:
    void SetUp() override {
        directory_ = fs::temp_directory_path() / ("lolcats_config_" + std::to_string(getpid()));
        fs::create_directories(directory_);
    }
    void TearDown() override { fs::remove_all(directory_); }

    ModelConfig read_text(const std::string& text) {
        std::ofstream(directory_ / "config.json") << text;
        return read_model_config(directory_);
    }

    ModelConfig read(const Json& json) { return read_text(json.dump()); }

    /// Expects one line that names the file and `part`.
    void expect_refused_text(const std::string& text, const std::string& part) {
        SCOPED_TRACE(text);
        const std::string message = test::message_of([&] { read_text(text); });
        test::expect_contains(message, part);
        test::expect_contains(message, "config.json");
    }

    /// The good file with `changes` merged in (null removes a key).
    void expect_refused(const Json& changes, const std::string& part) {
        Json json = known_good();
        json.update(changes);
        expect_refused_text(json.dump(), part);
    }

    fs::path directory_;
};

TEST_F(ModelConfigTest, PublicModelsAreRead) {
    const ModelConfig llama = read_model_config(data / "configs" / "llama-3.1-405b.json");
    EXPECT_EQ(llama.hidden_size, 16384);
    EXPECT_EQ(llama.intermediate_size, 53248);
    EXPECT_EQ(llama.layers, 126);
    EXPECT_EQ(llama.heads, 128);
    EXPECT_EQ(llama.kv_heads, 8);
    EXPECT_EQ(llama.head_dim, 128);
    EXPECT_EQ(llama.group(), 16);
    EXPECT_EQ(llama.query_size(), 16384);
    EXPECT_EQ(llama.kv_size(), 1024);
    EXPECT_EQ(llama.vocab_size, 128256);
    EXPECT_EQ(llama.rms_norm_eps, 1e-5);
    EXPECT_EQ(llama.rope_theta, 500000);
    EXPECT_FALSE(llama.tie_word_embeddings);
    ASSERT_TRUE(llama.rope_scaling.has_value());
    EXPECT_EQ(llama.rope_scaling->factor, 8);
    EXPECT_EQ(llama.rope_scaling->low_freq_factor, 1);
    EXPECT_EQ(llama.rope_scaling->high_freq_factor, 4);
    EXPECT_EQ(llama.rope_scaling->original_max_position_embeddings, 8192);
    EXPECT_EQ(llama.sliding_window, 0);
    EXPECT_EQ(read_model_config(data / "configs" / "llama-3.1-70b.json").layers, 80);
    EXPECT_EQ(read_model_config(data / "golden" / "model").layers, 3);
}

TEST_F(ModelConfigTest, MistralHasAWindow) {
    EXPECT_EQ(read_model_config(data / "configs" / "mistral-7b-v0.1.json").sliding_window, 4096);
    Json json = known_good("mistral-7b-v0.1");
    json["sliding_window"] = nullptr;
    EXPECT_EQ(read(json).sliding_window, 0);
    json.erase("sliding_window");
    EXPECT_EQ(read(json).sliding_window, 4096);
    json["sliding_window"] = -1;
    expect_refused_text(json.dump(), "sliding_window");
    json["sliding_window"] = 4096;
    json["attention_bias"] = true;
    expect_refused_text(json.dump(), "attention_bias");
}

TEST_F(ModelConfigTest, MissingKeysTakeTheFamilysDefaults) {
    Json json = known_good();
    for (const char* key : {"architectures", "num_key_value_heads", "rope_theta", "rope_scaling", "attention_bias",
                            "mlp_bias", "tie_word_embeddings", "rms_norm_eps", "hidden_act"}) {
        json.erase(key);
    }
    const ModelConfig config = read(json);
    EXPECT_EQ(config.kv_heads, 32);
    EXPECT_EQ(config.rope_theta, 10000);
    EXPECT_EQ(config.rms_norm_eps, 1e-6);
    EXPECT_FALSE(config.rope_scaling.has_value());
    for (const char* key :
         {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "model_type"}) {
        Json without = known_good();
        without.erase(key);
        expect_refused_text(without.dump(), key);
    }
}

TEST_F(ModelConfigTest, HeadDimensionMayDifferFromTheQuotient) {
    Json json = known_good();
    json["head_dim"] = 64;
    EXPECT_EQ(read(json).head_dim, 64);
    EXPECT_EQ(read(json).query_size(), 2048);
    json["head_dim"] = nullptr;
    EXPECT_EQ(read(json).head_dim, 128);
}

TEST_F(ModelConfigTest, RopeIsReadInItsOlderAndNewerForm) {
    Json json = known_good();
    json["rope_scaling"] = {{"type", "default"}};
    EXPECT_FALSE(read(json).rope_scaling.has_value());
    const Json scaling = known_good()["rope_scaling"];
    json.erase("rope_scaling");
    json.erase("rope_theta");
    json["rope_parameters"] = scaling;
    json["rope_parameters"]["rope_theta"] = 250000.0;
    EXPECT_EQ(read(json).rope_theta, 250000);
    ASSERT_TRUE(read(json).rope_scaling.has_value());
    EXPECT_EQ(read(json).rope_scaling->factor, 8);
    json["rope_theta"] = 10000.0;
    expect_refused_text(json.dump(), "rope_theta");
    json["rope_theta"] = 250000.0;
    json["rope_scaling"] = scaling;
    expect_refused_text(json.dump(), "rope_parameters");
}

TEST_F(ModelConfigTest, OtherRotaryEmbeddingsAreRefusedByName) {
    for (const char* type : {"linear", "dynamic", "yarn", "longrope", "su"}) {
        expect_refused({{"rope_scaling", {{"type", type}, {"factor", 2.0}}}}, type);
        expect_refused({{"rope_scaling", {{"rope_type", type}, {"factor", 2.0}}}}, type);
        expect_refused({{"rope_scaling", nullptr}, {"rope_parameters", {{"rope_type", type}}}}, type);
    }
    const Json good = known_good()["rope_scaling"];
    const auto changed = [&](const char* key, const Json& value) {
        Json scaling = good;
        scaling[key] = value;
        return Json{{"rope_scaling", scaling}};
    };
    expect_refused(changed("factor", nullptr), "factor");
    expect_refused(changed("factor", 0.5), "factor");
    expect_refused(changed("factor", "8"), "factor");
    expect_refused(changed("high_freq_factor", 1.0), "high_freq_factor");
    expect_refused(changed("original_max_position_embeddings", 0), "original_max_position_embeddings");
    expect_refused(changed("attention_factor", 1.2), "attention_factor");
    expect_refused(changed("type", "linear"), "linear");
    expect_refused({{"rope_scaling", 3}}, "rope_scaling");
    expect_refused({{"rope_theta", 0}}, "rope_theta");
    expect_refused({{"partial_rotary_factor", 0.5}}, "partial_rotary_factor");
}

TEST_F(ModelConfigTest, OtherModelsAreRefusedByName) {
    expect_refused({{"model_type", "qwen2"}}, "qwen2");
    expect_refused({{"architectures", {"MistralForCausalLM"}}}, "MistralForCausalLM");
    expect_refused({{"architectures", {"LlamaForSequenceClassification"}}}, "LlamaForSequenceClassification");
    expect_refused({{"architectures", 3}}, "architectures");
    expect_refused({{"hidden_act", "gelu"}}, "gelu");
    expect_refused({{"quantization_config", {{"bits", 4}}}}, "quantization_config");
    expect_refused({{"layer_types", {"full_attention", "sliding_attention"}}}, "layer_types");
    expect_refused({{"num_experts", 8}}, "num_experts");
    expect_refused({{"attn_logit_softcapping", 50.0}}, "attn_logit_softcapping");
    expect_refused({{"sliding_window", 4096}}, "sliding_window");
    expect_refused({{"position_embedding_type", "alibi"}}, "position_embedding_type");
    expect_refused({{"auto_map", {{"AutoModel", "x.Y"}}}}, "auto_map");
}

TEST_F(ModelConfigTest, KeysThatChangeNothingAreIgnored) {
    Json json = known_good();
    json.update({{"_name_or_path", "x"},
                 {"num_experts", 0},
                 {"quantization_config", nullptr},
                 {"some_flag", false},
                 {"pruned_heads", Json::object()},
                 {"eos_token_id", {1, 2}},
                 {"dtype", "bfloat16"},
                 {"layer_types", {"full_attention"}},
                 {"partial_rotary_factor", 1.0},
                 {"sliding_window", nullptr}});
    EXPECT_EQ(read(json).layers, 32);
}

TEST_F(ModelConfigTest, BadSizesAreRefused) {
    for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                            "num_key_value_heads", "vocab_size", "head_dim"}) {
        for (const Json& value : {Json(0), Json(-8), Json(1e30), Json(18446744073709551615U), Json(4096.5), Json("32"),
                                  Json(true), Json::array({1})}) {
            expect_refused({{key, value}}, key);
        }
    }
    expect_refused({{"num_key_value_heads", 5}}, "num_key_value_heads 5");
    expect_refused({{"head_dim", 65}}, "even");
    expect_refused({{"hidden_size", 4100}}, "hidden_size 4100");
    expect_refused({{"rms_norm_eps", 0}}, "rms_norm_eps");
    expect_refused({{"rms_norm_eps", "1e-5"}}, "rms_norm_eps");
    expect_refused({{"tie_word_embeddings", 1}}, "tie_word_embeddings");
    expect_refused({{"attention_bias", "no"}}, "attention_bias");
}

TEST_F(ModelConfigTest, FilesThatAreNotAConfigAreRefused) {
    expect_refused_text("", "not valid JSON");
    expect_refused_text("{\"hidden_size\": 1,\n", "not valid JSON");
    expect_refused_text("[1, 2]", "not a JSON object");
    expect_refused_text("{\"foo\": " + std::string(200'000, '[') + std::string(200'000, ']') + "}", "nested");
    EXPECT_THROW(read_model_config(directory_ / "nowhere"), Error);
    fs::create_directories(directory_ / "empty");
    EXPECT_THROW(read_model_config(directory_ / "empty"), Error);
}

} // namespace
} // namespace lolcats
