#include "src/documents.hpp"

#include "src/settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace lolcats {
namespace {

/// Text for roff: dashes that can be copied to a shell, and no line that is taken for a request.
std::string roff(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '-')
            out += "\\-";
        else if (c == '\\')
            out += "\\e";
        else
            out += c;
    }
    return out.starts_with('.') || out.starts_with('\'') ? "\\&" + out : out;
}

std::string upper(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
    return text;
}

/// A term of a list and what it means.
std::string item(const std::string& term, const std::string& meaning) {
    return fmt::format(".TP\n{}\n{}\n", term, meaning);
}

/// A list of choices may go on in the next line.
std::string with_breaks(const std::string& list) {
    std::string text;
    for (const char c : list) text += c == ',' ? ",\\:" : std::string(1, c);
    return text;
}

std::string option_item(const Setting& setting) {
    std::string term = fmt::format("\\fB{}\\fR", roff(std::string("--") + setting.name));
    const std::string type = type_name(setting);
    if (!type.empty()) term += fmt::format("=\\fI{}\\fR", with_breaks(roff(type)));
    std::string meaning = roff(setting.help);
    const std::string value = text_of(setting);
    if (!type.empty() && !value.empty()) meaning += fmt::format(" (default: {})", roff(value));
    return item(term, meaning);
}

std::string options_section() {
    Options defaults;
    std::string text = ".SH OPTIONS\nAll programs take the same options; those of other programs do nothing.\n";
    text += item("\\fB\\-h\\fR, \\fB\\-\\-help\\fR", "print the options and exit");
    text += item("\\fB\\-\\-version\\fR", "print the version and exit");
    text += item("\\fB\\-\\-config\\fR=\\fIFILE\\fR", "TOML file of settings, by default lolcats.toml if it exists");
    const char* group = "";
    for (const Setting& setting : settings_of(defaults)) {
        if (group != setting.group) text += fmt::format(".SS {}\n", roff(setting.group));
        group = setting.group;
        text += option_item(setting);
    }
    return text;
}

std::string exit_status_section() {
    return ".SH EXIT STATUS\n" + item("0", "all went well") +
           item("1", "an error, of which one line on standard error tells the file, the thing and the remedy") +
           item("85", "stopped by a signal or at its wall time with its state written; the same command goes on (not "
                      "lolcats_eval and lolcats_generate, which keep no state)");
}

std::string see_also_section(const ProgramText& program) {
    Words pages;
    for (const ProgramText& other : programs::all)
        if (std::string(other.name) != program.name) pages.push_back(fmt::format("\\fB{}\\fR(1)", other.name));
    return fmt::format(".SH SEE ALSO\n{}\n", join(pages, ",\n"));
}

Words option_names() {
    Options defaults;
    Words names = {"--help", "--version", "--config"};
    for (const Setting& setting : settings_of(defaults)) names.push_back(std::string("--") + setting.name);
    return names;
}

/// The cases of a shell's `case` of the option that is to get a value.
std::string completion_cases() {
    Options defaults;
    std::string text;
    for (const Setting& setting : settings_of(defaults)) {
        if (setting.choices.empty()) continue;
        text += fmt::format("    --{}) COMPREPLY=($(compgen -W '{}' -- \"$word\")); return ;;\n", setting.name,
                            join(setting.choices, " "));
    }
    Words flags = {"--help", "--version"};
    Words numbers;
    for (const Setting& setting : settings_of(defaults)) {
        const std::string type = type_name(setting);
        if (type.empty()) flags.push_back(std::string("--") + setting.name);
        if (type == "INT" || type == "NUMBER") numbers.push_back(std::string("--") + setting.name);
    }
    text += fmt::format("    {}) return ;;\n", join(numbers, "|"));
    text += fmt::format("    {}) ;;\n", join(flags, "|"));
    return text + "    --*) COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n";
}

} // namespace

std::string manual_page(const ProgramText& program, const std::string& version, const std::string& date) {
    std::string page =
        fmt::format(".TH {} 1 {} \"lolcats\\-hpc {}\" \"LoLCATs\\-HPC\"\n", upper(program.name), date, version);
    page += ".ad l\n"; // names of options and files are not cut, so lines cannot be made equally long
    page += fmt::format(".SH NAME\n{} \\- {}\n", program.name, roff(program.purpose));
    page += fmt::format(".SH SYNOPSIS\n\\fB{0}\\fR [\\fIOPTION\\fR[=\\fIVALUE\\fR]]...\n.br\n"
                        "\\fBmpirun\\fR \\fB\\-n\\fR \\fIRANKS\\fR \\fB{0}\\fR [\\fIOPTION\\fR[=\\fIVALUE\\fR]]...\n",
                        program.name);
    page += fmt::format(".SH DESCRIPTION\n{}\n.PP\n", roff(program.description));
    page += "Settings come from the configuration file and the command line, which comes first; the keys of the file "
            "are the\noptions' names. A key that is not known ends the run and names the nearest one that is.\n";
    return page + options_section() + exit_status_section() + see_also_section(program);
}

std::string bash_completion() {
    Words names;
    for (const ProgramText& program : programs::all) names.emplace_back(program.name);
    return "# Completion of the programs of LoLCATs-HPC for bash.\n"
           "_lolcats() {\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
           "    # readline splits --name=value at the equals sign\n"
           "    [ \"$word\" = = ] && word=\n"
           "    [ \"$before\" = = ] && before=${COMP_WORDS[COMP_CWORD - 2]}\n"
           "    compopt -o filenames 2>/dev/null # fails where no key was pressed\n"
           "    case $before in\n" +
           completion_cases() +
           "    esac\n"
           "    COMPREPLY=($(compgen -W '" +
           join(option_names(), " ") +
           "' -- \"$word\"))\n"
           "}\n"
           "complete -F _lolcats " +
           join(names, " ") + "\n";
}

} // namespace lolcats
