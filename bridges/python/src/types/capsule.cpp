#include "types/capsule.hpp"

#include <algorithm>
#include <cstring>

namespace dlbridge::python {
namespace {

template <typename Managed>
constexpr const char* kName = "dltensor_versioned";
template <>
constexpr const char* kName<DLManagedTensor> = "dltensor";
template <typename Managed>
constexpr const char* kUsedName = "used_dltensor_versioned";
template <>
constexpr const char* kUsedName<DLManagedTensor> = "used_dltensor";

template <typename Managed>
Managed* pointer_in(PyObject* capsule) {
  return static_cast<Managed*>(PyCapsule_GetPointer(capsule, kName<Managed>));
}

template <typename Managed>
void destroy(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kName<Managed>) == 0) {
    return;  // somebody took it
  }
  const KeepError keep;  // capsules also die while an error is being raised
  auto* managed = pointer_in<Managed>(capsule);
  const GivesBack scope(managed->dl_tensor);
  managed->deleter(managed);
}

template <typename Managed>
Ref new_capsule(Managed* managed) {
  PyObject* capsule = PyCapsule_New(managed, kName<Managed>, destroy<Managed>);
  if (capsule == nullptr) {
    managed->deleter(managed);
  }
  return checked(capsule);
}

// The capsule's tensor, which nobody else can take any more.
template <typename Managed>
Managed* taken_out(PyObject* capsule) {
  auto* managed = pointer_in<Managed>(capsule);
  checked(PyCapsule_SetName(capsule, kUsedName<Managed>));
  return managed;
}

// Ends the tensor of a used capsule.
template <typename Managed>
void spend(PyObject* capsule) noexcept {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, kUsedName<Managed>));
  run_with_gil(managed, dlbridge::detail::run_own_deleter<Managed>);
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

}  // namespace

CapsuleKind capsule_kind(PyObject* capsule) noexcept {
  const char* name = PyCapsule_GetName(capsule);
  if (name == nullptr) {  // it may have none
    return CapsuleKind::kNone;
  }
  if (std::strcmp(name, kName<DLManagedTensorVersioned>) == 0) {
    return CapsuleKind::kVersioned;
  }
  if (std::strcmp(name, kName<DLManagedTensor>) == 0) {
    return CapsuleKind::kLegacy;
  }
  return std::strncmp(name, "used_dltensor", 13) == 0 ? CapsuleKind::kUsed : CapsuleKind::kNone;
}

ManagedTensor take_capsule(PyObject* capsule, bool legacy_writable) {
  const CapsuleKind kind = capsule_kind(capsule);
  if (kind == CapsuleKind::kVersioned) {
    return ManagedTensor::adopt(taken_out<DLManagedTensorVersioned>(capsule), run_foreign_deleter);
  }
  if (kind == CapsuleKind::kLegacy) {
    return ManagedTensor::adopt(taken_out<DLManagedTensor>(capsule), legacy_writable,
                                run_foreign_legacy_deleter);
  }
  refuse_capsule(capsule, kind);
}

LentCapsule lend_capsule(PyObject* capsule) {
  const CapsuleKind kind = capsule_kind(capsule);
  if (kind != CapsuleKind::kVersioned && kind != CapsuleKind::kLegacy) {
    refuse_capsule(capsule, kind);
  }
  const LentCapsule lent{capsule, PyCapsule_GetName(capsule)};
  checked(PyCapsule_SetName(capsule, kind == CapsuleKind::kVersioned
                                         ? kUsedName<DLManagedTensorVersioned>
                                         : kUsedName<DLManagedTensor>));
  return lent;
}

void end_lending(LentCapsule lent, bool spent) noexcept {
  if (!spent) {
    (void)PyCapsule_SetName(lent.capsule, lent.name);
  } else if (PyCapsule_IsValid(lent.capsule, kUsedName<DLManagedTensor>) != 0) {
    spend<DLManagedTensor>(lent.capsule);
  } else {
    spend<DLManagedTensorVersioned>(lent.capsule);
  }
}

void peek_capsule(PyObject* capsule, const Library& library, Source& source) {
  const CapsuleKind kind = capsule_kind(capsule);
  DLTensor tensor;
  std::uint64_t flags = DLPACK_FLAG_BITMASK_READ_ONLY;
  if (kind == CapsuleKind::kVersioned) {
    const auto* managed = pointer_in<DLManagedTensorVersioned>(capsule);
    dlbridge::detail::require_version(managed->version);
    flags = managed->flags;
    tensor = managed->dl_tensor;
  } else if (kind == CapsuleKind::kLegacy) {
    tensor = pointer_in<DLManagedTensor>(capsule)->dl_tensor;
  } else {
    refuse_capsule(capsule, kind);
  }
  if (const auto fault = tensor_fault(tensor); !fault.empty()) {
    throw MalformedTensor(fault);
  }
  // Copied, since somebody else may take the tensor before we do.
  std::int64_t* strides = source.room.data();
  std::int64_t* shape = strides + kMaxDimensions;
  std::copy_n(tensor.shape, tensor.ndim, shape);
  if (tensor.strides == nullptr) {
    fill_c_strides({shape, static_cast<std::size_t>(tensor.ndim)}, strides);
  } else {
    std::copy_n(tensor.strides, tensor.ndim, strides);
  }
  tensor.shape = shape;
  tensor.strides = strides;
  describe(tensor, flags, library, source);
}

Ref make_capsule(ManagedTensor tensor, bool versioned) {
  tensor.drop_address_if_empty();
  return versioned ? new_capsule(tensor.release()) : new_capsule(tensor.release_legacy());
}

}  // namespace dlbridge::python
