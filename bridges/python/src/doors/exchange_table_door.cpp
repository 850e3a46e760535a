// DLPack's C exchange table: a tensor straight from C.

#include "dlbridge/python_lease.hpp"
#include "doors/dlpack_door.hpp"
#include "doors/exchange_table.hpp"

namespace dlbridge::python {
namespace {

// What a slot answered: an error that it set, or that it failed and set none.
void require_done(int status, Door& door) {
  if (status == 0) {
    return;
  }
  if (PyErr_Occurred() != nullptr) {
    throw PythonError();
  }
  refuse(door, "its exchange table failed without saying why");
}

ManagedTensor call_table(const DLPackExchangeAPI& table, Door& door) {
  DLManagedTensorVersioned* tensor = nullptr;
  require_done(table.managed_tensor_from_py_object_no_sync(door.readable, &tensor), door);
  if (tensor == nullptr) {
    refuse(door, "its exchange table returned no tensor");
  }
  ManagedTensor taken = ManagedTensor::adopt(tensor, run_foreign_deleter);
  if (PyErr_Occurred() != nullptr) {
    throw PythonError();  // it did not succeed, whatever it says
  }
  // Nothing was ordered: the memory is its library's current stream's.
  const DLDevice device = taken.tensor().device;
  if (stream_numbers(device.device_type) && table.current_work_stream != nullptr) {
    require_done(
        table.current_work_stream(device.device_type, device.device_id, &door.source.stream.handle),
        door);
  }
  return taken;
}

void take(Door& door) {
  const DLPackExchangeAPI* table =
      exchange_table_of(reinterpret_cast<PyObject*>(Py_TYPE(door.readable)));
  if (table == nullptr || table->managed_tensor_from_py_object_no_sync == nullptr) {
    if (PyObject_HasAttrString(door.readable, "__dlpack__") == 0) {
      refuse(door,
             "its exchange table is of no version that is understood, or incomplete, and it has no "
             "__dlpack__()");
    }
    take_by_dlpack(door);
    return;
  }
  door.taken = call_table(*table, door);
  describe_export(door);
}

}  // namespace

const Way kExchangeTableWay{describe_by_registry, give_taken, prepare_by_dlpack, take};

}  // namespace dlbridge::python
