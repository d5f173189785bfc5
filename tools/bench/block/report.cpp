#include "tools/bench/block/report.hpp"

#include "src/text_table.hpp"

#include <algorithm>

namespace lolcats::bench {

namespace {

constexpr double hour = 3600;

double tokens(const Settings& s) {
    return static_cast<double>(s.options.batch_size) * s.length();
}

/// Model FLOP of a step as lolcats_plan counts them: matrix products only.
double plan_flops(const Settings& s, const Plan& plan, const Figures& f) {
    return f.passes * plan.flops_per_token_layer * s.layers * tokens(s);
}

double product_flops(const Figures& f) {
    return f.work.at("weight_products").flops;
}

double sum_of_split(const Figures& f) {
    double sum = 0;
    for (const auto& [name, entry] : f.times) sum += entry.seconds;
    return sum;
}

double predicted_bytes(const Figures& f) {
    double sum = 0;
    for (const auto& [what, bytes] : f.predicted) sum += bytes;
    return sum;
}

std::string number(double x, int digits) {
    return fmt::format("{:.{}f}", x, digits);
}

/// Four digits that count, at any size.
std::string digits(double x) {
    return fmt::format("{:.4g}", x);
}

std::string share(double part, double whole) {
    return number(100 * part / whole, 1) + " %";
}

std::string shape_text(const Settings& s) {
    const ModelConfig& m = s.model;
    return line("shape",
                fmt::format("{} of {} layers, D {}, H {}, H_kv {}, d {}, F {}, V {}", s.layers, m.layers, m.hidden_size,
                            m.heads, m.kv_heads, m.head_dim, m.intermediate_size, m.vocab_size)) +
           line("sequences", fmt::format("T {}, {} a step, {} at once; w {}, {}", s.length(), s.options.batch_size,
                                         s.options.micro_batch, s.options.window, s.options.attention));
}

std::string peaks_text(const Figures& f) {
    std::string text;
    for (const ProductRate& p : f.peaks.products) {
        std::string rate = fmt::format("{} x {} x {}: {:.4g} TFLOP/s", p.m, p.n, p.k, p.flops * 1e-12);
        if (p.first_flops < p.flops) rate += fmt::format(", {:.4g} by the first algorithm", p.first_flops * 1e-12);
        text += line("product " + p.name, rate);
    }
    return text + line("peak of products", fmt::format("{:.4g} TFLOP/s", f.peaks.flops * 1e-12)) +
           line("copy", fmt::format("{:.4g} GB/s, read and written", f.peaks.copy * 1e-9));
}

std::string speed_text(const Settings& s, const Plan& plan, const Figures& f) {
    const double performed = product_flops(f);
    std::string text =
        line("step", fmt::format("{:.4f} s, {} micro-batches", f.seconds, s.micro_batches())) +
        line("tokens", fmt::format("{:.1f} /s", tokens(s) / f.seconds)) +
        line("products", fmt::format("{:.4g} GFLOP a token in these layers ({:.4g} by lolcats_plan)",
                                     performed / tokens(s) * 1e-9, plan_flops(s, plan, f) / tokens(s) * 1e-9)) +
        line("of the peak of products",
             fmt::format("{} ({:.4g} TFLOP/s of products over the whole step)",
                         share(performed / f.seconds, f.peaks.flops), performed / f.seconds * 1e-12));
    const Projection p = project(s, f);
    if (f.head_seconds > 0)
        text += line("LM head and loss, a micro-batch", fmt::format("{:.4f} s, on the last stage", f.head_seconds));
    return text +
           line("projected, " + std::to_string(s.stages()) + " GPUs",
                fmt::format("{:.1f} tokens/s, {:.1f} a GPU, bubble {:.1f} %; {:.3f} h for {:.4g} M tokens",
                            p.per_gpu * s.stages(), p.per_gpu, 100 * p.bubble, p.hours, s.options.plan_tokens / 1e6));
}

std::string classes_text(const Figures& f) {
    std::map<std::string, double> classes;
    for (const auto& [name, entry] : f.times) classes[class_of(name)] += entry.seconds;
    std::vector<std::pair<std::string, double>> order(classes.begin(), classes.end());
    std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
    TableRows rows = {{"class", "s a step", "share"}};
    for (const auto& [name, time] : order) rows.push_back({name, number(time, 4), share(time, sum_of_split(f))});
    rows.push_back({"sum", number(sum_of_split(f), 4), ""});
    rows.push_back({"step in this mode", number(f.split_seconds, 4), ""});
    rows.push_back({"step with nothing timed inside", number(f.seconds, 4), ""});
    return aligned(rows);
}

/// The time that the faster of the two limits would allow, over the time taken.
double of_limit(const Figures& f, const Work& work, double time) {
    return std::max(work.flops / f.peaks.flops, work.bytes / f.peaks.copy) / time;
}

std::string roofline_text(const Figures& f) {
    TableRows rows = {{"kernel", "calls", "s a step", "TFLOP", "GB", "TFLOP/s", "GB/s", "limited by", "of the limit"}};
    std::vector<std::pair<std::string, KernelTimes::Entry>> order(f.times.begin(), f.times.end());
    std::sort(order.begin(), order.end(),
              [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
    for (const auto& [name, entry] : order) {
        std::vector<std::string> row = {name, std::to_string(entry.calls), number(entry.seconds, 5)};
        if (const auto found = f.work.find(name); found != f.work.end()) {
            const Work& work = found->second;
            const bool by_products = work.flops / f.peaks.flops > work.bytes / f.peaks.copy;
            row.insert(row.end(),
                       {digits(work.flops * 1e-12), digits(work.bytes * 1e-9),
                        digits(work.flops / entry.seconds * 1e-12), digits(work.bytes / entry.seconds * 1e-9),
                        by_products ? "products" : "memory", share(of_limit(f, work, entry.seconds), 1)});
        } else {
            row.resize(rows.front().size());
        }
        rows.push_back(row);
    }
    return aligned(rows);
}

std::string memory_text(const Figures& f) {
    std::string text;
    for (const auto& [what, bytes] : f.predicted)
        if (bytes > 0) text += line("predicted, " + what, digits(bytes / 1e9) + " GB");
    text += line("predicted, all", fmt::format("{:.4g} GB", predicted_bytes(f) / 1e9));
    text += line("arrays, measured at most", fmt::format("{:.4g} GB: {} of what was predicted", f.array_bytes / 1e9,
                                                         share(f.array_bytes, predicted_bytes(f))));
    if (f.processor_bytes > 0)
        text +=
            line("in use on the GPU",
                 fmt::format("{:.4g} GB, {:.4g} GB of them for the block: {} of what was predicted",
                             f.processor_bytes / 1e9, f.block_bytes / 1e9, share(f.block_bytes, predicted_bytes(f))));
    return text;
}

} // namespace

Projection project(const Settings& s, const Figures& f) {
    const double micro = s.micro_batches();
    const double between = s.stages() - 1;
    // The slowest stage, which has the head, sets the pace; activations and their gradients are sent after it computed.
    const double sends = f.passes > 1 ? 2 : 1;
    const double number = f.passes > 1 ? sizeof(float) : residual_wire_bytes(s.options);
    const double sent = sends * number * s.options.micro_batch * s.length() * s.model.hidden_size;
    const double link = between > 0 ? sent / s.options.plan_link : 0;
    const double pace = (f.seconds - f.optimizer_seconds) / micro + f.head_seconds + link;
    // Attention transfer never turns back: its pipeline fills once for the whole run. LoRA's fills for every step.
    const double steps_filled = f.passes > 1 ? 1 : s.options.plan_tokens / tokens(s);
    const double bubble = between / (micro * steps_filled + between);
    const double rate = tokens(s) * (1 - bubble) / (micro * pace + f.optimizer_seconds * (1 - bubble));
    return {.tokens_per_second = tokens(s) / f.seconds,
            .bubble = bubble,
            .per_gpu = rate / s.stages(),
            .hours = s.options.plan_tokens / rate / hour};
}

std::string to_text(const Settings& s, const Plan& plan, const Figures& f) {
    return line("machine", f.machine) + line("arithmetic", f.arithmetic) + line("stage", s.stage) + shape_text(s) +
           "\n" + peaks_text(f) + "\n" + memory_text(f) + "\n" + speed_text(s, plan, f) + "\n" + classes_text(f) +
           "\n" + roofline_text(f);
}

nlohmann::ordered_json to_json(const Settings& s, const Plan& plan, const Figures& f) {
    const Projection p = project(s, f);
    nlohmann::ordered_json json = {{"machine", f.machine},
                                   {"arithmetic", f.arithmetic},
                                   {"stage", s.stage},
                                   {"layers", s.layers},
                                   {"stages", s.stages()},
                                   {"tokens_a_step", tokens(s)},
                                   {"seconds_a_step", f.seconds},
                                   {"split_seconds_a_step", f.split_seconds},
                                   {"head_seconds", f.head_seconds},
                                   {"optimizer_seconds", f.optimizer_seconds},
                                   {"tokens_per_second", p.tokens_per_second},
                                   {"projected_tokens_per_second_per_gpu", p.per_gpu},
                                   {"bubble", p.bubble},
                                   {"projected_hours", p.hours},
                                   {"product_flops_per_token", product_flops(f) / tokens(s)},
                                   {"plan_flops_per_token", plan_flops(s, plan, f) / tokens(s)},
                                   {"peak_flops", f.peaks.flops},
                                   {"copy_bytes_per_second", f.peaks.copy},
                                   {"fraction_of_peak", product_flops(f) / f.seconds / f.peaks.flops},
                                   {"predicted_bytes", predicted_bytes(f)},
                                   {"array_bytes", f.array_bytes},
                                   {"processor_bytes", f.processor_bytes},
                                   {"block_bytes", f.block_bytes}};
    for (const auto& [name, entry] : f.times) {
        nlohmann::ordered_json kernel = {{"class", class_of(name)}, {"calls", entry.calls}, {"seconds", entry.seconds}};
        if (const auto found = f.work.find(name); found != f.work.end()) {
            kernel["flops"] = found->second.flops;
            kernel["bytes"] = found->second.bytes;
        }
        json["kernels"][name] = kernel;
    }
    return json;
}

} // namespace lolcats::bench
