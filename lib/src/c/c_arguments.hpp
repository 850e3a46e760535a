#pragma once

#include "dlbridge/dlbridge.h"
#include "dlbridge/plan.hpp"

namespace dlbridge::detail {

/// The words of a library; a struct that is NULL leaves those that are there. Borrows its texts.
void read_library(const dlbridge_library* given, Library& library);

[[nodiscard]] Policy read_policy(const dlbridge_policy* given);

/// The type of that name. `place`: where it stands, for the message.
[[nodiscard]] DType read_dtype(const char* name, const char* place);

/// Throws UsageError for a bit that DLPack 1.3 does not know.
void require_known(std::uint64_t flags);

/// What a C program asks for, read into the core's own terms. Throws UsageError; borrows texts.
class Call {
 public:
  Call(const dlbridge_capabilities* target, const dlbridge_policy* policy,
       const dlbridge_request* request);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  /// The plan for a source; throws its refusal.
  [[nodiscard]] Plan accepted_plan(const Source& source) const;

  /// Tells the caller what a cast met.
  void tell(CastWarning met) const noexcept;

  Capabilities target;
  Policy policy;
  Request request;

 private:
  const char** warning_ = nullptr;
};

/// A source of a C program, read and checked: nothing that plan() or a copy would stumble over is
/// left in it. Throws UsageError, MalformedTensor; borrows all that it was given.
class ReadSource {
 public:
  explicit ReadSource(const dlbridge_source* given);
  ReadSource(const ReadSource&) = delete;
  ReadSource& operator=(const ReadSource&) = delete;

  dlbridge_source given;
  Library library;
  Source source;

 private:
  void read_conditions();
  void read_tensor(const DLTensor& tensor);
  void require_sound() const;
};

}  // namespace dlbridge::detail
