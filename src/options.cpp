#include "lolcats/options.hpp"

#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/config_file.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>
#include <optional>
#include <regex>
#include <type_traits>
#include <variant>

namespace lolcats {
namespace {

using Words = std::vector<std::string>;

/// What a number may be; an open end is itself left out.
struct Bounds {
    double low;
    double high;
    bool low_open = false;
    bool high_open = false;
};

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double largest_int = std::numeric_limits<int>::max();
constexpr Bounds not_negative{0, infinity, false, true};
constexpr Bounds positive{0, infinity, true, true};
constexpr Bounds fraction{0, 1, false, true};
constexpr Bounds any_count{0, largest_int};
constexpr Bounds any_size{1, largest_int};

struct Setting {
    const char* name;
    std::variant<std::string*, Words*, int*, std::uint64_t*, double*, bool*> value;
    const char* group;
    const char* help;
    Words choices = {};     ///< of a text or a list; empty: any
    Bounds bounds = {0, 0}; ///< of an int or a double
};

// The one table of settings, a group a function: order, names, help texts, choices and ranges.

std::vector<Setting> files_settings(Options& o) {
    const auto* files = "Files";
    return {
        {"model", &o.model, files, "Hugging Face directory of the teacher"},
        {"tokens", &o.tokens, files, "HDF5 token store: /tokens int32 [n,T], optional /labels and /distances"},
        {"work", &o.work, files, "directory that receives hidden/, transfer/ and lora/"},
        {"feature-maps", &o.feature_maps, files, "safetensors file or directory of trained feature maps"},
        {"adapter", &o.adapter, files, "PEFT directory of a trained LoRA adapter"},
        {"init-feature-maps", &o.init_feature_maps, files, "feature maps that training starts from"},
        {"init-adapter", &o.init_adapter, files, "adapter that LoRA training starts from"},
        {"dump-gradients", &o.dump_gradients, files, "HDF5 file for the gradients of the first batch's loss"},
        {"save-logits", &o.save_logits, files, "HDF5 file for /logits [n,T,V]"},
        {"done-file", &o.done_file, files, "written at the very end, if all went well and nothing is left to do"},
    };
}

std::vector<Setting> method_settings(Options& o) {
    const auto* method = "Method";
    const Words maps = {"hedgehog", "hedgehog_half", "t2r", "exp_dim", "exp_dim_half", "pos_elu"};
    return {
        {"block-layers",
         &o.block_layers,
         method,
         "k, decoder layers in a block; 0: all of them (joint)",
         {},
         any_count},
        {"window", &o.window, method, "w, width of the softmax window in tokens", {}, {1, 1 << 20}},
        {"attention", &o.attention, method, "attention of the model", {"teacher", "terrace", "sliding", "none"}},
        {"feature-map", &o.feature_map, method, "feature map of the linear attention", maps},
        {"feature-dim", &o.feature_dim, method, "f; 0: half the head dimension (t2r: all of it)", {}, {0, 1 << 16}},
        {"feature-map-init", &o.feature_map_init, method, "start of the feature maps", {"uniform", "identity"}},
        {"tie-feature-maps", &o.tie_feature_maps, method, "one map for queries and keys"},
        {"affine-attention-factors", &o.affine_attention_factors, method,
         "weigh the linear branch by 1 - gamma, not 1"},
        {"recipe",
         &o.recipe,
         method,
         "what settings left open are: the paper's, or those that measured best "
         "(docs/results/2026-11-25-quality-tiny.md)",
         {"paper", "robust"}},
        {"window-dropout",
         &o.window_dropout,
         method,
         "share of training batches without their window, falling to 0 at the end (SSD, arXiv 2510.05901)",
         {},
         {0, 1}},
        {"window-dropout-kind",
         &o.window_dropout_kind,
         method,
         "what such a batch has: no window, or one of a size drawn from 1 to w (ibid.)",
         {"branch", "size"}},
        {"keep-softmax-layers",
         &o.keep_softmax_layers,
         method,
         "so many layers, those of the highest transfer loss, keep softmax attention (LoLCATs' hybrids, arXiv "
         "2410.10254)",
         {},
         any_count},
        {"softmax-layers", &o.softmax_layers, method, "numbers of the layers that do, separated by commas"},
    };
}

std::vector<Setting> numerics_settings(Options& o) {
    const auto* numerics = "Numerics";
    return {
        {"dtype", &o.dtype, numerics, "type of the frozen weights and the residual stream", {"f32", "bf16"}},
        {"hidden-dtype",
         &o.hidden_dtype,
         numerics,
         "type of stored hidden states (auto: dtype)",
         {"auto", "f32", "bf16"}},
        {"gemm",
         &o.gemm,
         numerics,
         "arithmetic of matrix products; auto: exact with f32 weights, else the faster one",
         {"auto", "exact", "f32", "bf16"}},
        {"seed", &o.seed, numerics, "of the shuffling, the initial maps, the dropout and the sampling"},
    };
}

std::vector<Setting> data_settings(Options& o) {
    const auto* data = "Data";
    return {
        {"validation", &o.validation, data, "first sequences held out from training for evaluation", {}, any_count},
        {"sequences", &o.sequences, data, "use only the first so many sequences; 0: all", {}, any_count},
        {"shuffle", &o.shuffle, data, "new order every epoch, from the seed"},
    };
}

std::vector<Setting> training_settings(Options& o) {
    const auto* training = "Training";
    return {
        {"batch-size", &o.batch_size, training, "sequences in an optimiser step, or prompts at once", {}, any_size},
        {"micro-batch", &o.micro_batch, training, "sequences computed at once", {}, any_size},
        {"steps", &o.steps, training, "optimiser steps; 0: epochs over the data", {}, any_count},
        {"epochs", &o.epochs, training, "passes over the data if steps is 0", {}, any_size},
        {"lr", &o.lr, training, "learning rate; 0: 1e-2 for attention transfer, 1e-4 for LoRA", {}, not_negative},
        {"min-lr", &o.min_lr, training, "the plateau schedule goes no lower", {}, not_negative},
        {"beta1", &o.beta1, training, "AdamW's decay of the first moment", {}, fraction},
        {"beta2", &o.beta2, training, "AdamW's decay of the second moment", {}, fraction},
        {"epsilon", &o.epsilon, training, "AdamW's epsilon", {}, positive},
        {"weight-decay", &o.weight_decay, training, "AdamW's decoupled weight decay", {}, not_negative},
        {"clip", &o.clip, training, "2-norm that gradients are clipped to; 0: no clipping", {}, not_negative},
        {"schedule", &o.schedule, training, "of the learning rate", {"plateau", "constant"}},
        {"plateau-factor", &o.plateau_factor, training, "the rate falls by this factor", {}, {0, 1, true, true}},
        {"plateau-patience",
         &o.plateau_patience,
         training,
         "evaluations without improvement before that",
         {},
         any_count},
        {"eval-every", &o.eval_every, training, "optimiser steps between evaluations", {}, any_size},
        {"log-every", &o.log_every, training, "optimiser steps between lines on the console", {}, any_size},
        {"mse-factor",
         &o.mse_factor,
         training,
         "weight of the attention outputs' mean squared error",
         {},
         not_negative},
        {"xent-factor", &o.xent_factor, training, "weight of the attention weights' cross-entropy", {}, not_negative},
        {"far-xent-factor",
         &o.far_xent_factor,
         training,
         "weight of the same among far keys only (Hedgehog's loss, arXiv 2402.04347, where the maps are used)",
         {},
         not_negative},
        {"layer-loss",
         &o.layer_loss,
         training,
         "a layer's squared error as it is, or over its teacher's mean square (FitNets' hints, arXiv 1412.6550, made "
         "equal)",
         {"plain", "normalized"}},
    };
}

std::vector<Setting> lora_settings(Options& o) {
    const auto* lora = "LoRA";
    const Words projections = {"q_proj", "k_proj", "v_proj", "o_proj"};
    return {
        {"lora-rank", &o.lora_rank, lora, "r", {}, {1, 1 << 16}},
        {"lora-alpha", &o.lora_alpha, lora, "the adapter is scaled by alpha / r", {}, positive},
        {"lora-dropout", &o.lora_dropout, lora, "dropout before the adapter", {}, fraction},
        {"lora-modules", &o.lora_modules, lora, "projections that get an adapter, separated by commas", projections},
        {"train-feature-maps", &o.train_feature_maps, lora, "LoRA training also trains maps and mixing factors"},
        {"kl-factor",
         &o.kl_factor,
         lora,
         "weight of the divergence from the teacher's distribution beside the loss (distillation, arXiv 1503.02531)",
         {},
         not_negative},
    };
}

std::vector<Setting> evaluation_settings(Options& o) {
    const auto* evaluation = "Evaluation";
    return {
        {"branch",
         &o.branch,
         evaluation,
         "what of the student's attention counts; linear: the window only where nothing is far; window+sinks: and the "
         "first keys (StreamingLLM, arXiv 2309.17453)",
         {"both", "window", "linear", "window+sinks"}},
        {"sinks", &o.sinks, evaluation, "first keys that window+sinks keeps near", {}, any_size},
        {"attention-mass", &o.attention_mass, evaluation, "report the share of attention on far keys, by layer"},
    };
}

std::vector<Setting> restart_settings(Options& o) {
    const auto* restart = "Restart";
    return {
        {"checkpoint-every",
         &o.checkpoint_every,
         restart,
         "steps between checkpoints, by default more where they are dear; 0: only when told to stop",
         {},
         any_count},
        {"keep-checkpoints", &o.keep_checkpoints, restart, "newest checkpoints that are kept", {}, any_size},
        {"wall-time", &o.wall_time, restart, "SECONDS or [D-]HH:MM:SS after which the run stops with status 85"},
        {"fresh", &o.fresh, restart, "start anew, whatever earlier runs finished or left"},
        {"verify", &o.verify, restart, "lolcats_hidden checks what is stored and computes damaged sequences again"},
        {"take-over", &o.take_over, restart, "the last attempt on the work directory is known to be dead"},
        {"stale-after",
         &o.stale_after,
         restart,
         "seconds without a sign of life after which it counts as dead",
         {},
         {3, infinity, false, true}},
    };
}

std::vector<Setting> generation_settings(Options& o) {
    const auto* generation = "Generation";
    return {
        {"prompts", &o.prompts, generation, "JSON lines {\"tokens\": [...]}, or an HDF5 token store"},
        {"max-new-tokens", &o.max_new_tokens, generation, "tokens generated for a prompt at most", {}, any_size},
        {"temperature", &o.temperature, generation, "of the sampling; 0: the most likely token", {}, not_negative},
        {"top-p",
         &o.top_p,
         generation,
         "sample among the most likely tokens that hold this much probability",
         {},
         {0, 1, true}},
        {"top-k", &o.top_k, generation, "sample among so many most likely tokens; 0: all", {}, any_count},
        {"stop-token", &o.stop_tokens, generation,
         "token ids that end a text, separated by commas, or none; by default the model's eos_token_id"},
        {"save-state", &o.save_state, generation, "HDF5 file for the states that the texts end in"},
        {"load-state", &o.load_state, generation, "such a file; each prompt goes on from its state"},
    };
}

std::vector<Setting> machine_settings(Options& o) {
    const auto* machine = "Machine";
    return {
        {"pipeline-ranks",
         &o.pipeline_ranks,
         machine,
         "ranks the layers are spread over; 0: as many as fit",
         {},
         any_count},
        {"communication",
         &o.communication,
         machine,
         "what carries arrays between ranks; auto: NCCL between GPUs, else MPI",
         {"auto", "nccl", "mpi"}},
        {"communication-timeout",
         &o.communication_timeout,
         machine,
         "seconds that a rank waits for another's array before the run ends",
         {},
         positive},
        {"weights",
         &o.weights,
         machine,
         "replicas of a stage each read its weights, or one of them broadcasts; auto: by the machine",
         {"auto", "read", "broadcast"}},
    };
}

std::vector<Setting> plan_settings(Options& o) {
    const auto* plan = "lolcats_plan";
    return {
        {"plan-check", &o.plan_check, plan, "count --tokens, and fail where memory or the disk of --work will not do"},
        {"plan-tokens", &o.plan_tokens, plan, "training tokens", {}, positive},
        {"plan-length", &o.plan_length, plan, "tokens in a sequence, T", {}, any_size},
        {"plan-ranks", &o.plan_ranks, plan, "ranks of the run; 0: one a block", {}, any_count},
        {"plan-memory", &o.plan_memory, plan, "bytes of memory a rank has", {}, positive},
        {"plan-flops", &o.plan_flops, plan, "sustained FLOP/s of a rank", {}, positive},
        {"plan-bandwidth", &o.plan_bandwidth, plan, "file-system bytes/s, all ranks together", {}, positive},
        {"plan-link", &o.plan_link, plan, "bytes/s from a rank to the next, for lolcats_convert", {}, positive},
        {"plan-measured", &o.plan_measured, plan, "run.json of lolcats_convert: how well the plan foretells that run"},
    };
}

std::vector<Setting> settings_of(Options& o) {
    std::vector<Setting> all;
    for (const auto group :
         {files_settings, method_settings, numerics_settings, data_settings, training_settings, lora_settings,
          evaluation_settings, restart_settings, generation_settings, machine_settings, plan_settings})
        for (Setting& setting : group(o)) all.push_back(std::move(setting));
    return all;
}

template <class... Visitors>
struct Overloaded : Visitors... {
    using Visitors::operator()...;
};

std::string join(const Words& words, const char* separator = ", ") {
    return fmt::format("{}", fmt::join(words, separator));
}

std::string describe(const Bounds& bounds) {
    const std::string low = fmt::format("{} {:.10g}", bounds.low_open ? "greater than" : "at least", bounds.low);
    if (!std::isfinite(bounds.high)) return low;
    return fmt::format("{} and {} {:.10g}", low, bounds.high_open ? "less than" : "at most", bounds.high);
}

bool holds(const Bounds& bounds, double x) {
    const bool above = bounds.low_open ? x > bounds.low : x >= bounds.low;
    const bool below = bounds.high_open ? x < bounds.high : x <= bounds.high;
    return above && below; // NaN is neither
}

/// The whole of `text` as a number, or nothing.
template <class Number>
std::optional<Number> parse_number(const std::string& text) {
    const bool has_plus = text.size() > 1 && text[0] == '+' && text[1] != '-';
    Number number{};
    const char* begin = text.data() + (has_plus ? 1 : 0);
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, number);
    if (error != std::errc{} || stop != end || begin == end) return std::nullopt;
    return number;
}

bool parse_flag(const std::string& where, const std::string& text) {
    for (const char* yes : {"true", "on", "yes", "1"}) {
        if (text == yes) return true;
    }
    for (const char* no : {"false", "off", "no", "0"}) {
        if (text == no) return false;
    }
    fail("{}: '{}' is neither true nor false", where, text);
}

void check_choice(const std::string& where, const Words& choices, const std::string& text) {
    if (choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end()) return;
    fail("{}: '{}' is not one of {}", where, text, join(choices));
}

/// "a,b" and repeated values both make a list.
Words parse_list(const std::string& where, const Words& choices, const Words& texts) {
    Words list;
    for (const std::string& text : texts) {
        for (const std::string& item : CLI::detail::split(text, ',')) {
            check_choice(where, choices, item);
            if (std::find(list.begin(), list.end(), item) == list.end()) list.push_back(item);
        }
    }
    if (list.empty())
        fail("{}: the list is empty: name at least one{}", where, choices.empty() ? "" : " of " + join(choices));
    return list;
}

/// Sets one setting from its texts. `where` begins the message of an error: the option, or the file and its key.
void assign(const Setting& setting, const std::string& where, const Words& texts) {
    const std::string text = texts.empty() ? "" : texts.back();
    std::visit(Overloaded{
                   [&](std::string* value) {
                       check_choice(where, setting.choices, text);
                       *value = text;
                   },
                   [&](Words* value) { *value = parse_list(where, setting.choices, texts); },
                   [&](bool* value) { *value = parse_flag(where, text); },
                   [&](std::uint64_t* value) {
                       const auto number = parse_number<std::uint64_t>(text);
                       if (!number) fail("{}: '{}' is not an integer from 0 to 2^64 - 1", where, text);
                       *value = *number;
                   },
                   [&](int* value) {
                       const auto number = parse_number<int>(text);
                       if (!number || !holds(setting.bounds, *number)) {
                           fail("{}: '{}' is not an integer {}", where, text, describe(setting.bounds));
                       }
                       *value = *number;
                   },
                   [&](double* value) {
                       const auto number = parse_number<double>(text);
                       if (!number || !std::isfinite(*number) || !holds(setting.bounds, *number)) {
                           fail("{}: '{}' is not a number {}", where, text, describe(setting.bounds));
                       }
                       *value = *number;
                   },
               },
               setting.value);
}

int edit_distance(const std::string& a, const std::string& b) {
    std::vector<int> row(b.size() + 1);
    std::iota(row.begin(), row.end(), 0);
    for (std::size_t i = 1; i <= a.size(); ++i) {
        int diagonal = row[0];
        row[0] = static_cast<int>(i);
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const int replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row.back();
}

/// " did you mean 'PREFIXname'?" if one of the known names is near, else how to list them.
std::string advice(const std::string& name, Words known, const std::string& prefix) {
    const auto nearer = [&](const std::string& a, const std::string& b) {
        return edit_distance(name, a) < edit_distance(name, b);
    };
    const std::string best = *std::min_element(known.begin(), known.end(), nearer);
    const int near_enough = std::max(2, static_cast<int>(name.size()) / 2);
    if (edit_distance(name, best) > near_enough) return "see --help for those that exist";
    return fmt::format("did you mean '{}{}'?", prefix, best);
}

Words names_of(const std::vector<Setting>& settings) {
    Words names;
    for (const Setting& setting : settings) names.emplace_back(setting.name);
    return names;
}

const Setting* find(const std::vector<Setting>& settings, const std::string& name) {
    const auto has_name = [&](const Setting& setting) { return name == setting.name; };
    const auto found = std::find_if(settings.begin(), settings.end(), has_name);
    return found == settings.end() ? nullptr : &*found;
}

void apply_file(const std::filesystem::path& path, const std::vector<Setting>& settings, std::set<std::string>& given) {
    for (const ConfigEntry& entry : read_config_file(path)) {
        std::string name = entry.key;
        std::replace(name.begin(), name.end(), '_', '-');
        const Setting* setting = find(settings, name);
        if (setting == nullptr) {
            fail("unknown key '{}' in {}; {}", entry.key, path.string(), advice(name, names_of(settings), ""));
        }
        const std::string where = fmt::format("{}, line {}: {}", path.string(), entry.line, name);
        if (entry.is_array && !std::holds_alternative<Words*>(setting->value)) {
            fail("{} takes one value, not an array", where);
        }
        if (!given.insert(setting->name).second) fail("{} is set twice: keep one", where);
        assign(*setting, where, entry.values);
    }
}

std::string type_name(const Setting& setting) {
    if (!setting.choices.empty()) return "{" + join(setting.choices, ",") + "}";
    return std::visit(Overloaded{[](const std::string*) { return "TEXT"; }, [](const Words*) { return "LIST"; },
                                 [](const int*) { return "INT"; }, [](const std::uint64_t*) { return "INT"; },
                                 [](const double*) { return "NUMBER"; }, [](const bool*) { return ""; }},
                      setting.value);
}

nlohmann::ordered_json value_of(const Setting& setting) {
    return std::visit([](const auto* value) { return nlohmann::ordered_json(*value); }, setting.value);
}

std::string text_of(const Setting& setting) {
    return std::visit(Overloaded{[](const std::string* value) { return *value; },
                                 [](const Words* value) { return join(*value, ","); },
                                 [](const bool* value) -> std::string { return *value ? "true" : "false"; },
                                 [](const auto* value) { return fmt::format("{}", *value); }},
                      setting.value);
}

/// What the command line says, before any of it is checked or applied.
struct CommandLine {
    std::string config;
    bool version = false;
    std::vector<std::pair<const Setting*, Words>> values;
};

void add_setting(CLI::App& app, const Setting& setting, CommandLine& line) {
    const auto keep = [&setting, &line](const CLI::results_t& texts) {
        line.values.emplace_back(&setting, texts);
        return true;
    };
    CLI::Option* option = app.add_option(std::string("--") + setting.name, keep, setting.help);
    option->group(setting.group);
    if (std::holds_alternative<bool*>(setting.value)) {
        option->expected(0)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
        return;
    }
    const bool is_list = std::holds_alternative<Words*>(setting.value);
    option->expected(1)->type_name(type_name(setting))->default_str(text_of(setting));
    option->multi_option_policy(is_list ? CLI::MultiOptionPolicy::TakeAll : CLI::MultiOptionPolicy::TakeLast);
}

void refuse_extras(const Words& extras, const std::vector<Setting>& settings) {
    if (extras.empty()) return;
    const std::string& first = extras.front();
    if (!first.starts_with("--")) {
        fail("unexpected argument '{}': write settings as --name=value; see --help", first);
    }
    Words known = names_of(settings);
    known.insert(known.end(), {"config", "help", "version"});
    const std::string name = first.substr(2, first.find('=') - 2);
    fail("unknown option '--{}'; {}", name, advice(name, known, "--"));
}

/// CLI11 takes an option for the value of the one before it if that has none.
void refuse_missing_values(const CommandLine& line) {
    const auto check = [](const std::string& name, const std::string& text) {
        if (text.starts_with("--")) fail("--{}: a value is missing before '{}'", name, text);
    };
    check("config", line.config);
    for (const auto& [setting, texts] : line.values) {
        for (const std::string& text : texts) check(setting->name, text);
    }
}

/// The arguments as CLI11 wants them, last first. It would take what follows `--name=` for the value that is empty.
Words reversed_arguments(int argc, const char* const* argv) {
    Words arguments;
    for (int i = argc - 1; i > 0; --i) {
        const std::string argument = argv[i];
        const bool is_empty = argument.starts_with("--") && argument.find('=') == argument.size() - 1;
        if (is_empty) arguments.emplace_back();
        arguments.push_back(is_empty ? argument.substr(0, argument.size() - 1) : argument);
    }
    return arguments;
}

/// False if `text` now holds what --help or --version prints.
bool read_command_line(int argc, const char* const* argv, const std::string& purpose, const std::string& program,
                       const std::vector<Setting>& settings, CommandLine& line, std::string& text) {
    CLI::App app(purpose, program);
    app.allow_extras();
    app.get_formatter()->column_width(36);
    app.set_help_flag("-h,--help", "print this help and exit");
    app.add_flag("--version", line.version, "print the version and exit");
    app.add_option("--config", line.config, "TOML file of settings; ./lolcats.toml is read if it exists")
        ->type_name("FILE");
    for (const Setting& setting : settings) add_setting(app, setting, line);
    app.footer("The command line overrides the file, whose keys are the same names without dashes in front.");
    try {
        app.parse(reversed_arguments(argc, argv));
    } catch (const CLI::CallForHelp&) {
        text = app.help();
        return false;
    } catch (const CLI::ParseError& error) {
        fail("{}; see --help", error.what());
    }
    if (line.version) {
        text = fmt::format("{} {} ({})\n", program, version_string(), git_hash());
        return false;
    }
    refuse_missing_values(line);
    refuse_extras(app.remaining(), settings);
    return true;
}

std::filesystem::path config_path(const CommandLine& line) {
    if (line.config.empty()) return std::filesystem::exists("lolcats.toml") ? "lolcats.toml" : "";
    if (!std::filesystem::exists(line.config)) {
        fail("{}: this configuration file does not exist: correct --config, or leave it out", line.config);
    }
    return line.config;
}

/// "D-HH:MM:SS", "HH:MM:SS" or a number of seconds.
std::optional<double> parse_duration(const std::string& text) {
    static const std::regex clock(R"((?:(\d{1,4})-)?(\d{1,4}):([0-5]\d):([0-5]\d))");
    std::smatch part;
    if (!std::regex_match(text, part, clock)) return parse_number<double>(text);
    const auto number = [&](int i) { return part[i].matched ? std::stod(part[i]) : 0.0; };
    return ((number(1) * 24 + number(2)) * 60 + number(3)) * 60 + number(4);
}

/// What measured best on the tiny teacher (docs/results/2026-11-25-quality-tiny.md), where the user left it open.
void apply_recipe(Options& options) {
    if (options.recipe != "robust") return;
    const auto settle = [&](const char* name, auto& value, const auto& measured) {
        if (!options.is_given(name)) value = measured;
    };
    settle("far-xent-factor", options.far_xent_factor, 1.0);
    settle("kl-factor", options.kl_factor, 1.0);
}

void refuse_contradictions(const Options& options) {
    static_cast<void>(wall_seconds(options));
    if (options.fresh && options.verify)
        fail("--verify checks what earlier runs stored and --fresh ignores it: give one of them");
}

} // namespace

double wall_seconds(const Options& options) {
    if (options.wall_time.empty()) return infinity;
    const auto seconds = parse_duration(options.wall_time);
    if (!seconds || !std::isfinite(*seconds) || *seconds <= 0)
        fail("--wall-time: '{}' is no time: give seconds, HH:MM:SS or D-HH:MM:SS", options.wall_time);
    return *seconds;
}

bool parse_options(int argc, const char* const* argv, const std::string& program, const std::string& purpose,
                   Options& options, std::string& text) {
    options = Options{};
    const std::vector<Setting> settings = settings_of(options);
    CommandLine line;
    if (!read_command_line(argc, argv, purpose, program, settings, line, text)) return false;
    const std::filesystem::path path = config_path(line);
    if (!path.empty()) apply_file(path, settings, options.given);
    for (const auto& [setting, texts] : line.values) {
        assign(*setting, std::string("--") + setting->name, texts);
        options.given.insert(setting->name);
    }
    apply_recipe(options);
    refuse_contradictions(options);
    return true;
}

nlohmann::ordered_json to_json(const Options& options) {
    Options copy = options; // the table points into what it describes
    nlohmann::ordered_json json;
    for (const Setting& setting : settings_of(copy)) json[setting.name] = value_of(setting);
    return json;
}

std::string to_table(const Options& options) {
    Options copy = options;
    const std::vector<Setting> settings = settings_of(copy);
    std::size_t width = 0;
    for (const Setting& setting : settings) width = std::max(width, std::string(setting.name).size());
    std::string table;
    const char* group = "";
    for (const Setting& setting : settings) {
        if (group != setting.group) table += fmt::format("{}\n", setting.group);
        group = setting.group;
        const char mark = options.is_given(setting.name) ? '*' : ' ';
        table += fmt::format("{} {:<{}}  {}\n", mark, setting.name, width, text_of(setting));
    }
    return table;
}

} // namespace lolcats
