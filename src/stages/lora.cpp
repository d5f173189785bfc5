#include "src/stages/lora.hpp"

#include "io/array_file.hpp"
#include "io/file.hpp"
#include "kernels/random.hpp"
#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/attempt.hpp"
#include "src/pace.hpp"
#include "src/stages/array_report.hpp"
#include "src/stages/form_notices.hpp"
#include "src/stages/model_stage.hpp"
#include "src/stages/run_identity.hpp"
#include "src/stages/softmax_layers.hpp"
#include "src/train/checkpoints.hpp"
#include "src/train/collectives.hpp"
#include "src/train/metrics_log.hpp"
#include "src/train/progress.hpp"
#include "src/train/window_dropout.hpp"

#include <chrono>
#include <cmath>
#include <numeric>
#include <spdlog/spdlog.h>

namespace lolcats {

namespace {

using Clock = std::chrono::steady_clock;

bool names_maps(const Options& options) {
    return !options.feature_maps.empty() || !options.init_feature_maps.empty();
}

/// Feature maps to start from: those named, else what stage 1 left; none where --train-feature-maps, given without
/// maps, asks for training from scratch. A recipe that goes on training them does not.
std::optional<FeatureMapFiles> maps_to_start_from(const Options& options) {
    if (names_maps(options)) {
        const bool is_first = !options.feature_maps.empty();
        const std::string& named = is_first ? options.feature_maps : options.init_feature_maps;
        refuse_own_results(is_first ? "feature-maps" : "init-feature-maps", named, lora_directory(options));
        return FeatureMapFiles(named);
    }
    if (options.train_feature_maps && options.is_given("train-feature-maps")) return std::nullopt;
    if (!std::filesystem::exists(transfer_directory(options)))
        fail("{}: no such directory; run lolcats_block first, name trained maps with --feature-maps, or train them "
             "here with --train-feature-maps",
             transfer_directory(options).string());
    return FeatureMapFiles(transfer_directory(options));
}

/// What is settled before training.
struct LoraRun {
    const Options& options;
    const RunInput& input;
    std::optional<FeatureMapFiles> maps;
    StudentForm form;
    bool tied;
    AdapterConfig adapter;
    std::set<int> softmax_layers;
    Arithmetic arithmetic;
    Batches batches;
    io::LabelSummary labels;
    io::TrainingIdentity identity;
};

/// Rank 0 reads them. Collective.
io::LabelSummary share_labels(const io::TokenStore& tokens, const Communicator& world) {
    io::LabelSummary labels;
    if (world.rank() == 0) labels = tokens.labels();
    labels.identity = world.broadcast(labels.identity, 0);
    labels.counts.resize(tokens.sequences());
    world.broadcast(labels.counts.data(), labels.counts.size() * sizeof labels.counts[0], 0);
    return labels;
}

/// Labelled tokens that are predicted in these sequences.
std::int64_t count_labelled(const LoraRun& run, const Sequences& sequences) {
    return std::accumulate(
        sequences.begin(), sequences.end(), std::int64_t{0},
        [&](std::int64_t count, std::int64_t sequence) { return count + run.labels.counts[sequence]; });
}

/// Said before the first step: what mends it makes another training, which goes on from no checkpoint of this one.
void require_labels(const LoraRun& run) {
    const Batches& batches = run.batches;
    if (const int step = batches.first_without(run.labels.counts); step < batches.steps()) {
        const Sequences batch = batches.at(step);
        fail("{}: the batch of step {}, {} sequences from {} on, has no labelled token to learn from (a sequence's "
             "first does not count); raise --batch-size or drop such sequences",
             run.options.tokens, step, batch.size(), batch.front());
    }
    if (!batches.validation().empty() && count_labelled(run, batches.validation()) == 0)
        fail("{}: the first {} sequences, which are held out, have no labelled token to evaluate on; raise "
             "--validation or drop such sequences",
             run.options.tokens, batches.validation().size());
}

/// Settings of the identity that are hashes of what training starts from. Collective.
std::map<std::string, std::string> content_of(const LoraRun& run, const Communicator& world) {
    const auto hash = [&](const std::vector<std::filesystem::path>& files) {
        return world.broadcast(world.rank() == 0 ? content_identity(files) : "", 0);
    };
    const auto& start = run.options.init_adapter;
    return {{"feature-maps", hash(run.maps ? run.maps->files() : std::vector<std::filesystem::path>())},
            {"init-adapter",
             hash(start.empty() ? std::vector<std::filesystem::path>() : std::vector{adapter_weights(start)})},
            {"labels", run.labels.identity}};
}

/// Collective.
LoraRun prepare(const Options& options, const RunInput& input, const Communicator& world) {
    if (!options.init_adapter.empty())
        refuse_own_results("init-adapter", options.init_adapter, lora_directory(options));
    auto maps = maps_to_start_from(options);
    const FeatureMapFiles* files = maps ? &*maps : nullptr;
    const auto form = student_form(options, input.config, files);
    const bool tied = are_maps_tied(options, files);
    const auto softmax = softmax_layers(options, input.config, files, options.init_adapter);
    LoraRun run{options,
                input,
                std::move(maps),
                form,
                tied,
                adapter_config(options),
                softmax,
                settle_arithmetic(options, world),
                Batches(options, input.tokens.sequences()),
                share_labels(input.tokens, world),
                {}};
    require_labels(run);
    run.identity = IdentityBuilder(options, input, identify(input, world), "lolcats_lora")
                       .with_options({"train-feature-maps", "kl-factor"})
                       .with(form_metadata(form, tied))
                       .with({{"gemm", name_of(run.arithmetic)},
                              {"lora-rank", std::to_string(run.adapter.form.rank)},
                              {"lora-alpha", fmt::format("{}", run.adapter.alpha)},
                              {"lora-dropout", fmt::format("{}", run.adapter.form.dropout)},
                              {"lora-modules", fmt::format("{}", fmt::join(run.adapter.modules, ","))},
                              {"softmax-layers", to_text(run.softmax_layers)}})
                       .with(content_of(run, world))
                       .build();
    return run;
}

/// Maps of stage 1 that nobody named are to be of this model: they lie in its work directory, and may be left from what
/// was done there before.
void refuse_maps_of_another_model(const LoraRun& run) {
    if (!run.maps || names_maps(run.options)) return;
    const std::string model = run.maps->metadata("model_identity");
    const std::string text = model.empty() ? "" : io::model_difference(model, run.identity.model);
    if (!text.empty())
        fail("{}: these feature maps are of another training: {}; run lolcats_block again, give another --work, or "
             "name maps with --feature-maps",
             run.maps->path(), text);
}

/// Those that another training has left, maybe one that was killed: they do not belong to this adapter.
void remove_maps_of_others(const std::filesystem::path& directory) {
    io::remove_tree(trained_maps(directory));
}

/// Whether an earlier run has written all of its result; never where gradients are asked for, which were not kept. A
/// result of another model or other tokens is an Error. Collective.
bool is_finished(const LoraRun& run, const Communicator& world) {
    const Options& options = run.options;
    const auto directory = lora_directory(options);
    bool finished = false;
    if (world.rank() == 0) {
        // Asked in any case: it refuses to replace what is another model's.
        const bool is_there =
            is_result(adapter_weights(directory), run.identity, options) &&
            has_adapter_config(directory, run.adapter) &&
            (!options.train_feature_maps || is_result(trained_maps(directory), run.identity, options));
        finished = is_there && options.dump_gradients.empty();
    }
    finished = world.any(finished);
    if (finished && world.rank() == 0) {
        spdlog::info("{} is trained already", directory.string());
        remove_checkpoints(directory / "state", run.identity);
        if (!options.train_feature_maps) remove_maps_of_others(directory);
    }
    return finished;
}

/// This rank's part of the pipeline.
LoraStage part_of_pipeline(const LoraRun& run, const Mesh& mesh) {
    const Range blocks = blocks_of_stage(run.input.layout.blocks, mesh.pipeline_ranks, mesh.stage);
    const auto batch = share(run.options.batch_size, mesh.data_ranks, mesh.replica).size();
    const auto micro_batches = (std::int64_t{batch} + run.options.micro_batch - 1) / run.options.micro_batch;
    return {run.input.layout.layers_of(blocks).size(), mesh.stage, mesh.pipeline_ranks,
            static_cast<int>(micro_batches)};
}

class LoraTraining {
public:
    LoraTraining(const LoraRun& run, const Communicator& world, const Mesh& mesh, Interrupt& interrupt)
        : run_(run), options_(run.options), input_(run.input), world_(world), mesh_(mesh), batches_(run.batches),
          window_dropout_(options_, batches_.steps()), progress_(options_, 1e-4), part_(part_of_pipeline(run, mesh)),
          plan_(plan_that_fits()),
          stage_(options_, input_, mesh, run.arithmetic,
                 {run.form, run.adapter, options_.train_feature_maps, run.tied, options_.kl_factor, run.softmax_layers,
                  layers_kept(plan_.plan, plan_.options, part_.layers, part_.in_flight())},
                 Flow::both),
          checkpoints_(options_, {lora_directory(options_) / "state", run.identity, input_.layout, mesh.replica == 0},
                       world, interrupt) {
        in_step_.limit_waiting(Patience("all ranks", array_transport(options_).timeout));
        prepare_parameters();
        const std::int64_t log_bytes = checkpoints_.resume(stage_.trained(), progress_);
        if (world.rank() == 0) {
            warn_if_pure_softmax(run.form, input_.length());
            if (run.maps) warn_of_assumed_form(options_, *run.maps, run.form);
            io::create_directories(lora_directory(options_));
            log_.emplace(lora_directory(options_) / "lora.jsonl", log_bytes);
        }
    }

    /// False if it was stopped before the end.
    bool run() {
        pace_.emplace("low-rank adjusting:", "steps", 1.0 * options_.batch_size * input_.length(), progress_.step(),
                      batches_.steps(), world_.rank() == 0);
        const bool finished = progress_.run(
            batches_, stage_.trained(), [&](int step) { train_step(step); }, [&](int step) { return evaluate(step); },
            [&] { return checkpoints_.go_on(stage_.trained(), progress_, log_ ? &*log_ : nullptr); });
        if (!finished) return false;
        arrays_.finish(world_, lora_stage_memory(plan_.plan, plan_.options, part_));
        write();
        if (world_.rank() == 0) checkpoints_.finish();
        return true;
    }

private:
    RunPlan plan_that_fits() const {
        Options settled = with_form(options_, run_.form, run_.tied);
        settled.lora_rank = run_.adapter.form.rank;
        settled.lora_dropout = run_.adapter.form.dropout;
        settled.lora_modules = run_.adapter.modules;
        RunPlan plan(input_, settled, run_.arithmetic, world_.size());
        require_room(world_, lora_stage_memory(plan.plan, plan.options, part_));
        return plan;
    }

    void prepare_parameters() {
        stage_.allocate_parameters();
        stage_.students().initialize(options_.feature_map_init, options_.seed);
        if (run_.maps) stage_.students().load(*run_.maps);
        stage_.adapter().initialize(options_.seed);
        if (!options_.init_adapter.empty()) stage_.adapter().load(options_.init_adapter);
        stage_.bind_parameters();
    }

    /// The loss summed over all ranks' sequences, on every rank.
    [[nodiscard]] double total_loss(const CrossEntropySum& mine) const {
        double loss = mine.loss + options_.kl_factor * mine.divergence;
        in_step_.sum(&loss, 1);
        return loss;
    }

    void require_finite(double loss, int step) const {
        if (!std::isfinite(loss))
            fail("{}: the loss is {} at step {}; lower --lr, or look for values that are not finite in these weights "
                 "(no adapter was written)",
                 options_.model, loss, step);
    }

    void train_step(int step) {
        const auto start = Clock::now();
        const Sequences batch = batches_.at(step);
        const auto labelled = static_cast<double>(count_labelled(run_, batch));
        const auto stream = [&](std::int64_t sequence) {
            return mix_bits(mix_bits(mix_bits(options_.seed) + static_cast<std::uint64_t>(step)) +
                            static_cast<std::uint64_t>(sequence));
        };
        stage_.trained().zero_gradients();
        stage_.set_training_form(window_dropout_.form(run_.form, step));
        const auto mine = micro_batches(batch, options_.micro_batch, mesh_.data_ranks, mesh_.replica);
        const double loss = total_loss(stage_.train(mine, static_cast<float>(1 / labelled), stream)) / labelled;
        require_finite(loss, step);
        sum_gradients(stage_.trained(), stage_.replicas());
        if (step == 0 && !options_.dump_gradients.empty()) write_gradients(loss);
        const double norm = gradient_norm();
        if (!std::isfinite(norm))
            fail("the gradient's norm is {} at step {}; lower --lr (no adapter was written)", norm, step);
        progress_.update(stage_.trained(), loss, norm);
        pace_->advance(1);
        if (world_.rank() == 0)
            log_step(step, loss, norm, batch.size(), std::chrono::duration<double>(Clock::now() - start).count());
    }

    /// Over the parameters of all pipeline stages.
    [[nodiscard]] double gradient_norm() const {
        const double mine = stage_.trained().gradient_norm();
        double squared = mine * mine;
        mesh_.pipeline.sum(&squared, 1);
        return std::sqrt(squared);
    }

    void log_step(int step, double loss, double norm, std::size_t sequences, double seconds) {
        const double rate = static_cast<double>(sequences) * input_.length() / seconds;
        log_->write({{"step", step},
                     {"loss", loss},
                     {"lr", progress_.rate()},
                     {"grad_norm", norm},
                     {"tokens_per_second", rate}});
        if (step % options_.log_every == 0)
            spdlog::info("step {:5} loss {:.6g} lr {:.3g} norm {:.3g} {:.0f} tokens/s, {} left", step, loss,
                         progress_.rate(), norm, rate, pace_->left());
    }

    double evaluate(int step) {
        const Sequences& held_out = batches_.validation();
        CrossEntropySum mine;
        for (const auto& sequences : micro_batches(held_out, options_.micro_batch, mesh_.data_ranks, mesh_.replica))
            mine.loss += stage_.evaluate(sequences).loss;
        const double loss = total_loss(mine) / static_cast<double>(count_labelled(run_, held_out));
        require_finite(loss, step);
        if (world_.rank() != 0) return loss;
        log_->write({{"step", step},
                     {"eval_loss", loss},
                     {"eval_perplexity", std::exp(loss)},
                     {"best", std::min(loss, progress_.best())}});
        spdlog::info("step {:5} evaluation loss {:.6g} perplexity {:.6g}", step, loss, std::exp(loss));
        return loss;
    }

    void write_gradients(double loss) const {
        if (mesh_.replica != 0) return;
        const auto arrays = gather(mesh_.pipeline, named_gradients(stage_.trained()));
        if (mesh_.stage != 0) return;
        io::ArrayFile file(options_.dump_gradients);
        for (const auto& array : arrays) file.write(array.name, array.shape, array.values.data());
        file.write("loss", {}, &loss);
        file.close();
    }

    void write() const {
        if (mesh_.replica != 0) return;
        const auto arrays = gather(mesh_.pipeline, named_values(stage_.trained()));
        if (mesh_.stage != 0) return;
        if (options_.train_feature_maps) {
            auto metadata = form_metadata(run_.form, run_.tied);
            metadata.merge(to_metadata(run_.identity));
            std::vector<NamedArray<float>> maps;
            std::copy_if(arrays.begin(), arrays.end(), std::back_inserter(maps),
                         [](const auto& array) { return array.name.starts_with("model.layers."); });
            write_feature_maps(trained_maps(lora_directory(options_)), maps, metadata);
        } else {
            remove_maps_of_others(lora_directory(options_));
        }
        auto metadata = to_metadata(run_.identity);
        if (!run_.softmax_layers.empty()) metadata["softmax-layers"] = to_text(run_.softmax_layers);
        write_adapter(lora_directory(options_), run_.adapter, options_.model, arrays, metadata);
    }

    const LoraRun& run_;
    const Options& options_;
    const RunInput& input_;
    const Communicator& world_;
    Communicator in_step_ = world_.duplicate(); ///< the same ranks, which are never apart for long
    const Mesh& mesh_;
    const ArrayReport arrays_;
    const Batches& batches_;
    WindowDropout window_dropout_;
    Progress progress_;
    const LoraStage part_;
    const RunPlan plan_;
    ModelStage stage_;
    Checkpoints checkpoints_;
    std::optional<MetricsLog> log_;
    std::optional<Pace> pace_; ///< while it runs
};

} // namespace

void adjust_low_rank(const Options& options, const Communicator& world) {
    const RunInput input(options);
    Mesh mesh = make_mesh(world, input.layout.blocks, options.pipeline_ranks);
    mesh.pipeline.limit_waiting(Patience("stages of a pipeline", array_transport(options).timeout));
    const Attempt attempt(options, "lolcats_lora", world);
    Interrupt interrupt(options, world);
    const LoraRun run = prepare(options, input, world);
    if (is_finished(run, world)) return;
    refuse_maps_of_another_model(run);
    interrupt.finish(!LoraTraining(run, world, mesh, interrupt).run());
}

} // namespace lolcats
