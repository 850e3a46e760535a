// What extensions of others call: dlbridge/python.hpp is their side of it.

#include "extension.hpp"

#include <atomic>

#include "crossing.hpp"
#include "dlbridge/dlbridge.h"
#include "dlbridge/python.hpp"
#include "dlbridge/streams.hpp"
#include "ledger.hpp"
#include "targets/argument_target.hpp"
#include "targets/bridge_target.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

using detail::PythonInterface;

PackageAttribute convert_to("dlbridge._targets", "to");
PackageAttribute library_of("dlbridge.trees", "library_of");
PackageAttribute returns_like("dlbridge.functions.agnostic", "returns_like");

// What is written to a private copy would be lost.
Call in_place(Call call) {
  call.request.writable = true;
  call.request.copy_was_argument = true;
  call.request.policy_copy = CopyRule::kWhenNeeded;
  call.policy = call.policy.with_copy(CopyRule::kNever);
  return call;
}

// The call that a parameter makes: one of two, where no more is asked for and no block is open.
class ParameterCall {
 public:
  explicit ParameterCall(const Parameter& parameter)
      : call_(any_block_open() || parameter.policy || parameter.device || parameter.cast_to ||
                      parameter.c_order
                  ? read_.emplace(read(parameter))
                  : kCommon[parameter.in_place ? 1 : 0]) {}
  ParameterCall(const ParameterCall&) = delete;
  ParameterCall& operator=(const ParameterCall&) = delete;

  [[nodiscard]] const Call& get() const { return call_; }

 private:
  [[nodiscard, gnu::cold]] static Call read(const Parameter& parameter) {
    Call call;
    if (parameter.policy) {
      call.policy = *parameter.policy;
      call.request.takes_policy = false;
    } else if (any_block_open()) {
      call = call_of_block();
    }
    call.request.dtype = parameter.cast_to;
    call.request.device = parameter.device;
    call.request.c_order = parameter.c_order;
    return parameter.in_place ? in_place(call) : call;
  }

  static const Call kCommon[2];

  std::optional<Call> read_;
  const Call& call_;
};
const Call ParameterCall::kCommon[] = {{}, in_place({})};

// Once for what is taken and what is looked at.
[[gnu::noinline]] Glance seen(PyObject* object, const Way& way, const ArgumentTarget& target,
                              const Call& call, DLTensor& tensor, Lease& lease) {
  return taken_at_a_glance<true>(object, way, target, call, tensor, lease);
}

// The object for such a parameter. Throws PythonError.
ManagedTensor argument(PyObject* object, const Parameter& parameter, Matching matching) {
  const ArgumentTarget target{parameter, matching};
  const ParameterCall call(parameter);
  const Way& way = way_into_tensor(object);
  DLTensor tensor;
  Lease lease;
  if (const Glance glance = seen(object, way, target, call.get(), tensor, lease);
      glance != Glance::kCloser) {
    return ManagedTensor::own_trusted(tensor, detail::flags_of(glance), lease);
  }
  try {
    return cross_by_door<true>(object, way, target, call.get());
  } catch (const PythonError&) {
    if (&way != &kRegisteredWay || matching == Matching::kAlone ||
        PyErr_ExceptionMatches(PyExc_TypeError) == 0) {
      throw;
    }
    PyErr_Clear();  // it is no tensor
    return {};
  }
}

DLManagedTensorVersioned* take(PyObject* object, const Parameter& parameter,
                               Matching matching) noexcept {
  DLManagedTensorVersioned* taken = nullptr;
  (void)succeeds([&] {
    drain_releases();
    if (ManagedTensor tensor = watched([&] { return argument(object, parameter, matching); })) {
      taken = tensor.release();
    }
  });
  return taken;
}

bool look(PyObject* object, const Parameter& parameter, DLTensor& tensor, Lease& lease) noexcept {
  try {
    drain_releases();
    const ParameterCall call(parameter);
    return seen(object, way_into_tensor(object), {parameter, Matching::kLooking}, call.get(),
                tensor, lease) != Glance::kCloser;
  } catch (...) {
    forget_error();  // take() meets it again
    return false;
  }
}

PyObject* give(DLManagedTensorVersioned* tensor, const char* library) noexcept {
  return guarded([&] {
    Ref managed = wrap(ManagedTensor::adopt(tensor, run_foreign_deleter));
    if (library == nullptr) {
      return managed.release();
    }
    return PyObject_CallFunction(convert_to.get(), "Os", managed.get(), library);
  });
}

PyObject* give_like(DLManagedTensorVersioned* tensor, PyObject* object) noexcept {
  return guarded([&] {
    Ref managed = wrap(ManagedTensor::adopt(tensor, run_foreign_deleter));
    const Ref library = checked(PyObject_CallOneArg(library_of.get(), object));
    if (library.get() == Py_None) {
      return managed.release();
    }
    const Ref like = checked(PyObject_CallOneArg(returns_like.get(), object));
    return PyObject_CallOneArg(like.get(), managed.get());
  });
}

int add_bridge_for_extension(const detail::BridgeRow& bridge) {
  return succeeds([&] { add_bridge(bridge); }) ? 0 : -1;
}

void set_refused_for_extension(const ConversionRefused& refused) {
  (void)succeeds([&] { throw refused; });
}

constexpr PythonInterface kInterface{.take = take,
                                     .look = look,
                                     .let_go = give_back_with_gil,
                                     .give = give,
                                     .give_like = give_like,
                                     .add_bridge = add_bridge_for_extension,
                                     .stream_of = managed_stream,
                                     .set_refused = set_refused_for_extension};

template <typename Managed>
void count(Managed* managed) {
  std::atomic_ref(*static_cast<std::uint64_t*>(managed->manager_ctx)).fetch_add(1);
}

template <typename Managed>
unsigned long long address_of_deleter() {
  return reinterpret_cast<std::uintptr_t>(&count<Managed>);
}

}  // namespace

Ref counting_deleters() {
  return checked(Py_BuildValue("(KK)", address_of_deleter<DLManagedTensorVersioned>(),
                               address_of_deleter<DLManagedTensor>()));
}

Ref extension_interface() {
  return checked(
      PyCapsule_New(const_cast<PythonInterface*>(&kInterface), PythonInterface::kCapsule, nullptr));
}

Ref c_interface() {
  const dlbridge_api* api = dlbridge_get_api(DLBRIDGE_ABI_MAJOR);
  return checked(PyCapsule_New(const_cast<dlbridge_api*>(api), kCInterface, nullptr));
}

}  // namespace dlbridge::python
