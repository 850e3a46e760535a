#include "call.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "devices/devices.hpp"
#include "ledger.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute policy_type("dlbridge._policy", "Policy");

constexpr unsigned kBitsPerField = 4;

Policy policy_of_code(unsigned long code) {
  Policy policy;
  for (std::size_t i = 0; i < kFields.size(); ++i) {
    const auto value = (code >> (kBitsPerField * i)) & 0xF;
    policy = policy.with(static_cast<Field>(i), kFields[i].values[value].ruling);
  }
  return policy.with_copy(static_cast<CopyRule>((code >> (kBitsPerField * kFields.size())) & 0x3));
}

int int_item(PyObject* pair, Py_ssize_t index) {
  const Ref item = checked(PySequence_GetItem(pair, index));
  const Ref number = checked(PyNumber_Index(item.get()));
  int overflow = 0;
  const long value = PyLong_AsLongAndOverflow(number.get(), &overflow);
  if (value == -1 && overflow == 0) {
    check_error();
  }
  constexpr long kMost = std::numeric_limits<int>::max();  // stands for all that lies beyond
  return static_cast<int>(overflow != 0 ? overflow * kMost : std::clamp(value, -kMost, kMost));
}

std::optional<DType> named(std::string_view text) {
  // torch.dtype prints as torch.float32.
  if (text.starts_with("torch.")) {
    text.remove_prefix(6);
  }
  return dtype_named(text);
}

bool is_given(PyObject* argument) {
  return argument != nullptr && argument != Py_None;
}

bool is_c_order(PyObject* order) {
  if (is_text(order, "C")) {
    return true;
  }
  raise(PyExc_ValueError, "order=" + shown(order) + " is no order; use one of None, 'C'");
}

bool is_need(PyObject* writable) {
  if (!PyBool_Check(writable)) {
    raise(PyExc_ValueError,
          "writable=" + shown(writable) + " is no need; use one of None, False, True");
  }
  return writable == Py_True;
}

}  // namespace

Call read_call(const Asked& asked) {
  Call call;
  call.policy = policy_argument(asked.policy);
  if (is_given(asked.copy)) {
    call.request.policy_copy = call.policy.copy();
    call.policy = call.policy.with_copy(copy_rule(asked.copy, CopyRule::kWhenNeeded));
    call.request.copy_was_argument = true;
  }
  if (is_given(asked.dtype)) {
    call.request.dtype = dtype_argument(asked.dtype);
  }
  if (is_given(asked.device)) {
    call.request.device = device_argument(asked.device);
  }
  if (asked.stream != nullptr) {
    call.stream = stream_argument(asked.stream);
  }
  if (is_given(asked.order)) {
    call.request.c_order = is_c_order(asked.order);
  }
  if (is_given(asked.writable)) {
    call.request.writable = is_need(asked.writable);
  }
  return call;
}

Call call_of_block() {
  Call call;
  call.policy = policy_argument(nullptr);
  return call;
}

Policy policy_argument(PyObject* policy) {
  Ref of_block;
  if (policy == nullptr || policy == Py_None) {
    if (any_block_open()) {
      of_block = policy_of_block();
      policy = of_block.get();
    }
    if (!of_block || policy == Py_None) {
      return Policy();
    }
  }
  if (PyUnicode_Check(policy)) {
    const std::string name = text_of(policy);
    if (const auto preset = policy_named(name)) {
      return *preset;
    }
    raise(PyExc_ValueError, "policy=" + shown(policy) +
                                " is no preset; use one of 'host', 'strict', 'zero_copy', "
                                "'snapshot', or a dlbridge.Policy");
  }
  // Policies do not change, and most calls are given the one before. It is owned, to the end of the
  // process.
  static PyObject* last = nullptr;
  static Policy policy_of_last;
  if (policy == last) {
    return policy_of_last;
  }
  if (!checked_truth(PyObject_IsInstance(policy, policy_type.get()))) {
    raise_other_type("policy must be a dlbridge.Policy or the name of a preset", policy);
  }
  const Ref code = checked(PyObject_GetAttrString(policy, "_code"));
  const unsigned long bits = PyLong_AsUnsignedLong(code.get());
  check_error();
  policy_of_last = policy_of_code(bits);
  const Ref before(std::exchange(last, Py_NewRef(policy)));
  return policy_of_last;
}

CopyRule copy_rule(PyObject* copy, CopyRule otherwise) {
  if (copy == Py_None) {
    return otherwise;
  }
  if (copy == Py_True) {
    return CopyRule::kAlways;
  }
  if (copy == Py_False) {
    return CopyRule::kNever;
  }
  raise(PyExc_ValueError, "copy=" + shown(copy) + " is no rule; use one of None, False, True");
}

Device device_pair(PyObject* pair) {
  if (PySequence_Check(pair) == 0 || PySequence_Size(pair) != 2) {
    forget_error();
    raise(PyExc_ValueError, "device=" + shown(pair) + " is no pair of a device type and an id");
  }
  return {int_item(pair, 0), int_item(pair, 1)};
}

// What the object says of itself by that method, or null where it has none. Others have begun to
// publish devices and dtypes so (paddle 3.3, tvm-ffi 0.1).
Ref said_by(PyObject* object, const char* method) {
  return PyType_Check(object) == 0 && PyObject_HasAttrString(object, method) != 0
             ? checked(PyObject_CallMethod(object, method, nullptr))
             : Ref();
}

Device device_argument(PyObject* argument) {
  const Ref said = said_by(argument, "__dlpack_device__");
  PyObject* device = said ? said.get() : argument;
  if (!PyUnicode_Check(device) && PySequence_Check(device) != 0) {
    const Device pair = device_pair(device);
    if (!is_device_type(pair.type) || pair.id < 0) {
      raise(PyExc_ValueError, "device=" + shown(device) + " is no device of DLPack's");
    }
    return pair;
  }
  if (!PyUnicode_Check(device) && module_of(Py_TYPE(device)) != "torch") {
    raise_other_type("device must be a name such as \"cpu\" or \"cuda:0\", or a DLPack pair",
                     device);
  }
  const std::string text = text_of(device);
  if (const auto known = device_named(text)) {
    return *known;
  }
  raise(PyExc_ValueError,
        "device=" + shown(device) + " is unknown; use \"cpu\", \"cuda:0\", or a DLPack pair");
}

DType dtype_argument(PyObject* dtype) {
  const auto is_of = [&](const char* module) { return module_of(Py_TYPE(dtype)) == module; };
  if (PyUnicode_Check(dtype) || is_of("torch") || is_of("dlbridge._types")) {
    if (const auto known = named(text_of(dtype))) {
      return *known;
    }
  }
  if (const Ref said = said_by(dtype, "__dlpack_data_type__")) {
    const DType known(int_item(said.get(), 0), int_item(said.get(), 1), int_item(said.get(), 2));
    if (const auto fault = dtype_fault(known); !fault.empty()) {
      raise(PyExc_ValueError, "dtype=" + shown(dtype) + ": " + std::string(fault));
    }
    return known;
  }
  const Ref descriptor = checked(NumPy::descriptor_from(dtype));
  if (const auto known = NumPy::dtype_of(descriptor.get())) {
    return *known;
  }
  raise(PyExc_ValueError, "dtype=" + shown(dtype) + " is no type that DLPack can carry");
}

bool wants_versioned(PyObject* max_version) {
  if (max_version == Py_None) {
    return false;
  }
  if (!PyTuple_Check(max_version) && !PyList_Check(max_version)) {
    raise_other_type("max_version must be None or a pair of ints", max_version);
  }
  if (PySequence_Size(max_version) != 2) {
    forget_error();
    raise(PyExc_ValueError, "max_version=" + shown(max_version) + " is no pair of ints");
  }
  const int major = int_item(max_version, 0);
  const int minor = int_item(max_version, 1);
  if (major < 0 || minor < 0) {
    raise(PyExc_ValueError, "max_version=" + shown(max_version) + " is no version");
  }
  return major >= DLPACK_MAJOR_VERSION;
}

Ref policy_fields() {
  Ref fields = checked(PyDict_New());
  for (const auto& row : kFields) {
    std::vector<std::string> names;
    for (const auto& value : row.values) {
      if (!value.name.empty()) {
        names.emplace_back(value.name);
      }
    }
    checked(
        PyDict_SetItemString(fields.get(), std::string(row.name).c_str(), text_tuple(names).get()));
  }
  return fields;
}

}  // namespace dlbridge::python
