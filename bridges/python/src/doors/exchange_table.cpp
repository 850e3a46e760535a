#include "doors/exchange_table.hpp"

#include "dlbridge/python_lease.hpp"

namespace dlbridge::python {

const DLPackExchangeAPI* exchange_table_of(PyObject* type) {
  constexpr const char* kName = "dlpack_exchange_api";
  const Ref capsule(PyObject_GetAttrString(type, "__dlpack_c_exchange_api__"));
  forget_error();
  if (!capsule || PyCapsule_IsValid(capsule.get(), kName) == 0) {
    return nullptr;
  }
  const auto* header =
      static_cast<const DLPackExchangeAPIHeader*>(PyCapsule_GetPointer(capsule.get(), kName));
  // There will not be so many versions: a longer chain leads in a circle.
  constexpr int kLongestChain = 64;
  for (int i = 0; header != nullptr && header->version.major > DLPACK_MAJOR_VERSION; ++i) {
    header = i < kLongestChain ? header->prev_api : nullptr;
  }
  if (header == nullptr || header->version.major != DLPACK_MAJOR_VERSION) {
    return nullptr;
  }
  return reinterpret_cast<const DLPackExchangeAPI*>(header);
}

// When it fails, torch 2.15 leaves the tensor with its caller or has ended it, by how far it came:
// a stride that overflows is found last, and so is that there is no memory for the Python object. A
// count of our own tells which.
PyObject* deliver_by_table(const DLPackExchangeAPI& table, ManagedTensor tensor) {
  DLManagedTensorVersioned* managed = tensor.release();
  auto* block = reinterpret_cast<detail::Block*>(managed);
  detail::retain(block);
  const std::uint32_t both = block->references.load(std::memory_order_relaxed);
  void* delivered = nullptr;
  const int status = table.managed_tensor_to_py_object_no_sync(managed, &delivered);
  if (status != 0) {
    const KeepError keep;
    if (block->references.load(std::memory_order_relaxed) == both) {
      detail::release(block);
    }
    detail::release(block);
    delivered = nullptr;
  } else {
    detail::release(block);
  }
  return static_cast<PyObject*>(delivered);
}

}  // namespace dlbridge::python
