#include "lolcats/stream_plan.hpp"

#include "io/file.hpp"
#include "io/json.hpp"
#include "lolcats/error.hpp"
#include "src/comm/mesh.hpp"
#include "src/memory_plan.hpp"
#include "src/text_table.hpp"

#include <nlohmann/json.hpp>

#include <cmath>

namespace lolcats {
namespace {

constexpr double hour = 3600;
constexpr double checkpoint_bytes = 4 * 4; ///< of a trained parameter: value, two moments and the best so far, copied
/// Measured: the resident size of a program without arrays, less what it has at its start. MPI, HDF5, the products'
/// compiled code and the threads take it, whatever the model.
constexpr double program_bytes = 12e6;
constexpr double tolerance = 0.15;

struct Shape {
    int layers_per_rank;
    int blocks_per_rank;
    int block_layers;
    int pipeline_ranks;
};

double ceil_divide(double a, double b) {
    return std::ceil(a / b);
}

double stream_memory(const Plan& plan, const Options& options, const Shape& shape) {
    const RankMemory arrays = transfer_memory(plan, options, shape.layers_per_rank, shape.blocks_per_rank);
    const double checkpoint = shape.block_layers * layer_map_parameters(plan.model, options) * checkpoint_bytes;
    const double links =
        residual_link_memory(plan, options, {.before = shape.pipeline_ranks > 2, .after = shape.pipeline_ranks > 1});
    return program_bytes + arrays.total() + checkpoint + links;
}

/// Micro-batches of the most loaded pipeline, whose number of sequences in a batch may not be the others'.
double micro_batches_of(const Plan& plan, const Options& options, int data_ranks) {
    const double steps = ceil_divide(plan.tokens * options.epochs / plan.length, options.batch_size);
    return steps * ceil_divide(ceil_divide(options.batch_size, options.micro_batch), data_ranks);
}

StreamPlan plan_stream(const Plan& plan, const Options& options, double micro_batches) {
    const BlockPlan& row = plan.choices[plan.chosen];
    const ModelConfig& m = plan.model;
    StreamPlan stream{};
    stream.ranks = row.ranks;
    stream.pipeline_ranks = row.pipeline_ranks;
    stream.data_ranks = row.ranks / row.pipeline_ranks;
    stream.layers_per_rank = row.layers_per_rank;
    stream.micro_batches = micro_batches;
    const double between = row.pipeline_ranks - 1;
    stream.bubble = between / (micro_batches + between);
    const double token_bytes = m.hidden_size * residual_wire_bytes(options);
    stream.bytes_between_stages = plan.tokens * options.epochs * token_bytes * between;
    stream.memory = stream_memory(plan, options,
                                  {row.layers_per_rank, blocks_of_stage(row.blocks, row.pipeline_ranks, 0).size(),
                                   row.block_layers, row.pipeline_ranks});
    const double tokens = micro_batches * options.micro_batch * plan.length; // of the most loaded pipeline
    stream.compute_hours = tokens * plan.flops_per_token_layer * row.layers_per_rank / plan.flops / hour;
    stream.link_hours = between > 0 ? tokens * token_bytes / options.plan_link / hour : 0;
    const int readers = options.weights == "read" ? stream.data_ranks : 1; // else one reads for all, or all one cache
    stream.load_hours = plan.checkpoint_bytes * readers / plan.bandwidth / hour;
    stream.hours = stream.load_hours + (stream.compute_hours + stream.link_hours) / (1 - stream.bubble);
    return stream;
}

std::string compared(double predicted, double measured, double unit, const char* name) {
    return fmt::format("{:.5g} {} predicted, {:.5g} measured, ratio {:.3f}", predicted / unit, name, measured / unit,
                       predicted / measured);
}

bool is_near(double predicted, double measured) {
    return std::abs(predicted - measured) <= tolerance * measured;
}

} // namespace

MeasuredStream::MeasuredStream(const std::filesystem::path& file) {
    try {
        const auto json = io::parse_json(io::read_file(file), file.string(), "run lolcats_convert again");
        if (json.at("program") != "lolcats_convert")
            fail("{}: is of {}, which does not stream; give the run.json of lolcats_convert", file.string(),
                 json.at("program").get<std::string>());
        json.at("ranks").get_to(ranks);
        json.at("pipeline_ranks").get_to(pipeline_ranks);
        json.at("block_layers").get_to(block_layers);
        json.at("length").get_to(length);
        json.at("micro_batch").get_to(micro_batch);
        json.at("tokens").get_to(tokens);
        json.at("micro_batches").get_to(micro_batches);
        json.at("bytes_sent").get_to(bytes_between_stages);
        json.at("memory").at("largest").get_to(memory);
        json.at("compute_seconds").at("largest").get_to(compute_seconds);
        json.at("seconds").at("largest").get_to(seconds);
    } catch (const nlohmann::json::exception& error) {
        fail("{}: is no report of a run ({}); run lolcats_convert again", file.string(), error.what());
    }
}

Options MeasuredStream::planned_like(Options options) const {
    options.plan_ranks = ranks;
    options.pipeline_ranks = pipeline_ranks;
    options.block_layers = block_layers;
    options.plan_length = length;
    options.micro_batch = micro_batch;
    options.plan_tokens = tokens;
    options.epochs = 1; // all that went by is in `tokens`
    return options;
}

StreamPlan plan_streaming(const Plan& plan, const Options& options) {
    const BlockPlan& row = plan.choices[plan.chosen];
    return plan_stream(plan, options, micro_batches_of(plan, options, row.ranks / row.pipeline_ranks));
}

std::string to_text(const StreamPlan& plan) {
    return "streaming (lolcats_convert), nothing stored\n" +
           line("pipeline x data ranks",
                fmt::format("{} x {}, {} layers a rank", plan.pipeline_ranks, plan.data_ranks, plan.layers_per_rank)) +
           line("micro-batches a pipeline, bubble",
                fmt::format("{:.0f}, {:.2f} %", plan.micro_batches, 100 * plan.bubble)) +
           line("between stages, all links", fmt::format("{:.3f} TB", plan.bytes_between_stages / 1e12)) +
           line("memory, a rank", gigabytes(plan.memory)) +
           line("stages 0 and 1 together",
                fmt::format("{:.3f} h compute + {:.3f} h links, with bubble and {:.3f} h loading: {:.3f} h",
                            plan.compute_hours, plan.link_hours, plan.load_hours, plan.hours));
}

std::string compare_streaming(const ModelConfig& model, const Options& options, const MeasuredStream& measured,
                              bool& agrees) {
    Options same = measured.planned_like(options);
    const Plan shape = make_plan(model, same);
    const double compute = plan_stream(shape, same, measured.micro_batches).compute_hours * hour;
    same.plan_flops *= compute / measured.compute_seconds;
    const StreamPlan plan = plan_stream(make_plan(model, same), same, measured.micro_batches);
    agrees = is_near(plan.bytes_between_stages, measured.bytes_between_stages) && is_near(plan.memory, measured.memory);
    return "streaming, predicted and measured\n" +
           line("FLOP/s a rank, measured", fmt::format("{:.4g} GFLOP/s", same.plan_flops / 1e9)) +
           line("bubble, predicted", fmt::format("{:.2f} %", 100 * plan.bubble)) +
           line("between stages", compared(plan.bytes_between_stages, measured.bytes_between_stages, 1e6, "MB")) +
           line("memory, a rank", compared(plan.memory, measured.memory, 1e6, "MB")) +
           line("time at that speed", compared(plan.hours * hour, measured.seconds, 1, "s"));
}

} // namespace lolcats
