#pragma once
/// One rank's consecutive layers of the model, as teacher or adapted, with the token embedding on the first pipeline
/// stage and the loss on the last.
#include "src/comm/stage_link.hpp"
#include "src/model/adapted_stage.hpp"
#include "src/model/adapter.hpp"
#include "src/model/decoder_layer.hpp"
#include "src/model/lm_head.hpp"
#include "src/model/students.hpp"
#include "src/stages/run_input.hpp"
#include "src/train/batches.hpp"

#include <functional>
#include <map>
#include <optional>
#include <set>

namespace lolcats {

/// What the model is adapted with; without students it is the teacher.
struct Adaptation {
    std::optional<StudentForm> form;
    AdapterConfig adapter; ///< rank 0: none
    bool train_students = false;
    bool tied = false;
    double kl_factor = 0;         ///< above 0 the teacher runs beside the model in training
    std::set<int> softmax_layers; ///< that keep the teacher's attention
    int layers_kept = 0; ///< layers of this rank that keep their activations after the forward pass in training
};

class ModelStage {
public:
    /// Trains where `flow` is both. Collective over the mesh.
    ModelStage(const Options& options, const RunInput& input, const Mesh& mesh, Arithmetic arithmetic,
               Adaptation adaptation, Flow flow);

    /// The ranks with the same layers.
    [[nodiscard]] ArrayCommunicator& replicas() const { return *replicas_; }
    [[nodiscard]] ParameterSet& trained() { return trained_; }
    [[nodiscard]] const ParameterSet& trained() const { return trained_; }
    [[nodiscard]] const Students& students() const { return *students_; }
    [[nodiscard]] const Adapter& adapter() const { return *adapter_; }
    [[nodiscard]] bool is_last() const { return link_.is_last(); }
    /// The students' form; none: the teacher.
    [[nodiscard]] const std::optional<StudentForm>& form() const { return adaptation_.form; }
    /// From now on evaluate() computes with a part of the students' attention and adds up where it goes.
    void take_apart(const BranchChoice& choice) { decoder_->take_apart(choice); }
    /// By layer of this rank; empty unless the attention is taken apart.
    [[nodiscard]] std::map<int, MassSum> attention_mass() const;
    /// Before parameters are initialised or loaded, and after.
    void allocate_parameters();
    void bind_parameters();

    /// Forward only. On the last stage: the loss sum, predictions in predicted() and logits to `visit`.
    CrossEntropySum evaluate(const Sequences& sequences, const LmHead<float>::LogitsVisitor& visit = {});
    [[nodiscard]] const Vector<std::int32_t>& predicted() const { return predicted_; }

    /// What the students compute with in the training steps to come; evaluations keep to the adaptation's form.
    void set_training_form(const StudentForm& form) { training_form_ = form; }
    /// One optimiser batch by the 1F1B schedule: gradients of `scale` times the summed loss are added to those of the
    /// trained parameters. `stream(sequence)` names a sequence's dropout stream. Returns this rank's loss sum.
    CrossEntropySum train(const std::vector<Sequences>& micro_batches, float scale,
                          const std::function<std::uint64_t(std::int64_t)>& stream);

private:
    void load_weights(const WeightSource& source);
    Matrix<float> receive_input(const Sequences& sequences);
    void run_layer(const AttentionShape& shape, int layer, const Matrix<float>& x);
    [[nodiscard]] bool distils() const { return adaptation_.kl_factor > 0; }
    Matrix<float> receive_streams(const Sequences& sequences);
    [[nodiscard]] Matrix<float> teacher_rows(const Matrix<float>& both, int rows) const;
    void run_teacher(const AttentionShape& shape, const Matrix<float>& x);
    void read_shifted_labels(const Sequences& sequences) const;

    const RunInput& input_;
    Range layers_;
    StageLink link_;
    std::unique_ptr<ArrayCommunicator> replicas_;
    Adaptation adaptation_;
    AttentionShape largest_;
    Gemm<float> gemm_;
    RopeTable<float> rope_;
    std::vector<LayerWeights<float>> weights_;
    std::optional<LmHead<float>> head_;
    ParameterSet trained_;
    ParameterSet frozen_;
    std::optional<Students> students_;
    std::optional<Adapter> adapter_;
    std::vector<AdaptedLayer<float>> adapted_;
    std::optional<AdaptedDecoder<float>> decoder_;
    std::optional<AdaptedStage> training_; ///< once parameters are bound
    LayerActivations<float> teacher_activations_;
    std::optional<StudentForm> training_form_;
    Matrix<float> x_;
    Vector<std::int32_t> labels_;
    Vector<std::int32_t> predicted_;
};

} // namespace lolcats
