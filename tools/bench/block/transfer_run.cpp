#include "lolcats/error.hpp"
#include "src/memory_plan.hpp"
#include "src/train/transfer_block.hpp"
#include "tools/bench/block/block_run.hpp"
#include "tools/bench/block/random_weights.hpp"

#include <cmath>
#include <numeric>

namespace lolcats::bench {

namespace {

class TransferRun : public BlockRun {
public:
    TransferRun(const Settings& s, Arithmetic arithmetic)
        : settings_(s), arithmetic_(arithmetic), form_(student_form_of(s)),
          shape_(attention_shape(s.model, s.options.micro_batch, s.length())),
          block_(random_layers(s.model, s.layers, storage_of(s.options)), s.model, form_, s.options.tie_feature_maps,
                 storage_of(s.options), arithmetic, {0, s.layers}, shape_,
                 {s.options.mse_factor, s.options.xent_factor}),
          input_(uninitialized("input"), shape_.rows(), s.model.hidden_size),
          x_(uninitialized("residual"), shape_.rows(), s.model.hidden_size) {
        block_.students().initialize(s.options.feature_map_init, s.options.seed);
        fill(input_, 1, 7);
    }

    void step() override {
        const Options& o = settings_.options;
        LayerLosses losses(settings_.layers);
        block_.parameters().zero_gradients();
        for (int i = 0; i < settings_.micro_batches(); ++i) {
            Kokkos::deep_copy(Execution(), x_, input_);
            block_.run(shape_, x_, o.batch_size, true, true, losses);
        }
        const double norm = block_.parameters().gradient_norm();
        const double loss = std::accumulate(losses.total.begin(), losses.total.end(), 0.0);
        if (!std::isfinite(norm) || !std::isfinite(loss))
            fail("the loss is {} and the gradient's norm {}: a bug, please report it", loss, norm);
        block_.parameters().step({o.beta1, o.beta2, o.epsilon, o.weight_decay}, 1e-2, norm, o.clip);
    }

    [[nodiscard]] Works work() const override {
        return transfer_work(settings_, form_, arithmetic_,
                             static_cast<double>(block_.parameters().gradients().extent(0)));
    }
    [[nodiscard]] double passes() const override { return 1; }

    [[nodiscard]] std::vector<std::pair<std::string, double>> predicted_memory(const Plan& plan) const override {
        const RankMemory m = transfer_memory(plan, settings_.options, settings_.layers, 1);
        return {{"weights", m.weights},     {"trained", m.trained},   {"work", m.work},
                {"attention", m.attention}, {"products", m.products}, {"stream and its start", 2 * m.stream}};
    }

private:
    const Settings& settings_;
    Arithmetic arithmetic_;
    StudentForm form_;
    AttentionShape shape_;
    TransferBlock block_;
    Matrix<float> input_;
    Matrix<float> x_;
};

} // namespace

std::unique_ptr<BlockRun> make_transfer_run(const Settings& settings, Arithmetic arithmetic) {
    return std::make_unique<TransferRun>(settings, arithmetic);
}

StudentForm student_form_of(const Settings& settings) {
    return student_form(settings.options, settings.model, nullptr);
}

} // namespace lolcats::bench
