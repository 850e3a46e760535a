#include "registry.hpp"

#include <algorithm>
#include <concepts>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "doors/ways.hpp"
#include "targets/library_target.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute look_for("dlbridge._registry", "look_for");

std::unordered_map<std::string, const LibraryRow*> rows;
std::unordered_set<std::string> unknown;  // names that were looked for already

// The names of a table, in those quotes.
template <typename Table>
std::string names_of(const Table& table, const std::string& quote) {
  std::string names;
  for (const auto& row : table) {
    names += (names.empty() ? "" : ", ") + quote + std::string(row.name) + quote;
  }
  return names;
}

std::string text_in_row(PyObject* text) {
  const char* bytes = PyUnicode_Check(text) ? PyUnicode_AsUTF8(text) : nullptr;
  if (bytes == nullptr) {
    forget_error();
    raise(PyExc_TypeError, "a library's row holds its names and texts as str");
  }
  return bytes;
}

Condition condition_called(const std::string& name) {
  if (const auto found = condition_named(name)) {
    return *found;
  }
  raise(PyExc_ValueError,
        "no condition is called '" + name + "'; use one of " + names_of(kConditions, ""));
}

// Calls visit(text) for each of a sequence. Of another object `what` is the TypeError.
template <typename Visit>
void for_each_text(PyObject* sequence, const char* what, Visit&& visit) {
  if (PyUnicode_Check(sequence)) {
    raise(PyExc_TypeError, what);  // not its letters
  }
  const Ref texts = checked(PySequence_Fast(sequence, what));
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(texts.get()); ++i) {
    visit(text_in_row(PySequence_Fast_GET_ITEM(texts.get(), i)));
  }
}

// A dictionary of texts by condition. The key "always" goes into `always`, where that is wanted.
ConditionTexts texts_by_condition(PyObject* dictionary, std::vector<std::string>* always) {
  ConditionTexts texts;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  Py_ssize_t position = 0;
  while (PyDict_Next(dictionary, &position, &key, &value) != 0) {
    const std::string name = text_in_row(key);
    if (always != nullptr && name == "always") {
      always->push_back(text_in_row(value));
    } else {
      texts.emplace_back(condition_called(name), text_in_row(value));
    }
  }
  return texts;
}

std::string first_part_of_module(PyTypeObject* type) {
  const std::string module = module_of(type);
  return module.substr(0, module.find('.'));
}

// The row of the module that the type itself is defined in.
const LibraryRow* library_in_module_of(PyTypeObject* type) {
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

// Whether objects of the type say where their memory is.
bool has_memory(PyTypeObject* type) {
  for (const char* name : {"__dlpack__", "__cuda_array_interface__", "__array_interface__"}) {
    const Ref attribute(PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), name));
    forget_error();
    if (attribute) {
      return true;
    }
  }
  return type->tp_as_buffer != nullptr && type->tp_as_buffer->bf_getbuffer != nullptr;
}

// Reads the fields of a dlbridge.Library.
class Fields {
 public:
  explicit Fields(PyObject* library) : library_(library) {}

  [[nodiscard]] Ref value(const char* name) const {
    return checked(PyObject_GetAttrString(library_, name));
  }
  [[nodiscard]] std::string text(const char* name) const { return text_in_row(value(name).get()); }
  [[nodiscard]] bool flag(const char* name) const {
    return checked_truth(PyObject_IsTrue(value(name).get()));
  }
  /// Null for None.
  [[nodiscard]] Ref function(const char* name) const {
    Ref function = value(name);
    return function.get() == Py_None ? Ref() : std::move(function);
  }
  /// A dictionary of the texts of a mapping.
  [[nodiscard]] Ref texts(const char* name) const {
    return checked(
        PyObject_CallOneArg(reinterpret_cast<PyObject*>(&PyDict_Type), value(name).get()));
  }

 private:
  PyObject* library_;
};

// One of a table's names, or a ValueError that lists them.
template <typename Table>
auto value_named(const Table& table, const char* field, const std::string& name) {
  for (const auto& row : table) {
    if (row.name == name) {
      return row.value;
    }
  }
  raise(PyExc_ValueError,
        std::string(field) + "='" + name + "'; use one of " + names_of(table, "'"));
}

template <typename Table, typename Value>
Ref name_of(const Table& table, Value value) {
  for (const auto& row : table) {
    if (row.value == value) {
      return checked(
          PyUnicode_FromStringAndSize(row.name.data(), static_cast<Py_ssize_t>(row.name.size())));
    }
  }
  return Ref::borrow(Py_None);
}

std::int32_t device_type_of(const std::string& name) {
  const auto device = device_named(name);
  if (!device) {
    raise(PyExc_ValueError, "DLPack has no device called '" + name + "'");
  }
  return device->type;
}

// A field's value out of Python, by its type; and into Python.
void read_field(const char* /*name*/, PyObject* value, bool& field) {
  field = checked_truth(PyObject_IsTrue(value));
}

template <typename Number>
requires std::integral<Number>
void read_field(const char* name, PyObject* value, Number& field) {
  const long long number = integer_of(value, name);
  if (!std::in_range<Number>(number)) {
    raise(PyExc_ValueError, name + ("=" + std::to_string(number)) + " is out of range");
  }
  field = static_cast<Number>(number);
}

void read_field(const char* name, PyObject* value, Alignment& field) {
  const long long bytes = integer_of(value, name);
  if (!Alignment::allows(bytes)) {
    raise(PyExc_ValueError, name + ("=" + std::to_string(bytes)) + Alignment::kWhyNot);
  }
  field = bytes;
}

void read_field(const char* /*name*/, PyObject* value, DeviceType field) {
  field.type = value == Py_None ? 0 : device_type_of(text_in_row(value));
}

void read_field(const char* name, PyObject* value, StrideSupport& field) {
  field = value_named(kStrideSupports, name, text_in_row(value));
}
void read_field(const char* name, PyObject* value, ReadOnlySupport& field) {
  field = value_named(kReadOnlySupports, name, text_in_row(value));
}

DTypeSet set_of(DTypeSet /*none*/, const std::string& name) {
  if (!dtype_named(name)) {
    raise(PyExc_ValueError, "DLPack has no type called '" + name + "'");
  }
  return DTypeSet::of_name(name);
}

DeviceSet set_of(DeviceSet /*none*/, const std::string& name) {
  const std::int32_t type = device_type_of(name);
  return type == kDLCPU ? DeviceSet::host() : DeviceSet::of({type});
}

// A tuple of names; None is all that DLPack has.
template <typename Set>
requires requires {
  Set::everything();
}
void read_field(const char* name, PyObject* value, Set& field) {
  if (value == Py_None) {
    field = Set::everything();
    return;
  }
  field = Set();
  for_each_text(value, (std::string(name) + " must be a tuple of names").c_str(),
                [&](const std::string& each) { field = field | set_of(Set(), each); });
}

Ref written(bool value) {
  return Ref::borrow(value ? Py_True : Py_False);
}
template <typename Number>
requires(std::integral<Number> || std::same_as<Number, Alignment>) Ref written(Number value) {
  return checked(PyLong_FromLongLong(value));
}
Ref written(DeviceType value) {
  return value.type == 0 ? Ref::borrow(Py_None)
                         : checked(PyUnicode_FromString(device_type_name(value.type).c_str()));
}
Ref written(StrideSupport value) {
  return name_of(kStrideSupports, value);
}
Ref written(ReadOnlySupport value) {
  return name_of(kReadOnlySupports, value);
}
Ref written(DTypeSet value) {
  std::vector<std::string> names;
  for (const auto& row : kNamedDTypes) {
    if (value.contains(row.dtype)) {
      names.emplace_back(row.name);
    }
  }
  return value == DTypeSet::everything() ? Ref::borrow(Py_None) : text_tuple(names);
}
Ref written(DeviceSet value) {
  std::vector<std::string> names;
  for (std::int32_t type = 0; type < 32; ++type) {
    // The host's own kinds of memory go by one name, as they do on the way in.
    const bool host = type != kDLCPU && DeviceSet::host().contains(type);
    const std::string name = device_type_name(type);
    if (value.contains(type) && device_named(name) && !host) {
      names.push_back(name);
    }
  }
  return value == DeviceSet::everything() ? Ref::borrow(Py_None) : text_tuple(names);
}

// What Python's Capabilities say where nothing is said: less than those of C++, whose bridges know.
Capabilities defaults() {
  Capabilities can;
  can.devices = DeviceSet::host();
  can.dtypes = DTypeSet::everything();
  can.readonly = ReadOnlySupport::kUnaware;
  return can;
}

Capabilities capabilities_in(PyObject* fields) {
  Capabilities can = defaults();
  for_each_field(can, [&](const char* name, auto&& field) {
    if (const Ref value = item_of(fields, name)) {
      read_field(name, value.get(), field);
    }
  });
  if (can.min_dimensions < 0 || can.max_dimensions < can.min_dimensions) {
    raise(PyExc_ValueError, "min_dimensions and max_dimensions leave no number of dimensions");
  }
  return can;
}

}  // namespace

const LibraryRow* library_of(PyTypeObject* type) {
  if (const LibraryRow* row = library_in_module_of(type)) {
    return row;
  }
  PyObject* bases = type->tp_mro;
  for (Py_ssize_t i = 1; bases != nullptr && i < PyTuple_GET_SIZE(bases); ++i) {
    auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(bases, i));
    if (base != &PyBaseObject_Type) {
      const LibraryRow* row = library_in_module_of(base);
      // A mixin of a library's makes nothing one of its arrays. What a row reads it knows by
      // itself.
      if (row != nullptr && (has_memory(base) || row->read)) {
        return row;
      }
    }
  }
  return nullptr;
}

Ref library_of_in_python(PyObject* x) {
  const Way* way = way_into(x);
  for (const auto& [own, name] :
       {std::pair{&kNumPyWay, "numpy"}, std::pair{&kNumPyScalarWay, "numpy"},
        std::pair{&kTorchWay, "torch"}, std::pair{&kManagedTensorWay, "dlbridge"}}) {
    if (way == own) {
      return checked(PyUnicode_FromString(name));
    }
  }
  const LibraryRow* row = library_of(Py_TYPE(x));
  return row == nullptr ? Ref::borrow(Py_None) : checked(PyUnicode_FromString(row->name.c_str()));
}

Conditions conditions_by(const LibraryRow& row, PyObject* object) {
  Conditions found;
  found.add_if(row.copies_out, Condition::kCopiesOut);
  if (row.conditions) {
    const Ref names = checked(PyObject_CallOneArg(row.conditions.get(), object));
    for_each_text(names.get(), "a library's conditions() gives a tuple of names",
                  [&](const std::string& name) { found.add(condition_called(name)); });
  }
  return found;
}

Ref fields_of(const Capabilities& capabilities) {
  Capabilities can = capabilities;
  Ref fields = checked(PyDict_New());
  for_each_field(can, [&](const char* name, auto&& field) {
    checked(PyDict_SetItemString(fields.get(), name, written(field).get()));
  });
  return fields;
}

Ref capability_fields() {
  return fields_of(defaults());
}

Ref add_library(PyObject* library) {
  const Fields fields(library);
  auto row = std::make_unique<LibraryRow>();
  row->name = fields.text("name");
  row->object = fields.text("object");
  row->immutable = fields.flag("immutable");
  row->legacy_writable = fields.flag("legacy_writable");
  row->copies_out = fields.flag("copies_out");
  row->read = fields.function("read");
  row->conditions = fields.function("conditions");
  row->refusal = fields.function("refusal");
  row->fix_for = fields.function("fix_for");
  row->fixes = texts_by_condition(fields.texts("fixes").get(), nullptr);
  std::vector<std::string> modules;
  for_each_text(fields.value("modules").get(), "modules is a tuple of names",
                [&](const std::string& each) { modules.push_back(each); });
  if (modules.empty()) {
    modules.push_back(row->name);
  }
  // Never freed: what is being converted may speak from an older row.
  const LibraryRow* kept = row.release();
  for (const auto& each : modules) {
    rows[each] = kept;
    unknown.erase(each);
  }
  forget_libraries();
  return Ref::borrow(Py_None);
}

// new_target(library, result, fields): a capsule of a LibraryTarget. A mistake in the fields shows
// at once.
Ref new_target(ArgumentTuple arguments) {
  PyObject* library = nullptr;
  const char* result = nullptr;
  PyObject* fields = nullptr;
  arguments.read("OsO!:new_target", &library, &result, &PyDict_Type, &fields);
  ConsumerRow row;
  row.name = Fields(library).text("name");
  row.result = result;
  row.capabilities = capabilities_in(fields);
  row.quirks = texts_by_condition(Fields(library).texts("quirks").get(), &row.always);
  row.library = library;
  Ref capsule = target_capsule(std::make_unique<LibraryTarget>(std::move(row)));
  Py_INCREF(library);  // what is on its way may speak from an older row
  return capsule;
}

}  // namespace dlbridge::python
