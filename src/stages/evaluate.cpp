#include "src/stages/evaluate.hpp"

#include "io/array_file.hpp"
#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/pace.hpp"
#include "src/stages/adaptation.hpp"
#include "src/stages/model_stage.hpp"

#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <spdlog/spdlog.h>

namespace lolcats {

namespace {

struct Scores {
    double loss = 0;
    std::int64_t tokens = 0;
    std::int64_t spans = 0;
    std::int64_t matched = 0;
};

/// Counts the runs of consecutive labelled tokens that were predicted throughout. predicted[t] is for token t + 1.
void score_spans(const std::vector<std::int32_t>& labels, const std::int32_t* predicted, Scores& scores) {
    bool in_span = false;
    bool matched = false;
    const auto close = [&] {
        scores.spans += in_span ? 1 : 0;
        scores.matched += in_span && matched ? 1 : 0;
        in_span = false;
    };
    for (std::size_t t = 1; t < labels.size(); ++t) {
        if (labels[t] == unlabelled) {
            close();
            continue;
        }
        matched = (!in_span || matched) && predicted[t - 1] == labels[t];
        in_span = true;
    }
    close();
}

class Evaluation {
public:
    Evaluation(const Options& options, const RunInput& input, const Communicator& world, const Mesh& mesh,
               const std::optional<FeatureMapFiles>& maps)
        : options_(options), input_(input), world_(world), mesh_(mesh),
          stage_(options, input, mesh, choose_arithmetic(options, world),
                 adaptation(options, input.config, maps ? &*maps : nullptr), Flow::forward) {
        if (options.attention != "teacher") prepare_parameters(maps);
        if (!options.save_logits.empty() && world.rank() == 0) {
            logits_file_.emplace(options.save_logits);
            logits_file_->create("logits", {input.tokens.sequences(), input.length(), input.config.vocab_size},
                                 io::DType::f32);
        }
    }

    Scores run() {
        Sequences all(input_.tokens.sequences());
        std::iota(all.begin(), all.end(), 0);
        // Every replica takes the same number of turns, so that logits can be collected turn by turn.
        std::size_t turns = 0;
        for (int replica = 0; replica < mesh_.data_ranks; ++replica)
            turns = std::max(turns, micro_batches(all, options_.micro_batch, mesh_.data_ranks, replica).size());
        Pace pace("evaluation of", "turns", options_.micro_batch * mesh_.data_ranks * input_.length(), 0,
                  static_cast<std::int64_t>(turns), world_.rank() == 0);
        for (std::size_t turn = 0; turn < turns; ++turn) {
            const auto batch = batch_of(all, mesh_.replica, turn);
            if (!batch.empty()) evaluate(batch);
            if (!options_.save_logits.empty()) collect_logits(all, turn);
            pace.advance(1);
            if (world_.rank() == 0 && ((turn + 1) % 64 == 0 || pace.is_done())) spdlog::info(pace.text());
        }
        const Scores scores = total();
        if (scores.tokens == 0)
            fail("{}: has no labelled token to evaluate on; label some, or leave /labels out", options_.tokens);
        if (!std::isfinite(scores.loss))
            fail("{}: the loss is {}; look for values that are not finite in these weights and what is added to them",
                 options_.model, scores.loss);
        if (logits_file_) logits_file_->close(); // only now, so that the logits of a failed run are not taken for good
        return scores;
    }

private:
    void prepare_parameters(const std::optional<FeatureMapFiles>& maps) {
        stage_.allocate_parameters();
        stage_.students().initialize(options_.feature_map_init, options_.seed);
        if (maps) stage_.students().load(*maps);
        if (!options_.adapter.empty()) stage_.adapter().load(options_.adapter);
        stage_.bind_parameters();
    }

    /// What a replica computes in a turn; empty if it has nothing left.
    [[nodiscard]] Sequences batch_of(const Sequences& all, int replica, std::size_t turn) const {
        const auto batches = micro_batches(all, options_.micro_batch, mesh_.data_ranks, replica);
        return turn < batches.size() ? batches[turn] : Sequences();
    }

    void evaluate(const Sequences& batch) {
        const std::size_t row_size = input_.config.vocab_size;
        const bool keep = !options_.save_logits.empty() && stage_.is_last();
        if (keep) logits_.resize(batch.size() * input_.length() * row_size);
        const auto visit = [&](int first, const Matrix<float>& logits) {
            if (!keep) return;
            const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, logits);
            std::copy(host.data(), host.data() + host.size(),
                      logits_.begin() + static_cast<std::ptrdiff_t>(first * row_size));
        };
        const CrossEntropySum sum = stage_.evaluate(batch, visit);
        if (!stage_.is_last()) return;
        mine_.loss += sum.loss;
        mine_.tokens += sum.labelled;
        const auto predicted = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, stage_.predicted());
        std::vector<std::int32_t> labels(input_.length());
        for (std::size_t i = 0; i < batch.size(); ++i) {
            input_.tokens.read_labels(batch[i], labels.data());
            score_spans(labels, predicted.data() + i * labels.size(), mine_);
        }
    }

    /// The last stage of each replica hands this turn's logits to rank 0, which alone writes.
    void collect_logits(const Sequences& all, std::size_t turn) {
        constexpr int tag = 7;
        if (stage_.is_last() && world_.rank() != 0 && !batch_of(all, mesh_.replica, turn).empty())
            world_.send(logits_.data(), logits_.size(), 0, tag);
        if (world_.rank() != 0) return;
        for (int replica = 0; replica < mesh_.data_ranks; ++replica) {
            const Sequences batch = batch_of(all, replica, turn);
            if (batch.empty()) continue;
            const int source = replica * mesh_.pipeline_ranks + mesh_.pipeline_ranks - 1;
            logits_.resize(batch.size() * input_.length() * input_.config.vocab_size);
            if (source != 0) world_.receive(logits_.data(), logits_.size(), source, tag);
            logits_file_->write_rows("logits", batch.front(), static_cast<std::int64_t>(batch.size()), logits_.data());
        }
    }

    [[nodiscard]] Scores total() const {
        Scores all = mine_;
        world_.sum(&all.loss, 1);
        world_.sum(&all.tokens, 1);
        world_.sum(&all.spans, 1);
        world_.sum(&all.matched, 1);
        return all;
    }

    const Options& options_;
    const RunInput& input_;
    const Communicator& world_;
    const Mesh& mesh_;
    ModelStage stage_;
    std::optional<io::ArrayFile> logits_file_;
    std::vector<float> logits_;
    Scores mine_;
};

} // namespace

void evaluate_model(const Options& options, const Communicator& world) {
    const RunInput input(options);
    std::optional<FeatureMapFiles> maps;
    if (!options.feature_maps.empty()) maps.emplace(options.feature_maps);
    const Mesh mesh = make_mesh(world, input.layout.blocks, options.pipeline_ranks);
    const Scores scores = Evaluation(options, input, world, mesh, maps).run();
    const double loss = scores.loss / static_cast<double>(scores.tokens);
    if (world.rank() != 0) return;
    const nlohmann::ordered_json result = {
        {"loss", loss},
        {"perplexity", std::exp(loss)},
        {"tokens", scores.tokens},
        {"exact_match", static_cast<double>(scores.matched) / static_cast<double>(scores.spans)},
        {"spans", scores.spans},
        {"run_deck", run_deck(options, "lolcats_eval")}};
    std::cout << result.dump() << std::endl;
}

} // namespace lolcats
