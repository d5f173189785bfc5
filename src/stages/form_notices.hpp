#pragma once
/// What a user is told about the form of the students, beside errors. All of it goes to the console, so one rank calls.
#include "src/model/students.hpp"

namespace lolcats {

/// Where files of feature maps do not say which form they are for, and the user does not either.
void warn_of_assumed_form(const Options& options, const FeatureMapFiles& maps, const StudentForm& form);

/// Where sequences of `length` tokens have no far keys.
void warn_if_pure_softmax(const StudentForm& form, int length);

} // namespace lolcats
