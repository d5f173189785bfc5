#include "src/stages/form_notices.hpp"

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
    const int reach = form.near == NearKeys::terrace ? 2 * form.window : form.window;
    if (form.near != NearKeys::none && length <= reach)
        spdlog::warn("sequences of {} tokens do not reach beyond the softmax window ({} keys): the linear branch is "
                     "never used and nothing is learnt about it",
                     length, reach);
}

} // namespace lolcats
