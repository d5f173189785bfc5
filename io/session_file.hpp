#pragma once
/// Where texts stand: what the model keeps of each, so that a later run goes on.
///
///     /NAME        f32 [n, ...], an array of the state for each of n texts
///     /positions   f64 [n], tokens that the state knows of
///     /pending     f64 [n], the last token of the text, which it does not know of yet
///     attributes of /: format_version, model_identity, settings (JSON), run_deck (JSON)
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "io/array_file.hpp"
#include "io/hdf5.hpp"

namespace lolcats::io {

inline constexpr int session_format_version = 1;

/// What a state is of: another model, or other settings that it depends on, cannot go on from it.
struct SessionIdentity {
    std::string model;
    std::string settings; ///< JSON object
    std::string run_deck; ///< of the run that wrote it; no part of the identity
};

struct SessionArray {
    std::string name;
    Shape shape; ///< for one text
};

/// Where a text stands.
struct SessionPlace {
    std::int64_t position = 0;
    std::int32_t pending = -1; ///< none
};

/// The file gets its name in close().
class SessionWriter {
public:
    SessionWriter(const std::filesystem::path& path, const SessionIdentity& identity, std::int64_t texts,
                  const std::vector<SessionArray>& arrays);
    void write(std::int64_t text, const std::string& name, const float* values);
    void place(std::int64_t text, const SessionPlace& place);
    void close();

private:
    ArrayFile file_;
    std::vector<double> positions_;
    std::vector<double> pending_;
};

class SessionReader {
public:
    /// An Error that says what differs where the file is of another identity.
    SessionReader(const std::filesystem::path& path, const SessionIdentity& identity);
    [[nodiscard]] std::int64_t texts() const { return static_cast<std::int64_t>(places_.size()); }
    [[nodiscard]] const SessionPlace& place(std::int64_t text) const { return places_.at(text); }
    /// An array of another shape, or one with values that are not finite, is an Error.
    void read(std::int64_t text, const SessionArray& array, float* out) const;

private:
    std::filesystem::path path_;
    hdf5::File file_;
    std::vector<SessionPlace> places_;
};

} // namespace lolcats::io
