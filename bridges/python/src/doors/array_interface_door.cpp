// The array interfaces of NumPy and Numba, and the buffer protocol: all three give strides in bytes
// and a type as a text.

#include <bit>
#include <limits>
#include <memory>
#include <vector>

#include "dlbridge/python_lease.hpp"
#include "doors/array_method_door.hpp"
#include "doors/dlpack_door.hpp"
#include "types/buffer_letters.hpp"

namespace dlbridge::python {
namespace {

constexpr char kOtherOrder = std::endian::native == std::endian::little ? '>' : '<';

// What an interface says of its memory, before it is a DLTensor.
struct Description {
  void* data = nullptr;
  bool readonly = true;
  bool swapped = false;
  std::optional<DType> dtype;
  std::string type_text;
  std::int64_t itemsize = 0;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> byte_strides;  // empty: C order
};

// Fills the crossing's source and takes the lease over. The lease is given back on every path.
void settle(const Description& from, Device device, Lease lease, Door& door) {
  Source& source = door.source;
  const auto ndim = from.shape.size();
  const DType dtype = from.dtype.value_or(DType{kDLUInt, 8});
  DLTensor tensor{};
  tensor.data = from.data;
  tensor.device = device.dl();
  tensor.ndim = static_cast<std::int32_t>(ndim);
  tensor.dtype = dtype.dl();
  tensor.shape = const_cast<std::int64_t*>(from.shape.data());
  bool fractional = false;
  bool empty = false;
  std::int64_t* strides = source.room.data();
  std::int64_t* byte_strides = strides + kMaxDimensions;
  for (std::size_t i = 0; i < ndim; ++i) {
    empty = empty || from.shape[i] == 0;
  }
  if (from.byte_strides.empty()) {
    fill_c_strides(from.shape, strides);
  } else {
    for (std::size_t i = 0; i < ndim; ++i) {
      byte_strides[i] = from.byte_strides[i];
      strides[i] = byte_strides[i] / dtype.itemsize();
      fractional = fractional || (from.shape[i] > 1 && byte_strides[i] % dtype.itemsize() != 0);
    }
  }
  tensor.strides = strides;
  door.taken = ManagedTensor::own(tensor, from.readonly ? DLPACK_FLAG_BITMASK_READ_ONLY : 0, lease);
  dlbridge::describe(door.taken, *door.library, source);
  if (fractional && !empty) {
    source.traits.conditions.add(Condition::kFractionalStrides);
    source.byte_strides = byte_strides;
  }
  source.traits.conditions.add_if(from.swapped, Condition::kSwappedBytes);
  if (!from.dtype) {
    source.traits.conditions.add(Condition::kInexpressibleDType);
    source.tensor.dtype = DLDataType{0, 0, 1};
    source.detail = from.type_text;
  }
}

// Structs, texts and dates are NumPy's own: it reads them in the object's place. Whether it did.
bool read_by_numpy(const Description& from, Door& door) {
  if (from.dtype) {
    return false;
  }
  Ref array(NumPy::array_of_its_own(door.readable, from.itemsize));
  if (!array) {
    return false;
  }
  door.held = std::move(array);
  door.readable = door.held.get();
  door.way = &kNumPyWay;
  door.way->describe(door);
  door.source.traits.library = &*door.library;
  advise_by_array(door.source);
  return true;
}

// What of a buffer contradicts itself, or cannot be said by strides. Its length is all that is
// known of its memory.
std::string fault_of(const Py_buffer& buffer) {
  if (buffer.suboffsets != nullptr) {
    return "its buffer has suboffsets, which no strides can say";
  }
  if (buffer.ndim < 0 || buffer.ndim > kMaxDimensions) {
    return "its buffer has " + std::to_string(buffer.ndim) + " dimensions, and at most " +
           std::to_string(kMaxDimensions) + " are supported";
  }
  if (buffer.itemsize < 0 || (buffer.ndim > 0 && buffer.shape == nullptr)) {
    return "its buffer has no shape";
  }
  std::int64_t bytes = buffer.itemsize;
  bool empty = false;
  bool overflows = false;
  for (int i = 0; i < buffer.ndim; ++i) {
    empty = empty || buffer.shape[i] == 0;
    overflows =
        overflows || buffer.shape[i] < 0 || __builtin_mul_overflow(bytes, buffer.shape[i], &bytes);
  }
  if (!empty && (overflows || bytes != buffer.len)) {
    return "its buffer has a shape of other than its " + std::to_string(buffer.len) + " bytes";
  }
  return {};
}

Description read_buffer(const Py_buffer& buffer) {
  Description from;
  from.data = buffer.buf;
  from.readonly = buffer.readonly != 0;
  from.itemsize = buffer.itemsize;
  std::string_view letters = buffer.format == nullptr ? "B" : buffer.format;
  from.type_text = letters;
  if (!letters.empty() && std::string_view("@=<>!").find(letters[0]) != std::string_view::npos) {
    const char order = letters[0] == '!' ? '>' : letters[0];
    from.swapped = order == kOtherOrder && buffer.itemsize > 1;
    letters.remove_prefix(1);
  }
  from.dtype = type_of_letters(letters, buffer.itemsize);
  for (int i = 0; i < buffer.ndim; ++i) {
    from.shape.push_back(buffer.shape[i]);
    if (buffer.strides != nullptr) {
      from.byte_strides.push_back(buffer.strides[i]);
    }
  }
  return from;
}

void take_buffer(Door& door) {
  auto buffer = std::make_unique<Buffer>();
  if (PyObject_GetBuffer(door.readable, buffer.get(), PyBUF_FULL_RO) < 0) {
    buffer->obj = nullptr;
    throw PythonError();
  }
  if (const std::string fault = fault_of(*buffer); !fault.empty()) {
    refuse(door, fault);
  }
  const Description from = read_buffer(*buffer);
  if (read_by_numpy(from, door)) {
    return;
  }
  const Lease lease{buffer.release(), [](void* held) noexcept {
                      run_with_gil(held, [](void* last) { delete static_cast<Buffer*>(last); });
                    }};
  settle(from, Device{}, lease, door);
}

std::int64_t integer(PyObject* item, const char* what, const Door& door) {
  const long long number = PyLong_AsLongLong(item);
  if (number == -1 && PyErr_Occurred() != nullptr) {
    if (PyErr_ExceptionMatches(PyExc_TypeError) == 0 &&
        PyErr_ExceptionMatches(PyExc_OverflowError) == 0) {
      throw PythonError();  // the item's own
    }
    forget_error();
    refuse(door, std::string("its interface's ") + what + " does not hold integers");
  }
  return number;
}

std::vector<std::int64_t> integers(PyObject* sequence, const char* what, const Door& door) {
  std::vector<std::int64_t> numbers;
  if (sequence == nullptr || PySequence_Check(sequence) == 0) {
    refuse(door, std::string("its interface has no ") + what);
  }
  const Py_ssize_t count = PySequence_Size(sequence);
  if (count < 0) {
    throw PythonError();
  }
  if (count > kMaxDimensions) {
    refuse(door, "it has " + std::to_string(count) + " dimensions, and at most " +
                     std::to_string(kMaxDimensions) + " are supported");
  }
  for (Py_ssize_t i = 0; i < count; ++i) {
    const Ref item = checked(PySequence_GetItem(sequence, i));
    numbers.push_back(integer(item.get(), what, door));
  }
  return numbers;
}

void read_typestr(PyObject* dictionary, Description& from, const Door& door) {
  const Ref typestr = item_of(dictionary, "typestr");
  const char* text =
      typestr && PyUnicode_Check(typestr.get()) ? PyUnicode_AsUTF8(typestr.get()) : nullptr;
  if (text == nullptr || std::string_view(text).size() < 3) {
    forget_error();
    refuse(door, "its interface has no typestr");
  }
  from.type_text = text;
  from.itemsize = std::strtoll(text + 2, nullptr, 10);
  if (from.itemsize < 0 || from.itemsize > std::numeric_limits<std::int32_t>::max()) {
    refuse(door, "its interface's typestr has no size");
  }
  if (text[1] == 'U') {
    from.itemsize *= 4;  // which is told in characters
  }
  from.dtype = type_of_kind(text[1], from.itemsize);
  from.swapped = text[0] == kOtherOrder && from.itemsize > 1;
}

// The address, from a pair of it and a read-only flag, or a buffer, or the object's own buffer.
// Returns what has to be held for it beside the object and the dictionary.
Ref read_data(PyObject* object, PyObject* dictionary, Description& from, const Door& door) {
  const Ref data = item_of(dictionary, "data");
  if (data && PyTuple_Check(data.get()) && PyTuple_GET_SIZE(data.get()) == 2) {
    PyObject* address = PyTuple_GET_ITEM(data.get(), 0);
    if (address != Py_None) {
      from.data = PyLong_AsVoidPtr(address);
      if (PyErr_Occurred() != nullptr) {
        forget_error();
        refuse(door, "its interface's data is no address");
      }
    }
    from.readonly = checked_truth(PyObject_IsTrue(PyTuple_GET_ITEM(data.get(), 1)));
    return Ref();
  }
  PyObject* holder = !data || data.get() == Py_None ? object : data.get();
  Ref memory(PyMemoryView_FromObject(holder));
  if (!memory) {
    forget_error();
    refuse(door, "its interface has no data");
  }
  const Py_buffer* buffer = PyMemoryView_GET_BUFFER(memory.get());
  if (PyBuffer_IsContiguous(buffer, 'C') == 0) {
    refuse(door, "its interface's data is a buffer with gaps");
  }
  std::int64_t offset = 0;
  if (const Ref given = item_of(dictionary, "offset"); given && given.get() != Py_None) {
    offset = integer(given.get(), "offset", door);
  }
  if (offset < 0 || offset > buffer->len) {
    refuse(door, "its interface's offset lies outside its data");
  }
  // Strides may step anywhere in here; what they reach is checked against the buffer's end.
  std::int64_t lowest = offset;
  std::int64_t highest = offset + from.itemsize;
  std::int64_t stride = from.itemsize;
  bool empty = false;
  for (std::size_t i = from.shape.size(); i-- > 0;) {
    const std::int64_t step = from.byte_strides.empty() ? stride : from.byte_strides[i];
    std::int64_t reach = 0;
    if (from.shape[i] < 0 || __builtin_mul_overflow(from.shape[i] - 1, step, &reach) ||
        __builtin_add_overflow(reach < 0 ? lowest : highest, reach,
                               reach < 0 ? &lowest : &highest) ||
        __builtin_mul_overflow(stride, from.shape[i], &stride)) {
      refuse(door, "its interface's shape is negative or overflows");
    }
    empty = empty || from.shape[i] == 0;
  }
  if (!empty && (lowest < 0 || highest > buffer->len)) {
    refuse(door, "its interface describes more memory than its data has");
  }
  from.data = static_cast<char*>(buffer->buf) + offset;
  from.readonly = buffer->readonly != 0;
  return memory;
}

template <bool kCuda>
void take_array_interface(Door& door) {
  PyObject* object = door.readable;
  Ref dictionary(
      PyObject_GetAttrString(object, kCuda ? "__cuda_array_interface__" : "__array_interface__"));
  if (!dictionary) {
    take_by_next_way(door);
    return;
  }
  if (!PyDict_Check(dictionary.get())) {
    refuse(door, "its array interface is no dictionary");
  }
  Description from;
  read_typestr(dictionary.get(), from, door);
  from.shape = integers(item_of(dictionary.get(), "shape").get(), "shape", door);
  if (const Ref strides = item_of(dictionary.get(), "strides");
      strides && strides.get() != Py_None) {
    from.byte_strides = integers(strides.get(), "strides", door);
    if (from.byte_strides.size() != from.shape.size()) {
      refuse(door, "its interface has more strides than dimensions, or fewer");
    }
  }
  const Ref memory = read_data(object, dictionary.get(), from, door);
  const Ref mask = item_of(dictionary.get(), "mask");
  if (kCuda || !read_by_numpy(from, door)) {
    // The object and what its interface handed out keep the memory between them.
    PyObject* held =
        checked(PyTuple_Pack(3, object, dictionary.get(), memory ? memory.get() : Py_None))
            .release();
    settle(from, kCuda ? Device(kDLCUDA, 0) : Device{}, python_lease(held), door);
  }
  door.source.traits.conditions.add_if(mask && mask.get() != Py_None, Condition::kMasked);
  // Version 3 of the interface: the stream that the memory is ordered on, if it has to be waited
  // for.
  if (const Ref stream = item_of(dictionary.get(), "stream");
      kCuda && stream && stream.get() != Py_None) {
    const std::int64_t handle = integer(stream.get(), "stream", door);
    if (handle <= 0) {  // 0 could mean two of CUDA's
      refuse(door, "its interface's stream is " + std::to_string(handle) + ", which is no stream");
    }
    door.source.stream = Stream{reinterpret_cast<void*>(handle)};
  }
}

}  // namespace

const Way kArrayInterfaceWay{describe_by_registry, give_taken, nullptr,
                             take_array_interface<false>};
const Way kCudaArrayInterfaceWay{describe_by_registry, give_taken, nullptr,
                                 take_array_interface<true>};
const Way kBufferWay{describe_by_registry, give_taken, nullptr, take_buffer};

}  // namespace dlbridge::python
