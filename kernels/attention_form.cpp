#include "kernels/attention_form.hpp"

#include "lolcats/error.hpp"

namespace lolcats {

NearKeys near_keys(const std::string& name) {
    if (name == "terrace") return NearKeys::terrace;
    if (name == "sliding") return NearKeys::sliding;
    if (name == "none") return NearKeys::none;
    fail("attention '{}' is not a student's: use terrace, sliding or none", name);
}

const char* near_keys_name(NearKeys near) {
    switch (near) {
    case NearKeys::terrace:
        return "terrace";
    case NearKeys::sliding:
        return "sliding";
    case NearKeys::none:
        return "none";
    }
    return "unknown";
}

} // namespace lolcats
