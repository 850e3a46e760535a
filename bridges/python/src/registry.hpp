#pragma once

// The libraries that are known, as rows: what an object of one does not say of itself, and what it
// can take. Python registers them (dlbridge.register); this is where they are looked up.

#include <string>
#include <utility>
#include <vector>

#include "module_functions.hpp"

namespace dlbridge::python {

/// What was said of each condition.
using ConditionTexts = std::vector<std::pair<Condition, std::string>>;

/// What is known of a library's objects beyond what their tensors say. Rows live as long as the
/// process.
struct LibraryRow {
  std::string name;
  std::string object;            // "jax.Array"; empty: after the object's own type
  bool immutable = false;        // not to be written to, though no flag says so
  bool legacy_writable = false;  // it means its legacy capsules to be written to
  bool copies_out = false;       // what it hands out is a copy of its memory
  Ref read;                      // object -> something that speaks a protocol; or null
  Ref conditions;                // object -> names of what stands in its way; or null
  Ref refusal;                   // (object, error of its own) -> our refusal or None; or null
  Ref fix_for;                   // object -> the call that makes numbers of it or None; or null
  ConditionTexts fixes;
};

/// The row of the library that the type, or the nearest of its bases, belongs to, by the first part
/// of its module's name; null where nobody registered it. Throws PythonError when looking for it in
/// entry points failed.
[[nodiscard]] const LibraryRow* library_of(PyTypeObject* type);

/// The conditions that the row's library finds in the object.
[[nodiscard]] Conditions conditions_by(const LibraryRow& row, PyObject* object);

/// What a library without a compiled bridge can take.
struct ConsumerRow {
  PyObject* library = nullptr;  // the dlbridge.Library, for good
  std::string name;             // also of the LibraryRow of its own objects
  std::string result;
  Capabilities capabilities;        // its texts are the two above
  ConditionTexts quirks;            // what the library would do by itself, where a condition is met
  std::vector<std::string> always;  // the same, whatever is met
};

/// Functions of the module: see _core.pyi.
Ref library_of_in_python(PyObject* x);
Ref add_library(PyObject* library);
Ref new_target(ArgumentTuple arguments);
Ref capability_fields();

/// The fields as Python has them, by name. Throws PythonError.
[[nodiscard]] Ref fields_of(const Capabilities& capabilities);

}  // namespace dlbridge::python
