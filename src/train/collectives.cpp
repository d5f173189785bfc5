#include "src/train/collectives.hpp"

#include <cstring>
#include <string_view>

namespace lolcats {

namespace {

void append(std::string& text, const void* data, std::size_t bytes) {
    text.append(static_cast<const char*>(data), bytes);
}

void append_count(std::string& text, std::size_t count) {
    append(text, &count, sizeof count);
}

void take(std::string_view& text, void* data, std::size_t bytes) {
    std::memcpy(data, text.data(), bytes);
    text.remove_prefix(bytes);
}

std::size_t take_count(std::string_view& text) {
    std::size_t count = 0;
    take(text, &count, sizeof count);
    return count;
}

template <class T>
std::string pack(const std::vector<NamedArray<T>>& arrays) {
    std::string text;
    for (const auto& array : arrays) {
        append_count(text, array.name.size());
        append(text, array.name.data(), array.name.size());
        append_count(text, array.shape.size());
        append(text, array.shape.data(), array.shape.size() * sizeof(std::int64_t));
        append_count(text, array.values.size());
        append(text, array.values.data(), array.values.size() * sizeof(T));
    }
    return text;
}

template <class T>
void unpack(std::string_view text, std::vector<NamedArray<T>>& arrays) {
    while (!text.empty()) {
        NamedArray<T> array;
        array.name.resize(take_count(text));
        take(text, array.name.data(), array.name.size());
        array.shape.resize(take_count(text));
        take(text, array.shape.data(), array.shape.size() * sizeof(std::int64_t));
        array.values.resize(take_count(text));
        take(text, array.values.data(), array.values.size() * sizeof(T));
        arrays.push_back(std::move(array));
    }
}

} // namespace

void sum_gradients(const ParameterSet& parameters, ArrayCommunicator& group) {
    const Vector<double> gradients = parameters.gradients();
    if (group.size() > 1) group.sum(gradients.data(), gradients.size())->wait();
}

template <class T>
std::vector<NamedArray<T>> gather(const Communicator& group, const std::vector<NamedArray<T>>& mine) {
    std::vector<NamedArray<T>> all;
    for (const std::string& text : group.gather(pack(mine), 0)) unpack(std::string_view(text), all);
    return all;
}

template std::vector<NamedArray<float>> gather<float>(const Communicator&, const std::vector<NamedArray<float>>&);
template std::vector<NamedArray<double>> gather<double>(const Communicator&, const std::vector<NamedArray<double>>&);

} // namespace lolcats
