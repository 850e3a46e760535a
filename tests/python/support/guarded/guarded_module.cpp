// The module dlbridge_guarded: the guarded device for pytest. Its streams, memory and failures, and
// producers of tensors on it; and the capsule by which dlbridge takes it for a device's runtime.
#include <dlpack/dlpack.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "devices/device_companion.hpp"
#include "guarded/guarded_device.hpp"

namespace nb = nanobind;

namespace dlbridge::guarded {
namespace {

GuardedDevice& device() {
  static auto* one = new GuardedDevice;  // tensors may outlive everything
  return *one;
}

Stream stream_of(std::uintptr_t handle) {
  return Stream{reinterpret_cast<void*>(handle)};
}

std::uintptr_t handle_of(Stream stream) {
  return reinterpret_cast<std::uintptr_t>(stream.handle);
}

/// Device memory of a producer: freed in the order of its stream, as caching allocators do.
class DeviceMemory {
 public:
  DeviceMemory(const nb::bytes& bytes, int id, std::uintptr_t stream)
      : id_(id), bytes_(bytes.size()), stream_(stream_of(stream)) {
    address_ = device().make(id, bytes_);
    if (bytes_ != 0) {
      device().store(address_, bytes.c_str(), bytes_);
    }
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { device().free(id_, address_, stream_); }

  [[nodiscard]] std::uintptr_t address() const {
    return reinterpret_cast<std::uintptr_t>(address_);
  }
  [[nodiscard]] nb::bytes load() const {
    std::vector<char> bytes(bytes_);
    if (bytes_ != 0) {
      device().load(bytes.data(), address_, bytes_);
    }
    return nb::bytes(bytes.data(), bytes_);
  }
  void store_later(const nb::bytes& bytes, std::optional<std::uintptr_t> stream) {
    const auto* first = reinterpret_cast<const std::byte*>(bytes.c_str());
    device().store_later(id_, address_, std::vector<std::byte>(first, first + bytes.size()),
                         stream ? stream_of(*stream) : stream_);
  }
  // As a consumer's work on that stream: reads memory of the device and writes this.
  void copy_later(std::uintptr_t from, std::uintptr_t stream) {
    device().copy(id_, address_, reinterpret_cast<void*>(from), bytes_, stream_of(stream));
  }
  [[nodiscard]] int id() const { return id_; }
  [[nodiscard]] std::uintptr_t stream() const { return handle_of(stream_); }

 private:
  int id_;
  std::size_t bytes_;
  Stream stream_;
  void* address_ = nullptr;
};

/// Host memory that a device works on: pinned or managed.
class SharedMemory {
 public:
  SharedMemory(const nb::bytes& bytes, const std::string& kind)
      : kind_(kind == "pinned" ? MemoryKind::kPinned : MemoryKind::kManaged) {
    address_ = device().make_host(kind_, std::max<std::size_t>(1, bytes.size()));
    std::memcpy(address_, bytes.c_str(), bytes.size());
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory() { device().unmake(address_); }

  [[nodiscard]] std::uintptr_t address() const {
    return reinterpret_cast<std::uintptr_t>(address_);
  }
  void store_later(const nb::bytes& bytes, int id, std::uintptr_t stream) {
    const auto* first = reinterpret_cast<const std::byte*>(bytes.c_str());
    device().store_later(id, address_, std::vector<std::byte>(first, first + bytes.size()),
                         stream_of(stream));
  }

 private:
  MemoryKind kind_;
  void* address_ = nullptr;
};

/// How a tensor over memory is exported; all of it may be a lie.
struct Description {
  std::uintptr_t address = 0;
  std::vector<std::int64_t> shape;
  std::optional<std::vector<std::int64_t>> strides;
  std::vector<int> dtype{kDLFloat, 32, 1};
  std::pair<int, int> place{kDLExtDev, 0};
  std::uint64_t byte_offset = 0;
  std::uint64_t flags = 0;
};

struct Export {
  DLManagedTensorVersioned managed{};
  Description description;
  std::vector<std::int64_t> strides;
  std::shared_ptr<void> owner;
  std::shared_ptr<std::atomic<long>> deletes;
};

/// A producer's tensor; exported any number of times.
struct Tensor {
  Description description;
  std::shared_ptr<void> owner;
  std::shared_ptr<std::atomic<long>> deletes = std::make_shared<std::atomic<long>>(0);
  long exports = 0;

  DLManagedTensorVersioned* release() {
    auto made = std::make_unique<Export>();
    made->description = description;
    made->strides = description.strides.value_or(std::vector<std::int64_t>());
    made->owner = owner;
    made->deletes = deletes;
    auto& shape = made->description.shape;
    DLTensor tensor{};
    tensor.data = reinterpret_cast<void*>(description.address);
    tensor.device = {static_cast<DLDeviceType>(description.place.first), description.place.second};
    tensor.ndim = static_cast<int>(shape.size());
    tensor.dtype = {static_cast<std::uint8_t>(description.dtype.at(0)),
                    static_cast<std::uint8_t>(description.dtype.at(1)),
                    static_cast<std::uint16_t>(description.dtype.at(2))};
    shape.resize(shape.size() + 1);  // never a null of an empty list
    made->strides.resize(shape.size());
    tensor.shape = shape.data();
    tensor.strides = description.strides ? made->strides.data() : nullptr;
    tensor.byte_offset = description.byte_offset;
    made->managed = {{DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION},
                     made.get(),
                     [](DLManagedTensorVersioned* self) {
                       const std::unique_ptr<Export> ended(static_cast<Export*>(self->manager_ctx));
                       ++*ended->deletes;
                     },
                     description.flags,
                     tensor};
    ++exports;
    return &made.release()->managed;
  }

  nb::capsule capsule() {
    PyObject* made = PyCapsule_New(release(), "dltensor_versioned", [](PyObject* unused) {
      if (PyCapsule_IsValid(unused, "dltensor_versioned") != 0) {
        auto* managed = static_cast<DLManagedTensorVersioned*>(
            PyCapsule_GetPointer(unused, "dltensor_versioned"));
        managed->deleter(managed);
      }
    });
    return nb::steal<nb::capsule>(made);
  }
};

/// The same, for a type with an exchange table.
struct TableTensor : Tensor {};

std::map<int, std::uintptr_t>& current_streams() {
  static std::map<int, std::uintptr_t> streams;
  return streams;
}

int table_from_object(void* object, DLManagedTensorVersioned** out) {
  try {
    *out = nb::cast<TableTensor*>(nb::handle(static_cast<PyObject*>(object)))->release();
    return 0;
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
    return -1;
  }
}
int table_stream(DLDeviceType type, std::int32_t id, void** out) {
  if (type != kDLExtDev && type != kDLCUDAHost && type != kDLCUDAManaged) {
    PyErr_SetString(PyExc_ValueError, "the guarded device has no such type");
    return -1;
  }
  *out = reinterpret_cast<void*>(current_streams()[id]);
  return 0;
}
int table_to_object(DLManagedTensorVersioned* /*tensor*/, void** /*out*/) {
  PyErr_SetString(PyExc_RuntimeError, "the guarded device makes no objects of its own");
  return -1;
}
DLPackExchangeAPI& table() {
  static DLPackExchangeAPI made{{{DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION}, nullptr},
                                nullptr,
                                table_from_object,
                                table_to_object,
                                nullptr,
                                table_stream};
  return made;
}

Call call_named(const std::string& name) {
  const auto found = std::find(kCallNames.begin(), kCallNames.end(), name);
  if (found == kCallNames.end()) {
    throw nb::value_error(("no call is named " + name).c_str());
  }
  return static_cast<Call>(found - kCallNames.begin());
}

nb::dict counts() {
  const Counts now = device().counts();
  nb::dict all;
  all["allocations"] = now.allocations;
  all["pinned"] = now.pinned;
  all["managed"] = now.managed;
  all["events"] = now.events;
  all["to_host"] = now.to_host;
  all["to_device"] = now.to_device;
  all["within"] = now.within;
  all["kernels"] = now.kernels;
  all["pageable_copies"] = now.pageable_copies;
  return all;
}

template <typename Kind>
void fill(Kind& tensor, std::shared_ptr<void> owner, std::uintptr_t address, int id,
          std::vector<std::int64_t> shape, std::optional<std::vector<std::int64_t>> strides,
          std::vector<int> dtype, std::optional<std::pair<int, int>> place,
          std::uint64_t byte_offset, std::uint64_t flags) {
  tensor.owner = std::move(owner);
  tensor.description = {address,
                        std::move(shape),
                        std::move(strides),
                        std::move(dtype),
                        place.value_or(std::pair<int, int>{kDLExtDev, id}),
                        byte_offset,
                        flags};
}

template <typename Kind>
void define_tensor(nb::module_& module, const char* name) {
  nb::class_<Kind>(module, name)
      .def(
          "__init__",
          [](Kind* self, std::shared_ptr<DeviceMemory> memory, std::vector<std::int64_t> shape,
             std::optional<std::vector<std::int64_t>> strides, std::vector<int> dtype,
             std::optional<std::pair<int, int>> place, std::uint64_t byte_offset,
             std::uint64_t flags) {
            new (self) Kind;
            const auto address = memory->address();
            const int id = memory->id();
            fill(*self, std::move(memory), address, id, std::move(shape), std::move(strides),
                 std::move(dtype), place, byte_offset, flags);
          },
          nb::arg("memory"), nb::arg("shape"), nb::kw_only(), nb::arg("strides") = nb::none(),
          nb::arg("dtype") = std::vector<int>{kDLFloat, 32, 1}, nb::arg("place") = nb::none(),
          nb::arg("byte_offset") = 0, nb::arg("flags") = 0)
      .def(
          "__init__",
          [](Kind* self, std::shared_ptr<SharedMemory> memory, std::vector<std::int64_t> shape,
             std::optional<std::vector<std::int64_t>> strides, std::vector<int> dtype,
             std::optional<std::pair<int, int>> place, std::uint64_t byte_offset,
             std::uint64_t flags) {
            new (self) Kind;
            const auto address = memory->address();
            fill(*self, std::move(memory), address, 0, std::move(shape), std::move(strides),
                 std::move(dtype), place, byte_offset, flags);
          },
          nb::arg("memory"), nb::arg("shape"), nb::kw_only(), nb::arg("strides") = nb::none(),
          nb::arg("dtype") = std::vector<int>{kDLFloat, 32, 1}, nb::arg("place") = nb::none(),
          nb::arg("byte_offset") = 0, nb::arg("flags") = 0)
      .def(
          "__init__",
          [](Kind* self, std::uintptr_t address, std::vector<std::int64_t> shape,
             std::pair<int, int> place) {
            new (self) Kind;
            fill(*self, nullptr, address, 0, std::move(shape), std::nullopt, {kDLFloat, 32, 1},
                 place, 0, 0);
          },
          nb::arg("address"), nb::arg("shape"), nb::kw_only(), nb::arg("place"))
      .def("capsule", &Kind::capsule)
      .def_ro("exports", &Kind::exports)
      .def_prop_ro("deletes", [](const Kind& tensor) { return tensor.deletes->load(); })
      .def_prop_ro("place", [](const Kind& tensor) { return tensor.description.place; });
}

}  // namespace
}  // namespace dlbridge::guarded

NB_MODULE(dlbridge_guarded, m) {
  using namespace dlbridge::guarded;  // NOLINT(google-build-using-namespace)
  using dlbridge::Stream;
  using dlbridge::python::DeviceCompanion;
  nb::set_leak_warnings(false);

  m.attr("DEVICE_TYPE") = static_cast<int>(kDLExtDev);
  m.attr("CALLS") = nb::cast(std::vector<std::string>(kCallNames.begin(), kCallNames.end()));
  m.def("runtime_capsule", [] {
    static DeviceCompanion companion{
        DeviceCompanion::kInterface,
        []() -> dlbridge::DeviceRuntime* { return &device(); },
    };
    return nb::capsule(&companion, dlbridge::python::kDeviceCapsule);
  });
  // For the torch backend, which is a module of its own.
  m.def("device_address", [] { return reinterpret_cast<std::uintptr_t>(&device()); });

  m.def(
      "make_stream", [](int id) { return handle_of(device().make_stream(id)); }, nb::arg("id") = 0);
  m.def(
      "own_stream", [](int id) { return handle_of(device().own_stream(id)); }, nb::arg("id") = 0);
  const auto control = [&m](const char* name, auto action) {
    m.def(name, action, nb::arg("stream") = 0, nb::arg("id") = 0,
          nb::call_guard<nb::gil_scoped_release>());
  };
  control("hold", [](std::uintptr_t s, int id) { device().hold(id, stream_of(s)); });
  control("let_go", [](std::uintptr_t s, int id) { device().let_go(id, stream_of(s)); });
  control("run_one", [](std::uintptr_t s, int id) { return device().run_one(id, stream_of(s)); });
  control("pending", [](std::uintptr_t s, int id) { return device().pending(id, stream_of(s)); });
  control("begin_capture",
          [](std::uintptr_t s, int id) { device().begin_capture(id, stream_of(s)); });
  control("end_capture",
          [](std::uintptr_t s, int id) { return device().end_capture(id, stream_of(s)); });
  control("fail_work", [](std::uintptr_t s, int id) {
    device().fail_work(id, stream_of(s), "the guarded device's work failed");
  });
  control("wait_for", [](std::uintptr_t s, int id) { device().synchronise(id, stream_of(s)); });
  m.def(
      "order",
      [](std::uintptr_t before, std::uintptr_t after, int id) {
        const auto event = device().record(id, stream_of(before));
        try {
          device().wait(id, stream_of(after), event);
        } catch (...) {
          device().release(event);
          throw;
        }
        device().release(event);
      },
      nb::arg("before"), nb::arg("after"), nb::arg("id") = 0);
  m.def("delay", [](std::uint32_t seed, int microseconds) { device().delay(seed, microseconds); });
  m.def(
      "settle", [] { device().settle(); }, nb::call_guard<nb::gil_scoped_release>());
  m.def(
      "fail",
      [](const std::optional<std::string>& call, int nth, bool out_of_memory) {
        device().fail(call ? std::optional(call_named(*call)) : std::nullopt, nth,
                      out_of_memory ? Failure::kOutOfMemory : Failure::kDeviceError);
      },
      nb::arg("call") = nb::none(), nb::arg("nth") = 1, nb::arg("out_of_memory") = false);
  m.def("has_failed", [] { return device().has_failed(); });
  m.def("stop_failing", [] { device().stop_failing(); });
  m.def(
      "unplug", [](bool gone) { device().unplug(gone); }, nb::arg("gone") = true);
  m.def("counts", &counts);
  m.def("begin_count", [] { device().begin_count(); });
  m.def("calls", [](const std::string& call) { return device().calls(call_named(call)); });
  m.def("faults", [] { return device().faults(); });
  m.def("locate", [](std::uintptr_t address) -> std::optional<std::pair<int, int>> {
    const auto found = device().locate(reinterpret_cast<void*>(address));
    return found ? std::optional(std::pair<int, int>{found->type, found->id}) : std::nullopt;
  });
  m.def(
      "set_current_stream", [](std::uintptr_t stream, int id) { current_streams()[id] = stream; },
      nb::arg("stream") = 0, nb::arg("id") = 0);

  nb::class_<DeviceMemory>(m, "DeviceMemory")
      .def(nb::init<const nb::bytes&, int, std::uintptr_t>(), nb::arg("data"), nb::arg("id") = 0,
           nb::arg("stream") = 0)
      .def_prop_ro("address", &DeviceMemory::address)
      .def_prop_ro("id", &DeviceMemory::id)
      .def_prop_ro("stream", &DeviceMemory::stream)
      .def("load", &DeviceMemory::load)
      .def("store_later", &DeviceMemory::store_later, nb::arg("data"),
           nb::arg("stream") = nb::none())
      .def("copy_later", &DeviceMemory::copy_later, nb::arg("address"), nb::arg("stream") = 0);
  nb::class_<SharedMemory>(m, "SharedMemory")
      .def(nb::init<const nb::bytes&, const std::string&>(), nb::arg("data"),
           nb::arg("kind") = "pinned")
      .def_prop_ro("address", &SharedMemory::address)
      .def("store_later", &SharedMemory::store_later, nb::arg("data"), nb::arg("id") = 0,
           nb::arg("stream") = 0);
  define_tensor<Tensor>(m, "Tensor");
  define_tensor<TableTensor>(m, "TableTensor");
  m.attr("TableTensor").attr("__dlpack_c_exchange_api__") =
      nb::capsule(&table(), "dlpack_exchange_api");
}
