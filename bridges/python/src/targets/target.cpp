#include "targets/target.hpp"

#include <new>

#include "registry.hpp"
#include "targets/managed_target.hpp"
#include "targets/numpy_target.hpp"
#include "targets/shared_target.hpp"
#include "targets/torch_target.hpp"

namespace dlbridge::python {
namespace {

constexpr const char* kTargetCapsule = "dlbridge.target";

void delete_target(PyObject* capsule) {
  delete static_cast<Target*>(PyCapsule_GetPointer(capsule, kTargetCapsule));
}

}  // namespace

Ref target_capsule(std::unique_ptr<Target> target) {
  Ref capsule = checked(PyCapsule_New(target.get(), kTargetCapsule, delete_target));
  (void)target.release();
  return capsule;
}

const Target& target_in(PyObject* name_or_capsule) {
  if (PyCapsule_CheckExact(name_or_capsule)) {
    return *static_cast<const Target*>(
        checked_pointer(PyCapsule_GetPointer(name_or_capsule, kTargetCapsule)));
  }
  const std::pair<const char*, const Target&> known[] = {
      {"numpy", kToNumPy}, {"torch", kToTorch}, {"dlbridge", kToManaged}, {"process", kToProcess}};
  for (const auto& [name, target] : known) {
    if (is_text(name_or_capsule, name)) {
      return target;
    }
  }
  raise(PyExc_ValueError, "there is no compiled target of that name");
}

Ref made_by(const char* result, PyObject* made) {
  if (made != nullptr) [[likely]] {
    return Ref(made);
  }
  KeepError raised;
  if (raised.type() != PyExc_ValueError && raised.type() != PyExc_RuntimeError) {
    throw PythonError();
  }
  const Ref value = Ref::borrow(raised.value());
  raised.drop();
  const std::string text = text_of(value.get());
  const std::string said = text.substr(0, text.find('\n'));  // torch adds a stack of C++
  if (said.starts_with("Failed to allocate")) {              // torch 2.15's words for it
    throw std::bad_alloc();
  }
  throw ConversionRefused("cannot make a " + std::string(result) + " of this tensor (" + said + ")",
                          {said});
}

}  // namespace dlbridge::python
