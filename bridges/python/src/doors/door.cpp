#include "doors/door.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <exception>

#include "dlbridge/streams.hpp"
#include "registry.hpp"

namespace dlbridge::python {
namespace {

// Law 7: a copy of this size never holds the GIL.
constexpr std::int64_t kWorthLettingGo = 64 * 1024;

PackageAttribute float64("numpy", "float64");

constexpr DType kSingleFloat4{kDLFloat4_e2m1fn, 4, 1};
constexpr DType kPairOfFloat4{kDLFloat4_e2m1fn, 4, 2};

// Calls float4 in C order by its other name, where that can say it. Uses the source's room.
bool respell(Source& source, DType other) {
  DLTensor& tensor = source.tensor;
  if (DType(tensor.dtype).bits != 4 || tensor.ndim < 1 || tensor.shape == nullptr ||
      !is_c_contiguous(tensor)) {
    return false;
  }
  const std::int64_t last = tensor.shape[tensor.ndim - 1];
  if (other == kPairOfFloat4 && last % 2 != 0) {
    return false;
  }
  std::int64_t* strides = source.room.data();
  std::int64_t* shape = strides + kMaxDimensions;
  std::copy_n(tensor.shape, tensor.ndim, shape);
  shape[tensor.ndim - 1] = other == kPairOfFloat4 ? last / 2 : last * 2;
  fill_c_strides({shape, static_cast<std::size_t>(tensor.ndim)}, strides);
  tensor.shape = shape;
  tensor.strides = strides;
  tensor.dtype = other.dl();
  return true;
}

// The same memory, wherever its library says by now that it lies.
ManagedTensor respelled_as(ManagedTensor tensor, DLTensor described) {
  described.data = tensor.tensor().data;
  described.byte_offset = tensor.tensor().byte_offset;
  const std::uint64_t flags = tensor.flags();
  return described_as(std::move(tensor), described, flags);
}

std::int64_t* kept(const std::int64_t* numbers, std::int32_t count, std::int64_t* room) {
  if (numbers == nullptr) {
    return nullptr;
  }
  std::copy_n(numbers, count, room);
  return room;
}

}  // namespace

// Which runtime there is, what orders the memory, and where it lies in truth.
void Door::meet_device() {
  const Device device(source.tensor.device);
  if (device.type == kDLCPU) {
    settle_pinned(source);
    return;
  }
  if (runtime_for(device.type) == nullptr) {
    return;
  }
  if (way == &kTorchWay && !source.traits.stream_known) {
    source.stream = torch_stream(device);
    source.traits.stream_known = true;
  } else if (way == &kManagedTensorWay) {
    source.stream = stream_of_managed(device);
  }
  if (look.stream != nullptr) {
    source.stream = *look.stream;
  }
  if (way != &kTorchWay && !device.host_accessible()) {
    find_truth();
  }
}

// An object may name another device than its memory is on (Paddle#68549, cuvs#2239).
void Door::find_truth() {
  DLTensor& tensor = source.tensor;
  const Device said(tensor.device);
  if (!said.addressable() || element_count(tensor) == 0 || tensor.data == nullptr) {
    return;
  }
  const auto found = device_runtime(said.type)->locate(tensor.data);
  if (!found) {
    const std::string fault = "it says that its memory is on " + to_string(said) + ", but " +
                              std::string(device_runtime(said.type)->name()) +
                              " knows of no memory at its address";
    throw ConversionRefused(
        "cannot take a " + std::string(source.traits.words().object) + " in: " + fault, {fault});
  }
  if (found->type == said.type && found->id != said.id) {
    const Stream told = std::exchange(source.stream, managed_stream(*found));
    order_streams(said, told, *found, source.stream);
    tensor.device = found->dl();
    if (taken) {
      taken.relabel(*found);
    }
  }
}

// DLPack has two spellings for packed float4: one element of 4 bits (JAX, ONNX Runtime), or a pair
// in two lanes (torch). The bytes are the same; the last dimension counts elements or pairs.
// Respells the source where the target knows only the other spelling and the elements lie in C
// order.
void Door::adapt_float4(const Capabilities& target) {
  const DType dtype(source.tensor.dtype);
  const DType other = dtype == kSingleFloat4 ? kPairOfFloat4 : kSingleFloat4;
  if (!target.dtypes.contains(dtype) && target.dtypes.contains(other)) {
    respelled_ = respell(source, other);
  }
}

ManagedTensor Door::acquire_as_described() {
  ManagedTensor view = way->acquire(*this);
  if (source.traits.conditions.has(Condition::kReadOnly)) {
    view.mark_read_only();  // a library's row may know what the memory does not
  }
  return respelled_ ? respelled_as(std::move(view), source.tensor) : std::move(view);
}

ManagedTensor Door::prepare(const Leg& leg, Source& made) {
  ManagedTensor tensor = way->prepare(*this, leg, made);
  // Its library has no other spelling than its own.
  const bool respelled = respelled_ && DType(made.tensor.dtype) != DType(source.tensor.dtype) &&
                         respell(made, source.tensor.dtype);
  detail::require_prepared(leg, source, made);
  return respelled ? respelled_as(std::move(tensor), made.tensor) : std::move(tensor);
}

void Door::warn(CastWarning warning) {
  // NumPy is given such a cast of its own: what it says, and whether, is for np.errstate to decide.
  const bool overflow = warning == CastWarning::kOverflow;
  const Ref number = checked(PyObject_CallFunction(float64.get(), "d", overflow ? DBL_MAX : NAN));
  (void)checked(PyObject_CallMethod(number.get(), "astype", "s", overflow ? "float32" : "int32"));
}

Door::Copying::Copying(Door& door, std::int64_t bytes, bool waits)
    : source_(door.source),
      described_(door.source.tensor),
      byte_strides_(door.source.byte_strides) {
  if (door.way == &kCapsuleWay && !door.taken_out) {
    if (bytes == 0) {  // there is nothing that could be refused
      door.taken = door.acquire();
    } else {
      lent_ = lend_capsule(door.readable);
      exceptions_ = std::uncaught_exceptions();
      door.taken_out = true;
    }
  }
  // A cast may make little of what it reads for long.
  if (std::max(bytes, byte_count(described_)) < kWorthLettingGo && !waits) {
    return;
  }
  // Sizes and strides may lie in the object, where others can set them now.
  std::int64_t* room = dimensions_.data();
  source_.tensor.shape = kept(described_.shape, described_.ndim, room);
  source_.tensor.strides = kept(described_.strides, described_.ndim, room + kMaxDimensions);
  source_.byte_strides = kept(byte_strides_, described_.ndim, room + 2 * kMaxDimensions);
  // A map could be closed, a buffer resized, a tensor given other memory.
  if (door.way == &kNumPyWay ||
      (door.way == &kTorchWay && (!door.held || door.held.get() == door.readable) &&
       described_.data != nullptr)) {
    held_ = door.way->acquire(door);
  }
  without_gil_.emplace();
}

Door::Copying::~Copying() {
  without_gil_.reset();
  source_.tensor.shape = described_.shape;
  source_.tensor.strides = described_.strides;
  source_.byte_strides = byte_strides_;
  if (lent_.capsule != nullptr) [[unlikely]] {
    end_lending(lent_, std::uncaught_exceptions() == exceptions_);
  }
}

ManagedTensor described_as(ManagedTensor tensor, const DLTensor& described, std::uint64_t flags) {
  return ManagedTensor::own(described, flags,
                            {tensor.release(), detail::run_own_deleter<DLManagedTensorVersioned>});
}

ManagedTensor without_read_only(ManagedTensor tensor) {
  const DLTensor described = tensor.tensor();
  const std::uint64_t flags = tensor.flags() & ~std::uint64_t{DLPACK_FLAG_BITMASK_READ_ONLY};
  return described_as(std::move(tensor), described, flags);
}

void refuse(const Door& door, const std::string& fault) {
  throw ConversionRefused("cannot take a " + door.object_name + " in: " + fault, {fault});
}

void name_library(Door& door) {
  PyObject* object = door.object;
  const LibraryRow* row = library_known_of(Py_TYPE(object));
  const char* type = Py_TYPE(object)->tp_name;
  door.row = row;
  if (row == nullptr) {
    door.object_name = PyBytes_CheckExact(object) != 0 ? "bytes object" : type;
  } else if (!row->object.empty()) {
    door.object_name = row->object;
  } else {
    const char* dot = std::strrchr(type, '.');
    door.object_name = row->name + "." + (dot == nullptr ? type : dot + 1);
  }
  Library& library = door.library.emplace();
  library.name = door.object_name;
  library.object = door.object_name;
  std::size_t count = 0;
  for (std::size_t i = 0; row != nullptr && i < row->fixes.size() && count < library.fixes.size();
       ++i) {
    library.fixes[count++] = {row->fixes[i].first, row->fixes[i].second};
  }
  door.source.traits.library = &library;
}

}  // namespace dlbridge::python
