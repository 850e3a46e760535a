#pragma once

// The libraries that are known, as rows: what an object of one does not say of itself, and what it
// can take. Python registers them (dlbridge.register); this is where they are looked up.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "python.hpp"

namespace dlbridge::python {

/// What was said of each condition.
using ConditionTexts = std::vector<std::pair<Condition, std::string>>;

/// What is known of a library's objects beyond what their tensors say. Rows live as long as the
/// process.
struct LibraryRow {
  std::string name;
  std::string object;              // "jax.Array"; empty: after the object's own type
  bool immutable = false;          // not to be written to, though no flag says so
  bool legacy_writable = false;    // it means its legacy capsules to be written to
  bool copies_out = false;         // what it hands out is a copy of its memory
  PyObject* read = nullptr;        // object -> something that speaks a protocol; or null
  PyObject* conditions = nullptr;  // object -> names of what stands in its way; or null
  ConditionTexts fixes;
};

/// The row of the library that the type belongs to, by the first part of its module's name; null
/// where nobody registered it. Throws PythonError when looking for it in entry points failed.
[[nodiscard]] const LibraryRow* library_of(PyTypeObject* type);

/// Calls the row's `read`, if it has one: the object that is to be taken in its place.
[[nodiscard]] Ref read_by(const LibraryRow& row, PyObject* object);

/// The conditions that the row's library finds in the object.
[[nodiscard]] Conditions conditions_by(const LibraryRow& row, PyObject* object);

/// What a library without a compiled bridge can take.
struct ConsumerRow {
  std::string library;  // the LibraryRow of its own objects
  std::string name;
  std::string result;
  Capabilities capabilities;        // its texts are the three above
  bool every_device = false;        // it carries every device by its own name
  ConditionTexts quirks;            // what the library would do by itself, where a condition is met
  std::vector<std::string> always;  // the same, whatever is met

  /// For a source on that device: what the library cannot read there is brought to the host.
  [[nodiscard]] Capabilities capabilities_for(Device device) const {
    Capabilities now = capabilities;
    now.wants_host = now.devices.contains(kDLCPU) && !now.devices.contains(device.type);
    return now;
  }
};

/// The row in a capsule that new_consumer() made. Throws PythonError for anything else.
[[nodiscard]] const ConsumerRow& consumer_in(PyObject* capsule);

/// Functions of the module: see _core.pyi.
PyObject* add_library(PyObject* module, PyObject* arguments, PyObject* keywords);
PyObject* new_consumer(PyObject* module, PyObject* arguments, PyObject* keywords);

}  // namespace dlbridge::python
