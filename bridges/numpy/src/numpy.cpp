#include "dlbridge/numpy.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <numpy/arrayobject.h>

#include <array>
#include <optional>
#include <string>

#include "dlbridge/python_lease.hpp"

namespace dlbridge {
namespace {

constexpr Library kNumPy{
    .name = "numpy",
    .object = "numpy.ndarray",
    .fixes = {{
        {Condition::kReadOnly, "x.copy()"},
        {Condition::kNegativeStrides, "x.copy()"},
        {Condition::kFractionalStrides, "x.copy()"},
        {Condition::kOverlap, "x.copy()"},
        {Condition::kSwappedBytes, "x.astype(x.dtype.newbyteorder(\"=\"))"},
        {Condition::kMasked, "x.filled()"},
        {Condition::kCastAsked, "x.astype(...)"},
    }},
};

constexpr DTypeSet kOwnTypes =
    DTypeSet::of({"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
                  "float16", "float32", "float64", "complex64", "complex128"});

// Filled in by import(): the limit on dimensions depends on the release, the rest on ml_dtypes.
Capabilities numpy_capabilities{
    .name = "NumPy",
    .result = "numpy.ndarray",
    .devices = DeviceSet::host(),
    .wants_host = true,
    .dtypes = kOwnTypes,
    .extension_hint = "pip install ml_dtypes",
};

// What ml_dtypes defines and DLPack knows, one byte or more an element. Its int4 and float4 are
// padded to bytes, which is another thing than DLPack's.
constexpr std::array<std::string_view, 9> kExtensionTypes = {
    "bfloat16",        "float8_e3m4", "float8_e4m3",     "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"};

struct Extension {
  DType dtype;
  PyArray_Descr* descriptor;
};
std::array<Extension, kExtensionTypes.size() + 1> extensions{};
std::size_t extension_count = 0;

// Forgets an error that says that something is not there. False, with the error still set, where it
// says nothing of the kind: there is no memory, or somebody interrupts.
bool forget_missing() noexcept {
  if (PyErr_Occurred() != nullptr) {
    if (PyErr_ExceptionMatches(PyExc_MemoryError) != 0 ||
        PyErr_ExceptionMatches(PyExc_Exception) == 0) {
      return false;
    }
    PyErr_Clear();
  }
  return true;
}

// The descriptor of one of ml_dtypes' types; null where this ml_dtypes is older than the type, and
// on an error, which is set then.
PyArray_Descr* extension_descriptor(PyObject* module, std::string_view name) noexcept {
  PyObject* type = PyObject_GetAttrString(module, name.data());
  PyArray_Descr* descriptor = nullptr;
  if (type != nullptr && PyArray_DescrConverter(type, &descriptor) == 0) {
    descriptor = nullptr;
  }
  Py_XDECREF(type);
  (void)forget_missing();
  return descriptor;
}

// Only when a type calls for it: importing ml_dtypes takes longer than importing this library.
// False, with Python's error set, where it failed for another reason than that there is none.
bool load_extensions() noexcept {
  static bool loaded = false;
  if (loaded) {
    return true;
  }
  PyObject* module = PyImport_ImportModule("ml_dtypes");
  if (module == nullptr) {
    return forget_missing();
  }
  std::array<PyArray_Descr*, kExtensionTypes.size()> found{};
  for (std::size_t i = 0; i < found.size() && PyErr_Occurred() == nullptr; ++i) {
    found[i] = extension_descriptor(module, kExtensionTypes[i]);
  }
  Py_DECREF(module);
  const bool failed = PyErr_Occurred() != nullptr;
  // Importing lets other threads run: one of them may have come first.
  if (loaded || failed) {
    for (PyArray_Descr* descriptor : found) {
      Py_XDECREF(descriptor);
    }
    return !failed;
  }
  loaded = true;
  numpy_capabilities.extension_hint = {};
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (found[i] != nullptr) {
      extensions[extension_count++] = {*dtype_named(kExtensionTypes[i]), found[i]};
      numpy_capabilities.extension_dtypes =
          numpy_capabilities.extension_dtypes | DTypeSet::of_name(kExtensionTypes[i]);
    }
  }
  return true;
}

void require_extensions() {
  if (!load_extensions()) {
    throw PythonError();
  }
}

std::optional<DType> type_of(PyArray_Descr* descriptor) {
  const int number = descriptor->type_num;
  const int bits = static_cast<int>(8 * PyDataType_ELSIZE(descriptor));
  if (number < NPY_USERDEF) {
    if (PyTypeNum_ISBOOL(number)) {
      return DType{kDLBool, 8};
    }
    if (PyTypeNum_ISINTEGER(number)) {
      return DType{PyTypeNum_ISUNSIGNED(number) ? kDLUInt : kDLInt, bits};
    }
    if (number == NPY_HALF || number == NPY_FLOAT || number == NPY_DOUBLE) {
      return DType{kDLFloat, bits};
    }
    if (number == NPY_CFLOAT || number == NPY_CDOUBLE) {
      return DType{kDLComplex, bits};
    }
    return std::nullopt;
  }
  require_extensions();
  for (std::size_t i = 0; i < extension_count; ++i) {
    if (extensions[i].descriptor->type_num == number) {
      return extensions[i].dtype;
    }
  }
  return std::nullopt;
}

// The masked array's class, if its module was ever loaded: only then can there be one.
bool is_masked(PyObject* array) {
  PyObject* name = PyUnicode_FromString("numpy.ma");
  PyObject* module = name == nullptr ? nullptr : PyImport_GetModule(name);
  Py_XDECREF(name);
  PyObject* type = module == nullptr ? nullptr : PyObject_GetAttrString(module, "MaskedArray");
  Py_XDECREF(module);
  const bool masked = type != nullptr && PyObject_IsInstance(array, type) == 1;
  Py_XDECREF(type);
  if (!forget_missing()) {
    throw PythonError();
  }
  return masked;
}

std::string text_of(PyObject* object) {
  PyObject* text = PyObject_Str(object);
  const char* bytes = text == nullptr ? nullptr : PyUnicode_AsUTF8(text);
  std::string result;
  try {
    result = bytes == nullptr ? "?" : bytes;
  } catch (...) {
    Py_XDECREF(text);
    throw;
  }
  Py_XDECREF(text);
  if (!forget_missing()) {
    throw PythonError();
  }
  return result;
}

void name_inexpressible(PyArray_Descr* descriptor, Source& source) {
  source.detail = text_of(reinterpret_cast<PyObject*>(descriptor));
  // ml_dtypes gives each int4 or float4 a byte of its own; DLPack packs them.
  const auto named = dtype_named(source.detail);
  const bool padded = descriptor->type_num >= NPY_USERDEF && named && !named->whole_bytes();
  source.traits.conditions.add(padded ? Condition::kPaddedSubByte : Condition::kInexpressibleDType);
  switch (descriptor->kind) {
    case 'M':
    case 'm':
      source.fix = "x.view(\"int64\")";
      break;
    case 'f':
      source.fix = "x.astype(\"float64\")";
      break;
    case 'c':
      source.fix = "x.astype(\"complex128\")";
      break;
    case 'O':
      source.fix = "x.astype(\"float64\") if its items are numbers";
      break;
    default:
      if (PyDataType_HASFIELDS(descriptor)) {
        source.detail = "structured " + source.detail;
        source.fix = "one of its fields, as in x[\"name\"]";
      }
  }
}

void fill_strides(PyArrayObject* array, std::int64_t itemsize, Source& source) {
  const int ndim = PyArray_NDIM(array);
  const npy_intp* shape = PyArray_DIMS(array);
  const npy_intp* strides = PyArray_STRIDES(array);
  std::int64_t* elements = source.room.data();
  bool fractional = false;
  for (int i = 0; i < ndim; ++i) {
    elements[i] = strides[i] / itemsize;
    fractional = fractional || (shape[i] > 1 && elements[i] * itemsize != strides[i]);
  }
  source.tensor.strides = elements;
  if (fractional && PyArray_SIZE(array) != 0) {
    source.traits.conditions.add(Condition::kFractionalStrides);
    source.byte_strides = strides;
  }
}

// What lies below the array, if it can be closed or moved under it: arrays made of a buffer
// (numpy.memmap, numpy.ndarray(buffer=...)) hold its owner, but no export of the buffer
// (NumPy 2.4).
PyObject* loose_owner(PyObject* array) noexcept {
  PyObject* base = PyArray_BASE(reinterpret_cast<PyArrayObject*>(array));
  while (base != nullptr && PyArray_Check(base)) {
    base = PyArray_BASE(reinterpret_cast<PyArrayObject*>(base));
  }
  if (base == nullptr) {
    return nullptr;
  }
  for (PyTypeObject* type = Py_TYPE(base); type != nullptr; type = type->tp_base) {
    const std::string_view name = type->tp_name;
    if (name == "mmap.mmap" || name == "bytearray" || name == "array.array") {
      return base;
    }
  }
  return nullptr;
}

// A new reference to what keeps the array's memory where it is. While a memoryview exists, its
// owner refuses to close, grow or shrink.
PyObject* held_for(PyObject* array) {
  PyObject* owner = loose_owner(array);
  if (owner == nullptr) [[likely]] {
    return Py_NewRef(array);
  }
  PyObject* exported = PyMemoryView_FromObject(owner);
  PyObject* both = exported == nullptr ? nullptr : PyTuple_Pack(2, array, exported);
  Py_XDECREF(exported);
  if (both == nullptr) {
    throw PythonError();
  }
  return both;
}

constexpr const char* kBaseName = "dlbridge.managed_tensor";

void release_base(PyObject* capsule) {
  auto* managed = static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule, kBaseName));
  const HoldsGil gil;
  managed->deleter(managed);
}

}  // namespace

bool NumPy::import() noexcept {
  if (PyArray_ImportNumPyAPI() < 0) {
    return false;
  }
  // NumPy 1 has room for 32 dimensions; the headers of NumPy 2 say 64 whatever runs.
  if (PyArray_RUNTIME_VERSION < NPY_2_0_API_VERSION) {
    numpy_capabilities.max_dimensions = 32;
  }
  return true;
}

bool NumPy::is_array(PyObject* object) noexcept {
  return PyArray_Check(object);
}

bool NumPy::is_scalar(PyObject* object) noexcept {
  return PyArray_IsScalar(object, Generic);
}

PyObject* NumPy::array_of_scalar(PyObject* scalar) {
  PyObject* array = PyArray_FromScalar(scalar, nullptr);
  if (array == nullptr) {
    throw PythonError();
  }
  return array;
}

void NumPy::describe(PyObject* object, Source& source) {
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  PyArray_Descr* descriptor = PyArray_DESCR(array);
  source.traits.library = &kNumPy;
  source.tensor.data = PyArray_DATA(array);
  source.tensor.device = Device{}.dl();
  source.tensor.ndim = PyArray_NDIM(array);
  static_assert(sizeof(npy_intp) == sizeof(std::int64_t));
  source.tensor.shape = reinterpret_cast<std::int64_t*>(PyArray_DIMS(array));
  source.traits.conditions.add_if(!PyArray_ISWRITEABLE(array), Condition::kReadOnly);
  if (!PyArray_CheckExact(object) && is_masked(object)) {
    source.traits.conditions.add(Condition::kMasked);
  }
  const auto dtype = type_of(descriptor);
  if (!dtype) {
    name_inexpressible(descriptor, source);
    return;
  }
  source.tensor.dtype = dtype->dl();
  source.traits.conditions.add_if(PyArray_ISBYTESWAPPED(array), Condition::kSwappedBytes);
  fill_strides(array, dtype->itemsize(), source);
}

ManagedTensor NumPy::acquire(PyObject* array, const Source& source) {
  const bool readonly = source.traits.conditions.has(Condition::kReadOnly);
  return ManagedTensor::own_trusted(source.tensor, readonly ? DLPACK_FLAG_BITMASK_READ_ONLY : 0,
                                    python_lease(held_for(array)));
}

const Capabilities& NumPy::capabilities(const Source& source, const Request& request) {
  if (!kOwnTypes.contains(source.tensor.dtype) ||
      (request.dtype && !kOwnTypes.contains(*request.dtype))) {
    require_extensions();
  }
  return numpy_capabilities;
}

PyObject* NumPy::array_over(const DLTensor& tensor, bool readonly, PyObject* base) noexcept {
  static char nothing[16];
  const DType dtype(tensor.dtype);
  PyObject* descriptor = descriptor_of(dtype);
  if (descriptor == nullptr) {
    Py_DECREF(base);
    if (PyErr_Occurred() == nullptr) {
      PyErr_Format(PyExc_BufferError, "NumPy has no type for DLPack's (%d, %d, %d)", dtype.code,
                   dtype.bits, dtype.lanes);
    }
    return nullptr;
  }
  std::array<npy_intp, kMaxDimensions> strides;
  for (int i = 0; i < tensor.ndim; ++i) {
    strides[static_cast<std::size_t>(i)] = stride_bytes(tensor, i);
  }
  // Without data NumPy would allocate; an empty tensor may come without.
  void* data = tensor.data == nullptr ? static_cast<void*>(nothing) : tensor.data;
  PyObject* array =
      PyArray_NewFromDescr(&PyArray_Type, reinterpret_cast<PyArray_Descr*>(descriptor), tensor.ndim,
                           reinterpret_cast<npy_intp*>(tensor.shape), strides.data(), data,
                           readonly ? 0 : NPY_ARRAY_WRITEABLE, nullptr);
  if (array == nullptr) {
    Py_DECREF(base);
    return nullptr;
  }
  // Steals the base, also when it fails.
  if (PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(array), base) < 0) {
    Py_DECREF(array);
    return nullptr;
  }
  return array;
}

PyObject* NumPy::deliver(ManagedTensor tensor) {
  const DLTensor described = tensor.tensor();
  const bool readonly = tensor.readonly();
  DLManagedTensorVersioned* managed = tensor.release();
  PyObject* base = PyCapsule_New(managed, kBaseName, release_base);
  if (base == nullptr) {
    managed->deleter(managed);
    throw PythonError();
  }
  PyObject* array = array_over(described, readonly, base);
  if (array == nullptr) {
    throw PythonError();
  }
  return array;
}

std::optional<DType> NumPy::dtype_of(PyObject* descriptor) {
  auto* native = reinterpret_cast<PyArray_Descr*>(descriptor);
  if (PyDataType_ISBYTESWAPPED(native)) {
    return std::nullopt;
  }
  return type_of(native);
}

PyObject* NumPy::descriptor_of(DType dtype) {
  if (dtype.lanes == 1) {
    int number = -1;
    switch (dtype.code) {
      case kDLBool:
        number = dtype.bits == 8 ? NPY_BOOL : -1;
        break;
      case kDLInt:
        number = dtype.bits == 64   ? NPY_INT64
                 : dtype.bits == 32 ? NPY_INT32
                 : dtype.bits == 16 ? NPY_INT16
                 : dtype.bits == 8  ? NPY_INT8
                                    : -1;
        break;
      case kDLUInt:
        number = dtype.bits == 64   ? NPY_UINT64
                 : dtype.bits == 32 ? NPY_UINT32
                 : dtype.bits == 16 ? NPY_UINT16
                 : dtype.bits == 8  ? NPY_UINT8
                                    : -1;
        break;
      case kDLFloat:
        number = dtype.bits == 32   ? NPY_FLOAT32
                 : dtype.bits == 64 ? NPY_FLOAT64
                 : dtype.bits == 16 ? NPY_FLOAT16
                                    : -1;
        break;
      case kDLComplex:
        number = dtype.bits == 64 ? NPY_COMPLEX64 : dtype.bits == 128 ? NPY_COMPLEX128 : -1;
        break;
      default:
        break;
    }
    if (number >= 0) {
      return reinterpret_cast<PyObject*>(PyArray_DescrFromType(number));
    }
  }
  if (!load_extensions()) {
    return nullptr;
  }
  for (std::size_t i = 0; i < extension_count; ++i) {
    if (extensions[i].dtype == dtype) {
      return Py_NewRef(reinterpret_cast<PyObject*>(extensions[i].descriptor));
    }
  }
  return nullptr;
}

PyObject* NumPy::descriptor_from(PyObject* object) {
  PyArray_Descr* descriptor = nullptr;
  if (PyArray_DescrConverter(object, &descriptor) == 0) {
    return nullptr;
  }
  return reinterpret_cast<PyObject*>(descriptor);
}

}  // namespace dlbridge
