#include "c/c_doors.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

namespace dlbridge::detail {
namespace {

void release_kept(void* context) noexcept {
  const std::unique_ptr<dlbridge_lease> lease(static_cast<dlbridge_lease*>(context));
  give_back(*lease);
}

template <typename Managed>
void delete_managed(void* pointer) noexcept {
  auto* managed = static_cast<Managed*>(pointer);
  if (managed->deleter != nullptr) {
    try {
      managed->deleter(managed);
    } catch (...) {  // nobody is there to be told
    }
  }
}

}  // namespace

void give_back(const dlbridge_lease& lease) noexcept {
  if (lease.release != nullptr) {
    try {
      lease.release(lease.context);
    } catch (...) {  // nobody is there to be told
    }
  }
}

Lease kept(const dlbridge_lease& lease) {
  std::unique_ptr<dlbridge_lease> held(new (std::nothrow) dlbridge_lease(lease));
  if (held == nullptr) {
    give_back(lease);
    throw std::bad_alloc();
  }
  return {held.release(), release_kept};
}

void run_deleter(void* managed) noexcept {
  delete_managed<DLManagedTensorVersioned>(managed);
}

void run_legacy_deleter(void* managed) noexcept {
  delete_managed<DLManagedTensor>(managed);
}

ManagedTensor adopted(Taken taken) {
  require_usage(taken != nullptr, "the tensor is NULL");
  return ManagedTensor::adopt(taken.release(), run_deleter);
}

ManagedTensor CallbackDoor::acquire() {
  DLTensor tensor = source.tensor;
  dlbridge_lease lease{};
  ErrorOwner error;
  error.require_success(given_.acquire(given_.context, &tensor.data, &lease, error.place()),
                        "acquire");
  require_usage(lease.release != nullptr,
                "acquire() of the source set no release(); give one that does nothing where "
                "nothing keeps the memory");
  // Elsewhere than where it was looked at, it is looked at again.
  const bool moved = tensor.data != source.tensor.data;
  // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): the lease frees what it is in
  return moved ? ManagedTensor::own(tensor, given_.flags, kept(lease))
               : ManagedTensor::own_trusted(tensor, given_.flags, kept(lease));
}

ManagedTensor CallbackDoor::prepare(const Leg& leg, Source& after) {
  std::vector<const char*> steps;
  for (std::size_t i = 0; i < kStepNames.size(); ++i) {
    if (leg.has(static_cast<Step>(i))) {
      steps.push_back(kStepNames[i].data());
    }
  }
  steps.push_back(nullptr);
  const dlbridge_leg told{sizeof(dlbridge_leg), leg.to.dl(), steps.data()};
  DLManagedTensorVersioned* out = nullptr;
  ErrorOwner error;
  error.require_success(given_.prepare(given_.context, &told, &out, error.place()), "prepare");
  require_usage(out != nullptr, "prepare() of the source succeeded and gave nothing");
  ManagedTensor made = ManagedTensor::adopt(out, run_deleter);
  require_usage(!made.readonly(), "prepare() of the source gave a tensor that is read-only");
  describe(made, *source.traits.library, after);
  require_prepared(leg, source, after);
  return made;
}

}  // namespace dlbridge::detail
