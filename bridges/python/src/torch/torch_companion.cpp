// The linked road: the C++ bridge to torch, compiled for the torch that is running.

#include <ATen/ops/lift_fresh.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <string_view>

#include "devices/companion_module.hpp"
#include "dlbridge/torch.hpp"
#include "torch/torch_road.hpp"

namespace dlbridge::python {
namespace {

ReleasesOfModule releases_of_module;

// torch's deleters wait for the GIL; the module's queue does not.
struct ReleaseThroughModule {
  static void run(void* context, void (*action)(void*)) noexcept {
    releases_of_module.run_with_gil(context, action);
  }
  static void free(void* context, void (*action)(void*), std::size_t bytes) noexcept {
    releases_of_module.free_large(context, action, bytes);
  }
};

using LinkedTorch = BasicTorch<ReleaseThroughModule>;

// What C++ throws becomes Python's error; torch's C++ stack is nobody's business here.
template <typename Result, typename Action>
Result guarded(Result failure, Action&& action) noexcept {
  try {
    return action();
  } catch (python_error& error) {
    error.restore();
  } catch (const c10::Error& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return failure;
}

bool has_attribute(PyObject* object, const char* name) {
  PyObject* attribute = PyObject_GetAttrString(object, name);
  PyErr_Clear();
  Py_XDECREF(attribute);
  return attribute != nullptr;
}

// Parameters and buffers of lazy modules are empty tensors to C++.
bool is_uninitialised(PyObject* object) {
  return !THPVariable_CheckExact(object) &&
         pybind11::isinstance(
             object,
             pybind11::module_::import("torch.nn.parameter").attr("UninitializedTensorMixin"));
}

// C++ sees that a subclass has rules of its own; Python knows whose they are.
void name_subclass(PyObject* object, Source& source) {
  Conditions& conditions = source.traits.conditions;
  if (!conditions.meets({Condition::kWrapperSubclass, Condition::kDispatchSubclass})) {
    conditions.add_if(is_uninitialised(object), Condition::kUninitialised);
    return;
  }
  const std::string_view name = Py_TYPE(object)->tp_name;
  source.detail = name;
  if (name == "FakeTensor") {
    conditions.remove(Condition::kWrapperSubclass);
    conditions.remove(Condition::kDispatchSubclass);
    conditions.add(Condition::kFake);
  } else if (has_attribute(object, "full_tensor")) {
    source.fix = "x.full_tensor()";
  } else if (has_attribute(object, "get_mask")) {
    source.fix = "x.get_data() (the mask is lost)";
  }
}

// Whether torch does more on this thread than what it is asked for.
bool is_watched(c10::DispatchKeySet by) {
  return c10::impl::tls_local_dispatch_key_set().included_.has_any(by);
}
constexpr c10::DispatchKeySet kTraces{c10::DispatchKey::Tracer};
constexpr c10::DispatchKeySet kModes =
    kTraces | c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot,
                                   c10::DispatchKey::Functionalize,
                                   c10::DispatchKey::FuncTorchDynamicLayerFrontMode});

// In torch's own words. A warning may be an error, and torch does not look.
void let_torch_warn(const char* call, const char* kind) {
  torch::jit::tracer::warn(call, kind);
  if (PyErr_Occurred() != nullptr) {
    throw python_error();
  }
}

class LinkedRoad final : public TorchRoad {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "linked"; }

  bool describe(PyObject* tensor, Source& source) const noexcept override {
    return guarded(false, [&] {
      LinkedTorch::describe_closely(THPVariable_Unpack(tensor), source);  // after the glance
      if (source.tensor.data == nullptr) [[unlikely]] {
        name_subclass(tensor, source);
      }
      source.traits.conditions.add_if(is_watched(kTraces), Condition::kTraced);
      return true;
    });
  }

  Glance plain(PyObject* tensor, DLTensor& described) const noexcept override {
    return guarded(Glance::kCloser, [&] {
      const Glance glance = LinkedTorch::plain(THPVariable_Unpack(tensor), described);
      return is_watched(kTraces) ? Glance::kCloser : glance;
    });
  }

  bool lease(PyObject* tensor, DLTensor& described, Lease& lease) const noexcept override {
    return guarded(false, [&] {
      lease = LinkedTorch::lease(THPVariable_Unpack(tensor), described);
      return true;
    });
  }

  PyObject* prepare(PyObject* tensor, const Leg& leg) const noexcept override {
    return guarded(static_cast<PyObject*>(nullptr), [&] {
      at::Tensor prepared;
      {
        const pybind11::gil_scoped_release without_gil;
        const c10::impl::ExcludeDispatchKeyGuard unwatched(kModes);
        prepared = LinkedTorch::prepare(THPVariable_Unpack(tensor), leg);
      }
      return THPVariable_Wrap(std::move(prepared));
    });
  }

  [[nodiscard]] const Capabilities& capabilities() const noexcept override {
    static const Source kAny;
    return LinkedTorch::capabilities(kAny);
  }

  PyObject* deliver(DLManagedTensorVersioned* managed) const noexcept override {
    return guarded(static_cast<PyObject*>(nullptr), [&] {
      at::Tensor tensor = LinkedTorch::deliver(managed);
      if (is_watched(kModes)) [[unlikely]] {
        tensor = at::lift_fresh(tensor);
        let_torch_warn("torch.from_numpy", torch::jit::tracer::WARN_CONSTRUCTOR);
      }
      return THPVariable_Wrap(std::move(tensor));
    });
  }

  bool warn_of_trace() const noexcept override {
    return guarded(false, [] {
      let_torch_warn("Converting a tensor to a NumPy array",
                     torch::jit::tracer::WARN_PYTHON_DATAFLOW);
      return true;
    });
  }

  PyObject* count_write(PyObject* tensor) const noexcept override {
    return guarded(static_cast<PyObject*>(nullptr), [&]() -> PyObject* {
      if (!THPVariable_Check(tensor)) {
        return nullptr;  // torch's Python says so
      }
      c10::TensorImpl* impl = THPVariable_Unpack(tensor).unsafeGetTensorImpl();
      if (impl->is_inference()) {
        return Py_NewRef(Py_False);
      }
      impl->bump_version();
      return Py_NewRef(Py_True);
    });
  }
};

const TorchRoad* open_road(const ReleasesOfModule& releases) {
  releases_of_module = releases;
  static const LinkedRoad road;
  return &road;
}

#define DLBRIDGE_TEXT_OF(name) #name
#define DLBRIDGE_TEXT(name) DLBRIDGE_TEXT_OF(name)
#define DLBRIDGE_JOINED_NAMES(prefix, name) prefix##name
#define DLBRIDGE_JOINED(prefix, name) DLBRIDGE_JOINED_NAMES(prefix, name)

}  // namespace
}  // namespace dlbridge::python

PyMODINIT_FUNC DLBRIDGE_JOINED(PyInit_, DLBRIDGE_COMPANION_NAME)() {
  using namespace dlbridge::python;
  static Companion companion{Companion::kInterface, &open_road};
  return companion_module(DLBRIDGE_TEXT(DLBRIDGE_COMPANION_NAME),
                          "dlbridge's linked road to one release of torch.", "companion",
                          &companion, kCompanionCapsule);
}
