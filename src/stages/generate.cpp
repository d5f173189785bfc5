#include "src/stages/generate.hpp"

#include "lolcats/error.hpp"
#include "src/console.hpp"
#include "src/stages/generation_model.hpp"
#include "src/stages/prompts.hpp"
#include "src/stages/sampler.hpp"
#include "src/stages/session.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <spdlog/spdlog.h>

namespace lolcats {

namespace {

constexpr int most_tokens_at_once = 512; ///< of a prompt; the rest follows in further pieces

/// A text under way or done.
struct Text {
    TokenIds tokens; ///< new ones
    const char* finish = nullptr;
    std::int64_t position = 0; ///< tokens in all
};

/// Tokens and the seconds they took.
struct Throughput {
    std::int64_t tokens = 0;
    double seconds = 0;

    template <class Work>
    void measure(std::int64_t count, const Work& work) {
        const auto start = std::chrono::steady_clock::now();
        work();
        tokens += count;
        seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    [[nodiscard]] double rate() const { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }
};

class Generation {
public:
    Generation(const Options& options, const Communicator& world)
        : options_(options), source_(options), sampler_(options),
          stops_(stop_tokens(options, source_.config().vocab_size)), identity_(source_.identity(world)) {
        open_session();
        read_all_prompts();
        const int slots = std::min(options.batch_size, static_cast<int>(prompts_.size()));
        const RecurrentRoom room{slots, std::min(most_tokens_at_once, longest()), longest_text()};
        model_.emplace(source_.config(), source_.load(), room, choose_arithmetic(options, world));
        piece_x_ = Matrix<float>(uninitialized("piece"), room.piece, source_.config().hidden_size);
        step_x_ = Matrix<float>(uninitialized("step"), slots, source_.config().hidden_size);
        texts_.resize(prompts_.size());
        slots_.assign(slots, none);
        if (!options.save_state.empty())
            saved_.emplace(options.save_state, identity_, static_cast<std::int64_t>(prompts_.size()),
                           session_arrays(*model_));
    }

    void run() {
        while (printed_ < prompts_.size()) {
            for (int slot = 0; slot < static_cast<int>(slots_.size()); ++slot)
                while (slots_[slot] == none && next_ < prompts_.size()) begin(slot);
            step();
            print_finished();
        }
        require_results_out(); // else the state, which may replace the one loaded, would be ahead of them
        if (saved_) saved_->close();
        spdlog::info("{} prompts: {} tokens read at {:.1f} a second, {} written at {:.1f} a second; {:.3f} MB of state "
                     "a text",
                     prompts_.size(), reading_.tokens, reading_.rate(), writing_.tokens + prompts_.size(),
                     writing_.rate(), static_cast<double>(model_->state_bytes()) * 1e-6);
    }

private:
    static constexpr std::size_t none = static_cast<std::size_t>(-1);

    void open_session() {
        if (options_.batch_size > LmHead<float>::rows_at_once)
            fail("--batch-size {}: at most {} prompts at once", options_.batch_size, LmHead<float>::rows_at_once);
        if (source_.is_teacher() && !(options_.save_state.empty() && options_.load_state.empty()))
            fail("--attention teacher has no state of constant size to save or load; leave out --save-state and "
                 "--load-state");
        if (!options_.load_state.empty()) loaded_.emplace(options_.load_state, identity_);
    }

    void read_all_prompts() {
        if (options_.prompts.empty() && !loaded_)
            fail(R"(--prompts is missing: give a file of JSON lines {{"tokens": [ids]}}, or a token store)");
        if (!options_.prompts.empty())
            prompts_ = read_prompts(options_.prompts, source_.config().vocab_size, loaded_.has_value());
        if (!loaded_) return;
        if (options_.prompts.empty()) prompts_.resize(loaded_->texts());
        if (static_cast<std::int64_t>(prompts_.size()) != loaded_->texts())
            fail("{}: holds {} prompts, but {} the states of {} texts; give one prompt a text", options_.prompts,
                 prompts_.size(), options_.load_state, loaded_->texts());
        for (std::size_t i = 0; i < prompts_.size(); ++i)
            prompts_[i].insert(prompts_[i].begin(), loaded_->place(static_cast<std::int64_t>(i)).pending);
    }

    [[nodiscard]] int longest() const {
        std::size_t most = 0;
        for (const TokenIds& prompt : prompts_) most = std::max(most, prompt.size());
        return static_cast<int>(most);
    }

    /// Of any prompt with all that can follow it, in tokens.
    [[nodiscard]] int longest_text() const {
        std::int64_t most = 0;
        for (std::size_t i = 0; i < prompts_.size(); ++i) {
            const std::int64_t before = loaded_ ? loaded_->place(static_cast<std::int64_t>(i)).position : 0;
            most = std::max(most, before + static_cast<std::int64_t>(prompts_[i].size()) + options_.max_new_tokens);
        }
        const int window = source_.config().sliding_window;
        const int limit = window > 0 ? window : std::numeric_limits<int>::max();
        if (most > limit)
            fail("a text of {} tokens would be longer than the {} that the model computes rightly; lower "
                 "--max-new-tokens, or give shorter prompts",
                 most, limit);
        return static_cast<int>(most);
    }

    /// Reads the next prompt and writes its first token.
    void begin(int slot) {
        const std::size_t text = next_++;
        slots_[slot] = text;
        const TokenIds& prompt = prompts_[text];
        Matrix<float> last;
        reading_.measure(static_cast<std::int64_t>(prompt.size()), [&] {
            if (loaded_)
                restore_slot(*model_, slot, static_cast<std::int64_t>(text), *loaded_);
            else
                model_->begin(slot);
            texts_[text].position = model_->position(slot);
            last = read(slot, prompt);
            Kokkos::fence("the prompt is read");
        });
        texts_[text].position += static_cast<std::int64_t>(prompt.size());
        append(slot, logits_of(last), 0);
    }

    /// The residual stream after the last of the tokens.
    Matrix<float> read(int slot, std::span<const std::int32_t> tokens) {
        const int piece = static_cast<int>(piece_x_.extent(0));
        Matrix<float> x;
        for (std::size_t done = 0; done < tokens.size(); done += x.extent(0)) {
            const int count = static_cast<int>(std::min<std::size_t>(piece, tokens.size() - done));
            x = first_rows(piece_x_, count);
            source_.embed(tokens.subspan(done, count), x);
            if (count == 1) // as all tokens that are written
                model_->step(std::array{slot}, x);
            else
                model_->take(slot, x);
        }
        const auto end = static_cast<int>(x.extent(0));
        return Kokkos::subview(x, Kokkos::make_pair(end - 1, end), Kokkos::ALL);
    }

    /// One more token of every text under way.
    void step() {
        active_.clear();
        last_tokens_.clear();
        for (int slot = 0; slot < static_cast<int>(slots_.size()); ++slot)
            if (slots_[slot] != none) {
                active_.push_back(slot);
                last_tokens_.push_back(texts_[slots_[slot]].tokens.back());
            }
        if (active_.empty()) return;
        writing_.measure(static_cast<std::int64_t>(active_.size()), [&] {
            const Matrix<float> x = first_rows(step_x_, static_cast<int>(active_.size()));
            source_.embed(last_tokens_, x);
            model_->step(active_, x);
            const auto logits = logits_of(x);
            for (std::size_t i = 0; i < active_.size(); ++i) append(active_[i], logits, i);
        });
    }

    /// [n, V] on the host.
    std::span<const float> logits_of(const Matrix<float>& x) {
        const auto logits = model_->logits(x);
        host_logits_ = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, logits);
        return {host_logits_.data(), host_logits_.size()};
    }

    /// Chooses a text's next token, and ends the text where it is the last.
    void append(int slot, std::span<const float> logits, std::size_t row) {
        const std::size_t number = slots_[slot];
        Text& text = texts_[number];
        const std::size_t vocab = source_.config().vocab_size;
        const auto token =
            sampler_.choose(logits.subspan(row * vocab, vocab), static_cast<std::int64_t>(number), text.position);
        text.tokens.push_back(token);
        ++text.position;
        if (stops_.contains(token))
            text.finish = "stop";
        else if (static_cast<int>(text.tokens.size()) >= options_.max_new_tokens)
            text.finish = "length";
        if (text.finish == nullptr) return;
        if (saved_) save_slot(*model_, slot, static_cast<std::int64_t>(number), token, *saved_);
        slots_[slot] = none;
    }

    void print_finished() {
        for (; printed_ < texts_.size() && texts_[printed_].finish != nullptr; ++printed_) {
            Text& text = texts_[printed_];
            const nlohmann::ordered_json line = {
                {"prompt", printed_}, {"tokens", text.tokens}, {"finish", text.finish}, {"position", text.position}};
            std::cout << line.dump() << std::endl;
            text.tokens = {};
        }
    }

    const Options& options_;
    GenerationModel source_;
    Sampler sampler_;
    std::set<std::int32_t> stops_;
    io::SessionIdentity identity_;
    std::optional<io::SessionReader> loaded_;
    std::optional<io::SessionWriter> saved_;
    std::vector<TokenIds> prompts_; ///< of a session that goes on, with the pending token in front
    std::optional<RecurrentModel<float>> model_;
    std::vector<Text> texts_;
    std::vector<std::size_t> slots_; ///< the text of each, or none
    std::size_t next_ = 0;           ///< the first text that has not begun
    std::size_t printed_ = 0;
    Matrix<float> piece_x_;
    Matrix<float> step_x_;
    Kokkos::View<const float**, Kokkos::LayoutRight, Kokkos::HostSpace> host_logits_;
    std::vector<int> active_;
    TokenIds last_tokens_;
    Throughput reading_;
    Throughput writing_;
};

} // namespace

void generate(const Options& options, const Communicator& world) {
    if (world.size() > 1)
        fail("lolcats_generate runs on one rank, not {}: start it without mpirun, with the cores of a node",
             world.size());
    Generation(options, world).run();
}

} // namespace lolcats
