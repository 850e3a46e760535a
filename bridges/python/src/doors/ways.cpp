#include "doors/ways.hpp"

#include <array>
#include <span>
#include <utility>
#include <vector>

#include "dlbridge/numpy.hpp"
#include "registry.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

// A type's version tag is never used twice and is dropped when the type changes, so an entry that
// matches is right, though it holds no reference. No tag means that the type cannot be remembered.
struct Remembered {
  PyTypeObject* type;
  unsigned int version;
  const Way* way;
  bool bare_call;    // its __dlpack__ takes no max_version
  bool has_library;  // `library` was looked for
  const LibraryRow* library;
};
constexpr std::size_t kRemembered = 256;
std::array<Remembered, kRemembered> remembered{};

Remembered& place_of(PyTypeObject* type) {
  return remembered[(reinterpret_cast<std::uintptr_t>(type) >> 5) % kRemembered];
}

bool has_valid_tag(PyTypeObject* type) {
#if PY_VERSION_HEX < 0x030D0000
  if ((type->tp_flags & Py_TPFLAGS_VALID_VERSION_TAG) == 0) {
    return false;
  }
#endif
  return type->tp_version_tag != 0;
}

bool is_about(const Remembered& known, PyTypeObject* type) {
  return known.type == type && has_valid_tag(type) && known.version == type->tp_version_tag;
}

bool has_buffer(PyTypeObject* type) {
  return type->tp_as_buffer != nullptr && type->tp_as_buffer->bf_getbuffer != nullptr;
}

bool is_torch_tensor(PyTypeObject* type) {
  const Ref name = checked(PyUnicode_FromString("torch"));
  const Ref torch(PyImport_GetModule(name.get()));
  if (!torch) {
    forget_error();
    return false;
  }
  const Ref tensor(PyObject_GetAttrString(torch.get(), "Tensor"));
  forget_error();  // a torch that is only half imported has no tensors yet
  return tensor && PyType_Check(tensor.get()) &&
         PyType_IsSubtype(type, reinterpret_cast<PyTypeObject*>(tensor.get())) != 0;
}

// In the order in which they are asked for, by what a type has for its instances; of a buffer, no
// name. A single instance may have those from the second to the fourth.
constexpr std::pair<const char*, const Way*> kProtocols[] = {
    {"__dlpack_c_exchange_api__", &kExchangeTableWay},
    {"__dlpack__", &kDLPackWay},
    {"__cuda_array_interface__", &kCudaArrayInterfaceWay},
    {"__array_interface__", &kArrayInterfaceWay},
    {nullptr, &kBufferWay},
    {"__arrow_c_array__", &kArrowArrayWay},
    {"__arrow_c_stream__", &kArrowStreamWay},
    {"__array__", &kArrayMethodWay},
    {"__arrow_c_device_array__", &kArrowDeviceArrayWay},
};

// Those of bridges in C++, with the types that they are of.
std::vector<std::pair<PyTypeObject*, const Way*>> bridges;

const Way* probe(PyTypeObject* type) {
  for (const auto& [owner, way] : bridges) {
    if (PyType_IsSubtype(type, owner) != 0) {
      return way;
    }
  }
  if (is_torch_tensor(type)) {
    return &kTorchWay;
  }
  return next_way(nullptr, type);
}

// An attribute of the instance's own counts too, when its type has no door, or the last.
// A class is no tensor, though the doors of its instances are in its dictionary.
const Way* probe_instance(PyObject* object) {
  if (PyType_Check(object)) {
    return nullptr;
  }
  PyObject** dictionary = _PyObject_GetDictPtr(object);
  if (dictionary == nullptr || *dictionary == nullptr) {
    return nullptr;
  }
  for (const auto& [name, way] : std::span(kProtocols).subspan<1, 3>()) {
    if (item_of(*dictionary, name)) {
      return way;
    }
  }
  return nullptr;
}

const Way* first_look(PyObject* object, PyTypeObject* type) {
  if (NumPy::is_array(object)) {
    return &kNumPyWay;
  }
  if (NumPy::is_scalar(object)) {
    return &kNumPyScalarWay;
  }
  if (is_managed_tensor(object)) {
    return &kManagedTensorWay;
  }
  if (PyCapsule_CheckExact(object)) {
    return &kCapsuleWay;
  }
  return probe(type);
}

}  // namespace

bool type_has(PyTypeObject* type, const char* name) {
  const Ref attribute(PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), name));
  forget_error();
  return attribute && attribute.get() != Py_None;
}

const Way* next_way(const Way* after, PyTypeObject* type) {
  bool behind = after == nullptr;
  for (const auto& [name, way] : kProtocols) {
    if (behind && (name == nullptr ? has_buffer(type) : type_has(type, name))) {
      return way;
    }
    behind = behind || way == after;
  }
  return nullptr;
}

const Way* way_into(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  if (const Remembered& known = place_of(type); is_about(known, type)) {
    return known.way;
  }
  if (!has_valid_tag(type)) {
    (void)type_has(type, "__dlpack__");  // any question gives it one
  }
  const unsigned int version = type->tp_version_tag;
  const Way* way = first_look(object, type);
  // Instances with a dictionary may each have a door of their own.
  if ((way == nullptr || way == &kArrayMethodWay) &&
      (type->tp_dictoffset != 0 || PyType_Check(object) != 0)) {
    const Way* own = probe_instance(object);
    return own == nullptr ? way : own;
  }
  // Not where the type altered itself when it was asked.
  if (has_valid_tag(type) && type->tp_version_tag == version) {
    place_of(type) = {type, type->tp_version_tag, way, false, false, nullptr};
  }
  return way;
}

void add_way(PyTypeObject* type, const Way& way) {
  bridges.emplace_back(type, &way);
  remembered = {};  // what was found without it
}

const LibraryRow* library_known_of(PyTypeObject* type) {
  if (const Remembered& known = place_of(type); is_about(known, type) && known.has_library) {
    return known.library;
  }
  const LibraryRow* row = library_of(type);  // may run Python, which may change what is known
  if (Remembered& known = place_of(type); is_about(known, type)) {
    known.has_library = true;
    known.library = row;
  }
  return row;
}

void forget_libraries() noexcept {
  for (Remembered& known : remembered) {
    known.has_library = false;
  }
}

bool wants_bare_call(PyTypeObject* type) noexcept {
  const Remembered& known = place_of(type);
  return is_about(known, type) && known.bare_call;
}

void remember_bare_call(PyTypeObject* type) noexcept {
  Remembered& known = place_of(type);
  known.bare_call = is_about(known, type);
}

}  // namespace dlbridge::python
