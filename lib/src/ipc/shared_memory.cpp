#include "dlbridge/shared_memory.hpp"

#include "dlbridge/error.hpp"
#include "ipc/shared_block.hpp"
#include "tensor/layout.hpp"

namespace dlbridge {

ManagedTensor SharedArena::allocate(DType dtype, std::span<const std::int64_t> shape) {
  DLTensor tensor = detail::host_tensor(dtype, shape);
  const std::size_t bytes = room_for(detail::bytes_to_allocate(tensor));
  if (bytes == 0) {
    return ManagedTensor::allocate(dtype, shape);
  }
  auto hold = std::static_pointer_cast<detail::Hold>(hold_);
  std::size_t offset = used_;
  if (!hold || hold->block().size() - offset < bytes) {
    const bool planned = !hold && planned_ >= bytes;
    hold = detail::take_block(planned ? planned_ : bytes, mode_);
    offset = 0;
  }
  tensor.data = hold->block().memory + offset;
  ManagedTensor made = detail::tensor_in_block(hold, tensor, 0);
  if (!hold_ || hold == hold_) {
    hold_ = hold;
    used_ = offset + bytes;
  }
  return made;
}

bool can_share(const DLTensor& tensor, SharedMode mode) noexcept {
  if (element_count(tensor) == 0) {
    return Device(tensor.device).host_accessible();
  }
  detail::SharedBlock* block = detail::block_of(tensor);
  return block != nullptr && detail::can_lend(*block, mode);
}

bool is_in_block(const DLTensor& tensor) noexcept {
  return detail::block_of(tensor) != nullptr;
}

namespace {

// A mapping begins where a page does: some kernels on ARM have pages of 64 KiB.
constexpr std::size_t kStep = std::size_t{64} << 10;

// Private pages, and the tensor that they were made of: it keeps the block from being used again.
struct Pages {
  ManagedTensor shared;
  std::byte* memory;
  std::size_t size;
};

}  // namespace

ManagedTensor copy_on_write(const ManagedTensor& shared) {
  const DLTensor& tensor = shared.tensor();
  const detail::SharedBlock* block = detail::block_of(tensor, shared.flags());
  if (block == nullptr) {
    throw ConversionRefused("cannot make this tensor's pages private: it lies in no shared block",
                            {"its memory is not in a shared block"});
  }
  const auto extent = extent_of(tensor, shared.flags());
  const auto base = reinterpret_cast<std::uintptr_t>(block->memory);
  const std::size_t before = (extent->first - base) / kStep * kStep;
  const std::size_t size = (extent->end - base - before + kStep - 1) / kStep * kStep;
  auto pages = std::make_unique<Pages>(Pages{shared.share(), nullptr, size});
  pages->memory = detail::map_file(block->descriptor, size, detail::Mapping::kPrivate, before);
  DLTensor own = tensor;
  own.data = pages->memory + (reinterpret_cast<std::uintptr_t>(tensor.data) - base - before);
  const std::uint64_t flags = shared.flags() & ~std::uint64_t{DLPACK_FLAG_BITMASK_READ_ONLY};
  return ManagedTensor::own(own, flags,
                            {pages.release(), [](void* context) noexcept {
                               const std::unique_ptr<Pages> all(static_cast<Pages*>(context));
                               detail::unmap_file(all->memory, all->size);
                             }});
}

}  // namespace dlbridge
