// What Python sees of the calls that fail.
#include "failing_calls.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>

namespace probe {
namespace {

namespace nb = nanobind;

Failure failure_named(const std::string& name) {
  if (name == "null") {
    return Failure::kNull;
  }
  if (name == "minus one") {
    return Failure::kMinusOne;
  }
  if (name == "minus one, taken") {
    return Failure::kMinusOneTaken;
  }
  if (name == "zero") {
    return Failure::kZero;
  }
  if (name == "no memory") {
    return Failure::kNoMemory;
  }
  if (name == "throw") {
    return Failure::kThrow;
  }
  throw nb::value_error(("no failure is called " + name).c_str());
}

void require_patching() {
  if (PROBE_PATCHES_CALLS == 0) {
    throw std::runtime_error("calls can be made to fail on Linux and x86-64 only");
  }
}

}  // namespace

void bind_failing_calls(nb::module_& m) {
  m.attr("patches_calls") = PROBE_PATCHES_CALLS != 0;
  m.def(
      "patch_imports",
      [](const std::string& path, const std::map<std::string, std::string>& failures) {
        require_patching();
        std::vector<std::string> others;
#if PROBE_PATCHES_CALLS
        std::map<std::string, Failure> known;
        for (const auto& [name, failure] : failures) {
          known.emplace(name, failure_named(failure));
        }
        others = patch_imports(path, known);
#endif
        return others;
      },
      nb::arg("path"), nb::arg("failures"),
      "Makes a loaded extension's imports able to fail; gives the other functions it imports.");
  m.def(
      "patch_table",
      [](nb::handle capsule, const std::string& name, std::size_t offset,
         const std::map<std::size_t, std::pair<std::string, std::string>>& slots) {
        require_patching();
        auto* table = static_cast<char*>(
            PyCapsule_GetPointer(capsule.ptr(), name.empty() ? nullptr : name.c_str()));
        if (table == nullptr) {
          throw nb::python_error();
        }
#if PROBE_PATCHES_CALLS
        for (const auto& [index, row] : slots) {
          patch_slot(row.first, failure_named(row.second),
                     reinterpret_cast<void**>(table + offset) + index);
        }
#endif
      },
      nb::arg("capsule"), nb::arg("name"), nb::arg("offset"), nb::arg("slots"),
      "The same for a table of functions in a capsule: by index behind `offset` bytes, a name and "
      "a "
      "failure.");
  m.def("unpatch", [] {
#if PROBE_PATCHES_CALLS
    unpatch();
#endif
  });
  m.def(
      "call_with_failure",
      [](nb::handle action, long at, bool memory, nb::handle injected) {
        g_injected = injected.ptr();
        Outcome outcome;
        {
          std::optional<FailingAllocators> failing;
          if (memory) {
            failing.emplace();
          }
          outcome = call_with_failure(action.ptr(), at, memory);
        }
        return nb::make_tuple(
            outcome.fired == nullptr ? nb::none() : nb::object(nb::str(outcome.fired)),
            outcome.result == nullptr ? nb::none() : nb::steal(outcome.result),
            outcome.error == nullptr ? nb::none() : nb::steal(outcome.error));
      },
      nb::arg("action"), nb::arg("at"), nb::arg("memory"), nb::arg("injected"),
      "Calls action() while the call of that number fails; gives the name of what failed or None, "
      "the result, and the error.");
}

}  // namespace probe
