#pragma once
/// MPI behind a small interface: an owned communicator whose calls are all checked and take counts of any size.
#include "src/comm/patience.hpp"

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lolcats {

/// Throws Error "MPI: WHAT failed on rank R: REASON" if `code` is not MPI_SUCCESS.
void check_mpi(int code, const char* what);

/// An operation under way. Move-only. The buffer must live until wait() has returned, or test() true. A Request that
/// dies before gives its messages up and leaves the buffer undefined: that is for the unwinding of an error only.
class Request {
public:
    enum class Kind { send, receive, collective };
    struct Part {
        MPI_Request request;
        int size; ///< elements
    };

    Request() = default;
    Request(Kind kind, MPI_Datatype type, const std::vector<Part>& parts);
    Request(Request&& other) noexcept;
    Request& operator=(Request&& other) noexcept;
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    ~Request();

    /// Returns when the buffer may be used again (send) or is filled (receive, collective). Does nothing the second
    /// time.
    void wait();
    /// Whether that is so already; at once.
    [[nodiscard]] bool test();

private:
    void finish(const std::vector<MPI_Status>& statuses);
    void give_up() noexcept;

    Kind kind_ = Kind::send;
    MPI_Datatype type_ = MPI_DATATYPE_NULL;
    std::vector<MPI_Request> parts_;
    std::vector<int> sizes_;
};

/// Move-only owner of an MPI communicator. MPI_COMM_WORLD itself is referred to, never freed.
class Communicator {
public:
    /// All ranks. Sets MPI_ERRORS_RETURN, which communicators made from it inherit, so that failures become Errors.
    static Communicator world();

    Communicator(Communicator&& other) noexcept;
    Communicator& operator=(Communicator&& other) noexcept;
    Communicator(const Communicator&) = delete;
    Communicator& operator=(const Communicator&) = delete;
    ~Communicator();

    /// The ranks that pass the same color (>= 0), ordered by key, then by rank. Collective.
    [[nodiscard]] Communicator split(int color, int key) const;
    /// The same ranks with a message space of their own. Collective.
    [[nodiscard]] Communicator duplicate() const;
    /// The ranks that share this rank's memory (its node). Collective.
    [[nodiscard]] Communicator split_by_node() const;

    /// From now on a rank that waits here for longer takes another one for dead: barrier, reductions, broadcasts and
    /// messages end with an Error. For groups whose ranks are never apart for long. Communicators made from this one
    /// wait without a limit.
    void limit_waiting(const Patience& patience) { patience_ = patience; }

    [[nodiscard]] int rank() const { return rank_; }
    [[nodiscard]] int size() const { return size_; }
    [[nodiscard]] MPI_Comm get() const { return comm_; }

    void barrier() const;

    /// In-place all-reductions, element by element. Collective; `count` must agree.
    void sum(double* values, std::size_t count) const;
    void sum(std::int64_t* values, std::size_t count) const;
    void max(double* values, std::size_t count) const;
    void max(std::int64_t* values, std::size_t count) const;
    /// Whether it is so on any rank.
    [[nodiscard]] bool any(bool here) const;
    void min(std::int64_t* values, std::size_t count) const;

    /// The same, begun: it goes on while the request is waited for or tested.
    [[nodiscard]] Request start_sum(float* values, std::size_t count) const;
    [[nodiscard]] Request start_sum(double* values, std::size_t count) const;

    /// `bytes` of root to all ranks. Collective; `count` (in bytes) must agree.
    [[nodiscard]] Request start_broadcast(void* bytes, std::size_t count, int root) const;
    void broadcast(void* bytes, std::size_t count, int root) const;
    /// The text of root, whose length the other ranks need not know. Collective.
    [[nodiscard]] std::string broadcast(const std::string& text, int root) const;
    /// The text of every rank, in rank order, on root; empty elsewhere. Collective.
    [[nodiscard]] std::vector<std::string> gather(const std::string& text, int root) const;

    /// Point to point; both sides must name the same count (in elements). They return once the buffer is free or
    /// filled.
    void send(const float* values, std::size_t count, int destination, int tag) const;
    void receive(float* values, std::size_t count, int source, int tag) const;
    /// The same, begun: they return at once. A send is over only once the receiver has asked for the message.
    [[nodiscard]] Request issend(const std::byte* bytes, std::size_t count, int destination, int tag) const;
    [[nodiscard]] Request ireceive(std::byte* bytes, std::size_t count, int source, int tag) const;

private:
    Communicator(MPI_Comm comm, bool owned);
    void release() noexcept;
    template <class T>
    void all_reduce(T* values, std::size_t count, MPI_Op op) const;
    void wait(Request request, const char* what) const;

    MPI_Comm comm_ = MPI_COMM_NULL;
    bool owned_ = false;
    int rank_ = 0;
    int size_ = 0;
    std::optional<Patience> patience_;
};

} // namespace lolcats
