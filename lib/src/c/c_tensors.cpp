#include <memory>

#include "c/c_doors.hpp"
#include "tensor/layout.hpp"

using namespace dlbridge;          // NOLINT(google-build-using-namespace): C has no namespaces
using namespace dlbridge::detail;  // NOLINT(google-build-using-namespace)

namespace {

// The legacy struct: it says neither who may write nor how elements below a byte lie.
Capabilities legacy_capabilities() {
  Capabilities legacy = managed_tensor_capabilities();
  legacy.name = "a legacy tensor";
  legacy.readonly = ReadOnlySupport::kNever;
  legacy.carries_padding = false;
  return legacy;
}

}  // namespace

dlbridge_status dlbridge_to_managed(const dlbridge_source* source,
                                    const dlbridge_capabilities* target,
                                    const dlbridge_policy* policy, const dlbridge_request* request,
                                    DLManagedTensorVersioned** out, dlbridge_error** error) {
  return give(out, error, [&] {
    const Call call(target, policy, request);
    ReadSource read(source);
    require_usage(read.given.acquire != nullptr,
                  "dlbridge_source.acquire is NULL; dlbridge_to_managed() requires it");
    CallbackDoor door(read, call);
    return crossed(door, call).release();
  });
}

dlbridge_status dlbridge_convert(DLManagedTensorVersioned* tensor, const dlbridge_library* library,
                                 const dlbridge_capabilities* target, const dlbridge_policy* policy,
                                 const dlbridge_request* request, DLManagedTensorVersioned** out,
                                 dlbridge_error** error) {
  Taken taken(tensor, run_deleter);
  return give(out, error, [&] {
    const Call call(target, policy, request);
    Library words = DLPack::kLibrary;
    read_library(library, words);
    TensorDoor door(adopted(std::move(taken)), words, call);
    return crossed(door, call).release();
  });
}

dlbridge_status dlbridge_own(const DLTensor* tensor, uint64_t flags, const dlbridge_lease* lease,
                             DLManagedTensorVersioned** out, dlbridge_error** error) {
  // First of all: from here on the lease is given back by whatever fails.
  const dlbridge_lease held = lease == nullptr ? dlbridge_lease{} : *lease;
  const auto end = [](const dlbridge_lease* unused) noexcept { give_back(*unused); };
  std::unique_ptr<const dlbridge_lease, decltype(end)> guard(&held, end);
  return give(out, error, [&] {
    require_usage(lease != nullptr && lease->release != nullptr,
                  "the lease has no release(); give one that does nothing where nothing keeps the "
                  "memory");
    require_usage(tensor != nullptr, "the tensor is NULL");
    require_known(flags);
    (void)guard.release();
    return given_out(ManagedTensor::own(*tensor, flags, kept(held)));
  });
}

dlbridge_status dlbridge_allocate(const char* dtype, int32_t ndim, const int64_t* shape,
                                  DLManagedTensorVersioned** out, dlbridge_error** error) {
  return give(out, error, [&] {
    require_usage(dtype != nullptr, "dtype is NULL; give a name such as float32");
    DLTensor wanted{};
    wanted.data = &wanted;  // the memory that is to come
    wanted.device = Device{}.dl();
    wanted.dtype = read_dtype(dtype, "dtype").dl();
    wanted.ndim = ndim;
    wanted.shape = const_cast<std::int64_t*>(shape);
    require_sound(wanted);
    return given_out(
        ManagedTensor::allocate(wanted.dtype, {shape, static_cast<std::size_t>(ndim)}));
  });
}

dlbridge_status dlbridge_share(const DLManagedTensorVersioned* tensor,
                               DLManagedTensorVersioned** out, dlbridge_error** error) {
  return give(out, error, [&] {
    require_usage(tensor != nullptr, "the tensor is NULL");
    require_usage(ManagedTensor::is_own(*tensor),
                  "dlbridge_share() is for tensors that dlbridge gave; make one of this by "
                  "dlbridge_convert(), which takes it");
    // Only counts: the struct that its caller keeps is not changed by it.
    ManagedTensor kept = ManagedTensor::retake(const_cast<DLManagedTensorVersioned*>(tensor));
    try {
      ManagedTensor shared = kept.share();
      (void)kept.release();
      return given_out(std::move(shared));
    } catch (...) {
      (void)kept.release();
      throw;
    }
  });
}

dlbridge_status dlbridge_from_legacy(DLManagedTensor* tensor, int32_t writable,
                                     DLManagedTensorVersioned** out, dlbridge_error** error) {
  std::unique_ptr<DLManagedTensor, decltype(&run_legacy_deleter)> taken(tensor, run_legacy_deleter);
  return give(out, error, [&] {
    require_usage(taken != nullptr, "the tensor is NULL");
    return given_out(ManagedTensor::adopt(taken.release(), writable != 0, run_legacy_deleter));
  });
}

dlbridge_status dlbridge_to_legacy(DLManagedTensorVersioned* tensor, const dlbridge_policy* policy,
                                   DLManagedTensor** out, dlbridge_error** error) {
  Taken taken(tensor, run_deleter);
  return give(out, error, [&] {
    Call call(nullptr, policy, nullptr);
    call.target = legacy_capabilities();
    TensorDoor door(adopted(std::move(taken)), DLPack::kLibrary, call);
    return crossed(door, call).release_legacy();
  });
}
