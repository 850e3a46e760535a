#include "torch/storage_views.hpp"

#include <structmember.h>

namespace dlbridge::python {
namespace {

PackageAttribute guard_storage("dlbridge._torch", "guard");
Name views_name("_dlbridge_views");

// The views of one storage. It lies in the dictionary of the storage's Python object, which lives
// as long as they do: the methods that guard() put there look at its count.
struct StorageViews {
  PyObject_HEAD Py_ssize_t count;
  PyObject* storage;  // held while there are views
};

PyMemberDef storage_views_members[] = {
    {"count", T_PYSSIZET, offsetof(StorageViews, count), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

PyTypeObject storage_views_type = [] {
  PyTypeObject type = type_of_ours("dlbridge._core.StorageViews", sizeof(StorageViews),
                                   [](PyObject* self) { PyObject_Free(self); });
  type.tp_members = storage_views_members;
  return type;
}();

// Borrowed from the storage's dictionary; made at the storage's first view, which is when the
// storage is guarded.
StorageViews* views_of(PyObject* storage) {
  PyObject* name = views_name.get();
  const Ref attributes = checked(PyObject_GenericGetDict(storage, nullptr));
  PyObject* known = found_in(attributes.get(), name);
  if (known != nullptr) {
    return reinterpret_cast<StorageViews*>(known);
  }
  checked(PyType_Ready(&storage_views_type));
  const Ref nothing = checked(PyObject_CallOneArg(guard_storage.get(), storage));
  const Ref made =
      checked(reinterpret_cast<PyObject*>(PyObject_New(StorageViews, &storage_views_type)));
  auto* views = reinterpret_cast<StorageViews*>(made.get());
  views->count = 0;
  views->storage = nullptr;
  // Other threads may have come by while the storage was guarded: the first one's counts for all.
  return reinterpret_cast<StorageViews*>(
      checked_pointer(PyDict_SetDefault(attributes.get(), name, made.get())));
}

}  // namespace

void let_go_of_view(void* context) {
  const Ref held(static_cast<PyObject*>(context));
  auto* views = static_cast<StorageViews*>(context);
  if (--views->count == 0) {
    Py_CLEAR(views->storage);
  }
}

CountedView counted_view(const Ref& storage) {
  StorageViews* views = views_of(storage.get());
  if (views->count++ == 0) {
    views->storage = Py_NewRef(storage.get());
  }
  return {Py_NewRef(reinterpret_cast<PyObject*>(views)), let_go_of_view};
}

}  // namespace dlbridge::python
