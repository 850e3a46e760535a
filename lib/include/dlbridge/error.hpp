#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dlbridge/dtype.hpp"

namespace dlbridge {

// Visible, whatever the project around it hides: with libc++ a program catches what a shared core
// throws only where both have the one description of the class.

/// A conversion that does not take place: what was met and why it is refused (`what()` and
/// `reasons`), and the call that would work (`fix`, empty where nothing would). When it is thrown,
/// nothing has been handed over, and whatever was taken in has been released exactly once.
class __attribute__((visibility("default"))) ConversionRefused : public std::runtime_error {
 public:
  ConversionRefused(const std::string& message, std::vector<std::string> reasons_,
                    std::string fix_ = {})
      : std::runtime_error(message), reasons(std::move(reasons_)), fix(std::move(fix_)) {}

  std::vector<std::string> reasons;
  std::string fix;
};

/// An integer that the integers of the type asked for do not reach.
struct OutOfRange {
  std::string place;  // of the element, as written behind its tensor's name: "[2, 5]"
  std::string value;
  DType from;
  DType to;
  std::int64_t least;  // of all elements; of those that are all above them, the largest there is
  std::uint64_t most;  // the same: 0 where all are below
  DTypeSet dtypes = DTypeSet::everything();  // of whoever is to have them
};

/// The narrowest of the integers in `met.dtypes` that holds every element; of no bits where none
/// does. Of two, the one that is signed as the one asked for.
[[nodiscard]] DType holder_of(const OutOfRange& met) noexcept;

/// A cast that would have wrapped that integer.
class __attribute__((visibility("default"))) ValueOutOfRange : public ConversionRefused {
 public:
  explicit ValueOutOfRange(OutOfRange met_);

  OutOfRange met;
};

/// A tensor that breaks a rule of DLPack: there is no policy under which it could be read.
class __attribute__((visibility("default"))) MalformedTensor : public ConversionRefused {
 public:
  explicit MalformedTensor(const std::string& fault)
      : ConversionRefused("cannot take this DLPack tensor in: " + fault, {fault}) {}
};

}  // namespace dlbridge
