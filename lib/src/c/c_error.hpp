#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dlbridge/dlbridge.h"
#include "dlbridge/plan.hpp"

/// The one without words says that there was no memory for any; it is not freed.
struct dlbridge_error {
  dlbridge_status status = DLBRIDGE_INTERNAL;
  const dlbridge::Explanation* words = nullptr;
};

namespace dlbridge::detail {

/// An argument that a C program got wrong.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline void require_usage(bool holds, const char* otherwise) {
  if (!holds) {
    throw UsageError(otherwise);
  }
}

/// A callback of a C program said that it failed.
struct CallbackFailed {
  dlbridge_status status;
  Explanation words;
};

/// Ends an error when its scope does.
class ErrorOwner {
 public:
  ErrorOwner() = default;
  ErrorOwner(const ErrorOwner&) = delete;
  ErrorOwner& operator=(const ErrorOwner&) = delete;
  ~ErrorOwner() { dlbridge_error_free(error_); }
  [[nodiscard]] dlbridge_error** place() noexcept { return &error_; }

  /// Throws CallbackFailed for a status that is none of success. `name`: the callback's.
  void require_success(dlbridge_status status, const char* name) const;

 private:
  dlbridge_error* error_ = nullptr;
};

/// The exception that is being handled, as a status and in `error`, unless that is NULL.
[[nodiscard]] dlbridge_status told(dlbridge_error** error) noexcept;

/// A text, or NULL from the end on.
[[nodiscard]] const char* text_at(const std::vector<std::string>& texts,
                                  std::size_t index) noexcept;
[[nodiscard]] const char* text_or_null(const std::string& text) noexcept;

/// What every function that makes something is around: `make()` gives what goes to `out`, and
/// throws where there is nothing to give.
template <typename Made, typename Make>
[[nodiscard]] dlbridge_status give(Made** out, dlbridge_error** error, Make&& make) noexcept {
  if (error != nullptr) {
    *error = nullptr;
  }
  if (out != nullptr) {
    *out = nullptr;
  }
  try {
    require_usage(out != nullptr, "out is NULL; give the address of the pointer to be set");
    *out = std::forward<Make>(make)();
    return DLBRIDGE_OK;
  } catch (...) {
    return told(error);
  }
}

}  // namespace dlbridge::detail
