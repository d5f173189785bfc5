#include "src/model/students.hpp"

#include "kernels/random.hpp"
#include "lolcats/error.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace lolcats {

namespace {

constexpr float initial_window_factor = -2.1972245773362196F; // sigmoid of it is 0.1

std::string student_name(int layer, const std::string& what) {
    return fmt::format("model.layers.{}.self_attn.{}", layer, what);
}

std::vector<std::filesystem::path> safetensors_in(const std::filesystem::path& path) {
    namespace fs = std::filesystem;
    if (!fs::exists(path))
        fail("{}: no such file or directory; give trained feature maps or run lolcats_block", path.string());
    if (!fs::is_directory(path)) return {path};
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(path))
        if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
    std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) { // block_99 before block_100
        const std::string x = a.filename(), y = b.filename();
        return std::pair(x.size(), x) < std::pair(y.size(), y);
    });
    if (files.empty()) fail("{}: holds no .safetensors file; run lolcats_block first", path.string());
    return files;
}

bool is_map(const std::string& name) {
    return name.ends_with("feature_map_q.mlp.layer");
}

/// What the files say of an option, else its `value`; an Error where the user set it to something else.
std::string settled(const Options& options, const FeatureMapFiles* files, const std::string& option,
                    const std::string& value) {
    const std::string stored = files == nullptr ? "" : files->metadata(option);
    if (stored.empty() || stored == value) return value;
    if (options.is_given(option))
        fail("{}: the feature maps were trained with --{} {}, not {}; drop the option or give other maps",
             files->path(), option, stored, value);
    return stored;
}

int window_length(const std::string& text, const FeatureMapFiles* files) {
    int window = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), window);
    if (error != std::errc() || end != text.data() + text.size() || window < 1)
        fail("{}: '{}' is no window; give --window", files == nullptr ? "--window" : files->path(), text);
    return window;
}

} // namespace

FeatureMapFiles::FeatureMapFiles(const std::filesystem::path& path) : path_(path.string()) {
    for (const auto& file : safetensors_in(path)) files_.emplace_back(file);
    std::map<std::string, std::string> seen;
    for (const auto& file : files_)
        for (const auto& [name, info] : file.tensors())
            if (!seen.emplace(name, file.path().string()).second)
                fail("{}: tensor '{}' is in {} too; remove the file that is left from another run",
                     file.path().string(), name, seen.at(name));
    require_one_form();
}

std::vector<std::filesystem::path> FeatureMapFiles::files() const {
    std::vector<std::filesystem::path> paths;
    for (const auto& file : files_) paths.push_back(file.path());
    return paths;
}

/// Blocks are trained apart, but a student has one form, and is of one model.
void FeatureMapFiles::require_one_form() const {
    for (const auto& file : files_)
        for (const auto& [key, value] : file.metadata()) {
            if (key == "run_deck" || key == "settings") continue;
            const std::string first = metadata(key);
            if (value != first)
                fail("{}: was trained with {} {}, but another file in {} with {}; run lolcats_block again",
                     file.path().string(), key, value, path_, first);
        }
}

std::string FeatureMapFiles::metadata(const std::string& key) const {
    for (const auto& file : files_)
        if (const auto found = file.metadata().find(key); found != file.metadata().end()) return found->second;
    return "";
}

int FeatureMapFiles::feature_dim() const {
    for (const auto& file : files_)
        for (const auto& [name, info] : file.tensors())
            if (is_map(name) && info.shape.size() == 3) return static_cast<int>(info.shape[2]);
    fail("{}: holds no tensor model.layers.*.self_attn.feature_map_q.mlp.layer [H, d, f]; give files that "
         "lolcats_block or the reference wrote",
         path_);
}

bool FeatureMapFiles::contains(const std::string& name) const {
    return std::any_of(files_.begin(), files_.end(), [&](const auto& file) { return file.contains(name); });
}

void FeatureMapFiles::read(const std::string& name, const io::Shape& shape, float* out) const {
    for (const auto& file : files_) {
        if (!file.contains(name)) continue;
        file.read(name, shape, out);
        if (!io::all_finite(out, static_cast<std::size_t>(io::element_count(shape, name))))
            fail("{}: tensor '{}' holds values that are not finite; train it again", file.path().string(), name);
        return;
    }
    fail("{}: tensor '{}' is missing; give feature maps for every layer (one file a block, or all in one)", path_,
         name);
}

bool are_maps_tied(const Options& options, const FeatureMapFiles* files) {
    return settled(options, files, "tie-feature-maps", options.tie_feature_maps ? "true" : "false") == "true";
}

StudentForm student_form(const Options& options, const ModelConfig& config, const FeatureMapFiles* files) {
    const auto settle = [&](const std::string& option, const std::string& value) {
        return settled(options, files, option, value);
    };
    StudentForm form{};
    // A window or near set other than the one trained with is a fair experiment; another map is not the same weights.
    const auto prefer = [&](const std::string& option, const std::string& value) {
        return options.is_given(option) ? value : settle(option, value);
    };
    form.near = near_keys(prefer("attention", options.attention));
    form.window = window_length(prefer("window", std::to_string(options.window)), files);
    form.map = feature_map_kind(settle("feature-map", options.feature_map));
    form.affine = settle("affine-attention-factors", options.affine_attention_factors ? "true" : "false") == "true";
    form.feature_dim = options.feature_dim > 0 ? options.feature_dim : usual_feature_dim(form.map, config.head_dim);
    if (files != nullptr) {
        const int stored = files->feature_dim();
        if (options.feature_dim > 0 && stored != options.feature_dim)
            fail("{}: the feature maps have f = {}, not --feature-dim {}; drop the option or give other maps",
                 files->path(), stored, options.feature_dim);
        form.feature_dim = stored;
    }
    if (is_square(form.map) && form.feature_dim != config.head_dim)
        fail("--feature-dim {}: {} maps are square; leave it out or give the head dimension, {}", form.feature_dim,
             feature_map_name(form.map), config.head_dim);
    return form;
}

Options with_form(Options options, const StudentForm& form, bool tied) {
    options.attention = near_keys_name(form.near);
    options.window = form.window;
    options.feature_map = feature_map_name(form.map);
    options.feature_dim = form.feature_dim;
    options.affine_attention_factors = form.affine;
    options.tie_feature_maps = tied;
    return options;
}

std::map<std::string, std::string> form_metadata(const StudentForm& form, bool tied) {
    return {{"format", "pt"},
            {"attention", near_keys_name(form.near)},
            {"window", std::to_string(form.window)},
            {"feature-map", feature_map_name(form.map)},
            {"feature-dim", std::to_string(form.feature_dim)},
            {"tie-feature-maps", tied ? "true" : "false"},
            {"affine-attention-factors", form.affine ? "true" : "false"}};
}

Students::Students(const ModelConfig& config, const StudentForm& form, Range layers, bool tied,
                   ParameterSet& parameters)
    : config_(config), form_(form), layers_(layers), set_(parameters), no_parameter_("no_parameter", config.heads) {
    const io::Shape map_shape{config.heads, config.head_dim, form.feature_dim};
    const io::Shape head_shape{1, config.heads, 1, 1};
    for (int layer = layers.begin; layer < layers.end; ++layer) {
        const auto add = [&](const std::string& what, const io::Shape& shape) {
            return parameters.add(student_name(layer, what), shape);
        };
        Indices indices{};
        indices.q_map = add("feature_map_q.mlp.layer", map_shape);
        indices.k_map = tied ? indices.q_map : add("feature_map_k.mlp.layer", map_shape);
        indices.q_bias = has_bias(form.map) ? add("feature_map_q.mlp.bias", head_shape) : -1;
        indices.k_bias = tied || !has_bias(form.map) ? indices.q_bias : add("feature_map_k.mlp.bias", head_shape);
        indices.window_factors = form.near == NearKeys::none ? -1 : add("window_factors", head_shape);
        indices_.push_back(indices);
    }
}

void Students::initialize(const std::string& kind, std::uint64_t seed) const {
    const int d = config_.head_dim;
    const int f = form_.feature_dim;
    const double map_bound = std::sqrt(6.0 / (static_cast<double>(d) * f));
    const double bias_bound = std::sqrt(6.0 / config_.heads);
    for (int layer = layers_.begin; layer < layers_.end; ++layer) {
        const Indices& at = indices(layer);
        const auto fill = [&](int index, auto value) {
            if (index < 0) return;
            const auto values = set_.values(index);
            const auto host = Kokkos::create_mirror_view(values);
            for (std::size_t i = 0; i < host.extent(0); ++i) host(i) = static_cast<float>(value(i));
            Kokkos::deep_copy(values, host);
        };
        const std::uint64_t stream = mix_bits(seed ^ mix_bits(static_cast<std::uint64_t>(layer)));
        const auto map = [&](std::size_t i) {
            const std::size_t row = i / f % d;
            if (kind == "identity") return row == i % f ? 1.0 : 0.0;
            return uniform(mix_bits(stream + i), map_bound);
        };
        const auto bias = [&](std::size_t i) { return uniform(mix_bits(mix_bits(stream) + i), bias_bound); };
        fill(at.q_map, map);
        fill(at.k_map, map);
        fill(at.q_bias, bias);
        fill(at.k_bias, bias);
        fill(at.window_factors, [](std::size_t) { return initial_window_factor; });
    }
}

void Students::load(const FeatureMapFiles& files) const {
    const std::string bias = fmt::format("model.layers.{}.self_attn.feature_map_q.mlp.bias", layers_.begin);
    if (!has_bias(form_.map) && files.contains(bias))
        fail("{}: tensor '{}' belongs to t2r maps, not to {}: give --feature-map t2r", files.path(), bias,
             feature_map_name(form_.map));
    for (int i = 0; const auto& entry : set_.entries()) {
        const auto values = set_.values(i++);
        if (!entry.name.starts_with("model.layers.")) continue;
        const auto host = Kokkos::create_mirror_view(values);
        files.read(entry.name, entry.shape, host.data());
        Kokkos::deep_copy(values, host);
    }
}

StudentParameters<float> Students::parameters(int layer) const {
    const Indices& at = indices(layer);
    const auto map = [&](int index) {
        return Tensor3<float>(set_.values(index).data(), config_.heads, config_.head_dim, form_.feature_dim);
    };
    const auto scalars = [&](int index) { return index < 0 ? no_parameter_ : set_.values(index); };
    return {map(at.q_map), map(at.k_map), scalars(at.q_bias), scalars(at.k_bias), scalars(at.window_factors)};
}

StudentGradientSums Students::gradients(int layer) const {
    const Indices& at = indices(layer);
    const auto sums = [&](int index) { return index < 0 ? Vector<double>() : set_.gradients(index); };
    return {sums(at.q_map), sums(at.k_map), sums(at.q_bias), sums(at.k_bias), sums(at.window_factors)};
}

void write_feature_maps(const std::filesystem::path& path, const std::vector<NamedArray<float>>& arrays,
                        const std::map<std::string, std::string>& metadata) {
    std::vector<io::TensorToWrite> tensors;
    const bool tied = metadata.contains("tie-feature-maps") && metadata.at("tie-feature-maps") == "true";
    for (const auto& array : arrays) {
        tensors.push_back({array.name, io::DType::f32, array.shape, array.values.data()});
        const auto at = array.name.find("feature_map_q");
        if (!tied || at == std::string::npos) continue;
        std::string key_name = array.name;
        key_name.replace(at, std::string("feature_map_q").size(), "feature_map_k");
        tensors.push_back({key_name, io::DType::f32, array.shape, array.values.data()});
    }
    io::write_safetensors(path, tensors, metadata);
}

} // namespace lolcats
