#pragma once
/// The students of a range of layers: their parameters, how they start, and the files they are kept in.
///
/// Files use the reference's state-dict names, one safetensors file a block or one for all:
///   model.layers.{i}.self_attn.feature_map_{q,k}.mlp.layer [H, d, f], .mlp.bias [1, H, 1, 1] (T2R only), and
///   model.layers.{i}.self_attn.window_factors [1, H, 1, 1].
#include "lolcats/model.hpp"
#include "lolcats/options.hpp"
#include "src/block_layout.hpp"
#include "src/train/named_arrays.hpp"
#include "src/train/parameters.hpp"

#include <filesystem>
#include <map>
#include <string>

namespace lolcats {

/// A safetensors file of feature maps, or all of those in a directory; one that lacks them is an Error.
class FeatureMapFiles {
public:
    /// A file, or all of a directory, which must be of one student.
    explicit FeatureMapFiles(const std::filesystem::path& path);

    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::vector<std::filesystem::path> files() const;
    /// The value a file says it was trained with, or empty.
    [[nodiscard]] std::string metadata(const std::string& key) const;
    /// f of the first map in the files.
    [[nodiscard]] int feature_dim() const;
    [[nodiscard]] bool contains(const std::string& name) const;
    void read(const std::string& name, const io::Shape& shape, float* out) const;

private:
    void require_one_form() const;

    std::string path_;
    std::vector<io::SafetensorsFile> files_;
};

/// The students' form from the options. What the user left open is taken from the files, if there are any; what the
/// user set and the files contradict is an Error.
StudentForm student_form(const Options& options, const ModelConfig& config, const FeatureMapFiles* files);

/// The options with the students' form as it was settled, for what computes from options alone.
Options with_form(Options options, const StudentForm& form, bool tied);

/// The metadata that student_form reads back.
std::map<std::string, std::string> form_metadata(const StudentForm& form, bool tied);

/// Whether queries and keys share one map: from the options, or from the files that training goes on from.
bool are_maps_tied(const Options& options, const FeatureMapFiles* files);

class Students {
public:
    /// Declares the parameters of `layers` in `parameters`, which is then to be allocated by the caller.
    Students(const ModelConfig& config, const StudentForm& form, Range layers, bool tied, ParameterSet& parameters);

    /// Maps of `kind` "uniform" or "identity", equal for queries and keys, and gamma = 0.1. The same values for a layer
    /// whatever range it is in.
    void initialize(const std::string& kind, std::uint64_t seed) const;
    void load(const FeatureMapFiles& files) const;

    [[nodiscard]] StudentParameters<float> parameters(int layer) const;
    /// Empty arrays unless trained.
    [[nodiscard]] StudentGradientSums gradients(int layer) const;

private:
    struct Indices {
        int q_map, k_map, q_bias, k_bias, window_factors;
    };
    [[nodiscard]] const Indices& indices(int layer) const { return indices_.at(layer - layers_.begin); }

    ModelConfig config_;
    StudentForm form_;
    Range layers_;
    const ParameterSet& set_;
    Vector<float> no_parameter_; ///< [H], zeros in place of a parameter that the form does not have
    std::vector<Indices> indices_;
};

/// Writes gathered arrays as one safetensors file; tied maps are written under both names.
void write_feature_maps(const std::filesystem::path& path, const std::vector<NamedArray<float>>& arrays,
                        const std::map<std::string, std::string>& metadata);

} // namespace lolcats
