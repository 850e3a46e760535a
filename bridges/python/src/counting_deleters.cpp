#include "counting_deleters.hpp"

#include <atomic>

namespace dlbridge::python {
namespace {

template <typename Managed>
void count(Managed* managed) {
  std::atomic_ref(*static_cast<std::uint64_t*>(managed->manager_ctx)).fetch_add(1);
}

template <typename Managed>
unsigned long long address_of_deleter() {
  return reinterpret_cast<std::uintptr_t>(&count<Managed>);
}

}  // namespace

Ref counting_deleters() {
  return checked(Py_BuildValue("(KK)", address_of_deleter<DLManagedTensorVersioned>(),
                               address_of_deleter<DLManagedTensor>()));
}

}  // namespace dlbridge::python
