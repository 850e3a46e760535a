#include "dlbridge/managed_tensor.hpp"

#include <algorithm>
#include <limits>
#include <new>

#include "dlbridge/error.hpp"
#include "dlbridge/source.hpp"
#include "dlbridge/tensor_view.hpp"
#include "memory/block_memory.hpp"
#include "memory/host_memory.hpp"
#include "tensor/layout.hpp"

namespace dlbridge {
namespace {

using detail::run_own_deleter;

void delete_block(DLManagedTensorVersioned* managed) {
  detail::release(reinterpret_cast<detail::Block*>(managed));
}

std::size_t block_bytes(std::int32_t ndim) {
  return sizeof(detail::Block) + 2 * sizeof(std::int64_t) * static_cast<std::size_t>(ndim);
}

[[noreturn]] void refuse_legacy(const std::string& what, const std::string& unsaid,
                                const std::string& fix) {
  throw ConversionRefused(
      "cannot export " + what + " in a legacy struct (it cannot say " + unsaid + "); use " + fix,
      {"a legacy struct cannot say " + unsaid}, fix);
}

}  // namespace

std::int64_t live_managed_tensors() noexcept {
  return detail::BlockMemory::live();
}

std::string tensor_fault(const DLTensor& tensor) {
  if (tensor.ndim < 0) {
    return "it has " + std::to_string(tensor.ndim) + " dimensions";
  }
  if (tensor.ndim > kMaxDimensions) {
    return "it has " + std::to_string(tensor.ndim) + " dimensions, and at most " +
           std::to_string(kMaxDimensions) + " are supported";
  }
  if (tensor.ndim > 0 && tensor.shape == nullptr) {
    return "its shape is NULL with " + std::to_string(tensor.ndim) + " dimensions";
  }
  if (const auto fault = dtype_fault(tensor.dtype); !fault.empty()) {
    return "its type is " + to_string(DType(tensor.dtype)) + ": " + std::string(fault);
  }
  const Device device(tensor.device);
  if (!is_device_type(device.type)) {
    return "its device type is " + std::to_string(device.type) + ", and they begin at 1";
  }
  bool empty = false;
  for (std::int32_t i = 0; i < tensor.ndim; ++i) {
    if (tensor.shape[i] < 0) {
      return "dimension " + std::to_string(i) + " has size " + std::to_string(tensor.shape[i]);
    }
    empty = empty || tensor.shape[i] == 0;
  }
  if (empty) {
    return {};
  }
  std::int64_t count = 1;
  std::int64_t lowest = 0;
  std::int64_t highest = 0;
  for (std::int32_t i = tensor.ndim - 1; i >= 0; --i) {
    const std::int64_t stride = tensor.strides == nullptr ? count : tensor.strides[i];
    std::int64_t reach = 0;
    if (__builtin_mul_overflow(tensor.shape[i] - 1, stride, &reach) ||
        __builtin_add_overflow(reach < 0 ? lowest : highest, reach,
                               reach < 0 ? &lowest : &highest) ||
        __builtin_mul_overflow(count, tensor.shape[i], &count)) {
      return "its size overflows 64 bits";
    }
  }
  // The span is one more than the farthest element; in bits, so that packed types count as they
  // are.
  std::int64_t span = 0;
  std::int64_t bits = 0;
  const auto element_bits = DType(tensor.dtype).element_bits();
  if (__builtin_sub_overflow(highest, lowest, &span) || __builtin_add_overflow(span, 1, &span) ||
      __builtin_mul_overflow(span, element_bits, &bits) ||
      __builtin_mul_overflow(count, element_bits, &bits)) {
    return "its size in bits overflows 64 bits";
  }
  if (tensor.data == nullptr) {
    return "its data is NULL though it has " + std::to_string(count) +
           " elements (a fake, meta or freed tensor exports itself so)";
  }
  if (device.addressable()) {
    const auto address = reinterpret_cast<std::uintptr_t>(tensor.data);
    std::uint64_t first = 0;
    constexpr auto kFarthest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if (__builtin_add_overflow(address, tensor.byte_offset, &first) || first > kFarthest) {
      return "its byte offset of " + std::to_string(tensor.byte_offset) +
             " leaves the address space";
    }
    // Neither product overflows, since that of the whole span does not.
    if ((lowest * element_bits) >> 3 < -static_cast<std::int64_t>(first) ||
        (highest * element_bits) >> 3 > static_cast<std::int64_t>(kFarthest - first)) {
      return "its strides leave the address space";
    }
  }
  return {};
}

std::int64_t element_count(const DLTensor& tensor) noexcept {
  // Unsigned: beside a size of zero the others may multiply to anything.
  std::uint64_t count = 1;
  for (std::int32_t i = 0; i < tensor.ndim; ++i) {
    if (tensor.shape[i] == 0) {
      return 0;
    }
    count *= static_cast<std::uint64_t>(tensor.shape[i]);
  }
  return static_cast<std::int64_t>(count);
}

std::int64_t byte_count(const DLTensor& tensor, DType dtype) noexcept {
  // Of elements that share their memory there may be more bits, and more bytes, than fit.
  __extension__ using Wide = __int128;
  const Wide bytes = (Wide{element_count(tensor)} * dtype.element_bits() + 7) / 8;
  constexpr Wide kMost = std::numeric_limits<std::int64_t>::max();
  return static_cast<std::int64_t>(std::min(bytes, kMost));
}

bool is_c_contiguous(const DLTensor& tensor) noexcept {
  if (tensor.strides == nullptr) {
    return true;
  }
  bool packed = true;
  std::uint64_t expected = 1;
  for (std::int32_t i = tensor.ndim - 1; i >= 0; --i) {
    const auto size = static_cast<std::uint64_t>(tensor.shape[i]);
    if (size == 0) {
      return true;
    }
    packed = packed && (size == 1 || static_cast<std::uint64_t>(tensor.strides[i]) == expected);
    expected *= size;
  }
  return packed;
}

void fill_c_strides(std::span<const std::int64_t> shape, std::int64_t* strides) noexcept {
  std::uint64_t stride = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = static_cast<std::int64_t>(stride);
    stride *= shape[i] == 0 ? 1 : static_cast<std::uint64_t>(shape[i]);
  }
}

namespace detail {

Block* new_block(std::int32_t ndim, Lease lease) {
  void* memory = BlockMemory::take(block_bytes(ndim));
  if (memory == nullptr) [[unlikely]] {
    lease.give_back();
    throw std::bad_alloc();
  }
  auto* block = new (memory) Block;
  block->managed.version = kVersion;
  block->managed.manager_ctx = block;
  block->managed.deleter = delete_block;
  block->references.store(1, std::memory_order_relaxed);
  block->lease = lease;
  return block;
}

void retain(Block* block) noexcept {
  block->references.fetch_add(1, std::memory_order_relaxed);
}

void release(Block* block) noexcept {
  // A sole owner needs no atomic subtraction: nobody else can be counting.
  if (block->references.load(std::memory_order_acquire) != 1 &&
      block->references.fetch_sub(1, std::memory_order_acq_rel) != 1) {
    return;
  }
  const Lease lease = block->lease;
  BlockMemory::give_back(block, block_bytes(block->managed.dl_tensor.ndim));
  lease.give_back();
}

void require_count(const ManagedTensor& tensor, std::int64_t count) {
  if (const auto shaped = element_count(tensor.tensor()); shaped != count) {
    throw MalformedTensor("its shape is of " + std::to_string(shaped) +
                          " elements, and its memory holds " + std::to_string(count));
  }
}

void require_a_stride_for_each(std::size_t dimensions, std::size_t strides) {
  if (dimensions != strides) {
    throw MalformedTensor("it has " + std::to_string(dimensions) + " dimensions and " +
                          std::to_string(strides) + " strides");
  }
}

}  // namespace detail

ManagedTensor ManagedTensor::own(const DLTensor& tensor, std::uint64_t flags, Lease lease) {
  try {
    detail::require_sound(tensor);
  } catch (...) {
    lease.give_back();
    throw;
  }
  return own_trusted(tensor, flags, lease);
}

void detail::require_version(DLPackVersion version) {
  if (version.major != DLPACK_MAJOR_VERSION) {
    throw MalformedTensor("it is of DLPack version " + std::to_string(version.major) + "." +
                          std::to_string(version.minor) +
                          ", and only major version 1 is understood");
  }
}

ManagedTensor ManagedTensor::adopt(DLManagedTensorVersioned* managed,
                                   void (*run_deleter)(void*) noexcept) {
  try {
    return adopt_or_leave(managed, run_deleter);
  } catch (...) {
    if (managed != nullptr) {
      (run_deleter != nullptr ? run_deleter : run_own_deleter<DLManagedTensorVersioned>)(managed);
    }
    throw;
  }
}

ManagedTensor ManagedTensor::adopt_or_leave(DLManagedTensorVersioned* managed,
                                            void (*run_deleter)(void*) noexcept) {
  if (managed == nullptr) {
    throw MalformedTensor("the pointer to it is NULL");
  }
  detail::require_version(managed->version);
  if (is_own(*managed)) {
    return retake(managed);
  }
  detail::require_sound(managed->dl_tensor);
  ManagedTensor tensor = own_trusted(managed->dl_tensor, managed->flags, Lease{});
  // Nothing can fail any more: from here on the tensor is ours.
  tensor.block_->lease = {
      managed, run_deleter != nullptr ? run_deleter : run_own_deleter<DLManagedTensorVersioned>};
  return tensor;
}

ManagedTensor ManagedTensor::adopt(DLManagedTensor* managed, bool writable,
                                   void (*run_deleter)(void*) noexcept) {
  if (managed == nullptr) {
    throw MalformedTensor("the pointer to it is NULL");
  }
  return own(managed->dl_tensor, writable ? 0 : DLPACK_FLAG_BITMASK_READ_ONLY,
             {managed, run_deleter != nullptr ? run_deleter : run_own_deleter<DLManagedTensor>});
}

bool ManagedTensor::is_own(const DLManagedTensorVersioned& managed) noexcept {
  return managed.deleter == delete_block;
}

ManagedTensor ManagedTensor::allocate(DType dtype, std::span<const std::int64_t> shape) {
  return detail::allocate_aligned(dtype, shape, 1);
}

ManagedTensor detail::allocate_aligned(DType dtype, std::span<const std::int64_t> shape,
                                       std::int64_t alignment) {
  DLTensor tensor = host_tensor(dtype, shape);
  const HostMemory memory =
      take_host_memory(bytes_to_allocate(tensor), static_cast<std::size_t>(alignment));
  tensor.data = memory.data;
  return ManagedTensor::own_trusted(tensor, 0, memory.lease);
}

ManagedTensor ManagedTensor::share() const {
  if (block_ == nullptr) [[unlikely]] {
    throw MalformedTensor("it is empty: nothing was put in, or it was moved from");
  }
  detail::retain(block_);
  // DLPack's flag of a copy says that nobody else has the memory.
  return own_trusted(tensor(), flags() & ~std::uint64_t{DLPACK_FLAG_BITMASK_IS_COPIED},
                     {block_, run_own_deleter<DLManagedTensorVersioned>});
}

void ManagedTensor::drop_negative_strides() noexcept {
  const DLTensor& own = tensor();
  for (std::int32_t i = 0; i < own.ndim; ++i) {
    if (own.strides[i] < 0 && own.shape[i] <= 1) {
      std::uint64_t contiguous = 1;
      for (std::int32_t j = i + 1; j < own.ndim; ++j) {
        contiguous *= own.shape[j] == 0 ? 1 : static_cast<std::uint64_t>(own.shape[j]);
      }
      own.strides[i] = static_cast<std::int64_t>(contiguous);
    }
  }
}

DLManagedTensor* ManagedTensor::release_legacy() {
  if (readonly()) {
    refuse_legacy("read-only memory", "that nobody may write",
                  std::string("release(), or ") + detail::kCallForACopy);
  }
  if (conditions_of_flags(flags(), dtype()).has(Condition::kPaddedElements)) {
    refuse_legacy("elements that are padded to whole bytes", "that they are", "release()");
  }
  auto* legacy = new DLManagedTensor;
  legacy->dl_tensor = tensor();
  legacy->manager_ctx = std::exchange(block_, nullptr);
  legacy->deleter = [](DLManagedTensor* self) {
    run_own_deleter<DLManagedTensorVersioned>(self->manager_ctx);
    delete self;
  };
  return legacy;
}

}  // namespace dlbridge
