#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "dlbridge/copy.hpp"
#include "dlbridge/device.hpp"

namespace dlbridge {

/// A point in the work of a stream, owned by whoever recorded it until DeviceRuntime::release.
struct Event {
  void* handle = nullptr;
};

/// A call of a device's runtime that failed: which call, and what the runtime says of it. What it
/// was for has been undone, and the device can still be used unless the text says otherwise.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// One kind of device, as the core uses it: memory, order, and copies. Everything that it is asked
/// to do on a stream is only begun; nothing here waits for a device but synchronise().
///
/// Every function may be called on any thread, with any device current, and leaves the calling
/// thread's current device as it was. `device` is an id below device_count(). Functions that are
/// not noexcept throw DeviceError, or std::bad_alloc where memory is what lacks; a call that threw
/// has begun nothing.
class DeviceRuntime {
 public:
  DeviceRuntime() = default;
  DeviceRuntime(const DeviceRuntime&) = delete;
  DeviceRuntime& operator=(const DeviceRuntime&) = delete;
  virtual ~DeviceRuntime() = default;

  /// For reasons and messages: "CUDA".
  [[nodiscard]] virtual std::string_view name() const noexcept = 0;

  /// The device types that it serves: that of its devices, and those of host memory that it knows.
  [[nodiscard]] virtual DeviceSet types() const noexcept = 0;

  /// How `stream` numbers its streams, where DLPack does not say.
  [[nodiscard]] virtual StreamNumbers stream_numbers() const noexcept { return {}; }

  /// Devices that can be used now; 0 where there are none, or no driver.
  [[nodiscard]] virtual int device_count() noexcept = 0;
  /// Why device_count() is 0, for a message; empty where it is not.
  [[nodiscard]] virtual std::string unavailable() = 0;

  /// Where the driver says that `address` is: its device, or what host memory it knows of (pinned,
  /// managed). Nothing for an address that it does not know, as of ordinary host memory.
  [[nodiscard]] virtual std::optional<Device> locate(const void* address) = 0;

  // --- memory -----------------------------------------------------------------------------------

  /// Device memory, at least 256-byte aligned, to be used by work on `stream` from now on.
  [[nodiscard]] virtual void* allocate(int device, std::size_t bytes, Stream stream) = 0;
  /// Gives back what allocate() gave, once the work that `stream` has now is done.
  virtual void free(int device, void* memory, Stream stream) noexcept = 0;

  /// Host memory that the device reads and writes by itself (pinned), page-aligned. Slow: pool it.
  [[nodiscard]] virtual void* allocate_host(std::size_t bytes) = 0;
  /// Gives back what allocate_host() gave, which no device works on any more.
  virtual void free_host(void* memory) noexcept = 0;

  // --- order ------------------------------------------------------------------------------------

  /// A stream of the runtime's own on that device, which lives as long as the process and waits for
  /// no other by itself.
  [[nodiscard]] virtual Stream own_stream(int device) = 0;

  /// Whether the stream's work is being recorded (into a graph) instead of done: nothing on it can
  /// be waited for.
  [[nodiscard]] virtual bool is_capturing(int device, Stream stream) = 0;

  /// The point that the stream's work has reached now.
  [[nodiscard]] virtual Event record(int device, Stream stream) = 0;
  /// What comes next on `stream` waits for the event; the caller does not.
  virtual void wait(int device, Stream stream, Event event) = 0;
  /// Whether the event has come, without waiting. Throws what the work before it failed with.
  [[nodiscard]] virtual bool has_come(Event event) = 0;
  /// Waits, on the calling thread, until the event has come. Throws likewise.
  virtual void synchronise(Event event) = 0;
  /// Ends the event; it need not have come.
  virtual void release(Event event) noexcept = 0;

  /// Calls action(context) once, when the stream has done the work that it has now, on a thread of
  /// the runtime's; the action must use no device and not block.
  virtual void call_when_done(int device, Stream stream, void (*action)(void* context),
                              void* context) = 0;

  /// Waits, on the calling thread, until the stream has done the work that it has now.
  virtual void synchronise(int device, Stream stream) = 0;

  // --- copies, begun on `stream` ----------------------------------------------------------------

  /// `bytes` bytes, to or from the device or within it. Host memory should be pinned; with other
  /// host memory the call may wait until the copy is done.
  virtual void copy(int device, void* to, const void* from, std::size_t bytes, Stream stream) = 0;

  /// `rows` rows of `bytes` bytes each, whose beginnings are `to_pitch` and `from_pitch` bytes
  /// apart (both at least `bytes`). As copy().
  virtual void copy_rows(int device, void* to, std::size_t to_pitch, const void* from,
                         std::size_t from_pitch, std::size_t bytes, std::size_t rows,
                         Stream stream) = 0;

  /// The job of copy_elements(), source and target both in memory of the device, in one pass there.
  /// Borrows the job's arrays for the call only. The same preconditions and the same values.
  virtual void copy_elements(int device, const CopyJob& job, Stream stream) = 0;
};

/// Makes `runtime` the one for devices of that type, in place of any before it; null takes it away.
/// Borrowed for good: a runtime that is taken away must live until the last tensor that was made
/// with it. Throws std::out_of_range for a type that DLPack does not have.
void set_device_runtime(std::int32_t device_type, DeviceRuntime* runtime);

/// The same for each of the types that it serves.
void set_device_runtime(DeviceRuntime& runtime);

/// The runtime for devices of that type, or null.
[[nodiscard]] DeviceRuntime* device_runtime(std::int32_t device_type) noexcept;

/// How `stream` numbers the streams of that type's devices, by DLPack or else by their runtime;
/// nothing where they have none, as host memory.
[[nodiscard]] std::optional<StreamNumbers> stream_numbers(std::int32_t device_type) noexcept;

/// Says why there is no runtime for a type that has one in principle ("there is no NVIDIA driver
/// here"): for the texts of refusals. `reason` lives as long as the process; null takes it away.
void set_runtime_absence(std::int32_t device_type, const char* reason);

/// What was said of it, or an empty text.
[[nodiscard]] std::string_view runtime_absence(std::int32_t device_type) noexcept;

}  // namespace dlbridge
