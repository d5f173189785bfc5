#pragma once
/// Generation of text, as token ids, by the teacher or a linearised model.
#include "lolcats/options.hpp"
#include "src/comm/communicator.hpp"

namespace lolcats {

/// Prints a JSON object a line on stdout for each of --prompts, in their order, as soon as those before are there:
/// {"prompt": number from 0, "tokens": [new ones, a stop token included], "finish": "stop" or "length", "position":
/// tokens of the text in all}. Of one rank.
///
/// --save-state keeps the states that the texts end in, and a run with --load-state goes on from them, each text with
/// its prompt of that run, if --prompts gives any, after it.
void generate(const Options& options, const Communicator& world);

} // namespace lolcats
