#include "src/stages/session.hpp"

#include "lolcats/error.hpp"

namespace lolcats {

namespace {

/// What a file has of one array of a layer.
template <class Array>
io::SessionArray session_array(std::size_t layer, const char* name, const Array& array) {
    io::Shape shape;
    for (std::size_t i = 1; i < Array::rank(); ++i) shape.push_back(static_cast<std::int64_t>(array.extent(i)));
    return {fmt::format("layers.{}.{}", layer, name), shape};
}

/// Calls `visit(array, part)` with each array's part of one slot, dense and in one dimension. Arrays without elements
/// (the ring of a student without near keys) are left out.
template <class Visit>
void for_each_array(const RecurrentModel<float>& model, int slot, const Visit& visit) {
    for (std::size_t i = 0; i < model.states().size(); ++i) {
        const auto show = [&](const char* name, const auto& array) {
            const std::size_t size = array.size() / array.extent(0);
            if (size > 0) visit(session_array(i, name, array), Vector<float>(array.data() + slot * size, size));
        };
        const auto& state = model.states()[i];
        show("sums", state.sums);
        show("feature_sums", state.feature_sums);
        show("keys", state.keys);
        show("values", state.values);
    }
}

} // namespace

std::vector<io::SessionArray> session_arrays(const RecurrentModel<float>& model) {
    std::vector<io::SessionArray> arrays;
    for_each_array(model, 0, [&](const io::SessionArray& array, const auto&) { arrays.push_back(array); });
    return arrays;
}

void save_slot(const RecurrentModel<float>& model, int slot, std::int64_t text, std::int32_t pending,
               io::SessionWriter& writer) {
    for_each_array(model, slot, [&](const io::SessionArray& array, const Vector<float>& part) {
        const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, part);
        writer.write(text, array.name, host.data());
    });
    writer.place(text, {model.position(slot), pending});
}

void restore_slot(RecurrentModel<float>& model, int slot, std::int64_t text, const io::SessionReader& reader) {
    model.begin(slot, static_cast<int>(reader.place(text).position));
    for_each_array(model, slot, [&](const io::SessionArray& array, const Vector<float>& part) {
        const auto host = Kokkos::create_mirror_view(part);
        reader.read(text, array, host.data());
        Kokkos::deep_copy(part, host);
    });
}

} // namespace lolcats
