#include "src/stages/recall.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace lolcats {
namespace {

constexpr std::int32_t no = -100;

/// Predictions that are right but at the given positions of `labels`.
std::vector<std::int32_t> predictions(const std::vector<std::int32_t>& labels, const std::vector<int>& wrong) {
    std::vector<std::int32_t> predicted(labels.begin() + 1, labels.end());
    for (const int t : wrong) predicted[t - 1] = labels[t] + 1;
    predicted.push_back(0);
    return predicted;
}

TEST(Recall, ARunMatchesIfAllOfItDoes) {
    const std::vector<std::int32_t> labels = {no, 1, 2, no, 3, no, no, 4, 5};
    Recall recall(4);
    recall.add(labels, {}, predictions(labels, {2}).data());
    EXPECT_EQ(recall.spans(), 3);
    EXPECT_DOUBLE_EQ(recall.exact_match(), 2.0 / 3);
    EXPECT_TRUE(recall.by_distance().empty());
    recall.add(labels, {}, predictions(labels, {7, 8}).data());
    EXPECT_EQ(recall.spans(), 6);
    EXPECT_DOUBLE_EQ(recall.exact_match(), 4.0 / 6);
}

TEST(Recall, TheFirstTokenPredictsNothing) {
    const std::vector<std::int32_t> labels = {7, no, 2};
    Recall recall(4);
    recall.add(labels, {}, predictions(labels, {}).data());
    EXPECT_EQ(recall.spans(), 1);
}

TEST(Recall, DistancesAreToldApartByDoublingsOfTheWindow) {
    const std::vector<std::int32_t> labels = {no, 1, 2, no, 3, no, 4, no, 6, no, 5};
    const std::vector<std::int32_t> distances = {0, 4, 9, 0, 5, 0, 8, 0, 0, 0, 9};
    Recall recall(4);
    recall.add(labels, distances, predictions(labels, {6}).data());
    const auto expected = nlohmann::ordered_json::parse(
        R"([{"up_to": 4, "spans": 1, "exact_match": 1.0}, {"up_to": 8, "spans": 2, "exact_match": 0.5},
            {"up_to": 16, "spans": 1, "exact_match": 1.0}])");
    EXPECT_EQ(recall.by_distance(), expected);
    EXPECT_EQ(recall.spans(), 5) << "a run without a distance counts in all";
}

} // namespace
} // namespace lolcats
