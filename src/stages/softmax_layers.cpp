#include "src/stages/softmax_layers.hpp"

#include "io/file.hpp"
#include "io/json.hpp"
#include "lolcats/error.hpp"
#include "src/model/adapter.hpp"

#include <algorithm>
#include <charconv>
#include <fmt/ranges.h>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

namespace lolcats {

namespace {

using nlohmann::json;

std::string loss_key(std::size_t layer) {
    return fmt::format("layer-loss.{}", layer);
}

/// Losses in a file's metadata, of the layers from `first` on; empty if it has none of that layer.
std::vector<double> stored_losses(const std::filesystem::path& file, std::size_t first) {
    const auto metadata = io::SafetensorsFile(file).metadata();
    std::vector<double> losses;
    for (auto found = metadata.find(loss_key(first)); found != metadata.end();
         found = metadata.find(loss_key(first + losses.size()))) {
        const json loss = io::parse_json_or_discard(found->second);
        if (!loss.is_number())
            fail("{}: its {} is '{}', no number; run lolcats_block again, or name the layers with --softmax-layers",
                 file.string(), found->first, io::printable(found->second));
        losses.push_back(loss);
    }
    return losses;
}

/// By layer, over all blocks.
std::vector<double> transfer_losses(const ModelConfig& config, const FeatureMapFiles& maps) {
    std::vector<double> all;
    for (std::filesystem::path file : maps.files()) {
        auto losses = stored_losses(file, all.size());
        if (losses.empty()) losses = layer_losses(file.replace_extension(".jsonl"));
        all.insert(all.end(), losses.begin(), losses.end());
    }
    if (static_cast<int>(all.size()) != config.layers)
        fail("{}: the feature maps, or the logs of stage 1 beside them (block_XX.jsonl), hold losses of {} layers, not "
             "{}: name the layers with --softmax-layers",
             maps.path(), all.size(), config.layers);
    return all;
}

std::set<int> highest(const std::vector<double>& losses, int count) {
    std::vector<int> order(losses.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return losses[a] > losses[b]; });
    return {order.begin(), order.begin() + count};
}

std::set<int> chosen(const Options& options, const ModelConfig& config, const FeatureMapFiles* maps) {
    if (!options.softmax_layers.empty())
        return layers_from_text(fmt::format("{}", fmt::join(options.softmax_layers, ",")), "--softmax-layers");
    const int count = options.keep_softmax_layers;
    if (count == 0) return {};
    if (count > config.layers)
        fail("--keep-softmax-layers {}: the model has {} layers; give at most that", count, config.layers);
    if (maps == nullptr)
        fail("--keep-softmax-layers goes by the losses of stage 1, and no feature maps are given: name the layers with "
             "--softmax-layers");
    return highest(transfer_losses(config, *maps), count);
}

std::set<int> of_adapter(const std::string& directory) {
    read_adapter_config(directory); // what is wrong with it is said first
    const auto file = adapter_weights(directory);
    const auto metadata = io::SafetensorsFile(file).metadata();
    const auto found = metadata.find("softmax-layers");
    return found == metadata.end() ? std::set<int>() : layers_from_text(found->second, file.string());
}

} // namespace

std::vector<double> layer_losses(const std::filesystem::path& log) {
    std::ifstream file(log);
    std::vector<double> losses;
    double best = std::numeric_limits<double>::infinity();
    bool evaluated = false;
    for (std::string text; std::getline(file, text);) {
        const json line = io::parse_json_or_discard(text);
        if (!line.is_object()) fail("{}: holds a line that is no JSON object; delete that line", log.string());
        if (line.contains("eval_layer_losses")) {
            if (!(line.value("eval_loss", best) < best)) continue;
            evaluated = true;
            best = line.at("eval_loss");
            losses = line.at("eval_layer_losses").get<std::vector<double>>();
        } else if (!evaluated && line.contains("layer_losses")) {
            losses = line.at("layer_losses").get<std::vector<double>>();
        }
    }
    if (file.bad())
        fail("{}: cannot be read to its end; look at the disk, then run the same command again", log.string());
    return losses;
}

std::map<std::string, std::string> loss_metadata(int first, const std::vector<double>& losses) {
    std::map<std::string, std::string> pairs;
    for (std::size_t i = 0; i < losses.size(); ++i) pairs[loss_key(first + i)] = json(losses[i]).dump();
    return pairs;
}

std::string to_text(const std::set<int>& layers) {
    return fmt::format("{}", fmt::join(layers, ","));
}

std::set<int> layers_from_text(const std::string& text, const std::string& where) {
    std::set<int> layers;
    const char* end = text.data() + text.size();
    for (const char* at = text.data();; ++at) {
        int layer = 0;
        const auto [stop, error] = std::from_chars(at, end, layer);
        if (error != std::errc() || layer < 0 || (stop != end && *stop != ','))
            fail("{}: '{}' is no list of layer numbers such as 0,3", where, text);
        layers.insert(layer);
        if (stop == end) return layers;
        at = stop;
    }
}

std::set<int> softmax_layers(const Options& options, const ModelConfig& config, const FeatureMapFiles* maps,
                             const std::string& adapter) {
    if (!options.softmax_layers.empty() && options.is_given("keep-softmax-layers"))
        fail("--softmax-layers names the layers that --keep-softmax-layers counts: give one of them");
    const bool open = options.softmax_layers.empty() && !options.is_given("keep-softmax-layers");
    if (!adapter.empty()) {
        const auto trained = of_adapter(adapter);
        if (!open && chosen(options, config, maps) != trained)
            fail("{}: the adapter was trained with softmax attention in layers '{}': drop --softmax-layers and "
                 "--keep-softmax-layers",
                 adapter, to_text(trained));
        return trained;
    }
    const auto layers = chosen(options, config, maps);
    if (!layers.empty() && *layers.rbegin() >= config.layers)
        fail("--softmax-layers: the model's layers are 0 to {}, and {} is none", config.layers - 1, *layers.rbegin());
    return layers;
}

} // namespace lolcats
