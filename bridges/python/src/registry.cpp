#include "registry.hpp"

#include <array>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace dlbridge::python {
namespace {

PackageAttribute look_for("dlbridge._registry", "look_for");

constexpr const char* kConsumerName = "dlbridge.consumer";

// Conditions by the names that rows use.
struct NamedCondition {
  std::string_view name;
  Condition condition;
};
constexpr std::array kNames = {
    NamedCondition{"in_graph", Condition::kInGraph},
    NamedCondition{"conj_bit", Condition::kConjBit},
    NamedCondition{"neg_bit", Condition::kNegBit},
    NamedCondition{"sparse", Condition::kSparse},
    NamedCondition{"opaque_layout", Condition::kOpaqueLayout},
    NamedCondition{"quantised", Condition::kQuantised},
    NamedCondition{"nested", Condition::kNested},
    NamedCondition{"masked", Condition::kMasked},
    NamedCondition{"swapped_bytes", Condition::kSwappedBytes},
    NamedCondition{"read_only", Condition::kReadOnly},
    NamedCondition{"inexpressible_dtype", Condition::kInexpressibleDType},
    NamedCondition{"padded_sub_byte", Condition::kPaddedSubByte},
    NamedCondition{"copies_out", Condition::kCopiesOut},
    NamedCondition{"too_many_dimensions", Condition::kTooManyDimensions},
    NamedCondition{"too_few_dimensions", Condition::kTooFewDimensions},
    NamedCondition{"overlap", Condition::kOverlap},
    NamedCondition{"negative_strides", Condition::kNegativeStrides},
    NamedCondition{"not_compact", Condition::kNotCompact},
    NamedCondition{"misaligned", Condition::kMisaligned},
    NamedCondition{"missing_dtype", Condition::kMissingDType},
    NamedCondition{"other_device", Condition::kOtherDevice},
    NamedCondition{"no_way_to_device", Condition::kNoWayToDevice},
    NamedCondition{"copies_in", Condition::kCopiesIn},
    NamedCondition{"copy_asked", Condition::kCopyAsked},
    NamedCondition{"cast_asked", Condition::kCastAsked},
};

std::unordered_map<std::string, const LibraryRow*> rows;
std::unordered_set<std::string> unknown;  // names that were looked for already

std::string text_of(PyObject* text) {
  const char* bytes = PyUnicode_Check(text) ? PyUnicode_AsUTF8(text) : nullptr;
  if (bytes == nullptr) {
    forget_error();
    raise(PyExc_TypeError, "a library's row holds its names and texts as str");
  }
  return bytes;
}

Condition condition_named(const std::string& name) {
  std::string known;
  for (const auto& row : kNames) {
    if (row.name == name) {
      return row.condition;
    }
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  raise(PyExc_ValueError, "no condition is called '" + name + "'; use one of " + known);
}

// A dictionary of texts by condition. The key "always" goes into `always`, where that is wanted.
ConditionTexts texts_by_condition(PyObject* dictionary, std::vector<std::string>* always) {
  ConditionTexts texts;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  Py_ssize_t position = 0;
  while (PyDict_Next(dictionary, &position, &key, &value) != 0) {
    const std::string name = text_of(key);
    if (always != nullptr && name == "always") {
      always->push_back(text_of(value));
    } else {
      texts.emplace_back(condition_named(name), text_of(value));
    }
  }
  return texts;
}

std::string first_part_of_module(PyTypeObject* type) {
  const Ref module(PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__module__"));
  forget_error();
  const char* text =
      module && PyUnicode_Check(module.get()) ? PyUnicode_AsUTF8(module.get()) : nullptr;
  forget_error();
  const std::string_view full = text == nullptr ? "" : text;
  return std::string(full.substr(0, full.find('.')));
}

PyObject* kept_or_null(PyObject* callable) {
  return callable == Py_None ? nullptr : Py_NewRef(callable);
}

DTypeSet dtypes_of(PyObject* names) {
  if (names == Py_None) {
    return DTypeSet::everything();
  }
  DTypeSet set;
  const Ref sequence = checked(PySequence_Fast(names, "dtypes must be a tuple of names"));
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(sequence.get()); ++i) {
    const std::string name = text_of(PySequence_Fast_GET_ITEM(sequence.get(), i));
    if (!dtype_named(name)) {
      raise(PyExc_ValueError, "DLPack has no type called '" + name + "'");
    }
    set = set | DTypeSet::of_name(name);
  }
  return set;
}

std::int32_t device_type_of(PyObject* text) {
  const std::string name = text_of(text);
  const auto device = device_named(name);
  if (!device) {
    raise(PyExc_ValueError, "DLPack has no device called '" + name + "'");
  }
  return device->type;
}

DeviceSet devices_of(PyObject* names) {
  if (names == Py_None) {
    return DeviceSet::everything();
  }
  DeviceSet set;
  const Ref sequence = checked(PySequence_Fast(names, "devices must be a tuple of names"));
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(sequence.get()); ++i) {
    const auto type = device_type_of(PySequence_Fast_GET_ITEM(sequence.get(), i));
    set = set | (type == kDLCPU ? DeviceSet::host() : DeviceSet::of({type}));
  }
  return set;
}

ReadOnlySupport read_only_named(const std::string& name) {
  if (name == "honours") {
    return ReadOnlySupport::kHonours;
  }
  if (name == "unaware") {
    return ReadOnlySupport::kUnaware;
  }
  if (name == "never") {
    return ReadOnlySupport::kNever;
  }
  raise(PyExc_ValueError, "read_only='" + name + "'; use one of 'honours', 'unaware', 'never'");
}

void set_strides(Capabilities& capabilities, const std::string& name) {
  if (name != "any" && name != "non-negative" && name != "compact") {
    raise(PyExc_ValueError, "strides='" + name + "'; use one of 'any', 'non-negative', 'compact'");
  }
  capabilities.negative_strides = name == "any";
  capabilities.any_strides = name != "compact";
}

void delete_consumer(PyObject* capsule) {
  delete static_cast<ConsumerRow*>(PyCapsule_GetPointer(capsule, kConsumerName));
}

}  // namespace

const LibraryRow* library_of(PyTypeObject* type) {
  const std::string module = first_part_of_module(type);
  if (const auto known = rows.find(module); known != rows.end()) {
    return known->second;
  }
  if (unknown.contains(module)) {
    return nullptr;
  }
  // Before the call: what it imports may convert tensors of the same module.
  unknown.insert(module);
  try {
    checked(PyObject_CallFunction(look_for.get(), "s", module.c_str()));
  } catch (...) {
    unknown.erase(module);
    throw;
  }
  const auto found = rows.find(module);
  return found == rows.end() ? nullptr : found->second;
}

Ref read_by(const LibraryRow& row, PyObject* object) {
  return row.read == nullptr ? Ref::borrow(object) : checked(PyObject_CallOneArg(row.read, object));
}

Conditions conditions_by(const LibraryRow& row, PyObject* object) {
  Conditions found;
  found.add_if(row.copies_out, Condition::kCopiesOut);
  if (row.conditions != nullptr) {
    const Ref names = checked(PyObject_CallOneArg(row.conditions, object));
    const Ref sequence =
        checked(PySequence_Fast(names.get(), "a library's conditions() gives a tuple of names"));
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(sequence.get()); ++i) {
      found.add(condition_named(text_of(PySequence_Fast_GET_ITEM(sequence.get(), i))));
    }
  }
  return found;
}

const ConsumerRow& consumer_in(PyObject* capsule) {
  const void* row = PyCapsule_GetPointer(capsule, kConsumerName);
  if (row == nullptr) {
    throw PythonError();
  }
  return *static_cast<const ConsumerRow*>(row);
}

PyObject* add_library(PyObject* /*module*/, PyObject* arguments, PyObject* keywords) {
  static const char* const kKeywords[] = {
      "name",       "modules", "object",     "immutable", "legacy_writable",
      "copies_out", "read",    "conditions", "fixes",     nullptr};
  const char* name = nullptr;
  const char* object = nullptr;
  PyObject* modules = nullptr;
  int immutable = 0;
  int legacy_writable = 0;
  int copies_out = 0;
  PyObject* read = nullptr;
  PyObject* conditions = nullptr;
  PyObject* fixes = nullptr;
  if (PyArg_ParseTupleAndKeywords(arguments, keywords, "$sO!spppOOO!:add_library",
                                  const_cast<char**>(kKeywords), &name, &PyTuple_Type, &modules,
                                  &object, &immutable, &legacy_writable, &copies_out, &read,
                                  &conditions, &PyDict_Type, &fixes) == 0) {
    return nullptr;
  }
  return guarded([&]() -> PyObject* {
    auto row = std::make_unique<LibraryRow>();
    row->name = name;
    row->object = object;
    row->immutable = immutable != 0;
    row->legacy_writable = legacy_writable != 0;
    row->copies_out = copies_out != 0;
    row->fixes = texts_by_condition(fixes, nullptr);
    std::vector<std::string> names;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(modules); ++i) {
      names.push_back(text_of(PyTuple_GET_ITEM(modules, i)));
    }
    row->read = kept_or_null(read);
    row->conditions = kept_or_null(conditions);
    // Never freed: what is being converted may speak from an older row.
    const LibraryRow* kept = row.release();
    for (const auto& each : names) {
      rows[each] = kept;
      unknown.erase(each);
    }
    return Py_NewRef(Py_None);
  });
}

PyObject* new_consumer(PyObject* /*module*/, PyObject* arguments, PyObject* keywords) {
  static const char* const kKeywords[] = {
      "library",        "name",      "result",         "devices",        "own_device", "dtypes",
      "strides",        "alignment", "min_dimensions", "max_dimensions", "read_only",  "writable",
      "guards_overlap", "copies",    "quirks",         nullptr};
  const char* library = nullptr;
  const char* name = nullptr;
  const char* result = nullptr;
  const char* strides = nullptr;
  const char* read_only = nullptr;
  PyObject* devices = nullptr;
  PyObject* own_device = nullptr;
  PyObject* dtypes = nullptr;
  PyObject* quirks = nullptr;
  long long alignment = 1;
  int min_dimensions = 0;
  int max_dimensions = 0;
  int writable = 1;
  int guards_overlap = 0;
  int copies = 0;
  if (PyArg_ParseTupleAndKeywords(arguments, keywords, "$sssOOOsLiispppO!:new_consumer",
                                  const_cast<char**>(kKeywords), &library, &name, &result, &devices,
                                  &own_device, &dtypes, &strides, &alignment, &min_dimensions,
                                  &max_dimensions, &read_only, &writable, &guards_overlap, &copies,
                                  &PyDict_Type, &quirks) == 0) {
    return nullptr;
  }
  return guarded([&]() -> PyObject* {
    auto row = std::make_unique<ConsumerRow>();
    row->library = library;
    row->name = name;
    row->result = result;
    Capabilities& capabilities = row->capabilities;
    capabilities.devices = devices_of(devices);
    row->every_device = devices == Py_None;
    capabilities.dtypes = dtypes_of(dtypes);
    set_strides(capabilities, strides);
    capabilities.alignment = alignment < 1 ? 1 : alignment;
    capabilities.min_dimensions = min_dimensions;
    capabilities.max_dimensions = max_dimensions;
    capabilities.readonly = read_only_named(read_only);
    capabilities.gives_writable = writable != 0;
    capabilities.guards_overlap = guards_overlap != 0;
    capabilities.copies = copies != 0;
    if (own_device != Py_None) {
      capabilities.own_device = device_type_of(own_device);
      capabilities.copies_to_device = true;
    }
    row->quirks = texts_by_condition(quirks, &row->always);
    capabilities.name = row->name;
    capabilities.result = row->result;
    PyObject* capsule = PyCapsule_New(row.get(), kConsumerName, delete_consumer);
    if (capsule != nullptr) {
      (void)row.release();
    }
    return capsule;
  });
}

}  // namespace dlbridge::python
