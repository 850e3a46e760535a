#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dlbridge/condition.hpp"
#include "dlbridge/device.hpp"
#include "dlbridge/dtype.hpp"
#include "dlbridge/managed_tensor.hpp"

namespace dlbridge {

/// How a library speaks of its objects: the words for messages, and the calls that its user would
/// write to take a condition away. One constant per library, kept by its bridge.
struct Library {
  struct Fix {
    Condition condition;
    std::string_view call;  // with `x` for the object: "x.resolve_neg()"
  };
  std::string_view name{};      // "torch"
  std::string_view object{};    // "torch.Tensor"
  std::array<Fix, 20> fixes{};  // rows with an empty call end the list
};

/// A text of a source. It is laid out the same in every build: of std::string there are two kinds,
/// and a bridge may be compiled for a library that has the old one (torch before 2.7).
class Text {
 public:
  Text() = default;
  Text(std::string_view text) : characters_(text.begin(), text.end()) {}
  Text(const char* text) : Text(std::string_view(text)) {}
  Text(const std::string& text) : Text(std::string_view(text)) {}
  operator std::string_view() const noexcept { return {characters_.data(), characters_.size()}; }

 private:
  std::vector<char> characters_;
};

/// What is known of a source beyond its DLTensor.
struct Traits {
  const Library* library = nullptr;  // of the object; words() where its bridge named none
  Conditions conditions{};           // only those that a producer can say
  bool copies_to_host = false;       // the producer can bring its memory to the host when asked
  bool copies_there = false;         // the producer can copy its memory where it is when asked
  bool can_prepare = true;           // its bridge has a prepare(), without which it makes nothing
  // What is acquired is a copy that its library made of it: private, in C order, aligned to its
  // elements, not read-only.
  bool is_copy = false;
  bool of_target = false;         // it is of the target's library, and may come back itself
  bool maybe_pinned = false;      // host memory that a device may be writing to
  bool has_shared_pages = false;  // it can be had as pages that are copied when written to
  bool no_numbers = false;        // of an inexpressible type: texts, objects, dates or structs
  // What a copy by its own library costs, in bytes: of a type that no managed tensor can hold. -1:
  // its bridge asks for none.
  std::int64_t own_copy_bytes = -1;
  // Source::stream is the one that the producer's work is on; nothing of ours reads it otherwise.
  bool stream_known = true;

  /// How the library speaks of its objects.
  [[nodiscard]] const Library& words() const noexcept;
};

/// An object as its bridge sees it, before anything is taken from it. Borrows from the object:
/// valid while the object is, and unchanged. Filled in place, since its tensor may point into it.
struct Source {
  Source() {}  // NOLINT(modernize-use-equals-default): `room` stays as it is
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  Traits traits;
  DLTensor tensor{};  // shape and type also where there is no memory; data may then be null
  // The stream that the producer's work on the memory is on, for memory that a device works on.
  Stream stream;
  // For kFractionalStrides: the strides in bytes, since elements cannot say them.
  const std::int64_t* byte_strides = nullptr;
  Text detail;  // what a message adds: the name of a type that DLPack lacks, say
  Text fix;     // the call that helps with what `detail` names, where the library's table cannot
                // know it
  // Room for strides (and, behind them, a shape) that the object does not hold in elements.
  std::array<std::int64_t, 2 * kMaxDimensions> room;
};

/// What the flags of a DLManagedTensorVersioned say of its elements.
[[nodiscard]] Conditions conditions_of_flags(std::uint64_t flags, DType dtype);
/// The flags that say so.
[[nodiscard]] std::uint64_t flags_of_conditions(Conditions said) noexcept;

/// Fills `source` with what a managed tensor's struct holds, which speaks as `library`.
void describe(const DLTensor& tensor, std::uint64_t flags, const Library& library, Source& source);
/// The same of a managed tensor of ours.
void describe(const ManagedTensor& tensor, const Library& library, Source& source);

}  // namespace dlbridge
