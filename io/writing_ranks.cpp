#include "io/writing_ranks.hpp"

#include <array>

#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

void check_mpi(int result, const std::filesystem::path& file, const char* action) {
    if (result == MPI_SUCCESS) return;
    std::array<char, MPI_MAX_ERROR_STRING> text{};
    int length = 0;
    MPI_Error_string(result, text.data(), &length);
    fail("{}: cannot {} between the ranks ({})", file.string(), action, text.data());
}

} // namespace

WritingRanks::WritingRanks(const std::filesystem::path& file, MPI_Comm comm) : file_(file), comm_(comm) {
    check_mpi(MPI_Comm_rank(comm, &rank_), file_, "find the rank");
    check_mpi(MPI_Comm_size(comm, &size_), file_, "count the ranks");
}

bool WritingRanks::share_flag(bool flag) const {
    int number = flag ? 1 : 0;
    check_mpi(MPI_Bcast(&number, 1, MPI_INT, 0, comm_), file_, "share a status");
    return number != 0;
}

std::string WritingRanks::share_text(std::string text) const {
    auto size = static_cast<int>(text.size());
    check_mpi(MPI_Bcast(&size, 1, MPI_INT, 0, comm_), file_, "share a status");
    text.resize(static_cast<std::size_t>(size));
    check_mpi(MPI_Bcast(text.data(), size, MPI_CHAR, 0, comm_), file_, "share a status");
    return text;
}

bool WritingRanks::any(bool flag) const {
    int number = flag ? 1 : 0;
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, &number, 1, MPI_INT, MPI_MAX, comm_), file_, "share a status");
    return number != 0;
}

} // namespace lolcats::io
