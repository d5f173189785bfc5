#pragma once
/// The model that generation runs, loaded as the options say: teacher, or with students and an adapter.
#include "io/checkpoint.hpp"
#include "io/session_file.hpp"
#include "src/model/embedding.hpp"
#include "src/model/recurrent_model.hpp"
#include "src/model/students.hpp"
#include "src/stages/adaptation.hpp"

#include <optional>

namespace lolcats {

class GenerationModel {
public:
    /// Reads the configuration and says what is to be loaded, but loads no weights.
    explicit GenerationModel(const Options& options);

    [[nodiscard]] const ModelConfig& config() const { return config_; }
    [[nodiscard]] bool is_teacher() const { return !adaptation_.form; }
    /// What states of this model are of. Collective.
    [[nodiscard]] io::SessionIdentity identity(const Communicator& world) const;
    /// All weights, on this rank. Parameters stay with this object, which is to outlive the result.
    RecurrentWeights<float> load();
    /// x[n, D], the tokens' embeddings.
    void embed(std::span<const std::int32_t> tokens, const Matrix<float>& x);

private:
    void load_adaptation(std::vector<AdaptedLayer<float>>& layers);

    const Options& options_;
    ModelConfig config_;
    io::Checkpoint checkpoint_;
    Storage storage_;
    Embedding embedding_;
    std::optional<FeatureMapFiles> maps_;
    Adaptation adaptation_;
    ParameterSet parameters_;
    std::optional<Students> students_;
    std::optional<Adapter> adapter_;
};

} // namespace lolcats
