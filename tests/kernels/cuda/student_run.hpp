#pragma once
/// One student's case on the device: what the CUDA kernels read and write.
#include "kernels/cuda/attention.hpp"
#include "tests/kernels/attention_case.hpp"
#include "tests/kernels/cuda/device.hpp"

#include <algorithm>
#include <iterator>
#include <optional>

namespace lolcats::test {

inline std::vector<FeatureMapKind> maps_with_a_twin() {
    std::vector<FeatureMapKind> maps;
    std::copy_if(all_feature_maps.begin(), all_feature_maps.end(), std::back_inserter(maps),
                 [](FeatureMapKind map) { return cuda::supports(map); });
    return maps;
}

inline StudentCase student_case(NearKeys near, int length, int window, int d = 32, int f = 16) {
    return {{.batch = 1, .length = length, .heads = 2, .kv_heads = 1, .head_dim = d},
            {near, window, FeatureMapKind::hedgehog, f, false}};
}

/// The sizes of real models, three chunks and not all of the last one; some have two query heads a key/value head.
inline std::vector<StudentCase> size_cases(NearKeys near) {
    const auto one_head = [](StudentCase c) {
        c.shape.heads = 1;
        return c;
    };
    return {student_case(near, 147, 64, 128, 64),
            student_case(near, 70, 32, 64, 128),
            one_head(student_case(near, 147, 64, 64, 32)),
            one_head(student_case(near, 75, 32, 128, 128)),
            one_head(student_case(near, 261, 128, 64, 64)),
            one_head(student_case(near, 75, 32, 128, 32)),
            one_head(student_case(near, 261, 128, 128, 128))};
}

inline std::string case_name(const StudentCase& c) {
    return name(c.form.near) + " kind " + std::to_string(static_cast<int>(c.form.map)) + " d " +
           std::to_string(c.shape.head_dim) + " f " + std::to_string(c.form.feature_dim) + " w " +
           std::to_string(c.form.window) + " T " + std::to_string(c.shape.length) + (c.form.affine ? " affine" : "");
}

struct CudaStudent {
    StudentCase c;
    DeviceArray<float> q, k, v, q_map, k_map, q_bias, k_bias, g;
    DeviceArray<float> y, normalizer;

    CudaStudent(const StudentCase& c, const NaiveInputs& in)
        : c(c), q(on_device(in.q)), k(on_device(in.k)), v(on_device(in.v)), q_map(on_device(in.q_map)),
          k_map(on_device(in.k_map)), q_bias(on_device(in.q_bias)), k_bias(on_device(in.k_bias)), g(on_device(in.g)),
          y(poisoned_on_device(c.rows() * c.query_width())),
          normalizer(poisoned_on_device(c.statistic_rows() * c.shape.length)) {}

    [[nodiscard]] cuda::AttentionInputs inputs() const { return {q.data(), k.data(), v.data()}; }
    [[nodiscard]] cuda::StudentParameterPointers parameters() const {
        return {q_map.data(), k_map.data(), q_bias.data(), k_bias.data(), g.data()};
    }

    void forward(const cuda::SquaredError* error = nullptr) const {
        const DeviceArray<unsigned char> workspace(cuda::student_attention_workspace(c.shape, c.form));
        cuda::student_attention(c.shape, c.form, parameters(), inputs(), y.data(), normalizer.data(), error,
                                {workspace.data(), workspace.bytes()}, nullptr);
        cuda::check(cudaStreamSynchronize(nullptr), "student_attention");
    }
};

} // namespace lolcats::test
