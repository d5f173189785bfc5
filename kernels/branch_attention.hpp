#pragma once
/// The student's attention by branch, to see which of them a model depends on. For diagnosis, not for training: query
/// by query, O(T^2) work for the comparison with softmax, O(T + d' d) memory a head.
#include "kernels/student_attention.hpp"

#include <string>

namespace lolcats {

/// What counts of the weights of student_attention.hpp.
enum class Branch {
    both,            ///< all of them
    window,          ///< near keys only
    linear,          ///< far keys only; the near ones of a query that has none
    window_and_sinks ///< softmax over near keys and the first `sinks` of the sequence (StreamingLLM, arXiv 2309.17453)
};

/// Throws Error for a name other than both, window, linear, window+sinks.
Branch branch_of(const std::string& name);

struct BranchChoice {
    Branch branch = Branch::both;
    int sinks = 0;
};

/// Where attention goes, [B H, T] each, and 0 for a query without far keys.
template <class Real>
struct AttentionMass {
    Matrix<Real> far;         ///< share of far keys in the sum of both branches' weights
    Matrix<Real> far_softmax; ///< share that softmax over all keys would give the same keys
};

/// Queries of a sequence of T tokens that have far keys.
int queries_with_far_keys(const StudentForm& form, int length);

/// y: [B T, H d], of the chosen branch. `mass` does not depend on the choice.
template <class Real>
void branch_attention(const AttentionShape& shape, const Student<Real>& student, const BranchChoice& choice,
                      const AttentionInputs<Real>& inputs, const Matrix<Real>& y, const AttentionMass<Real>& mass);

} // namespace lolcats
