#pragma once

#include <memory>

#include "c/c_arguments.hpp"
#include "c/c_error.hpp"
#include "dlbridge/convert.hpp"

namespace dlbridge::detail {

/// Calls its release(), if it has one. What that throws is dropped.
void give_back(const dlbridge_lease& lease) noexcept;

/// The core's form of a lease of a C program, whose callback may throw. Where there is no memory
/// for it, gives the lease back and throws std::bad_alloc.
[[nodiscard]] Lease kept(const dlbridge_lease& lease);

/// Runs the deleter of a DLManagedTensorVersioned, or of the legacy struct. What it throws is
/// dropped.
void run_deleter(void* managed) noexcept;
void run_legacy_deleter(void* managed) noexcept;

/// A managed tensor that was handed over: its deleter runs in the end, whatever else happens.
using Taken = std::unique_ptr<DLManagedTensorVersioned, decltype(&run_deleter)>;

/// Throws UsageError where it is NULL, and as ManagedTensor::adopt() does.
[[nodiscard]] ManagedTensor adopted(Taken taken);

/// What a C program gets. Where there are no elements DLPack wants no address either.
[[nodiscard]] inline DLManagedTensorVersioned* given_out(ManagedTensor tensor) noexcept {
  tensor.drop_address_if_empty();
  return tensor.release();
}

/// The door of a tensor that its C program describes: what carry() asks of it are callbacks.
class CallbackDoor {
 public:
  using Copying = NoScope;

  CallbackDoor(ReadSource& read, const Call& call)
      : source(read.source), given_(read.given), call_(call) {}

  [[nodiscard]] ManagedTensor acquire();
  [[nodiscard]] ManagedTensor prepare(const Leg& leg, Source& after);
  void warn(CastWarning met) const noexcept { call_.tell(met); }

  Source& source;

 private:
  const dlbridge_source& given_;
  const Call& call_;
};

/// The door of a tensor that is there already.
class TensorDoor {
 public:
  using Copying = NoScope;

  TensorDoor(ManagedTensor tensor, const Library& library, const Call& call)
      : tensor_(std::move(tensor)), call_(call) {
    describe(tensor_, library, source);
  }

  [[nodiscard]] ManagedTensor acquire() noexcept { return std::move(tensor_); }
  [[noreturn]] ManagedTensor prepare(const Leg& /*leg*/, Source& /*after*/) {
    refuse_to_prepare(source);
  }
  void warn(CastWarning met) const noexcept { call_.tell(met); }

  Source source;

 private:
  ManagedTensor tensor_;
  const Call& call_;
};

/// Decided and carried, as the target takes it.
template <typename Door>
[[nodiscard]] ManagedTensor crossed(Door& door, const Call& call) {
  ManagedTensor result = carried_out(door, call.accepted_plan(door.source), call.target);
  if (call.target.strides != StrideSupport::kAny) {
    result.drop_negative_strides();
  }
  result.drop_address_if_empty();
  return result;
}

}  // namespace dlbridge::detail
