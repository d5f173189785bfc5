#include "src/console.hpp"

#include <unistd.h>

#include "lolcats/error.hpp"

#include <cstdio>
#include <iostream>
#include <memory>
#include <mutex>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace lolcats {
namespace {

constexpr const char* erase_line = "\r\x1b[K";

/// Writes log lines above the status line.
class TerminalSink : public spdlog::sinks::base_sink<std::mutex> {
public:
    void show(const std::string& status) {
        const std::lock_guard lock(mutex_);
        if (status == status_) return;
        status_ = status;
        erase();
        draw();
    }

protected:
    void sink_it_(const spdlog::details::log_msg& message) override {
        erase();
        lines_.log(message);
        draw();
    }
    void flush_() override { lines_.flush(); }
    void set_pattern_(const std::string& pattern) override { lines_.set_pattern(pattern); }
    void set_formatter_(std::unique_ptr<spdlog::formatter> formatter) override {
        lines_.set_formatter(std::move(formatter));
    }

private:
    // A terminal that has gone is no reason to fail: fmt::print would throw.
    static void erase() { std::fputs(erase_line, stderr); }
    void draw() const {
        std::fputs(status_.c_str(), stderr);
        std::fflush(stderr);
    }

    spdlog::sinks::stderr_color_sink_st lines_;
    std::string status_;
};

std::shared_ptr<TerminalSink> terminal; ///< where stderr is one

} // namespace

void start_console(const std::string& name) {
    if (::isatty(STDERR_FILENO) == 1) {
        terminal = std::make_shared<TerminalSink>();
        spdlog::set_default_logger(std::make_shared<spdlog::logger>(name, terminal));
    } else {
        spdlog::set_default_logger(spdlog::stderr_color_mt(name));
    }
    spdlog::set_pattern("%H:%M:%S %^%l%$ %v");
}

void show_status(const std::string& text) {
    if (terminal != nullptr) terminal->show(text);
}

void flush_results() {
    std::cout.flush();
    std::fflush(stdout);
}

void require_results_out() {
    flush_results();
    if (std::cout.fail() || std::ferror(stdout) != 0)
        fail("standard output: not all results could be written to it; free space where it goes, or send it elsewhere, "
             "then run the same command again");
}

} // namespace lolcats
