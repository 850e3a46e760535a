#include "dlbridge/numpy.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL dlbridge_numpy_api
#include <numpy/arrayobject.h>

#include <array>
#include <optional>

#include "dlbridge/python_lease.hpp"
#include "dlbridge/python_text.hpp"
#include "numpy_inexpressible.hpp"
#include "numpy_subclasses.hpp"

namespace dlbridge {
namespace {

using namespace cpython;

constexpr Library kNumPy{
    .name = "numpy",
    .object = "numpy.ndarray",
    .fixes = {{
        {Condition::kReadOnly, "x.copy()"},
        {Condition::kNegativeStrides, "x.copy()"},
        {Condition::kFractionalStrides, "x.copy()"},
        {Condition::kOverlap, "x.copy()"},
        {Condition::kSwappedBytes, "x.astype(x.dtype.newbyteorder(\"=\"))"},
        {Condition::kMasked, "x.filled() (the mask is lost)"},
        {Condition::kCastAsked, "x.astype(\"{to_dtype}\")"},
        {Condition::kNoCast, "x.real (the imaginary part is lost)"},
    }},
};

// NumPy's own types and its numbers for them. Two numbers may stand for one type (long and long
// long are of the same width): both come in, the first goes out.
struct OwnType {
  std::string_view name;
  int number;
};
constexpr std::array kOwnTypes = {
    OwnType{"bool", NPY_BOOL},        OwnType{"int8", NPY_INT8},
    OwnType{"int16", NPY_INT16},      OwnType{"int32", NPY_INT32},
    OwnType{"int64", NPY_INT64},      OwnType{"int64", NPY_LONGLONG},
    OwnType{"uint8", NPY_UINT8},      OwnType{"uint16", NPY_UINT16},
    OwnType{"uint32", NPY_UINT32},    OwnType{"uint64", NPY_UINT64},
    OwnType{"uint64", NPY_ULONGLONG}, OwnType{"float16", NPY_FLOAT16},
    OwnType{"float32", NPY_FLOAT32},  OwnType{"float64", NPY_FLOAT64},
    OwnType{"complex64", NPY_CFLOAT}, OwnType{"complex128", NPY_CDOUBLE},
};

constexpr int kNoNumber = -1;
constexpr auto kNumbers = [] {
  DTypeMap<int> numbers(kNoNumber);
  for (const OwnType& row : kOwnTypes) {
    numbers.add(*dtype_named(row.name), row.number);
  }
  return numbers;
}();

// By NumPy's number; no bits where DLPack has no such type.
constexpr auto kTypes = [] {
  std::array<DType, NPY_HALF + 1> types{};
  for (const OwnType& row : kOwnTypes) {
    types[static_cast<std::size_t>(row.number)] = *dtype_named(row.name);
  }
  return types;
}();

constexpr bool every_number_has_a_row() {
  std::size_t number = 0;
  while (number <= NPY_CDOUBLE && (kTypes[number].bits != 0 || number == NPY_LONGDOUBLE)) {
    ++number;
  }
  return number > NPY_CDOUBLE;
}
static_assert(every_number_has_a_row(), "NumPy has an integer of a C type that the table lacks");

// Filled in by import(): the limit on dimensions depends on the release, the rest on ml_dtypes.
Capabilities numpy_capabilities{
    .name = "NumPy",
    .result = "numpy.ndarray",
    .devices = DeviceSet::host(),
    .wants_host = true,
    .dtypes = kNumbers.types(),
    .extension_hint = "pip install ml_dtypes",
    .reads_unaligned = true,
};

// What ml_dtypes defines and DLPack knows, one byte or more an element. Its int4 and float4 are
// padded to bytes, which is another thing than DLPack's.
constexpr std::array<std::string_view, 9> kExtensionTypes = {
    "bfloat16",        "float8_e3m4", "float8_e4m3",     "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"};

struct Extension {
  DType dtype;
  PyArray_Descr* descriptor;  // kept for good
};
std::array<Extension, kExtensionTypes.size() + 1> extensions{};
std::size_t extension_count = 0;

// The descriptor of one of ml_dtypes' types; null where this ml_dtypes is older than the type.
Ref extension_descriptor(const Ref& module, std::string_view name) {
  const Ref type(PyObject_GetAttrString(module.get(), name.data()));
  Ref descriptor(type ? NumPy::descriptor_from(type.get()) : nullptr);
  forget_error();
  return descriptor;
}

// Only when a type calls for it: importing ml_dtypes takes longer than importing this library.
// Throws PythonError where that failed for another reason than that there is none.
void load_extensions() {
  static bool loaded = false;
  if (loaded) {
    return;
  }
  const Ref module(PyImport_ImportModule("ml_dtypes"));
  forget_error();
  if (!module) {
    return;
  }
  std::array<Ref, kExtensionTypes.size()> found;
  for (std::size_t i = 0; i < found.size(); ++i) {
    found[i] = extension_descriptor(module, kExtensionTypes[i]);
  }
  if (loaded) {  // importing lets other threads run: one of them came first
    return;
  }
  loaded = true;
  numpy_capabilities.extension_hint = {};
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (found[i]) {
      extensions[extension_count++] = {*dtype_named(kExtensionTypes[i]),
                                       reinterpret_cast<PyArray_Descr*>(found[i].release())};
      numpy_capabilities.extension_dtypes =
          numpy_capabilities.extension_dtypes | DTypeSet::of_name(kExtensionTypes[i]);
    }
  }
}

std::optional<DType> type_of(PyArray_Descr* descriptor) {
  const int number = descriptor->type_num;
  if (number < NPY_USERDEF) {
    const auto index = static_cast<std::size_t>(number);
    const bool known = index < kTypes.size() && kTypes[index].bits != 0;
    return known ? std::optional(kTypes[index]) : std::nullopt;
  }
  load_extensions();
  for (std::size_t i = 0; i < extension_count; ++i) {
    if (extensions[i].descriptor->type_num == number) {
      return extensions[i].dtype;
    }
  }
  return std::nullopt;
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

constexpr const char* kBaseName = "dlbridge.managed_tensor";

void release_base(PyObject* capsule) {
  auto* managed = static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule, kBaseName));
  const GivesBack scope(managed->dl_tensor);
  managed->deleter(managed);
}

}  // namespace

bool NumPy::import() noexcept {
  // PyArray_ImportNumPyAPI() would print what NumPy raised, and raise another error.
  if (_import_array() < 0) {
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
  return checked(PyArray_FromScalar(scalar, nullptr)).release();
}

void NumPy::describe(PyObject* object, Source& source) {
  if (!PyArray_CheckExact(object)) {
    detail::describe_subclass(object, source);
  }
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  PyArray_Descr* descriptor = PyArray_DESCR(array);
  source.traits.library = &kNumPy;
  source.tensor.data = PyArray_DATA(array);
  source.tensor.device = Device{}.dl();
  source.tensor.ndim = PyArray_NDIM(array);
  static_assert(sizeof(npy_intp) == sizeof(std::int64_t));
  source.tensor.shape = reinterpret_cast<std::int64_t*>(PyArray_DIMS(array));
  source.traits.conditions.add_if(!PyArray_ISWRITEABLE(array), Condition::kReadOnly);
  const auto dtype = type_of(descriptor);
  if (!dtype) {
    detail::describe_inexpressible(object, source);
    if (PyArray_ITEMSIZE(array) != 0 && !PyArray_IS_C_CONTIGUOUS(array)) {
      fill_strides(array, PyArray_ITEMSIZE(array), source);
    }
    return;
  }
  source.tensor.dtype = dtype->dl();
  source.traits.conditions.add_if(PyArray_ISBYTESWAPPED(array), Condition::kSwappedBytes);
  fill_strides(array, dtype->itemsize(), source);
}

Glance NumPy::plain(PyObject* object, DLTensor& tensor) noexcept {
  constexpr int kPlain = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_WRITEABLE;
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  if (!PyArray_CheckExact(object) || (PyArray_FLAGS(array) & kPlain) != kPlain ||
      PyArray_ISBYTESWAPPED(array)) {
    return Glance::kCloser;
  }
  const auto number = static_cast<std::size_t>(PyArray_TYPE(array));
  const DType dtype = number < kTypes.size() ? kTypes[number] : DType();
  npy_intp packed = dtype.itemsize();
  for (int i = PyArray_NDIM(array); i-- > 0;) {
    // Along a dimension of one element NumPy's stride may be any.
    if (PyArray_DIMS(array)[i] == 0 || PyArray_STRIDES(array)[i] != packed) {
      return Glance::kCloser;
    }
    packed *= PyArray_DIMS(array)[i];
  }
  tensor = DLTensor{.data = PyArray_DATA(array),
                    .device = Device{}.dl(),
                    .ndim = PyArray_NDIM(array),
                    .dtype = dtype.dl(),
                    .shape = reinterpret_cast<std::int64_t*>(PyArray_DIMS(array)),
                    .strides = nullptr,
                    .byte_offset = 0};
  return dtype.bits != 0 ? Glance::kPlain : Glance::kCloser;
}

PyObject* NumPy::copy_of(PyObject* object) {
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  Ref copy = checked(PyArray_NewLikeArray(array, NPY_CORDER, nullptr, 0));
  checked(PyArray_CopyInto(reinterpret_cast<PyArrayObject*>(copy.get()), array));
  return copy.release();
}

bool NumPy::is_private(PyObject* array) noexcept {
  auto* native = reinterpret_cast<PyArrayObject*>(array);
  return PyArray_CheckExact(array) && Py_REFCNT(array) == 1 && PyArray_ISWRITEABLE(native) &&
         PyArray_CHKFLAGS(native, NPY_ARRAY_OWNDATA);
}

ManagedTensor NumPy::acquire(PyObject* array, const Source& source) {
  const bool readonly = source.traits.conditions.has(Condition::kReadOnly);
  return ManagedTensor::own_trusted(source.tensor, readonly ? DLPACK_FLAG_BITMASK_READ_ONLY : 0,
                                    lease(array, source.tensor));
}

const Capabilities& NumPy::capabilities(const Source& source, const Request& request) {
  if (kNumbers[source.tensor.dtype] == kNoNumber ||
      (request.dtype && kNumbers[*request.dtype] == kNoNumber)) {
    load_extensions();
  }
  return numpy_capabilities;
}

const Capabilities& NumPy::own_capabilities() noexcept {
  return numpy_capabilities;
}

PyObject* NumPy::array_over(const DLTensor& tensor, bool readonly, PyObject* base) noexcept {
  static char nothing[16];
  Ref owner(base);
  const DType dtype(tensor.dtype);
  Ref descriptor(descriptor_of(dtype));
  if (!descriptor) {
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
  // It steals the descriptor, and the next one the base, both also when they fail.
  Ref array(
      PyArray_NewFromDescr(&PyArray_Type, reinterpret_cast<PyArray_Descr*>(descriptor.release()),
                           tensor.ndim, reinterpret_cast<npy_intp*>(tensor.shape), strides.data(),
                           data, readonly ? 0 : NPY_ARRAY_WRITEABLE, nullptr));
  if (!array ||
      PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(array.get()), owner.release()) < 0) {
    return nullptr;
  }
  return array.release();
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
  return checked(array_over(described, readonly, base)).release();
}

std::optional<DType> NumPy::dtype_of(PyObject* descriptor) {
  auto* native = reinterpret_cast<PyArray_Descr*>(descriptor);
  return PyDataType_ISBYTESWAPPED(native) ? std::nullopt : type_of(native);
}

PyObject* NumPy::descriptor_of(DType dtype) {
  if (const int number = kNumbers[dtype]; number != kNoNumber) {
    return reinterpret_cast<PyObject*>(PyArray_DescrFromType(number));
  }
  try {
    load_extensions();
  } catch (const PythonError&) {
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
  PyArray_Descr* descriptor = nullptr;  // stays null where it fails
  PyArray_DescrConverter(object, &descriptor);
  return reinterpret_cast<PyObject*>(descriptor);
}

}  // namespace dlbridge
