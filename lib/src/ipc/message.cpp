// A message in bytes: its head, a line for each block and each tensor, and the note. Fixed layout,
// in the machine's own byte order, for it never leaves the machine.

#include "ipc/message.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <string>

#include "dlbridge/dtype.hpp"
#include "dlbridge/error.hpp"
#include "ipc/shared_block.hpp"

namespace dlbridge {
namespace {

using detail::BlockFile;
using detail::MessageHead;

constexpr std::uint32_t kNoBlock = UINT32_MAX;  // of a tensor without elements

struct TensorLine {
  std::uint32_t block;
  std::int32_t ndim;
  std::uint64_t flags;
  std::uint64_t offset;  // of the first element, in bytes
  DLDataType dtype;
  std::uint32_t unused;
};
// Only what can be said of memory at rest.
constexpr std::uint64_t kFlags =
    DLPACK_FLAG_BITMASK_READ_ONLY | DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED;

template <typename Value>
void add(std::vector<std::byte>& bytes, const Value* values, std::size_t count) {
  const auto added = std::as_bytes(std::span(values, count));
  bytes.resize(bytes.size() + added.size());
  std::ranges::copy(added, bytes.end() - std::ssize(added));
}

[[noreturn]] void refuse_message(const std::string& fault) {
  throw ConversionRefused("cannot take a message in: " + fault, {fault});
}

// Takes values off the front of a message, which may say anything.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <typename Value>
  void take(Value* values, std::size_t count) {
    if (count > rest_.size() / sizeof(Value)) {
      refuse_message("it is shorter than it says");
    }
    if (count != 0) {
      std::memcpy(values, rest_.data(), count * sizeof(Value));
      rest_ = rest_.subspan(count * sizeof(Value));
    }
  }
  [[nodiscard]] std::span<const std::byte> rest() const { return rest_; }

 private:
  std::span<const std::byte> rest_;
};

// The blocks of a message that is being packed, in the order of its descriptors.
using Blocks = std::vector<detail::SharedBlock*>;

TensorLine line_of(const ManagedTensor& tensor, Blocks& blocks) {
  TensorLine line{};
  line.block = kNoBlock;
  line.ndim = tensor.ndim();
  line.flags = tensor.flags() & kFlags;
  line.dtype = tensor.tensor().dtype;
  if (element_count(tensor.tensor()) != 0) {
    detail::SharedBlock* block = detail::block_of(tensor.tensor(), tensor.flags());
    if (block == nullptr) {
      throw ConversionRefused(
          "cannot send a tensor that lies in no shared block (other processes "
          "cannot map its memory); use SharedArena::allocate() for the memory",
          {"other processes cannot map its memory"}, "SharedArena::allocate() for the memory");
    }
    const auto place = std::find(blocks.begin(), blocks.end(), block) - blocks.begin();
    line.block = static_cast<std::uint32_t>(place);
    if (line.block == blocks.size()) {
      blocks.push_back(block);
    }
    line.offset =
        static_cast<std::uint64_t>(static_cast<const std::byte*>(tensor.data()) - block->memory);
  }
  return line;
}

// The tensor that a line describes, in the memory of its block.
ManagedTensor tensor_of(const TensorLine& line, std::span<std::int64_t> dimensions,
                        const std::vector<std::shared_ptr<detail::Hold>>& holds, SharedMode mode) {
  const auto ndim = static_cast<std::size_t>(line.ndim);
  DLTensor tensor = detail::host_tensor(line.dtype, dimensions.first(ndim));
  tensor.strides = dimensions.data() + ndim;
  std::uint64_t flags = line.flags & kFlags;
  if (mode == SharedMode::kRead) {
    flags |= DLPACK_FLAG_BITMASK_READ_ONLY;
  }
  const bool sized =
      std::all_of(tensor.shape, tensor.shape + ndim, [](std::int64_t size) { return size >= 0; });
  if (!sized) {
    refuse_message("a tensor in it has a negative size");
  }
  if (line.block == kNoBlock) {
    tensor.strides = nullptr;
    if (std::none_of(tensor.shape, tensor.shape + ndim,
                     [](std::int64_t size) { return size == 0; })) {
      refuse_message("a tensor in it has elements and no memory");
    }
    return ManagedTensor::own(tensor, flags, {});
  }
  if (line.block >= holds.size()) {
    refuse_message("a tensor in it is in a block that was not sent");
  }
  const std::shared_ptr<detail::Hold>& hold = holds[line.block];
  const detail::SharedBlock& block = hold->block();
  if (line.offset >= block.size()) {
    refuse_message("a tensor in it begins behind its block");
  }
  tensor.data = block.memory + line.offset;
  if (const std::string fault = tensor_fault(tensor); !fault.empty()) {
    refuse_message("a tensor in it is malformed: " + fault);
  }
  const auto extent = extent_of(tensor, flags);
  const auto base = reinterpret_cast<std::uintptr_t>(block.memory);
  if (!extent || extent->first < base || extent->end - base > block.size()) {
    refuse_message("a tensor in it reaches beyond its block");
  }
  return detail::tensor_in_block(hold, tensor, flags);
}

}  // namespace

MessageHead detail::head_of(std::span<const std::byte> bytes) {
  MessageHead head{};
  Reader(bytes).take(&head, 1);
  if (head.magic != kMagic) {
    refuse_message("it is none of dlbridge's, or of another version");
  }
  if (head.mode > static_cast<std::uint32_t>(SharedMode::kWrite) || head.blocks > kMostBlocks ||
      head.bytes < sizeof(MessageHead)) {
    refuse_message("its head is damaged");
  }
  return head;
}

Message pack(std::span<const ManagedTensor> tensors, SharedMode mode,
             std::span<const std::byte> note, std::vector<OwnedDescriptor> of_note) {
  Blocks blocks;
  std::vector<std::byte> lines;
  for (const ManagedTensor& tensor : tensors) {
    const TensorLine line = line_of(tensor, blocks);
    add(lines, &line, 1);
    add(lines, tensor.shape().data(), tensor.shape().size());
    add(lines, tensor.strides().data(), tensor.strides().size());
  }
  if (blocks.size() + of_note.size() > detail::kMostBlocks) {
    const std::string why =
        "a message carries at most " + std::to_string(detail::kMostBlocks) + " descriptors";
    const std::string fix = "policy=\"snapshot\" to copy them into one block";
    throw ConversionRefused("cannot send tensors that lie in " + std::to_string(blocks.size()) +
                                " blocks (" + why + "); use " + fix,
                            {why}, fix);
  }
  MessageHead head{};
  head.magic = detail::kMagic;
  head.mode = static_cast<std::uint32_t>(mode);
  head.blocks = static_cast<std::uint32_t>(blocks.size());
  head.tensors = tensors.size();
  head.bytes = sizeof head + blocks.size() * sizeof(BlockFile) + lines.size() + note.size();
  Message message;
  message.bytes.reserve(head.bytes);
  add(message.bytes, &head, 1);
  for (detail::SharedBlock* block : blocks) {
    add(message.bytes, &block->file, 1);
    message.descriptors.push_back(detail::locked_descriptor(*block, mode));
  }
  std::move(of_note.begin(), of_note.end(), std::back_inserter(message.descriptors));
  add(message.bytes, lines.data(), lines.size());
  add(message.bytes, note.data(), note.size());
  return message;
}

Received unpack(std::span<const std::byte> bytes, std::vector<OwnedDescriptor> descriptors) {
  const MessageHead head = detail::head_of(bytes);
  if (head.bytes != bytes.size()) {
    refuse_message("it is not as long as it says");
  }
  if (head.blocks > descriptors.size()) {
    refuse_message("it came with " + std::to_string(descriptors.size()) + " descriptors, and has " +
                   std::to_string(head.blocks) + " blocks");
  }
  Reader reader(bytes.subspan(sizeof head));
  Received received;
  received.mode = static_cast<SharedMode>(head.mode);
  std::vector<std::shared_ptr<detail::Hold>> holds;
  for (std::uint32_t i = 0; i < head.blocks; ++i) {
    BlockFile file;
    reader.take(&file, 1);
    holds.push_back(detail::map_block(std::move(descriptors[i]), file, received.mode));
  }
  received.of_note.assign(std::move_iterator(descriptors.begin() + head.blocks),
                          std::move_iterator(descriptors.end()));
  std::array<std::int64_t, 2 * kMaxDimensions> dimensions{};
  for (std::uint64_t i = 0; i < head.tensors; ++i) {  // each takes bytes, so a lie ends soon
    TensorLine line{};
    reader.take(&line, 1);
    if (line.ndim < 0 || line.ndim > kMaxDimensions) {
      refuse_message("a tensor in it has " + std::to_string(line.ndim) + " dimensions");
    }
    const std::span<std::int64_t> own(dimensions.data(), 2 * static_cast<std::size_t>(line.ndim));
    reader.take(own.data(), own.size());
    received.tensors.push_back(tensor_of(line, own, holds, received.mode));
  }
  received.note.assign(reader.rest().begin(), reader.rest().end());
  return received;
}

}  // namespace dlbridge
