#pragma once

#include <dlpack/dlpack.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "dlbridge/device.hpp"
#include "dlbridge/dtype.hpp"
#include "dlbridge/element_type.hpp"

namespace dlbridge {

/// What keeps a tensor's memory valid, given back by one call of `release(context)`.
///
/// `release` may be called on any thread, must not throw and must not block. A null `release` means
/// that nothing has to be given back.
struct Lease {
  void* context = nullptr;
  void (*release)(void* context) noexcept = nullptr;

  /// Calls `release`, if there is one. To be called once for all copies of the lease.
  void give_back() const noexcept {
    if (release != nullptr) {
      release(context);
    }
  }

  /// A lease that calls `action`, which may hold what is to be kept, and then destroys it. Throws
  /// std::bad_alloc; `action` is then not called.
  template <std::invocable Action>
  [[nodiscard]] static Lease calling(Action action) {
    static_assert(std::is_nothrow_invocable_v<Action>,
                  "what gives a lease back may not throw: write [...]() noexcept { ... }");
    return {new Action(std::move(action)), [](void* held) noexcept {
              const std::unique_ptr<Action> last(static_cast<Action*>(held));
              (*last)();
            }};
  }
};

/// More dimensions than any library here takes; what claims more is refused (DLPack sets no limit).
inline constexpr std::int32_t kMaxDimensions = 64;

inline constexpr DLPackVersion kVersion{DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};

/// What is wrong with a DLTensor as memory to be read (negative or missing shape, too many
/// dimensions, an unknown type or device, sizes that overflow, elements without data), or an empty
/// text. Reads nothing but the struct and its shape and strides.
[[nodiscard]] std::string tensor_fault(const DLTensor& tensor);

/// Elements of the tensor: the product of its shape. The tensor must be sound (`tensor_fault`).
[[nodiscard]] std::int64_t element_count(const DLTensor& tensor) noexcept;

/// Bytes of the elements themselves, packed as a copy of that type would hold them; at most what an
/// int64 holds, where elements share their memory.
[[nodiscard]] std::int64_t byte_count(const DLTensor& tensor, DType dtype) noexcept;
[[nodiscard]] inline std::int64_t byte_count(const DLTensor& tensor) noexcept {
  return byte_count(tensor, DType(tensor.dtype));
}

/// The stride of a dimension in bytes, for elements of whole bytes. Beside a size of zero a stride
/// may be anything, so this wraps.
[[nodiscard]] inline std::int64_t stride_bytes(const DLTensor& tensor,
                                               std::int32_t dimension) noexcept {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(tensor.strides[dimension]) *
                                   static_cast<std::uint64_t>(DType(tensor.dtype).itemsize()));
}

/// Bytes of a tensor that is sound (`tensor_fault`) and plain at a glance: host memory in C order,
/// with elements, of an integer, float, complex or bool type in whole bytes, strides filled and no
/// byte offset. 0 where it takes a closer look.
[[nodiscard]] inline std::int64_t plain_bytes(const DLTensor& tensor) noexcept {
  if (tensor.device.device_type != kDLCPU || tensor.byte_offset != 0 || tensor.data == nullptr ||
      tensor.ndim < 0 || tensor.ndim > kMaxDimensions ||
      (tensor.ndim != 0 && (tensor.shape == nullptr || tensor.strides == nullptr))) {
    return 0;
  }
  const DType dtype(tensor.dtype);
  if (dtype.code > kDLBool || dtype.lanes != 1 || dtype.bits == 0 || dtype.bits % 8 != 0) {
    return 0;
  }
  std::int64_t count = 1;
  for (std::int32_t i = tensor.ndim - 1; i >= 0; --i) {
    if (tensor.shape[i] <= 0 || tensor.strides[i] != count ||
        __builtin_mul_overflow(count, tensor.shape[i], &count)) {
      return 0;
    }
  }
  std::int64_t bits = 0;
  std::int64_t end = 0;
  if (__builtin_mul_overflow(count, std::int64_t{dtype.bits}, &bits) ||
      __builtin_add_overflow(reinterpret_cast<std::uintptr_t>(tensor.data), bits / 8, &end)) {
    return 0;
  }
  return bits / 8;
}

/// Whether the elements lie in C order without gaps; strides of dimensions of size 1 do not count.
[[nodiscard]] bool is_c_contiguous(const DLTensor& tensor) noexcept;

/// Whether two elements of the tensor share memory. Exact for tensors of moderate size; larger ones
/// with strides that interleave count as overlapping when that cannot be ruled out cheaply.
[[nodiscard]] bool overlaps_itself(const DLTensor& tensor);

/// The addresses that the elements of a tensor reach, from the lowest on and before `end`.
struct Extent {
  std::uintptr_t first = 0;
  std::uintptr_t end = 0;
};

/// That of a tensor, without strides in C order; of no elements, an empty one. Nothing where it
/// would not lie in any memory. `flags` are DLPack's: elements may be padded to bytes.
[[nodiscard]] std::optional<Extent> extent_of(const DLTensor&, std::uint64_t flags = 0) noexcept;

/// Fills `strides` (elements) for C order over `shape`.
void fill_c_strides(std::span<const std::int64_t> shape, std::int64_t* strides) noexcept;

class ManagedTensor;

namespace detail {

// One allocation for a tensor that is ours: the struct that leaves, its reference count, the lease
// on its memory, and its own shape and strides behind it.
struct Block {
  DLManagedTensorVersioned managed;  // first, so that a pointer to it is a pointer to the block
  std::atomic<std::uint32_t> references;
  Lease lease;

  [[nodiscard]] std::int64_t* dimensions() noexcept {
    return reinterpret_cast<std::int64_t*>(this + 1);
  }
};

// Changes with Block: two copies of this library in one process, as two extensions may hold them,
// understand each other's blocks where it is the same.
inline constexpr int kBlockVersion = 1;

/// A block that holds the lease, with room for so many dimensions; tensor and flags are still to be
/// filled. Without memory gives the lease back and throws std::bad_alloc.
[[nodiscard]] Block* new_block(std::int32_t ndim, Lease lease);
void retain(Block* block) noexcept;
void release(Block* block) noexcept;

/// Ends a managed tensor of either struct by its own deleter, if it has one.
template <typename Managed>
void run_own_deleter(void* managed) noexcept {
  auto* held = static_cast<Managed*>(managed);
  if (held->deleter != nullptr) {
    held->deleter(held);
  }
}

// Throws MalformedTensor for a major version that is not ours.
void require_version(DLPackVersion version);
// Throws MalformedTensor where the tensor has another number of elements.
void require_count(const ManagedTensor& tensor, std::int64_t count);
// Throws MalformedTensor where they are not as many.
void require_a_stride_for_each(std::size_t dimensions, std::size_t strides);

}  // namespace detail

/// The one owner of a DLManagedTensorVersioned: of the memory's lease, its shape and its strides.
///
/// Move-only; gives the lease back exactly once, on whichever thread it ends. Whatever it was made
/// from, it is normalised: strides are filled, the version is DLPack 1.3, shape and strides are its
/// own copies (a producer that changes its tensor later does not change them), and the byte offset
/// is folded into the data pointer wherever data is an address.
/// Using one object from several threads needs the caller's own order, as with any value.
/// Made from nothing or moved from, it holds nothing, as operator bool says; then only that,
/// assignment, share() (which throws) and its end are allowed.
class ManagedTensor {
 public:
  ManagedTensor() noexcept = default;
  ManagedTensor(ManagedTensor&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  ManagedTensor& operator=(ManagedTensor&& other) noexcept {
    ManagedTensor ended(std::move(other));
    std::swap(block_, ended.block_);
    return *this;
  }
  ManagedTensor(const ManagedTensor&) = delete;
  ManagedTensor& operator=(const ManagedTensor&) = delete;
  ~ManagedTensor() {
    if (block_ != nullptr) {
      // Not release() itself: the block may be of another copy of this library.
      block_->managed.deleter(&block_->managed);
    }
  }

  /// Takes over a lease on memory that `tensor` describes; shape and strides are copied.
  /// `flags` are DLPack's. Throws MalformedTensor or std::bad_alloc after giving the lease back.
  [[nodiscard]] static ManagedTensor own(const DLTensor& tensor, std::uint64_t flags, Lease lease);

  /// The elements of a vector, which are not copied: in one dimension, or in C order of `shape`.
  /// Throws MalformedTensor where they are not as many, std::bad_alloc; the vector is gone then.
  template <typename T>
  [[nodiscard]] static ManagedTensor own(std::vector<T>&& values,
                                         std::initializer_list<std::int64_t> shape = {});

  /// Memory that is valid as long as `keeper` is held, in C order or with strides in elements;
  /// read-only where T is const. Throws MalformedTensor or std::bad_alloc after letting go of it.
  template <typename T>
  [[nodiscard]] static ManagedTensor own(T* data, std::span<const std::int64_t> shape,
                                         std::span<const std::int64_t> strides,
                                         std::shared_ptr<const void> keeper);
  template <typename T>
  [[nodiscard]] static ManagedTensor own(T* data, std::span<const std::int64_t> shape,
                                         std::shared_ptr<const void> keeper) {
    return own(data, shape, {}, std::move(keeper));
  }
  template <typename T>
  [[nodiscard]] static ManagedTensor own(T* data, std::initializer_list<std::int64_t> shape,
                                         std::initializer_list<std::int64_t> strides,
                                         std::shared_ptr<const void> keeper) {
    return own(data, std::span(shape.begin(), shape.size()),
               std::span(strides.begin(), strides.size()), std::move(keeper));
  }
  template <typename T>
  [[nodiscard]] static ManagedTensor own(T* data, std::initializer_list<std::int64_t> shape,
                                         std::shared_ptr<const void> keeper) {
    return own(data, std::span(shape.begin(), shape.size()), std::move(keeper));
  }

  /// As own(), for a tensor that the caller knows to be sound: a bridge's own reading of an object.
  [[nodiscard]] static ManagedTensor own_trusted(const DLTensor& tensor, std::uint64_t flags,
                                                 Lease lease);

  /// Takes over a managed tensor from elsewhere. Its deleter runs exactly once: when the last user
  /// of the memory ends, or before this throws MalformedTensor (a major version other than 1, of
  /// which nothing past `flags` is read, or anything that tensor_fault() finds).
  /// `run_deleter` replaces the call of the deleter, for callers whose foreign deleters need a
  /// lock that a releasing thread may not have; it gets the struct and must end its life.
  [[nodiscard]] static ManagedTensor adopt(DLManagedTensorVersioned* managed,
                                           void (*run_deleter)(void* managed) noexcept = nullptr);

  /// The same, but a failure leaves the tensor with its caller, as exchange tables do.
  [[nodiscard]] static ManagedTensor adopt_or_leave(
      DLManagedTensorVersioned* managed, void (*run_deleter)(void* managed) noexcept = nullptr);

  /// The same for the legacy struct, which cannot say whether it may be written to: read-only,
  /// unless the caller knows its producer to mean writable.
  [[nodiscard]] static ManagedTensor adopt(DLManagedTensor* managed, bool writable,
                                           void (*run_deleter)(void* managed) noexcept = nullptr);

  /// New host memory, 64-byte aligned, C-contiguous, writable, not initialised; elements below a
  /// byte are packed. Throws MalformedTensor for sizes that overflow, std::bad_alloc.
  [[nodiscard]] static ManagedTensor allocate(DType dtype, std::span<const std::int64_t> shape);
  [[nodiscard]] static ManagedTensor allocate(DType dtype,
                                              std::initializer_list<std::int64_t> shape) {
    return allocate(dtype, std::span(shape.begin(), shape.size()));
  }

  [[nodiscard]] explicit operator bool() const noexcept { return block_ != nullptr; }

  [[nodiscard]] const DLTensor& tensor() const noexcept { return block_->managed.dl_tensor; }
  [[nodiscard]] std::uint64_t flags() const noexcept { return block_->managed.flags; }
  [[nodiscard]] bool readonly() const noexcept {
    return (flags() & DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
  }
  [[nodiscard]] DType dtype() const noexcept { return tensor().dtype; }
  [[nodiscard]] Device device() const noexcept { return tensor().device; }
  [[nodiscard]] std::int32_t ndim() const noexcept { return tensor().ndim; }
  [[nodiscard]] std::span<const std::int64_t> shape() const noexcept {
    return {tensor().shape, static_cast<std::size_t>(tensor().ndim)};
  }
  /// In elements, never missing.
  [[nodiscard]] std::span<const std::int64_t> strides() const noexcept {
    return {tensor().strides, static_cast<std::size_t>(tensor().ndim)};
  }
  /// The first element; the byte offset is applied where data is an address.
  [[nodiscard]] void* data() const noexcept { return tensor().data; }

  /// Another owner of the same memory with a struct of its own; the memory lives until the last.
  /// Throws MalformedTensor where this holds nothing, std::bad_alloc.
  [[nodiscard]] ManagedTensor share() const;

  /// From now on nobody gets to write through this tensor. There is no way back.
  void mark_read_only() noexcept { block_->managed.flags |= DLPACK_FLAG_BITMASK_READ_ONLY; }
  /// Says that the memory is a copy made for this crossing.
  void mark_copied() noexcept { block_->managed.flags |= DLPACK_FLAG_BITMASK_IS_COPIED; }
  /// Reads the same bytes as another type of the same width.
  void reinterpret(DType dtype) noexcept { block_->managed.dl_tensor.dtype = dtype.dl(); }

  /// Gives dimensions that are never stepped along (of at most one element) a stride that is not
  /// negative, for consumers that want none even there.
  void drop_negative_strides() noexcept;
  /// Where there are no elements DLPack wants no address either. For a tensor that is leaving.
  void drop_address_if_empty() noexcept {
    if (element_count(tensor()) == 0) {
      block_->managed.dl_tensor.data = nullptr;
    }
  }
  /// Calls the same memory by another device's name, as for pinned memory that goes to the host.
  void relabel(Device device) noexcept { block_->managed.dl_tensor.device = device.dl(); }

  /// Hands the struct over; whoever gets it calls its deleter once, on any thread.
  [[nodiscard]] DLManagedTensorVersioned* release() noexcept {
    return &std::exchange(block_, nullptr)->managed;
  }

  /// Takes back, at no cost, what release() of a ManagedTensor of the same detail::kBlockVersion
  /// handed over; of any other struct nothing would be right.
  [[nodiscard]] static ManagedTensor retake(DLManagedTensorVersioned* released) noexcept {
    return ManagedTensor(reinterpret_cast<detail::Block*>(released));
  }

  /// Whether this copy of the library made the struct, so that retake() is right for it.
  [[nodiscard]] static bool is_own(const DLManagedTensorVersioned& managed) noexcept;

  /// Hands over the legacy struct. Throws ConversionRefused, keeping the tensor, when it is
  /// read-only or its elements are padded, since the legacy struct cannot say so; std::bad_alloc
  /// likewise.
  [[nodiscard]] DLManagedTensor* release_legacy();

 private:
  explicit ManagedTensor(detail::Block* block) noexcept : block_(block) {}

  detail::Block* block_ = nullptr;
};

// Here, so that a bridge's reading of an object need not go through memory on its way.
[[gnu::always_inline]] inline ManagedTensor ManagedTensor::own_trusted(const DLTensor& tensor,
                                                                       std::uint64_t flags,
                                                                       Lease lease) {
  detail::Block* block = detail::new_block(tensor.ndim, lease);
  const auto ndim = static_cast<std::size_t>(tensor.ndim);
  std::int64_t* shape = block->dimensions();
  std::int64_t* strides = shape + ndim;
  if (tensor.strides != nullptr) [[likely]] {
    for (std::size_t i = 0; i < ndim; ++i) {
      shape[i] = tensor.shape[i];
      strides[i] = tensor.strides[i];
    }
  } else {
    std::copy_n(tensor.shape, ndim, shape);
    fill_c_strides({shape, ndim}, strides);
  }
  void* data = tensor.data;
  std::uint64_t offset = tensor.byte_offset;
  if (offset != 0 && Device(tensor.device).addressable()) {
    if (data != nullptr) {
      // As numbers: an empty tensor may come with any offset, and nothing is read there.
      data = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(data) + offset);
    }
    offset = 0;
  }
  block->managed.flags = flags;
  block->managed.dl_tensor = {.data = data,
                              .device = tensor.device,
                              .ndim = tensor.ndim,
                              .dtype = tensor.dtype,
                              .shape = shape,
                              .strides = strides,
                              .byte_offset = offset};
  return ManagedTensor(block);
}

template <typename T>
ManagedTensor ManagedTensor::own(T* data, std::span<const std::int64_t> shape,
                                 std::span<const std::int64_t> strides,
                                 std::shared_ptr<const void> keeper) {
  if (!strides.empty()) {
    detail::require_a_stride_for_each(shape.size(), strides.size());
  }
  DLTensor tensor = detail::host_tensor(dtype_of<T>(), shape);
  tensor.data = const_cast<std::remove_const_t<T>*>(data);
  tensor.strides = strides.empty() ? nullptr : const_cast<std::int64_t*>(strides.data());
  return own(tensor, std::is_const_v<T> ? DLPACK_FLAG_BITMASK_READ_ONLY : 0,
             Lease::calling([kept = std::move(keeper)]() noexcept {}));
}

template <typename T>
ManagedTensor ManagedTensor::own(std::vector<T>&& values,
                                 std::initializer_list<std::int64_t> shape) {
  static_assert(!std::is_same_v<T, bool>, "std::vector<bool> has no elements in memory");
  const auto kept = std::make_shared<std::vector<T>>(std::move(values));
  const auto count = static_cast<std::int64_t>(kept->size());
  if (shape.size() == 0) {
    return own(kept->data(), {count}, kept);
  }
  ManagedTensor owner = own(kept->data(), shape, kept);
  detail::require_count(owner, count);
  return owner;
}

/// Managed tensors of ours that are alive now, exports included: for tests of lifetime.
[[nodiscard]] std::int64_t live_managed_tensors() noexcept;

}  // namespace dlbridge
