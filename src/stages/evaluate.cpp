#include "src/stages/evaluate.hpp"

#include "io/array_file.hpp"
#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/pace.hpp"
#include "src/stages/adaptation.hpp"
#include "src/stages/model_stage.hpp"
#include "src/stages/recall.hpp"

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
    Recall recall;
};

bool takes_apart(const Options& options) {
    return options.attention_mass || options.branch != "both";
}

/// `form` is what feature maps were trained with where --attention is left open.
void refuse_missing_window(const Options& options, const StudentForm& form) {
    if (form.near == NearKeys::none && (options.branch == "window" || options.branch == "window+sinks"))
        fail("--branch {}: --attention none has no window; choose terrace or sliding", options.branch);
}

class Evaluation {
public:
    Evaluation(const Options& options, const RunInput& input, const Communicator& world, const Mesh& mesh,
               const std::optional<FeatureMapFiles>& maps)
        : options_(options), input_(input), world_(world), mesh_(mesh),
          stage_(options, input, mesh, choose_arithmetic(options, world),
                 adaptation(options, input.config, maps ? &*maps : nullptr), Flow::forward),
          mine_{.recall = Recall(stage_.form() ? stage_.form()->window : options.window)} {
        if (options.attention != "teacher") prepare_parameters(maps);
        if (stage_.form()) refuse_missing_window(options, *stage_.form());
        if (takes_apart(options)) stage_.take_apart({branch_of(options.branch), options.sinks});
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
        Pace pace("evaluation of", "turns", 1.0 * options_.micro_batch * mesh_.data_ranks * input_.length(), 0,
                  static_cast<std::int64_t>(turns), world_.rank() == 0);
        for (std::size_t turn = 0; turn < turns; ++turn) {
            const auto batch = batch_of(all, mesh_.replica, turn);
            if (!batch.empty()) evaluate(batch);
            if (!options_.save_logits.empty()) collect_logits(all, turn);
            pace.advance(1);
            if (world_.rank() == 0 && ((turn + 1) % 64 == 0 || pace.is_done())) spdlog::info(pace.text());
        }
        const Scores scores = total();
        if (scores.tokens == 0 || !std::isfinite(scores.loss)) {
            logits_file_.reset(); // an error that ends several ranks runs no destructor
            world_.barrier();     // nor may another rank's come first
        }
        if (scores.tokens == 0)
            fail("{}: has no labelled token to evaluate on; label some, or leave /labels out", options_.tokens);
        if (!std::isfinite(scores.loss))
            fail("{}: the loss is {}; look for values that are not finite in these weights and what is added to them",
                 options_.model, scores.loss);
        if (logits_file_) logits_file_->close(); // only now, so that the logits of a failed run are not taken for good
        return scores;
    }

    /// By layer, from all ranks. Collective.
    [[nodiscard]] std::vector<MassSum> attention_mass() const {
        constexpr int numbers = 3;
        std::vector<double> sums(static_cast<std::size_t>(input_.config.layers) * numbers);
        for (const auto& [layer, sum] : stage_.attention_mass()) {
            sums[layer * numbers] = sum.far;
            sums[layer * numbers + 1] = sum.far_softmax;
            sums[layer * numbers + 2] = sum.queries;
        }
        world_.sum(sums.data(), sums.size());
        std::vector<MassSum> layers;
        for (std::size_t i = 0; i < sums.size(); i += numbers) layers.push_back({sums[i], sums[i + 1], sums[i + 2]});
        return layers;
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
        std::vector<std::int32_t> distances(input_.tokens.has_distances() ? input_.length() : 0);
        for (std::size_t i = 0; i < batch.size(); ++i) {
            input_.tokens.read_labels(batch[i], labels.data());
            if (!distances.empty()) input_.tokens.read_distances(batch[i], distances.data());
            mine_.recall.add(labels, distances, predicted.data() + i * labels.size());
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
        all.recall.sum(world_);
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

void refuse_contradictions(const Options& options) {
    const bool teacher = options.attention == "teacher";
    if (takes_apart(options) && teacher)
        fail(
            "--branch and --attention-mass look at a student's attention; --attention teacher has none: leave one out");
}

/// [{"layer", "far", "far_softmax"}]: shares of queries that have far keys; layers that have none are left out.
nlohmann::ordered_json by_layer(const std::vector<MassSum>& layers) {
    auto list = nlohmann::ordered_json::array();
    for (std::size_t i = 0; i < layers.size(); ++i)
        if (const MassSum& sum = layers[i]; sum.queries > 0)
            list.push_back(
                {{"layer", i}, {"far", sum.far / sum.queries}, {"far_softmax", sum.far_softmax / sum.queries}});
    return list;
}

} // namespace

void evaluate_model(const Options& options, const Communicator& world) {
    refuse_contradictions(options);
    const RunInput input(options);
    std::optional<FeatureMapFiles> maps;
    if (!options.feature_maps.empty()) maps.emplace(options.feature_maps);
    const Mesh mesh = make_mesh(world, input.layout.blocks, options.pipeline_ranks);
    Evaluation evaluation(options, input, world, mesh, maps);
    const Scores scores = evaluation.run();
    const std::vector<MassSum> mass = evaluation.attention_mass();
    const double loss = scores.loss / static_cast<double>(scores.tokens);
    if (world.rank() != 0) return;
    nlohmann::ordered_json result = {{"loss", loss},
                                     {"perplexity", std::exp(loss)},
                                     {"tokens", scores.tokens},
                                     {"exact_match", scores.recall.exact_match()},
                                     {"spans", scores.recall.spans()}};
    if (input.tokens.has_distances()) result["by_distance"] = scores.recall.by_distance();
    if (options.attention_mass) result["attention_mass"] = by_layer(mass);
    result["run_deck"] = run_deck(options, "lolcats_eval");
    std::cout << result.dump() << std::endl;
}

} // namespace lolcats
