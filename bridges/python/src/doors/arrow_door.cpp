// Columns, by the capsules of Arrow's C interfaces.

#include "dlbridge/arrow.hpp"
#include "dlbridge/python_lease.hpp"
#include "doors/dlpack_door.hpp"

namespace dlbridge::python {
namespace {

constexpr const char* kColumns = "dlbridge columns";

constexpr char kArray[] = "__arrow_c_array__";
constexpr char kDeviceArray[] = "__arrow_c_device_array__";
constexpr char kStream[] = "__arrow_c_stream__";

template <class Struct>
Struct& in_capsule(PyObject* capsule, const char* name, const Door& door) {
  if (!PyCapsule_CheckExact(capsule) || PyCapsule_IsValid(capsule, name) == 0) {
    refuse(door, std::string("it gave no capsule named \"") + name + "\"");
  }
  return *static_cast<Struct*>(PyCapsule_GetPointer(capsule, name));
}

template <class Struct>
ArrowColumns columns_of_pair(const Door& door, PyObject* method, const char* method_name,
                             const char* name) {
  const Ref pair = checked(PyObject_CallNoArgs(method));
  if (!PyTuple_Check(pair.get()) || PyTuple_GET_SIZE(pair.get()) != 2) {
    refuse(door, std::string("its ") + method_name + "() returned no pair of capsules");
  }
  return ArrowColumns::take(
      in_capsule<arrow::Schema>(PyTuple_GET_ITEM(pair.get(), 0), "arrow_schema", door),
      in_capsule<Struct>(PyTuple_GET_ITEM(pair.get(), 1), name, door));
}

ArrowColumns columns_of_array(const Door& door, PyObject* method) {
  return columns_of_pair<arrow::Array>(door, method, kArray, "arrow_array");
}

ArrowColumns columns_of_device_array(const Door& door, PyObject* method) {
  return columns_of_pair<arrow::DeviceArray>(door, method, kDeviceArray, "arrow_device_array");
}

ArrowColumns columns_of_stream(const Door& door, PyObject* method) {
  const Ref capsule = checked(PyObject_CallNoArgs(method));
  auto& stream = in_capsule<arrow::Stream>(capsule.get(), "arrow_array_stream", door);
  // A query may run now, on threads that need the GIL.
  const WithoutGil without_gil;
  return ArrowColumns::take(stream);
}

// A view is taken at once. What has to be gathered first, or is refused, is kept for that.
void settle(Door& door, ArrowColumns columns) {
  Arrow::describe(columns, door.source);
  if (door.source.traits.conditions == Conditions{Condition::kReadOnly}) {
    const Lease lease{Arrow::hold(columns),
                      [](void* held) noexcept { run_with_gil(held, Arrow::let_go); }};
    door.taken = ManagedTensor::own(door.source.tensor, DLPACK_FLAG_BITMASK_READ_ONLY, lease);
    describe_taken(door);
    return;
  }
  auto kept = std::make_unique<ArrowColumns>(std::move(columns));
  door.held = checked(PyCapsule_New(kept.get(), kColumns, [](PyObject* capsule) {
    const KeepError keep;  // the refusal, while a producer in Python lets go
    delete static_cast<ArrowColumns*>(PyCapsule_GetPointer(capsule, kColumns));
  }));
  (void)kept.release();
  door.readable = door.held.get();
}

template <const char* kMethod, ArrowColumns (*kRead)(const Door&, PyObject*)>
void take(Door& door) {
  const Ref method(PyObject_GetAttrString(door.readable, kMethod));
  if (!method) {
    take_by_next_way(door);
    return;
  }
  try {
    settle(door, kRead(door, method.get()));
  } catch (const ConversionRefused& refused) {
    refuse(door, refused.reasons.front());
  }
}

ManagedTensor gather(Door& door, const Leg& /*leg*/, Source& made) {
  const auto& columns =
      *static_cast<const ArrowColumns*>(PyCapsule_GetPointer(door.readable, kColumns));
  ManagedTensor tensor;
  {
    const Door::Copying scope(door, byte_count(door.source.tensor), /*waits=*/false);
    tensor = Arrow::gather(columns);
  }
  dlbridge::describe(tensor, *door.library, made);
  return tensor;
}

}  // namespace

const Way kArrowArrayWay{describe_by_registry, give_taken, gather, take<kArray, columns_of_array>};
const Way kArrowDeviceArrayWay{describe_by_registry, give_taken, gather,
                               take<kDeviceArray, columns_of_device_array>};
const Way kArrowStreamWay{describe_by_registry, give_taken, gather,
                          take<kStream, columns_of_stream>};

}  // namespace dlbridge::python
