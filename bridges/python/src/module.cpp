// dlbridge._core: the functions of the surface, and what the package's Python files need.

#include <algorithm>

#include "call.hpp"
#include "crossing.hpp"
#include "devices/devices.hpp"
#include "dlbridge/memory_pool.hpp"
#include "dlbridge/python_lease.hpp"
#include "extension.hpp"
#include "module_functions.hpp"
#include "names.hpp"
#include "registry.hpp"
#include "sharing.hpp"
#include "targets/managed_target.hpp"
#include "targets/numpy_target.hpp"
#include "targets/pending_target.hpp"
#include "targets/torch_target.hpp"
#include "torch/torch_road.hpp"
#include "trees.hpp"
#include "types/arriving_type.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

// `x` alone is the common call, and needs no reading.
PyObject* only_argument(const char* function, PyObject* const* arguments, Py_ssize_t count,
                        Py_ssize_t wanted) {
  if (count != wanted) {
    raise(PyExc_TypeError, std::string(function) + "() takes exactly " + std::to_string(wanted) +
                               " positional argument" + (wanted == 1 ? "" : "s") + " (" +
                               std::to_string(count) + " given)");
  }
  return arguments[0];
}

template <std::size_t Count>
Arguments<Count> keywords_of(const char* function, const std::array<const char*, Count>& names,
                             PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  Arguments<Count> parsed(function, names);
  parsed.parse(0, arguments + count, 0, keywords);
  return parsed;
}

// The calls with keywords, or inside of a block. Apart, so that the common call stays short.
[[gnu::noinline]] Ref to_numpy_as_told(PyObject* x, PyObject* const* arguments, Py_ssize_t count,
                                       PyObject* keywords) {
  if (keywords == nullptr) {
    return watched([&] { return cross(x, kToNumPy, call_of_block()); });
  }
  const auto named = keywords_of<8>(
      "to_numpy", {"policy", "dtype", "copy", "order", "writable", "out", "stream", "async_"},
      arguments, count, keywords);
  Call call = read_call({.policy = named.get(0),
                         .dtype = named.get(1),
                         .copy = named.get(2),
                         .stream = named.get(6),
                         .order = named.get(3),
                         .writable = named.get(4)});
  PyObject* out = named.get(5);
  const bool pending = checked_truth(PyObject_IsTrue(named.get(7)));
  if (out == Py_None && !pending) {
    return watched([&] { return cross(x, kToNumPy, call); });
  }
  if (out != Py_None) {
    if (way_into(x) == nullptr) {
      (void)map_tree(x, [](PyObject*) -> Ref {
        raise(PyExc_TypeError, "out= takes the result of one tensor, and this is a tree");
      });
    }
    if (call.request.c_order || call.request.writable) {
      raise(PyExc_ValueError,
            "order= and writable= are for a new array; out= is laid out as it is, and written to");
    }
    call = call_into(out, call);
  }
  const PendingTarget target(out, pending ? Gives::kPending : Gives::kArray);
  return watched([&] { return cross(x, target, call); });
}

Ref to_numpy(PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  drain_releases();
  PyObject* x = only_argument("to_numpy", arguments, count, 1);
  if (keywords == nullptr && !any_block_open()) {
    return cross(x, kToNumPy, Call{});
  }
  return to_numpy_as_told(x, arguments, count, keywords);
}

[[gnu::noinline]] Ref to_torch_as_told(PyObject* x, PyObject* const* arguments, Py_ssize_t count,
                                       PyObject* keywords) {
  Call call;
  if (keywords == nullptr) {
    call = call_of_block();
  } else {
    const auto named =
        keywords_of<6>("to_torch", {"policy", "dtype", "copy", "order", "device", "stream"},
                       arguments, count, keywords);
    call = read_call({.policy = named.get(0),
                      .dtype = named.get(1),
                      .copy = named.get(2),
                      .device = named.get(4),
                      .stream = named.get(5),
                      .order = named.get(3)});
  }
  return watched([&] { return cross(x, kToTorch, call); });
}

Ref to_torch(PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  drain_releases();
  PyObject* x = only_argument("to_torch", arguments, count, 1);
  if (keywords == nullptr && !any_block_open()) {
    return cross(x, kToTorch, Call{});
  }
  return to_torch_as_told(x, arguments, count, keywords);
}

[[gnu::noinline]] Ref from_dlpack_as_told(PyObject* x, PyObject* const* arguments, Py_ssize_t count,
                                          PyObject* keywords) {
  Call call;
  if (keywords == nullptr) {
    call = call_of_block();
  } else {
    const auto named =
        keywords_of<2>("from_dlpack", {"device", "copy"}, arguments, count, keywords);
    call = read_call({.copy = named.get(1), .device = named.get(0)});
  }
  call = without_policy(call);
  return watched([&] { return cross(x, way_into_tensor(x), kToManaged, call); });
}

Ref from_dlpack(PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  drain_releases();
  PyObject* x = only_argument("from_dlpack", arguments, count, 1);
  if (keywords == nullptr && !any_block_open()) {
    return cross(x, way_into_tensor(x), kToManaged, without_policy({}));
  }
  return from_dlpack_as_told(x, arguments, count, keywords);
}

Ref capsule(PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  drain_releases();
  PyObject* x = only_argument("capsule", arguments, count, 1);
  bool versioned = true;
  bool given = false;
  for (Py_ssize_t i = 0; keywords != nullptr && i < PyTuple_GET_SIZE(keywords); ++i) {
    given = given ||
            PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, i), "max_version") == 0;
  }
  const auto named =
      keywords_of<2>("capsule", {"max_version", "policy"}, arguments, count, keywords);
  if (given) {
    versioned = wants_versioned(named.get(0));  // None asks for the legacy capsule
  }
  const Call call = read_call({.policy = named.get(1)});
  return watched([&] { return cross(x, way_into_tensor(x), CapsuleTarget(versioned), call); });
}

// The arguments (x, target, policy, dtype, copy, device, order, writable, stream, leaf): what is
// asked of x, which is a leaf of a tree where it says so.
Call call_for(const char* function, PyObject* const* arguments, Py_ssize_t count) {
  only_argument(function, arguments, count, 10);
  Call call = read_call({.policy = arguments[2],
                         .dtype = arguments[3],
                         .copy = arguments[4],
                         .device = arguments[5],
                         .stream = arguments[8],
                         .order = arguments[6],
                         .writable = arguments[7]});
  call.request.leaf = arguments[9] == Py_True;
  return call;
}

// explain_plan(x, target, ...), target a name or a capsule of new_target().
Ref explain_plan(PyObject* const* arguments, Py_ssize_t count) {
  drain_releases();
  const Call call = call_for("explain_plan", arguments, count);
  try {
    return explain_crossing(arguments[0], target_in(arguments[1]), call);
  } catch (const ConversionRefused& refused) {
    return plan_object(refused);  // not the error, which would count as a refusal
  }
}

// cross_to(x, target, ...): the conversion itself, of a tree too.
Ref cross_to(PyObject* const* arguments, Py_ssize_t count) {
  drain_releases();
  const Call call = call_for("cross_to", arguments, count);
  const Target& target = target_in(arguments[1]);
  return watched([&] { return cross(arguments[0], target, call); });
}

// cross_arrays(tree, target, policy, met): the arrays of a tree cross, its other leaves stay.
Ref cross_arrays_in_python(PyObject* const* arguments, Py_ssize_t count) {
  drain_releases();
  only_argument("cross_arrays", arguments, count, 4);
  Call call = read_call({.policy = arguments[2]});
  call.request.leaf = true;
  const Target& target = target_in(arguments[1]);
  return watched([&] { return cross_arrays(arguments[0], target, call, arguments[3]); });
}

Ref live_tensors() {
  drain_releases();
  return checked(PyLong_FromLongLong(live_managed_tensors()));
}

// pool_limit([bytes]): sets the limit if one is given; the limit until now.
Ref limit_of_pool(PyObject* const* arguments, Py_ssize_t count) {
  if (count == 0 || (count == 1 && arguments[0] == Py_None)) {
    return checked(PyLong_FromSize_t(pool_limit()));
  }
  const std::size_t bytes = size_of(only_argument("pool_limit", arguments, count, 1), "bytes");
  return checked(PyLong_FromSize_t(set_pool_limit(bytes)));
}

Ref give_back_pool() {
  const std::size_t before = pooled_bytes();
  release_pool();
  return checked(PyLong_FromSize_t(before - std::min(before, pooled_bytes())));
}

// What a block of policy() says, and the classes of plans and refusals, are the package's, and are
// looked for once: what a second package says would be passed over in silence. So one that was
// taken out of sys.modules and is imported again is the first one.
// The package asks before it imports its other parts, whether or not they were taken out too.
Ref bring_back_first_package() {
  static PyObject* first = nullptr;  // kept for good
  Ref package = item_of(PyImport_GetModuleDict(), "dlbridge");
  // An import that failed came to no such name, and does not count.
  if (first == nullptr || PyObject_HasAttrString(first, "_come_back") == 0) {
    first = package.release();
  } else if (package.get() != first) {
    checked(PyObject_CallMethod(first, "_come_back", "O", first));
  }
  return Ref::borrow(Py_None);
}

// Those of the package alone have their words in _core.pyi.
PyMethodDef functions[] = {
    {"to_numpy", called<to_numpy>(), METH_FASTCALL | METH_KEYWORDS,
     "to_numpy(x, /, *, policy=None, dtype=None, copy=None, order=None, writable=None, out=None, "
     "stream=None, async_=False)\n--\n\n"
     "x, from any library, as a numpy.ndarray: sharing memory wherever the policy allows.\n\n"
     "order=\"C\", writable=True: what the array has to be; a copy is made where it is not so.\n"
     "out: an array to fill and return. stream: the one that x's memory is ordered on.\n"
     "async_=True: a PendingArray, to be awaited, while a copy from a device goes on."},
    {"to_torch", called<to_torch>(), METH_FASTCALL | METH_KEYWORDS,
     "to_torch(x, /, *, policy=None, dtype=None, copy=None, order=None, device=None, "
     "stream=None)\n--\n\n"
     "x, from any library, as a torch.Tensor: sharing memory wherever the policy allows.\n\n"
     "order=\"C\": the tensor has to be contiguous; a copy is made where it is not."},
    {"from_dlpack", called<from_dlpack>(), METH_FASTCALL | METH_KEYWORDS,
     "from_dlpack(x, /, *, device=None, copy=None)\n--\n\n"
     "x, any producer or a raw capsule, as a ManagedTensor."},
    {"capsule", called<capsule>(), METH_FASTCALL | METH_KEYWORDS,
     "capsule(x, /, *, max_version=(1, 3), policy=None)\n--\n\n"
     "A DLPack capsule of x: \"dltensor_versioned\", or \"dltensor\" for a max_version below 1."},
    {"explain_plan", called<explain_plan>(), METH_FASTCALL, nullptr},
    {"cross_to", called<cross_to>(), METH_FASTCALL, nullptr},
    {"cross_arrays", called<cross_arrays_in_python>(), METH_FASTCALL, nullptr},
    {"add_library", called<add_library>(), METH_O, nullptr},
    {"new_target", called<new_target>(), METH_VARARGS, nullptr},
    {"capability_fields", called<capability_fields>(), METH_NOARGS, nullptr},
    {"library_of", called<library_of_in_python>(), METH_O, nullptr},
    {"is_tensor", called<is_tensor_in_python>(), METH_O, nullptr},
    {"is_array", called<is_array_in_python>(), METH_O, nullptr},
    {"map_tree", called<map_tree_in_python>(), METH_FASTCALL, nullptr},
    {"map_leaves", called<map_leaves_in_python>(), METH_FASTCALL, nullptr},
    {"hold", called<hold>(), METH_FASTCALL, nullptr},
    {"counting_deleters", called<counting_deleters>(), METH_NOARGS, nullptr},
    {"policy_fields", called<policy_fields>(), METH_NOARGS, nullptr},
    {"live_managed_tensors", called<live_tensors>(), METH_NOARGS, nullptr},
    {"pool_limit", called<limit_of_pool>(), METH_FASTCALL,
     "pool_limit(bytes=None, /)\n--\n\n"
     "How many bytes of ended copies' memory are kept for the next copies. With an argument, sets\n"
     "it (0: nothing is kept) and returns the limit until then."},
    {"release_pool", called<give_back_pool>(), METH_NOARGS,
     "release_pool()\n--\n\n"
     "Gives the memory that is kept for the next copies back to the system; how many bytes."},
    {"shared_target", called<shared_target>(), METH_VARARGS, nullptr},
    {"shared_bytes", called<shared_bytes>(), METH_VARARGS, nullptr},
    {"shared_allocate", called<shared_allocate>(), METH_VARARGS, nullptr},
    {"managed_stream", called<stream_of_managed_in_python>(), METH_VARARGS, nullptr},
    {"tensor_over", called<tensor_over>(), METH_VARARGS, nullptr},
    {"pack_shared", called<pack_shared>(), METH_VARARGS, nullptr},
    {"unpack_shared", called<unpack_shared>(), METH_VARARGS, nullptr},
    {"send_shared", called<send_shared>(), METH_VARARGS, nullptr},
    {"receive_shared", called<receive_shared>(), METH_VARARGS, nullptr},
    {"count_blocks", called<count_blocks>(), METH_VARARGS, nullptr},
    {"bring_back_first_package", called<bring_back_first_package>(), METH_NOARGS, nullptr},
    {"refused", called<refused_in_python>(), METH_O, nullptr},
    {"caller", called<caller>(), METH_NOARGS, nullptr},
    {"policy_of_block", called<policy_of_block>(), METH_NOARGS, nullptr},
    {"stats", called<stats>(), METH_O, nullptr},
    {"register_device_runtime", called<register_device_runtime>(), METH_VARARGS, nullptr},
    {"release_pinned_memory", called<release_pinned>(), METH_NOARGS, nullptr},
    {"pinned", called<new_pinned>(), METH_VARARGS, nullptr},
    {"companion_agrees", called<companion_agrees>(), METH_VARARGS, nullptr},
    {"torch_road", called<choose_torch_road>(), METH_VARARGS, nullptr},
    {"count_write", called<count_write>(), METH_O, nullptr},
    {"torch_vocabulary", called<torch_vocabulary>(), METH_NOARGS, nullptr},
    {"device_name", called<name_of_device>(), METH_VARARGS, nullptr},
    {"device_type", called<type_of_device>(), METH_O, nullptr},
    {"dtype_name", called<name_of_dtype>(), METH_VARARGS, nullptr},
    {"dtype_triple", called<triple_of_dtype>(), METH_O, nullptr},
    {"conditions", called<conditions_by_name>(), METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

// A lease may be given back on any thread, and names no interpreter: with more than one, nobody
// could tell whose object it is.
void refuse_subinterpreter() {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    raise(
        PyExc_ImportError,
        "dlbridge cannot be imported in a sub-interpreter (a deleter may run on any thread, where "
        "nothing says which interpreter its object belongs to); use the main interpreter, or a "
        "process of its own");
  }
}

int fill_module(PyObject* module) {
  const bool filled = succeeds([&] {
    refuse_subinterpreter();
    if (!NumPy::import()) {
      throw PythonError();
    }
    add_managed_tensor_type(module);
    add_arriving_type();
    checked(PyModule_AddObjectRef(module, "_interface", extension_interface().get()));
    checked(PyModule_AddObjectRef(module, "dlbridge_c_api", c_interface().get()));
    checked(PyModule_AddStringConstant(module, "__version__", DLBRIDGE_VERSION));
  });
  return filled ? 0 : -1;
}

// Free-threaded Python turns the GIL on for this module: see docs/hardening.md.
PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(&fill_module)},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, nullptr}};

PyModuleDef core_module = {PyModuleDef_HEAD_INIT,
                           "dlbridge._core",
                           "The compiled part of dlbridge.",
                           0,
                           functions,
                           slots,
                           nullptr,
                           nullptr,
                           nullptr};

}  // namespace
}  // namespace dlbridge::python

PyMODINIT_FUNC PyInit__core() {  // NOLINT(bugprone-reserved-identifier): Python's name for it
  return PyModuleDef_Init(&dlbridge::python::core_module);
}
