#pragma once

#include <array>
#include <optional>
#include <string>

#include "devices/devices.hpp"
#include "dlbridge/convert.hpp"
#include "dlbridge/python_lease.hpp"
#include "doors/ways.hpp"
#include "types/capsule.hpp"

namespace dlbridge::python {

struct LibraryRow;

/// An object whose door is open: described, and perhaps taken. Ends with the crossing.
///
/// Memory of a device is read in order: `source.stream` is the stream that the producer's work on
/// it is on. A producer that speaks __dlpack__ is told whose stream it is for: the caller's, or
/// that of whoever will read.
class Door {
 public:
  // Plain values: a copy of an optional loads at once what was stored in parts just before, and
  // the processor waits for that.
  struct Look {
    Stream (*reader)(Device) = stream_of_managed;  // whose stream will read memory of that device
    const Stream* stream = nullptr;                // the caller's word for it
    bool never_copies = false;                     // which a producer is told
  };

  Door(PyObject* opened, const Way& through, const Look& how)
      : object(opened), readable(opened), way(&through), look(how) {
    way->describe(*this);
    source.traits.can_prepare = way->prepare != nullptr;
    if (source.tensor.device.device_type != kDLCPU || source.traits.maybe_pinned) [[unlikely]] {
      meet_device();
    }
  }
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;

  /// Calls the packed float4 by the name that the target knows.
  void adapt(const Capabilities& target) {
    if (source.tensor.dtype.code == kDLFloat4_e2m1fn) [[unlikely]] {
      adapt_float4(target);
    }
  }

  /// Whether the object is what that way leads into: no other is read in its place.
  [[nodiscard]] bool is_of(const Way& into) const { return way == &into && readable == object; }

  [[nodiscard]] ManagedTensor acquire() {
    if (row != nullptr || respelled_) [[unlikely]] {
      return acquire_as_described();
    }
    return way->acquire(*this);
  }
  [[nodiscard]] ManagedTensor prepare(const Leg& leg, Source& made);

  /// As NumPy does of its own casts. Throws PythonError where the warning is an error.
  static void warn(CastWarning warning);

  /// For the time of a copy. A copy of 64 KiB or more, or one that waits for a device, lets others
  /// have the GIL; what they could take away or change meanwhile is kept.
  class Copying {
   public:
    static constexpr RunElsewhere kGiveBack = run_with_gil;

    Copying(Door& door, std::int64_t bytes, bool waits);
    ~Copying();
    Copying(const Copying&) = delete;
    Copying& operator=(const Copying&) = delete;

   private:
    Source& source_;
    const DLTensor described_;
    ManagedTensor held_;
    const std::int64_t* const byte_strides_;
    std::array<std::int64_t, 3 * kMaxDimensions> dimensions_;
    std::optional<WithoutGil> without_gil_;
    LentCapsule lent_;
    int exceptions_ = 0;
  };

  PyObject* object;
  PyObject* readable;  // what is read in its place; the object itself, if its library says no other
  const Way* way;      // into what is read
  const Look look;
  Source source;
  ManagedTensor taken;                       // for the ways whose memory comes as a managed tensor
  bool taken_out = false;                    // of its capsule, which has it no more
  Ref held;                                  // `readable`, where it is not the object
  const LibraryRow* row = nullptr;           // of the registry, if its library is there
  std::optional<Library> library;            // of an object that no bridge knows by name
  std::string object_name;                   // what `library` borrows its texts from
  std::optional<Capabilities> capabilities;  // of the target, where its own table is not to count

 private:
  void meet_device();
  void find_truth();
  void adapt_float4(const Capabilities& target);
  ManagedTensor acquire_as_described();

  bool respelled_ = false;
};

/// The tensor's memory under another description.
[[nodiscard]] ManagedTensor described_as(ManagedTensor tensor, const DLTensor& described,
                                         std::uint64_t flags);
/// The same memory for whoever cannot be told that nobody may write to it, and does not.
[[nodiscard]] ManagedTensor without_read_only(ManagedTensor tensor);

/// Names the object's library after its type, and finds its row.
void name_library(Door& door);

/// Refuses what an object handed out, in its library's name.
[[noreturn]] void refuse(const Door& door, const std::string& fault);

}  // namespace dlbridge::python
