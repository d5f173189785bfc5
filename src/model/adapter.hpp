#pragma once
/// LoRA adapters of a range of layers, kept in PEFT's layout: adapter_config.json and adapter_model.safetensors with
/// base_model.model.model.layers.{i}.self_attn.{projection}.lora_{A,B}.weight, A [r, inputs] and B [outputs, r].
#include "lolcats/model.hpp"
#include "lolcats/options.hpp"
#include "src/block_layout.hpp"
#include "src/train/named_arrays.hpp"
#include "src/train/parameters.hpp"

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace lolcats {

/// What adapter_config.json says.
struct AdapterConfig {
    LoraForm form;
    double alpha = 0;
    std::vector<std::string> modules; ///< among q_proj, k_proj, v_proj, o_proj
};

/// From the options; where the user left one out, the adapter to start from decides, and an option that contradicts it
/// is an Error.
AdapterConfig adapter_config(const Options& options);

/// Reads DIRECTORY/adapter_config.json. Kinds of adapter that would be computed wrongly are refused by name.
AdapterConfig read_adapter_config(const std::filesystem::path& directory);

class Adapter {
public:
    /// Declares the parameters of `layers` in `parameters`, which is then to be allocated by the caller.
    Adapter(const ModelConfig& config, const AdapterConfig& adapter, Range layers, ParameterSet& parameters);

    /// A uniform in +-1/sqrt(inputs) (PyTorch's kaiming_uniform with a = sqrt 5), B zero.
    void initialize(std::uint64_t seed) const;
    /// Reads DIRECTORY/adapter_model.safetensors. Tensors that are missing, left over, of another shape or not finite
    /// are Errors.
    void load(const std::filesystem::path& directory) const;
    [[nodiscard]] LayerLora<float> layer(int layer) const;

private:
    struct Indices {
        int a = -1, b = -1;
        int inputs = 0, outputs = 0;
    };
    /// A tensor of the file that no parameter of the whole model takes is an Error.
    void require_known(const std::string& tensor, const std::string& file) const;

    AdapterConfig adapter_;
    int model_layers_;
    Range layers_;
    const ParameterSet& set_;
    std::vector<std::array<Indices, 4>> indices_;
};

/// DIRECTORY/adapter_model.safetensors
std::filesystem::path adapter_weights(const std::filesystem::path& directory);

/// DIRECTORY/feature_maps.safetensors: the feature maps, where they were trained together with the adapter.
std::filesystem::path trained_maps(const std::filesystem::path& directory);

/// Writes both files; adapter_config.json, by which a reader knows the directory, comes last.
void write_adapter(const std::filesystem::path& directory, const AdapterConfig& adapter, const std::string& base_model,
                   const std::vector<NamedArray<float>>& arrays, std::map<std::string, std::string> metadata);

/// Whether the directory's adapter_config.json is what write_adapter() would write, but for where the base model lies:
/// which one it is, the metadata of the weights tell.
bool has_adapter_config(const std::filesystem::path& directory, const AdapterConfig& adapter);

} // namespace lolcats
