// Included before every file of a build with mutants: which of them is on.
#pragma once

#include <cstdlib>
#include <optional>

inline int mutant_of_environment() {
  const char* text = std::getenv("DLBRIDGE_MUTANT");
  return text == nullptr ? -1 : std::atoi(text);
}

/// The number of the mutant that is on, or -1. The environment says which when a library is loaded;
/// tests/mutation/mutate.py sets it anew in every process that it forks.
extern "C" {
__attribute__((weak, visibility("default"))) int dlbridge_mutant = mutant_of_environment();
}

constexpr bool mutant_is_on(int number) {
  return !__builtin_is_constant_evaluated() && dlbridge_mutant == number;
}
