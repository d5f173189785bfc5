#include "lolcats/error.hpp"
#include "src/memory_plan.hpp"
#include "src/model/adapted_stage.hpp"
#include "src/model/adapter.hpp"
#include "src/model/lm_head.hpp"
#include "src/model/students.hpp"
#include "src/train/pipeline_schedule.hpp"
#include "tools/bench/block/block_run.hpp"
#include "tools/bench/block/random_weights.hpp"
#include "tools/bench/block/stopwatch.hpp"

#include <cmath>

namespace lolcats::bench {

namespace {

/// The most that a stage of the pipeline does: as many micro-batches between forward and backward pass as the first
/// has, and the gradients that all others send down. What the stages before and after it would send is there already.
class LoraRun : public BlockRun {
public:
    LoraRun(const Settings& s, Arithmetic arithmetic)
        : settings_(s), arithmetic_(arithmetic), form_(student_form_of(s)), adapter_config_(adapter_config(s.options)),
          shape_(attention_shape(s.model, s.options.micro_batch, s.length())), gemm_(arithmetic),
          rope_(rope_form(s.model), s.length()), weights_(random_layers(s.model, s.layers, storage_of(s.options))),
          students_(s.model, form_, {0, s.layers}, false, frozen_),
          adapter_(s.model, adapter_config_, {0, s.layers}, trained_),
          decoder_({s.model, rope_, gemm_}, shape_, form_, adapter_config_.form),
          stage_(decoder_, weights_, adapted_, s.layers_kept(),
                 s.stages() > 1 ? InputGradient::wanted : InputGradient::unused),
          input_(uninitialized("input"), shape_.rows(), s.model.hidden_size),
          gradient_(uninitialized("gradient"), shape_.rows(), s.model.hidden_size),
          x_(uninitialized("residual"), shape_.rows(), s.model.hidden_size) {
        frozen_.allocate(false);
        trained_.allocate(true);
        students_.initialize(s.options.feature_map_init, s.options.seed);
        adapter_.initialize(s.options.seed);
        for (int layer = 0; layer < s.layers; ++layer)
            adapted_.push_back(
                {students_.parameters(layer), {}, adapter_.layer(layer), static_cast<std::uint64_t>(layer)});
        fill(input_, 1, 7);
        fill(gradient_, 1e-4, 8);
    }

    void step() override {
        const Options& o = settings_.options;
        std::vector<AdaptedStage::InFlight> flights(settings_.micro_batches());
        const auto streams = [&](int i) { return DropoutStreams(o.micro_batch, static_cast<std::uint64_t>(i)); };
        const auto forward = [&](int i) {
            flights[i] = stage_.take(x_.extent(0), x_.extent(1));
            Kokkos::deep_copy(Execution(), x_, input_);
            stage_.forward(shape_, streams(i), x_, flights[i]);
        };
        const auto backward = [&](int i) {
            Kokkos::deep_copy(Execution(), flights[i].gradient, gradient_);
            stage_.backward(shape_, streams(i), flights[i], flights[i].gradient);
            stage_.give_back(std::move(flights[i]));
        };
        trained_.zero_gradients();
        run_one_forward_one_backward(0, settings_.stages(), settings_.micro_batches(), forward, backward);
        const double norm = trained_.gradient_norm();
        if (!std::isfinite(norm) || norm == 0) fail("the gradient's norm is {}: a bug, please report it", norm);
        trained_.step({o.beta1, o.beta2, o.epsilon, o.weight_decay}, 1e-4, norm, o.clip);
    }

    [[nodiscard]] Works work() const override {
        return lora_work(settings_, form_, arithmetic_, static_cast<double>(trained_.gradients().extent(0)));
    }
    [[nodiscard]] double passes() const override { return 3; }

    [[nodiscard]] std::vector<std::pair<std::string, double>> predicted_memory(const Plan& plan) const override {
        const RankMemory m = lora_memory(plan, settings_.options, settings_.layers, settings_.in_flight());
        return {{"weights, students", m.weights},
                {"adapter", m.trained},
                {"work", m.work},
                {"attention", m.attention},
                {"products", m.products},
                {"kept for the backward pass", m.kept},
                {"starts of both passes", 2.0 * sizeof(float) * static_cast<double>(input_.size())}};
    }

private:
    const Settings& settings_;
    Arithmetic arithmetic_;
    StudentForm form_;
    AdapterConfig adapter_config_;
    AttentionShape shape_;
    Gemm<float> gemm_;
    RopeTable<float> rope_;
    std::vector<LayerWeights<float>> weights_;
    ParameterSet frozen_;
    ParameterSet trained_;
    Students students_;
    Adapter adapter_;
    std::vector<AdaptedLayer<float>> adapted_;
    AdaptedDecoder<float> decoder_;
    AdaptedStage stage_;
    Matrix<float> input_;
    Matrix<float> gradient_;
    Matrix<float> x_;
};

} // namespace

std::unique_ptr<BlockRun> make_lora_run(const Settings& settings, Arithmetic arithmetic) {
    return std::make_unique<LoraRun>(settings, arithmetic);
}

double head_seconds(const Settings& settings, Arithmetic arithmetic) {
    constexpr int repeats = 3;
    const int rows = settings.options.micro_batch * settings.length();
    Gemm<float> gemm(arithmetic);
    LmHead<float> head(settings.model, random_head(settings.model), gemm);
    const Matrix<float> x(uninitialized("residual"), rows, settings.model.hidden_size);
    const Vector<std::int32_t> labels("labels", rows);
    const Vector<std::int32_t> predicted("predicted", rows);
    const auto once = [&] {
        fill(x, 1, 9);
        const auto sum = head.loss_and_gradient(x, labels, 1.0F / static_cast<float>(rows), predicted);
        if (!std::isfinite(sum.loss)) fail("the head's loss is {}: a bug, please report it", sum.loss);
    };
    once();
    return seconds([&] {
               for (int i = 0; i < repeats; ++i) once();
           }) /
           repeats;
}

} // namespace lolcats::bench
