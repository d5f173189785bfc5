#pragma once
/// What ranks tell each other that write one file together.
#include <mpi.h>

#include <filesystem>
#include <string>

namespace lolcats::io {

/// The ranks of a communicator, which is to outlive this. Its methods but the first three are collective. Failures of
/// MPI are Errors that name the file.
class WritingRanks {
public:
    WritingRanks(const std::filesystem::path& file, MPI_Comm comm);

    [[nodiscard]] MPI_Comm comm() const { return comm_; }
    /// One rank does what needs no other, and tells them how it went.
    [[nodiscard]] bool is_leader() const { return rank_ == 0; }
    [[nodiscard]] bool is_alone() const { return size_ == 1; }

    /// The leader's word on every rank.
    [[nodiscard]] bool share_flag(bool flag) const;
    [[nodiscard]] std::string share_text(std::string text) const;
    /// The text that find() gives the leader; the others do not call it.
    template <class Find>
    [[nodiscard]] std::string from_leader(Find&& find) const {
        return share_text(is_leader() ? find() : std::string());
    }
    /// Whether it is so on any rank.
    [[nodiscard]] bool any(bool flag) const;

private:
    std::filesystem::path file_;
    MPI_Comm comm_;
    int rank_ = 0;
    int size_ = 0;
};

} // namespace lolcats::io
