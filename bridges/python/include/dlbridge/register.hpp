#pragma once

// For C++ libraries with a Python face: makes a bridge known to the Python package, so that
// dlbridge.to(x, "grid") and dlbridge.to_numpy(image) work.

#include "dlbridge/convert.hpp"
#include "dlbridge/python.hpp"

namespace dlbridge {

/// A bridge whose objects Python can hold.
///  - python_type(): the type of those, which lives as long as the process.
///  - from_python(object): the Object in one of them; borrowed.
///  - to_python(object), for consumers: a new reference, or null with Python's error set.
template <typename Bridge>
concept PythonBridge = requires(PyObject* object) {
  { Bridge::python_type() } -> std::same_as<PyTypeObject*>;
  { Bridge::from_python(object) } -> std::same_as<const typename Bridge::Object&>;
};

namespace detail {

// What C++ throws becomes Python's error.
template <typename Result, typename Action>
Result for_python(Result failure, Action&& action) noexcept {
  try {
    return action();
  } catch (...) {
    set_python_error();
  }
  return failure;
}

template <typename Bridge>
struct CalledFromPython {
  static int describe(PyObject* object, Source& source) noexcept {
    return for_python(-1, [&] {
      Bridge::describe(Bridge::from_python(object), source);
      require_dimensions(source);
      return 0;
    });
  }
  static DLManagedTensorVersioned* acquire(PyObject* object) noexcept {
    return for_python(static_cast<DLManagedTensorVersioned*>(nullptr), [&] {
      // What came since into the package's Source may be another spelling of the same memory.
      const typename Bridge::Object held = Bridge::from_python(object);
      Source described;
      Bridge::describe(held, described);
      return as_described(Bridge::acquire(held, described), described).release();
    });
  }
  static DLManagedTensorVersioned* prepare(PyObject* object, const Leg& leg,
                                           Source& made) noexcept {
    return for_python(static_cast<DLManagedTensorVersioned*>(nullptr), [&] {
      const typename Bridge::Object prepared = Bridge::prepare(Bridge::from_python(object), leg);
      Bridge::describe(prepared, made);
      require_dimensions(made);
      return as_described(Bridge::acquire(prepared, made), made, true).release();
    });
  }
  static const Capabilities* capabilities(const Source& source) noexcept {
    return for_python(static_cast<const Capabilities*>(nullptr),
                      [&] { return &Bridge::capabilities(source); });
  }
  static PyObject* deliver(DLManagedTensorVersioned* tensor) noexcept {
    return for_python(static_cast<PyObject*>(nullptr), [&] {
      return Bridge::to_python(Bridge::deliver(ManagedTensor::adopt(tensor)));
    });
  }
};

}  // namespace detail

/// Makes a bridge a way in and a way out of the Python package: 0, or -1 with Python's error set.
/// `object` is how messages call its objects. Both texts live as long as the process. Needs the
/// GIL; a module calls it when it is imported, or from the entry point "dlbridge.libraries".
template <typename Bridge>
int register_bridge(const char* name, const char* object) noexcept {
  static_assert(PythonBridge<Bridge>,
                "a bridge that Python knows has: static PyTypeObject* python_type(), and static "
                "const Object& from_python(PyObject*)");
  static_assert(Producer<Bridge> || Consumer<Bridge>,
                "a bridge has describe() and acquire(), or capabilities() and deliver(): see "
                "dlbridge/convert.hpp");
  const detail::PythonInterface* interface = detail::python_interface();
  if (interface == nullptr) {
    return -1;
  }
  using Called = detail::CalledFromPython<Bridge>;
  static detail::BridgeRow row{};
  row.name = name;
  row.object = object;
  row.type = Bridge::python_type();
  if constexpr (Producer<Bridge>) {
    row.describe = Called::describe;
    row.acquire = Called::acquire;
  }
  if constexpr (Preparer<Bridge>) {
    row.prepare = Called::prepare;
  }
  if constexpr (Consumer<Bridge>) {
    row.capabilities = Called::capabilities;
    row.deliver = Called::deliver;
  }
  return interface->add_bridge(row);
}

}  // namespace dlbridge
