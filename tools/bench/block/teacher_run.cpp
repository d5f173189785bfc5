#include "kernels/elementwise.hpp"
#include "lolcats/error.hpp"
#include "src/memory_plan.hpp"
#include "src/model/decoder_layer.hpp"
#include "tools/bench/block/block_run.hpp"
#include "tools/bench/block/random_weights.hpp"

namespace lolcats::bench {

namespace {

class TeacherRun : public BlockRun {
public:
    TeacherRun(const Settings& s, Arithmetic arithmetic)
        : settings_(s), arithmetic_(arithmetic), shape_(attention_shape(s.model, s.options.micro_batch, s.length())),
          gemm_(arithmetic), rope_(rope_form(s.model), s.length()),
          weights_(random_layers(s.model, s.layers, storage_of(s.options))), activations_(s.model, shape_),
          input_(uninitialized("input"), shape_.rows(), s.model.hidden_size),
          x_(uninitialized("residual"), shape_.rows(), s.model.hidden_size) {
        fill(input_, 1, 7);
    }

    void step() override {
        for (int i = 0; i < settings_.micro_batches(); ++i) {
            Kokkos::deep_copy(Execution(), x_, input_);
            for (const auto& weights : weights_) {
                teacher_layer({settings_.model, rope_, gemm_}, shape_, weights, activations_, x_);
                round_to_bf16(x_);
            }
        }
        if (!all_finite(x_)) fail("what leaves the last layer is not finite: a bug, please report it");
    }

    [[nodiscard]] Works work() const override {
        return teacher_work(settings_, student_form_of(settings_), arithmetic_);
    }
    [[nodiscard]] double passes() const override { return 1; }

    [[nodiscard]] std::vector<std::pair<std::string, double>> predicted_memory(const Plan& plan) const override {
        const RankMemory m = teacher_memory(plan, settings_.options, settings_.layers, {});
        return {{"weights", m.weights},
                {"work", m.work},
                {"attention", m.attention},
                {"products", m.products},
                {"stream and its start", 2 * m.stream}};
    }

private:
    const Settings& settings_;
    Arithmetic arithmetic_;
    AttentionShape shape_;
    Gemm<float> gemm_;
    RopeTable<float> rope_;
    std::vector<LayerWeights<float>> weights_;
    LayerActivations<float> activations_;
    Matrix<float> input_;
    Matrix<float> x_;
};

} // namespace

std::unique_ptr<BlockRun> make_teacher_run(const Settings& settings, Arithmetic arithmetic) {
    return std::make_unique<TeacherRun>(settings, arithmetic);
}

} // namespace lolcats::bench
