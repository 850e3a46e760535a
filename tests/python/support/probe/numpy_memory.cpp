// How many blocks of memory NumPy's arrays hold: an array is no object that the garbage collector
// could list, but whoever keeps one keeps its memory.
#include <Python.h>
#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define NPY_TARGET_VERSION NPY_1_22_API_VERSION
#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include <atomic>
#include <cstdint>

namespace probe {
namespace {

namespace nb = nanobind;

std::atomic<std::int64_t> g_blocks{0};

PyDataMemAllocator& numpys_own() {
  static PyDataMemAllocator own;
  return own;
}

void* counted(void* memory) {
  if (memory != nullptr) {
    ++g_blocks;
  }
  return memory;
}

void count_blocks() {
  static PyDataMem_Handler handler = {
      "dlbridge_probe",
      1,
      {nullptr,
       [](void*, std::size_t size) { return counted(numpys_own().malloc(numpys_own().ctx, size)); },
       [](void*, std::size_t count, std::size_t size) {
         return counted(numpys_own().calloc(numpys_own().ctx, count, size));
       },
       [](void*, void* memory, std::size_t size) {
         void* moved = numpys_own().realloc(numpys_own().ctx, memory, size);
         return memory == nullptr ? counted(moved) : moved;
       },
       [](void*, void* memory, std::size_t size) {
         if (memory != nullptr) {
           --g_blocks;
         }
         numpys_own().free(numpys_own().ctx, memory, size);
       }}};
  if (numpys_own().malloc != nullptr) {
    return;  // it counts already
  }
  const nb::object before = nb::steal(PyDataMem_GetHandler());
  auto* found = static_cast<PyDataMem_Handler*>(PyCapsule_GetPointer(before.ptr(), "mem_handler"));
  if (found == nullptr) {
    throw nb::python_error();
  }
  numpys_own() = found->allocator;
  const nb::object ours = nb::steal(PyCapsule_New(&handler, "mem_handler", nullptr));
  const nb::object replaced = nb::steal(PyDataMem_SetHandler(ours.ptr()));
  if (!replaced.is_valid()) {
    throw nb::python_error();
  }
}

}  // namespace

void bind_numpy_memory(nb::module_& m) {
  if (_import_array() < 0) {
    throw nb::python_error();
  }
  m.def("count_numpy_memory", &count_blocks,
        "From now on, blocks are counted that arrays of this context take.");
  m.def(
      "numpy_blocks", [] { return g_blocks.load(); }, "Blocks that were counted, and not freed.");
}

}  // namespace probe
