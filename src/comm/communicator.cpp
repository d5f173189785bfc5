#include "src/comm/communicator.hpp"

#include "lolcats/error.hpp"
#include "src/comm/pieces.hpp"

#include <type_traits>
#include <utility>

namespace lolcats {
namespace {

template <class T>
MPI_Datatype mpi_type();
template <>
MPI_Datatype mpi_type<float>() {
    return MPI_FLOAT;
}
template <>
MPI_Datatype mpi_type<double>() {
    return MPI_DOUBLE;
}
template <>
MPI_Datatype mpi_type<std::int64_t>() {
    return MPI_INT64_T;
}
template <>
MPI_Datatype mpi_type<std::byte>() {
    return MPI_BYTE;
}

/// No messages of programs have it.
constexpr int gather_tag = 32767; // the largest that every MPI has

const std::byte* bytes_of(const std::string& text) {
    return reinterpret_cast<const std::byte*>(text.data());
}
std::byte* bytes_of(std::string& text) {
    return reinterpret_cast<std::byte*>(text.data());
}

bool mpi_is_running() noexcept {
    int finalized = 0;
    return MPI_Finalized(&finalized) == MPI_SUCCESS && finalized == 0;
}

template <class T>
void send_all(const Communicator& comm, const T* values, std::size_t count, int destination, int tag) {
    for_pieces(count, largest_piece, [&](std::size_t offset, int size) {
        check_mpi(MPI_Send(values + offset, size, mpi_type<T>(), destination, tag, comm.get()), "MPI_Send");
    });
}

/// A shorter message than asked for would leave the tail of the buffer as it was: that is an error, not a short read.
void check_received(MPI_Status status, MPI_Datatype type, int expected) {
    int received = 0;
    check_mpi(MPI_Get_count(&status, type, &received), "MPI_Get_count");
    if (received != expected) {
        fail("MPI: a message from rank {} with tag {} holds {} elements where {} were expected: the ranks disagree "
             "about the shape of the data",
             status.MPI_SOURCE, status.MPI_TAG, received, expected);
    }
}

template <class T>
void receive_all(const Communicator& comm, T* values, std::size_t count, int source, int tag) {
    for_pieces(count, largest_piece, [&](std::size_t offset, int size) {
        MPI_Status status;
        check_mpi(MPI_Recv(values + offset, size, mpi_type<T>(), source, tag, comm.get(), &status), "MPI_Recv");
        check_received(status, mpi_type<T>(), size);
    });
}

/// Calls start(values, size, request) for each piece.
template <class T, class Start>
Request start_pieces(Request::Kind kind, const char* name, T* values, std::size_t count, Start&& start) {
    std::vector<Request::Part> parts;
    for_pieces(count, largest_piece, [&](std::size_t offset, int size) {
        parts.push_back({MPI_REQUEST_NULL, size});
        check_mpi(start(values + offset, size, &parts.back().request), name);
    });
    return Request(kind, mpi_type<std::remove_const_t<T>>(), parts);
}

template <class T>
Request start_all_reduce(const Communicator& comm, T* values, std::size_t count, MPI_Op op) {
    return start_pieces(Request::Kind::collective, "MPI_Iallreduce", values, count,
                        [&](T* piece, int size, MPI_Request* request) {
                            return MPI_Iallreduce(MPI_IN_PLACE, piece, size, mpi_type<T>(), op, comm.get(), request);
                        });
}

} // namespace

void check_mpi(int code, const char* what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) length = 0;
    int rank = 0;
    if (MPI_Comm_rank(MPI_COMM_WORLD, &rank) != MPI_SUCCESS) rank = -1;
    fail("MPI: {} failed on rank {}: {} (code {})", what, rank, std::string(text, static_cast<std::size_t>(length)),
         code);
}

Request::Request(Kind kind, MPI_Datatype type, const std::vector<Part>& parts) : kind_(kind), type_(type) {
    for (const Part& part : parts) {
        parts_.push_back(part.request);
        sizes_.push_back(part.size);
    }
}

Request::Request(Request&& other) noexcept
    : kind_(other.kind_), type_(other.type_), parts_(std::exchange(other.parts_, {})),
      sizes_(std::exchange(other.sizes_, {})) {}

Request& Request::operator=(Request&& other) noexcept {
    if (this != &other) {
        give_up();
        kind_ = other.kind_;
        type_ = other.type_;
        parts_ = std::exchange(other.parts_, {});
        sizes_ = std::exchange(other.sizes_, {});
    }
    return *this;
}

Request::~Request() {
    give_up();
}

void Request::wait() {
    if (parts_.empty()) return;
    std::vector<MPI_Status> statuses(parts_.size());
    check_mpi(MPI_Waitall(static_cast<int>(parts_.size()), parts_.data(), statuses.data()), "MPI_Waitall");
    finish(statuses);
}

bool Request::test() {
    if (parts_.empty()) return true;
    std::vector<MPI_Status> statuses(parts_.size());
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(parts_.size()), parts_.data(), &done, statuses.data()), "MPI_Testall");
    if (done != 0) finish(statuses);
    return done != 0;
}

void Request::finish(const std::vector<MPI_Status>& statuses) {
    parts_.clear();
    for (std::size_t i = 0; kind_ == Kind::receive && i < statuses.size(); ++i)
        check_received(statuses[i], type_, sizes_[i]);
}

void Request::give_up() noexcept {
    if (parts_.empty() || !mpi_is_running()) return;
    // Waiting here could last for ever, and a failure has nobody left to tell. A collective cannot be cancelled.
    for (MPI_Request& part : parts_) {
        if (part == MPI_REQUEST_NULL || kind_ == Kind::collective) continue;
        MPI_Cancel(&part);
        MPI_Request_free(&part);
    }
    parts_.clear();
}

Communicator Communicator::world() {
    check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    return {MPI_COMM_WORLD, false};
}

Communicator::Communicator(MPI_Comm comm, bool owned) : comm_(comm), owned_(owned) {
    check_mpi(MPI_Comm_rank(comm, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(comm, &size_), "MPI_Comm_size");
}

Communicator::Communicator(Communicator&& other) noexcept
    : comm_(std::exchange(other.comm_, MPI_COMM_NULL)), owned_(std::exchange(other.owned_, false)), rank_(other.rank_),
      size_(other.size_), patience_(std::move(other.patience_)) {}

Communicator& Communicator::operator=(Communicator&& other) noexcept {
    if (this != &other) {
        release();
        comm_ = std::exchange(other.comm_, MPI_COMM_NULL);
        owned_ = std::exchange(other.owned_, false);
        rank_ = other.rank_;
        size_ = other.size_;
        patience_ = std::move(other.patience_);
    }
    return *this;
}

Communicator::~Communicator() {
    release();
}

void Communicator::release() noexcept {
    if (owned_ && comm_ != MPI_COMM_NULL && mpi_is_running()) MPI_Comm_free(&comm_);
    owned_ = false;
}

Communicator Communicator::split(int color, int key) const {
    MPI_Comm part = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split(comm_, color, key, &part), "MPI_Comm_split");
    return {part, true};
}

Communicator Communicator::duplicate() const {
    MPI_Comm copy = MPI_COMM_NULL;
    check_mpi(MPI_Comm_dup(comm_, &copy), "MPI_Comm_dup");
    return {copy, true};
}

Communicator Communicator::split_by_node() const {
    MPI_Comm node = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node), "MPI_Comm_split_type");
    return {node, true};
}

void Communicator::wait(Request request, const char* what) const {
    patience_->wait(what, [&] { return request.test(); });
}

template <class T>
void Communicator::all_reduce(T* values, std::size_t count, MPI_Op op) const {
    if (patience_) return wait(start_all_reduce(*this, values, count, op), "what the ranks agree on");
    for_pieces(count, largest_piece, [&](std::size_t offset, int size) {
        check_mpi(MPI_Allreduce(MPI_IN_PLACE, values + offset, size, mpi_type<T>(), op, comm_), "MPI_Allreduce");
    });
}

void Communicator::barrier() const {
    if (!patience_) return check_mpi(MPI_Barrier(comm_), "MPI_Barrier");
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibarrier(comm_, &request), "MPI_Ibarrier");
    wait(Request(Request::Kind::collective, MPI_BYTE, {{request, 0}}), "a barrier");
}

void Communicator::sum(double* values, std::size_t count) const {
    all_reduce(values, count, MPI_SUM);
}
void Communicator::sum(std::int64_t* values, std::size_t count) const {
    all_reduce(values, count, MPI_SUM);
}
Request Communicator::start_sum(float* values, std::size_t count) const {
    return start_all_reduce(*this, values, count, MPI_SUM);
}
Request Communicator::start_sum(double* values, std::size_t count) const {
    return start_all_reduce(*this, values, count, MPI_SUM);
}
void Communicator::max(double* values, std::size_t count) const {
    all_reduce(values, count, MPI_MAX);
}
void Communicator::max(std::int64_t* values, std::size_t count) const {
    all_reduce(values, count, MPI_MAX);
}
void Communicator::min(std::int64_t* values, std::size_t count) const {
    all_reduce(values, count, MPI_MIN);
}

bool Communicator::any(bool here) const {
    std::int64_t count = here ? 1 : 0;
    max(&count, 1);
    return count != 0;
}

void Communicator::broadcast(void* bytes, std::size_t count, int root) const {
    if (patience_) return wait(start_broadcast(bytes, count, root), "what one rank tells the others");
    for_pieces(count, largest_piece, [&](std::size_t offset, int size) {
        check_mpi(MPI_Bcast(static_cast<char*>(bytes) + offset, size, MPI_BYTE, root, comm_), "MPI_Bcast");
    });
}

Request Communicator::start_broadcast(void* bytes, std::size_t count, int root) const {
    return start_pieces(Request::Kind::collective, "MPI_Ibcast", static_cast<std::byte*>(bytes), count,
                        [&](std::byte* piece, int size, MPI_Request* request) {
                            return MPI_Ibcast(piece, size, MPI_BYTE, root, comm_, request);
                        });
}

std::string Communicator::broadcast(const std::string& text, int root) const {
    std::uint64_t length = text.size();
    broadcast(&length, sizeof length, root);
    std::string result = rank_ == root ? text : std::string(length, '\0');
    broadcast(result.data(), result.size(), root);
    return result;
}

std::vector<std::string> Communicator::gather(const std::string& text, int root) const {
    const std::uint64_t length = text.size();
    std::vector<std::uint64_t> lengths(rank_ == root ? size_ : 0);
    check_mpi(MPI_Gather(&length, 1, MPI_UINT64_T, lengths.data(), 1, MPI_UINT64_T, root, comm_), "MPI_Gather");
    if (rank_ != root) {
        send_all(*this, bytes_of(text), text.size(), root, gather_tag);
        return {};
    }
    std::vector<std::string> texts(size_);
    for (int rank = 0; rank < size_; ++rank) {
        texts[rank] = rank == root ? text : std::string(lengths[rank], '\0');
        if (rank != root) receive_all(*this, bytes_of(texts[rank]), lengths[rank], rank, gather_tag);
    }
    return texts;
}

void Communicator::send(const float* values, std::size_t count, int destination, int tag) const {
    if (!patience_) return send_all(*this, values, count, destination, tag);
    // Not synchronous: a small message leaves at once, so that the sender may run ahead.
    const auto isend = [&](const float* piece, int size, MPI_Request* request) {
        return MPI_Isend(piece, size, MPI_FLOAT, destination, tag, comm_, request);
    };
    wait(start_pieces(Request::Kind::send, "MPI_Isend", values, count, isend), "a rank's word");
}
void Communicator::receive(float* values, std::size_t count, int source, int tag) const {
    if (!patience_) return receive_all(*this, values, count, source, tag);
    const auto irecv = [&](float* piece, int size, MPI_Request* request) {
        return MPI_Irecv(piece, size, MPI_FLOAT, source, tag, comm_, request);
    };
    wait(start_pieces(Request::Kind::receive, "MPI_Irecv", values, count, irecv), "a rank's word");
}
Request Communicator::issend(const std::byte* bytes, std::size_t count, int destination, int tag) const {
    return start_pieces(Request::Kind::send, "MPI_Issend", bytes, count,
                        [&](const std::byte* piece, int size, MPI_Request* request) {
                            return MPI_Issend(piece, size, MPI_BYTE, destination, tag, comm_, request);
                        });
}
Request Communicator::ireceive(std::byte* bytes, std::size_t count, int source, int tag) const {
    return start_pieces(Request::Kind::receive, "MPI_Irecv", bytes, count,
                        [&](std::byte* piece, int size, MPI_Request* request) {
                            return MPI_Irecv(piece, size, MPI_BYTE, source, tag, comm_, request);
                        });
}

} // namespace lolcats
