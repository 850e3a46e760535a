// Exchange tables: those of the probe's own producer type, good ones and bad ones, and calls into
// the slots of anybody's table.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "memory.hpp"

namespace probe {

namespace nb = nanobind;

/// A C-level producer: any number of exports over one memory, counted by one token.
struct Producer {
  Spec spec;
  std::shared_ptr<Memory> memory;
  long token;
};

inline std::atomic<long> g_forbidden_calls{0};  // slots that nobody who checks versions may call
inline std::atomic<long> g_export_calls{0};

inline int good_from_py(void* object, DLManagedTensorVersioned** out) {
  g_export_calls += 1;
  try {
    auto* p = nb::cast<Producer*>(nb::handle(static_cast<PyObject*>(object)));
    *out = &new_export(p->spec, p->memory, p->token)->versioned;
    return 0;
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_TypeError, e.what());
    return -1;
  }
}
inline int good_borrow(void* object, DLTensor* out) {
  DLManagedTensorVersioned* tensor = nullptr;
  if (good_from_py(object, &tensor) != 0) {
    return -1;
  }
  *out = tensor->dl_tensor;  // the structure is never freed, and the producer owns the memory
  tensor->deleter(tensor);
  return 0;
}
inline int good_to_py(DLManagedTensorVersioned* /*tensor*/, void** /*out*/) {
  PyErr_SetString(PyExc_RuntimeError, "the probe makes no objects");
  return -1;
}
inline int good_stream(DLDeviceType /*type*/, std::int32_t /*id*/, void** out) {
  *out = nullptr;
  return 0;
}
inline int silent_stream(DLDeviceType /*type*/, std::int32_t /*id*/, void** /*out*/) {
  return -1;
}
inline int good_allocator(DLTensor* /*prototype*/, DLManagedTensorVersioned** /*out*/,
                          void* context, void (*set_error)(void*, const char*, const char*)) {
  set_error(context, "NotImplementedError", "the probe allocates nothing");
  return -1;
}

inline int loud_from_py(void* /*object*/, DLManagedTensorVersioned** /*out*/) {
  g_export_calls += 1;
  PyErr_SetString(PyExc_LookupError, "the probe's table has nothing to give");
  return -1;
}
inline int silent_from_py(void* /*object*/, DLManagedTensorVersioned** /*out*/) {
  g_export_calls += 1;
  return -1;
}
inline int empty_from_py(void* /*object*/, DLManagedTensorVersioned** out) {
  g_export_calls += 1;
  *out = nullptr;
  return 0;
}
inline int erring_from_py(void* object, DLManagedTensorVersioned** out) {
  const int status = good_from_py(object, out);
  PyErr_SetString(PyExc_LookupError, "the probe's table succeeds with an error");
  return status;
}
inline int forbidden_from_py(void* /*object*/, DLManagedTensorVersioned** /*out*/) {
  g_forbidden_calls += 1;
  PyErr_SetString(PyExc_SystemError, "a slot of a newer major version was called");
  return -1;
}
inline int forbidden_borrow(void* /*object*/, DLTensor* /*out*/) {
  return forbidden_from_py(nullptr, nullptr);
}

/// A table of another version of which there is nothing but the header: more may not be read.
inline DLPackExchangeAPIHeader* header_only(unsigned major, DLPackExchangeAPIHeader* older) {
  auto* header =
      static_cast<DLPackExchangeAPIHeader*>(std::malloc(sizeof(DLPackExchangeAPIHeader)));
  *header = {{major, 0}, older};
  return header;
}

/// "good", "no_borrow", "no_from_py", "nothing" (no slot at all), "loud", "silent", "empty",
/// "streamless", "erring", "newer" (prev_api leads to the good one), "newer_alone", "older" (major
/// version 0), and of headers only: "chain" (4, 3 and 2 lead to the good one), "broken_chain" (they
/// lead to version 0), "circle" (they lead to themselves).
inline nb::capsule table_named(const std::string& kind) {
  static DLPackExchangeAPI good{{{1, 3}, nullptr}, good_allocator, good_from_py,
                                good_to_py,        good_borrow,    good_stream};
  if (kind == "chain" || kind == "broken_chain" || kind == "circle") {
    auto* end = kind == "chain"    ? &good.header
                : kind == "circle" ? nullptr
                                   : header_only(0, nullptr);
    auto* two = header_only(2, end);
    auto* four = header_only(4, header_only(3, two));
    two->prev_api = kind == "circle" ? four : end;
    return nb::capsule(four, "dlpack_exchange_api");
  }
  auto* table = new DLPackExchangeAPI(good);  // a table lives as long as the process
  if (kind == "no_borrow") {
    table->dltensor_from_py_object_no_sync = nullptr;
  } else if (kind == "no_from_py") {
    table->managed_tensor_from_py_object_no_sync = nullptr;
    table->dltensor_from_py_object_no_sync = nullptr;
  } else if (kind == "nothing") {
    *table = {{{1, 3}, nullptr}, nullptr, nullptr, nullptr, nullptr, nullptr};
  } else if (kind == "loud") {
    table->managed_tensor_from_py_object_no_sync = loud_from_py;
  } else if (kind == "silent") {
    table->managed_tensor_from_py_object_no_sync = silent_from_py;
  } else if (kind == "empty") {
    table->managed_tensor_from_py_object_no_sync = empty_from_py;
  } else if (kind == "streamless") {
    table->current_work_stream = silent_stream;
  } else if (kind == "erring") {
    table->managed_tensor_from_py_object_no_sync = erring_from_py;
  } else if (kind == "newer" || kind == "newer_alone" || kind == "older") {
    table->header.version = {kind == "older" ? 0U : 2U, 0};
    table->header.prev_api = kind == "newer" ? &good.header : nullptr;
    table->managed_tensor_from_py_object_no_sync = forbidden_from_py;
    table->dltensor_from_py_object_no_sync = forbidden_borrow;
  } else if (kind != "good") {
    throw nb::value_error("no table of that kind");
  }
  return nb::capsule(table, "dlpack_exchange_api");
}

/// The error that is set, taken away from the interpreter; None where there is none.
inline nb::object taken_error() {
  if (PyErr_Occurred() == nullptr) {
    return nb::none();
  }
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  Py_XDECREF(type);
  Py_XDECREF(trace);
  return nb::steal(value);
}

/// An object of the buffer protocol that says of its 64 bytes whatever it is told to.
struct Buffer {
  std::vector<Py_ssize_t> shape;
  std::vector<Py_ssize_t> strides;
  Py_ssize_t length;
  Py_ssize_t itemsize;
  int ndim;
  std::string format;
  long taken = 0;
  std::array<std::byte, 64> memory{};

  static int give(PyObject* self, Py_buffer* view, int /*flags*/) {
    auto& said = *nb::inst_ptr<Buffer>(self);
    *view = {};
    view->buf = said.memory.data();
    view->obj = Py_NewRef(self);
    view->len = said.length;
    view->itemsize = said.itemsize;
    view->ndim = said.ndim;
    view->format = said.format.data();
    view->shape = said.shape.empty() ? nullptr : said.shape.data();
    view->strides = said.strides.empty() ? nullptr : said.strides.data();
    said.taken += 1;
    return 0;
  }
  static void take_back(PyObject* self, Py_buffer* /*view*/) {
    nb::inst_ptr<Buffer>(self)->taken -= 1;
  }
};

nb::dict fields_of(const Owned& owned);
nb::dict fields_of(const DLTensor& t);

/// A managed tensor that the probe has taken over and that waits for its release.
struct Held {
  Owned owned;
  Held() = default;
  explicit Held(Owned o) : owned(o) {}
  Held(Held&& other) noexcept : owned(std::exchange(other.owned, {})) {}
  Held& operator=(Held&&) = delete;
  ~Held() { owned.release(); }
};

/// Somebody's table, with its slots callable. Every call answers a dict: rc, error (the exception
/// that was set, or None), and what came out.
struct Table {
  explicit Table(const nb::capsule& capsule)
      : api(static_cast<DLPackExchangeAPI*>(
            PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"))) {
    if (api == nullptr) {
      throw nb::python_error();
    }
  }
  DLPackExchangeAPI* api;

  [[nodiscard]] nb::dict info() const {
    nb::dict d;
    d["version"] = nb::make_tuple(api->header.version.major, api->header.version.minor);
    d["has_prev"] = api->header.prev_api != nullptr;
    d["allocator"] = api->managed_tensor_allocator != nullptr;
    d["from_py_object"] = api->managed_tensor_from_py_object_no_sync != nullptr;
    d["to_py_object"] = api->managed_tensor_to_py_object_no_sync != nullptr;
    d["borrow"] = api->dltensor_from_py_object_no_sync != nullptr;
    d["stream"] = api->current_work_stream != nullptr;
    return d;
  }

  static nb::dict answer(int rc) {
    nb::dict d;
    d["rc"] = rc;
    d["error"] = taken_error();
    return d;
  }
  static void put_held(nb::dict& d, DLManagedTensorVersioned* out) {
    d["held"] = out == nullptr ? nb::none() : nb::cast(Held(Owned{out, nullptr}));
  }

  [[nodiscard]] nb::dict from_py_object(nb::handle object) const {
    DLManagedTensorVersioned* out = nullptr;
    nb::dict d = answer(api->managed_tensor_from_py_object_no_sync(object.ptr(), &out));
    put_held(d, out);
    return d;
  }
  /// The capsule is renamed when the call succeeded; after a failure it still owns its tensor.
  [[nodiscard]] nb::dict to_py_object(const nb::capsule& capsule) const {
    const Owned owned = peek(capsule.ptr());
    if (owned.versioned == nullptr || PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") == 0) {
      throw nb::value_error("to_py_object takes an unused versioned capsule");
    }
    void* out = nullptr;
    nb::dict d = answer(api->managed_tensor_to_py_object_no_sync(owned.versioned, &out));
    if (nb::cast<int>(d["rc"]) == 0) {
      PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");
    }
    d["object"] = out == nullptr ? nb::none() : nb::steal(static_cast<PyObject*>(out));
    return d;
  }
  [[nodiscard]] nb::dict borrow(nb::handle object) const {
    DLTensor out{};
    nb::dict d = answer(api->dltensor_from_py_object_no_sync(object.ptr(), &out));
    d["fields"] = nb::cast<int>(d["rc"]) == 0 ? nb::object(fields_of(out)) : nb::none();
    return d;
  }
  [[nodiscard]] nb::dict current_work_stream(int type, int id) const {
    auto* out = reinterpret_cast<void*>(std::uintptr_t{0x5A5A});  // shows when it stays unwritten
    nb::dict d = answer(api->current_work_stream(static_cast<DLDeviceType>(type), id, &out));
    d["stream"] = reinterpret_cast<std::uintptr_t>(out);
    return d;
  }
  [[nodiscard]] nb::dict allocate(std::vector<std::int64_t> shape, int code, int bits, int lanes,
                                  int type, int id, std::optional<int> ndim) const {
    DLTensor prototype{};
    prototype.device = {static_cast<DLDeviceType>(type), id};
    prototype.dtype = {static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(bits),
                       static_cast<std::uint16_t>(lanes)};
    prototype.ndim = ndim.value_or(static_cast<int>(shape.size()));
    shape.resize(std::max<std::size_t>(shape.size(), 1));
    prototype.shape = shape.data();
    struct Said {
      std::vector<std::pair<std::string, std::string>> lines;
    } said;
    DLManagedTensorVersioned* out = nullptr;
    nb::dict d = answer(api->managed_tensor_allocator(
        &prototype, &out, &said, [](void* context, const char* kind, const char* message) {
          static_cast<Said*>(context)->lines.emplace_back(kind, message);
        }));
    put_held(d, out);
    d["said"] = nb::cast(said.lines);
    return d;
  }
};

}  // namespace probe
