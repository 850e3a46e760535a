// The module dlbridge_probe: DLPack capsules made by hand, right and wrong, and consumers that
// release what they took at the worst moment. It knows nothing of dlbridge.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>
#include <utility>

#include "exchange_tables.hpp"

namespace probe {

void bind_failing_calls(nb::module_& m);
void bind_numpy_memory(nb::module_& m);

namespace {

void say(const char* text) {
  // Not stdio: this also runs when the process is nearly gone.
  [[maybe_unused]] const auto n = ::write(STDOUT_FILENO, text, std::strlen(text));
}

bool finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

/// Tensors that are dropped after main: by a static destructor, or by a thread that runs while the
/// interpreter finalises.
struct Late {
  std::vector<Owned> at_static_destruction;
  std::vector<std::thread> threads;
  ~Late() {
    for (auto& thread : threads) {
      thread.join();
    }
    for (auto& owned : at_static_destruction) {
      owned.release();
      say("probe: dropped by a static destructor\n");
    }
  }
} g_late;
std::vector<Owned> g_at_c_exit;   // by std::atexit: after Py_Finalize
std::vector<Owned> g_at_py_exit;  // by Py_AtExit: the last thing that Py_Finalize does

void drop_all(std::vector<Owned>& list) {
  for (auto& owned : list) {
    owned.release();
    say("probe: dropped at exit\n");
  }
  list.clear();
}

void drop_late(const nb::capsule& capsule, const std::string& when) {
  const bool known = when == "static" || when == "atexit" || when == "py_atexit";
  if (!known && when != "finalizing") {
    throw nb::value_error("when: static, atexit, py_atexit or finalizing");
  }
  Owned owned = consume(capsule.ptr());
  if (when == "static") {
    g_late.at_static_destruction.push_back(owned);
  } else if (when == "finalizing") {
    g_late.threads.emplace_back([owned]() mutable {
      // Gives up after 20 s: then the interpreter never began to finalise.
      for (int i = 0; i < 2000000 && !finalizing(); ++i) {
        std::this_thread::sleep_for(std::chrono::microseconds(10));
      }
      owned.release();
      say("probe: dropped while finalizing\n");
    });
  } else {
    const bool by_python = when == "py_atexit";
    auto& list = by_python ? g_at_py_exit : g_at_c_exit;
    if (list.empty()) {
      const int failed = by_python ? Py_AtExit([] { drop_all(g_at_py_exit); })
                                   : std::atexit([] { drop_all(g_at_c_exit); });
      if (failed != 0) {
        throw std::runtime_error("could not register");
      }
    }
    list.push_back(owned);
  }
}

/// Calls the deleter on a thread that Python never saw, while this thread keeps the GIL and waits.
void release_on_thread(Held& held) {
  std::thread([&held] { held.owned.release(); }).join();
}

Spec spec_from(nb::kwargs kwargs, std::string& bytes, std::size_t& misalign, bool& poison,
               bool& versioned) {
  Spec spec;
  for (auto [key, value] : kwargs) {
    const auto name = nb::cast<std::string>(key);
    const auto number = [v = value] { return nb::cast<std::int64_t>(v); };
    if (name == "data") {
      nb::bytes raw = nb::bytes(value);
      bytes.assign(raw.c_str(), raw.size());
    } else if (name == "shape") {
      spec.shape = nb::cast<std::vector<std::int64_t>>(value);
    } else if (name == "strides") {
      spec.strides = nb::cast<std::optional<std::vector<std::int64_t>>>(value);
    } else if (name == "ndim") {
      spec.ndim = static_cast<int>(number());
    } else if (name == "dtype") {
      const auto d = nb::cast<std::vector<int>>(value);
      spec.code = d.at(0);
      spec.bits = d.at(1);
      spec.lanes = d.size() > 2 ? d[2] : 1;
    } else if (name == "device") {
      const auto d = nb::cast<std::pair<int, int>>(value);
      spec.device_type = d.first;
      spec.device_id = d.second;
    } else if (name == "version") {
      const auto d = nb::cast<std::pair<unsigned, unsigned>>(value);
      spec.major = d.first;
      spec.minor = d.second;
    } else if (name == "byte_offset") {
      spec.byte_offset = nb::cast<std::uint64_t>(value);
    } else if (name == "flags") {
      spec.flags = nb::cast<std::uint64_t>(value);
    } else if (name == "start") {
      spec.start = number();
    } else if (name == "misalign") {
      misalign = static_cast<std::size_t>(number());
    } else if (name == "null_data") {
      spec.null_data = nb::cast<bool>(value);
    } else if (name == "null_shape") {
      spec.null_shape = nb::cast<bool>(value);
    } else if (name == "null_deleter") {
      spec.null_deleter = nb::cast<bool>(value);
    } else if (name == "on_delete") {
      spec.on_delete =
          nb::object(nb::borrow(value)).release().ptr();  // for good: deleters are late
    } else if (name == "poison") {
      poison = nb::cast<bool>(value);
    } else if (name == "versioned") {
      versioned = nb::cast<bool>(value);
    } else {
      throw nb::type_error(("unknown argument " + name).c_str());
    }
  }
  return spec;
}

Producer producer_from(nb::kwargs kwargs, bool& versioned) {
  std::string bytes;
  std::size_t misalign = 0;
  bool poison = true;
  Spec spec = spec_from(std::move(kwargs), bytes, misalign, poison, versioned);
  return {std::move(spec), std::make_shared<Memory>(bytes, misalign, poison), new_record()};
}

nb::capsule export_capsule(const Producer& p, bool versioned) {
  Export* e = new_export(p.spec, p.memory, p.token);
  PyObject* capsule = versioned
                          ? PyCapsule_New(&e->versioned, "dltensor_versioned", capsule_destructor)
                          : PyCapsule_New(&e->legacy, "dltensor", capsule_destructor);
  if (capsule == nullptr) {
    note_delete(e);
    throw nb::python_error();
  }
  return nb::steal<nb::capsule>(capsule);
}

nb::object numbers(const std::int64_t* values, int count) {
  if (values == nullptr) {
    return nb::none();
  }
  nb::list list;
  for (int i = 0; i < count; ++i) {
    list.append(values[i]);
  }
  return nb::tuple(list);
}

}  // namespace

nb::dict fields_of(const DLTensor& t) {
  nb::dict d;
  d["data"] = reinterpret_cast<std::uintptr_t>(t.data);
  d["byte_offset"] = t.byte_offset;
  d["ndim"] = t.ndim;
  d["shape"] = numbers(t.shape, t.ndim);
  d["strides"] = numbers(t.strides, t.ndim);
  d["dtype"] = nb::make_tuple(t.dtype.code, t.dtype.bits, t.dtype.lanes);
  d["device"] = nb::make_tuple(static_cast<int>(t.device.device_type), t.device.device_id);
  return d;
}

nb::dict fields_of(const Owned& owned) {
  nb::dict d = fields_of(owned.tensor());
  if (owned.versioned != nullptr) {
    const auto& v = *owned.versioned;
    d["version"] = nb::make_tuple(v.version.major, v.version.minor);
    d["flags"] = v.flags;
    d["has_deleter"] = v.deleter != nullptr;
  } else {
    d["version"] = nb::none();
    d["flags"] = nb::none();
    d["has_deleter"] = owned.legacy->deleter != nullptr;
  }
  return d;
}

}  // namespace probe

NB_MODULE(dlbridge_probe, m) {
  using namespace probe;         // NOLINT(google-build-using-namespace)
  nb::set_leak_warnings(false);  // some tests end with objects alive on purpose

  m.def(
      "make",
      [](nb::kwargs kwargs) {
        bool versioned = true;
        const Producer p = producer_from(std::move(kwargs), versioned);
        return nb::make_tuple(export_capsule(p, versioned), p.token);
      },
      "A capsule and its token, from the keywords data= (bytes), shape, strides, ndim, dtype "
      "(code, "
      "bits, lanes), device, version, byte_offset, flags, start, misalign, null_data, null_shape, "
      "null_deleter, on_delete, poison, versioned.");
  m.def(
      "twin",
      [](const nb::capsule& capsule) {
        return nb::steal<nb::capsule>(
            PyCapsule_New(capsule.data(), capsule.name(), capsule_destructor));
      },
      "A second capsule over the same structure, as nobody may make one.");
  m.def("named_capsule", [](const std::string& name) {
    static char anything[64];
    auto* kept = new std::string(name);
    return nb::steal<nb::capsule>(PyCapsule_New(anything, kept->c_str(), nullptr));
  });
  m.def("exports", [](long token) { return record(token).exports.load(); });
  m.def("deletes", [](long token) { return record(token).deletes.load(); });
  m.def(
      "outstanding", [] { return g_outstanding.load(); },
      "Exports, of all sources, that wait for their deleter.");
  m.def(
      "deleted_twice", [] { return g_deleted_twice.load(); },
      "Deleters, of all sources, that were called more than once.");
  m.def("last_deleter", [](long token) {
    const Record& r = record(token);
    return nb::make_tuple(r.had_gil.load(), r.thread.load());
  });
  m.def("name", [](const nb::capsule& capsule) { return std::string(capsule.name()); });
  m.def("fields", [](const nb::capsule& capsule) {
    const Owned owned = peek(capsule.ptr());
    if (owned.empty()) {
      throw nb::value_error("no DLPack capsule");
    }
    return fields_of(owned);
  });
  m.def("read", [](std::uintptr_t address, std::size_t size) {
    return nb::bytes(reinterpret_cast<const char*>(address), size);
  });
  m.def("write", [](std::uintptr_t address, nb::bytes bytes) {
    std::memcpy(reinterpret_cast<void*>(address), bytes.c_str(), bytes.size());
  });
  m.def("hold", [](const nb::capsule& capsule) { return Held(consume(capsule.ptr())); });
  m.def("drop_late", &drop_late, nb::arg("capsule"), nb::arg("when"));
  m.def("table_named", &table_named);
  m.def("forbidden_calls", [] { return g_forbidden_calls.load(); });
  m.def("table_export_calls", [] { return g_export_calls.load(); });

  bind_failing_calls(m);
  bind_numpy_memory(m);

  nb::class_<Held>(m, "Held")
      .def("release", [](Held& h) { h.owned.release(); })
      .def("release_on_thread", &release_on_thread)
      .def("fields", [](const Held& h) {
        if (h.owned.empty()) {
          throw nb::value_error("released");
        }
        return fields_of(h.owned);
      });

  static PyType_Slot buffer_slots[] = {
      {Py_bf_getbuffer, reinterpret_cast<void*>(&Buffer::give)},
      {Py_bf_releasebuffer, reinterpret_cast<void*>(&Buffer::take_back)},
      {0, nullptr}};
  nb::class_<Buffer>(m, "Buffer", nb::type_slots(buffer_slots))
      .def(
          "__init__",
          [](Buffer* self, std::vector<Py_ssize_t> shape, std::vector<Py_ssize_t> strides,
             Py_ssize_t length, Py_ssize_t itemsize, std::optional<int> ndim, std::string format) {
            const int dimensions = ndim.value_or(static_cast<int>(shape.size()));
            new (self) Buffer{std::move(shape), std::move(strides), length,
                              itemsize,         dimensions,         std::move(format)};
          },
          nb::arg("shape"), nb::arg("strides") = std::vector<Py_ssize_t>(), nb::arg("length") = 64,
          nb::arg("itemsize") = 4, nb::arg("ndim") = nb::none(), nb::arg("format") = "f")
      .def_ro("taken", &Buffer::taken);

  nb::class_<Producer>(m, "Producer")
      .def("__init__",
           [](Producer* self, nb::kwargs kwargs) {
             bool versioned = true;
             new (self) Producer(producer_from(std::move(kwargs), versioned));
           })
      .def_ro("token", &Producer::token)
      .def_prop_ro(
          "address",
          [](const Producer& p) { return reinterpret_cast<std::uintptr_t>(p.memory->base); })
      .def("capsule", &export_capsule, nb::arg("versioned") = true);

  nb::class_<Table>(m, "Table")
      .def(nb::init<const nb::capsule&>())
      .def("info", &Table::info)
      .def("from_py_object", &Table::from_py_object, nb::arg("object").none())
      .def("to_py_object", &Table::to_py_object)
      .def("borrow", &Table::borrow, nb::arg("object").none())
      .def("current_work_stream", &Table::current_work_stream)
      .def("allocate", &Table::allocate, nb::arg("shape"), nb::arg("code") = 2,
           nb::arg("bits") = 32, nb::arg("lanes") = 1, nb::arg("type") = 1, nb::arg("id") = 0,
           nb::arg("ndim") = nb::none());
}
