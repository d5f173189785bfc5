#include "src/stages/form_notices.hpp"

#include "src/softmax_reach.hpp"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

namespace lolcats {

void warn_of_assumed_form(const Options& options, const FeatureMapFiles& maps, const StudentForm& form) {
    std::vector<std::string> assumed;
    for (const auto& [key, value] : form_metadata(form, false))
        if ((key == "attention" || key == "window" || key == "feature-map") && maps.metadata(key).empty() &&
            !options.is_given(key))
            assumed.push_back(fmt::format("--{} {}", key, value));
    if (!assumed.empty())
        spdlog::warn("{}: does not say which form it is for, and {} is assumed: give these options if they are others",
                     maps.path(), fmt::join(assumed, " "));
}

void warn_if_pure_softmax(const StudentForm& form, int length) {
    const std::string text = pure_softmax_warning(near_keys_name(form.near), form.window, length);
    if (!text.empty()) spdlog::warn("{}", text);
}

} // namespace lolcats
