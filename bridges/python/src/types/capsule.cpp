#include "types/capsule.hpp"

#include <cstring>

namespace dlbridge::python {
namespace {

constexpr const char* kVersionedName = "dltensor_versioned";
constexpr const char* kLegacyName = "dltensor";
constexpr const char* kUsedVersionedName = "used_dltensor_versioned";
constexpr const char* kUsedLegacyName = "used_dltensor";

template <typename Managed>
void destroy(PyObject* capsule, const char* name) {
  if (PyCapsule_IsValid(capsule, name) == 0) {
    return;  // somebody took it
  }
  const KeepError keep;  // capsules also die while an error is being raised
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  const GivesBack scope(managed->dl_tensor);
  managed->deleter(managed);
}

void destroy_versioned(PyObject* capsule) {
  destroy<DLManagedTensorVersioned>(capsule, kVersionedName);
}
void destroy_legacy(PyObject* capsule) {
  destroy<DLManagedTensor>(capsule, kLegacyName);
}

[[noreturn]] void refuse_capsule(PyObject* capsule, CapsuleKind kind) {
  const char* name = PyCapsule_GetName(capsule);
  PyErr_Clear();
  const std::string quoted =
      name == nullptr ? "without a name" : "named \"" + std::string(name) + "\"";
  const std::string fault =
      kind == CapsuleKind::kUsed
          ? "the capsule was used already (each holds its tensor once); make a new one"
          : "a capsule " + quoted +
                " holds no DLPack tensor; \"dltensor_versioned\" or "
                "\"dltensor\" would";
  throw ConversionRefused("cannot take a tensor out of this capsule: " + fault, {fault});
}

template <typename Managed>
Managed* pointer_in(PyObject* capsule, const char* name) {
  return static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
}

}  // namespace

CapsuleKind capsule_kind(PyObject* capsule) noexcept {
  const char* name = PyCapsule_GetName(capsule);
  if (name == nullptr) {  // it may have none
    return CapsuleKind::kNone;
  }
  if (std::strcmp(name, kVersionedName) == 0) {
    return CapsuleKind::kVersioned;
  }
  if (std::strcmp(name, kLegacyName) == 0) {
    return CapsuleKind::kLegacy;
  }
  return std::strncmp(name, "used_dltensor", 13) == 0 ? CapsuleKind::kUsed : CapsuleKind::kNone;
}

ManagedTensor take_capsule(PyObject* capsule, bool legacy_writable) {
  const CapsuleKind kind = capsule_kind(capsule);
  if (kind == CapsuleKind::kVersioned) {
    auto* managed = pointer_in<DLManagedTensorVersioned>(capsule, kVersionedName);
    checked(PyCapsule_SetName(capsule, kUsedVersionedName));
    return ManagedTensor::adopt(managed, run_foreign_deleter);
  }
  if (kind == CapsuleKind::kLegacy) {
    auto* managed = pointer_in<DLManagedTensor>(capsule, kLegacyName);
    checked(PyCapsule_SetName(capsule, kUsedLegacyName));
    return ManagedTensor::adopt(managed, legacy_writable, run_foreign_legacy_deleter);
  }
  refuse_capsule(capsule, kind);
}

void peek_capsule(PyObject* capsule, const Library& library, Source& source) {
  const CapsuleKind kind = capsule_kind(capsule);
  bool readonly = true;
  if (kind == CapsuleKind::kVersioned) {
    const auto* managed = pointer_in<DLManagedTensorVersioned>(capsule, kVersionedName);
    if (managed->version.major != DLPACK_MAJOR_VERSION) {
      throw MalformedTensor("it is of DLPack version " + std::to_string(managed->version.major) +
                            "." + std::to_string(managed->version.minor) +
                            ", and only major version 1 is understood");
    }
    readonly = (managed->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
    source.tensor = managed->dl_tensor;
  } else if (kind == CapsuleKind::kLegacy) {
    source.tensor = pointer_in<DLManagedTensor>(capsule, kLegacyName)->dl_tensor;
  } else {
    refuse_capsule(capsule, kind);
  }
  if (const auto fault = tensor_fault(source.tensor); !fault.empty()) {
    throw MalformedTensor(fault);
  }
  if (source.tensor.strides == nullptr) {
    fill_c_strides({source.tensor.shape, static_cast<std::size_t>(source.tensor.ndim)},
                   source.room.data());
    source.tensor.strides = source.room.data();
  }
  source.traits.library = &library;
  source.traits.conditions.add_if(readonly, Condition::kReadOnly);
}

Ref make_capsule(ManagedTensor tensor, bool versioned) {
  tensor.drop_address_if_empty();
  if (versioned) {
    DLManagedTensorVersioned* managed = tensor.release();
    PyObject* capsule = PyCapsule_New(managed, kVersionedName, destroy_versioned);
    if (capsule == nullptr) {
      managed->deleter(managed);
    }
    return checked(capsule);
  }
  DLManagedTensor* managed = tensor.release_legacy();
  PyObject* capsule = PyCapsule_New(managed, kLegacyName, destroy_legacy);
  if (capsule == nullptr) {
    managed->deleter(managed);
  }
  return checked(capsule);
}

}  // namespace dlbridge::python
