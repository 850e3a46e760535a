// A device without hardware: its memory faults on any touch from the host, its streams are real
// queues, and any call can be made to fail. For tests of everything that crosses to a device.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dlbridge/device_runtime.hpp"
#include "guarded/guarded_memory.hpp"
#include "guarded/guarded_streams.hpp"

namespace dlbridge::guarded {

/// The calls that can fail, and are counted.
enum class Call : std::uint8_t {
  kLocate,
  kAllocate,
  kAllocateHost,
  kOwnStream,
  kIsCapturing,
  kRecord,
  kWait,
  kHasCome,
  kSynchroniseEvent,
  kCallWhenDone,
  kSynchroniseStream,
  kCopy,
  kCopyRows,
  kCopyElements,
};
inline constexpr std::array<std::string_view, 14> kCallNames = {
    "locate",    "allocate",     "allocate_host", "own_stream",     "is_capturing",       "record",
    "wait",      "has_come",     "synchronise",   "call_when_done", "synchronise_stream", "copy",
    "copy_rows", "copy_elements"};

enum class Failure : std::uint8_t { kDeviceError, kOutOfMemory };

/// What is alive now, and what has been done since the device was made or begin_count().
struct Counts {
  int allocations = 0;       // of device memory, alive
  int pinned = 0;            // host memory of allocate_host(), alive
  int managed = 0;           // alive
  int events = 0;            // alive
  std::int64_t to_host = 0;  // bytes over the bus; likewise
  std::int64_t to_device = 0;
  std::int64_t within = 0;           // bytes copied within the device, without kernels
  std::int64_t kernels = 0;          // copy_elements() that were carried out
  std::int64_t pageable_copies = 0;  // begun with host memory that is not pinned
};

/// Everything of DeviceRuntime as CUDA does it, stricter where CUDA's habits hide mistakes: the
/// default stream waits for no other, and work on it is as late as any.
///
/// What it is given to do must be right: an address that was given back, the end of an allocation,
/// memory of another device, a stream of another device. Where that shows at the call it throws
/// DeviceError; where it shows later, as memory that was freed too early, it is in faults().
class GuardedDevice final : public DeviceRuntime {
 public:
  explicit GuardedDevice(std::int32_t device_type = kDLExtDev, int devices = 2);
  ~GuardedDevice() override;

  // --- DeviceRuntime ----------------------------------------------------------------------------
  [[nodiscard]] std::string_view name() const noexcept override { return "guarded"; }
  [[nodiscard]] DeviceSet types() const noexcept override {
    return DeviceSet::of({device_type_, kDLCUDAHost, kDLCUDAManaged});
  }
  [[nodiscard]] int device_count() noexcept override;
  [[nodiscard]] std::string unavailable() override;
  [[nodiscard]] std::optional<Device> locate(const void* address) override;
  [[nodiscard]] void* allocate(int device, std::size_t bytes, Stream stream) override;
  void free(int device, void* memory, Stream stream) noexcept override;
  [[nodiscard]] void* allocate_host(std::size_t bytes) override;
  void free_host(void* memory) noexcept override;
  [[nodiscard]] Stream own_stream(int device) override;
  [[nodiscard]] bool is_capturing(int device, Stream stream) override;
  [[nodiscard]] Event record(int device, Stream stream) override;
  void wait(int device, Stream stream, Event event) override;
  [[nodiscard]] bool has_come(Event event) override;
  void synchronise(Event event) override;
  void release(Event event) noexcept override;
  void call_when_done(int device, Stream stream, void (*action)(void* context),
                      void* context) override;
  void synchronise(int device, Stream stream) override;
  void copy(int device, void* to, const void* from, std::size_t bytes, Stream stream) override;
  void copy_rows(int device, void* to, std::size_t to_pitch, const void* from,
                 std::size_t from_pitch, std::size_t bytes, std::size_t rows,
                 Stream stream) override;
  void copy_elements(int device, const CopyJob& job, Stream stream) override;

  // --- for tests: memory ------------------------------------------------------------------------

  /// Device memory, past counting and failures, at once; for what a producer has.
  [[nodiscard]] void* make(int device, std::size_t bytes);
  /// Host memory that locate() calls kDLCUDAHost or kDLCUDAManaged.
  [[nodiscard]] void* make_host(MemoryKind kind, std::size_t bytes);
  /// Ends what make() or make_host() gave, at once: poisoned.
  void unmake(void* memory) noexcept;
  /// Writes and reads device memory at once, by way of its open alias.
  void store(void* to, const void* from, std::size_t bytes);
  void load(void* to, const void* from, std::size_t bytes);
  /// Where work on a stream of that device reaches these bytes: device memory by its open alias,
  /// host memory as it is. Throws, and notes a fault, for bytes that are gone.
  [[nodiscard]] std::byte* open(int device, const void* low, std::size_t bytes);

  // --- for tests: order -------------------------------------------------------------------------

  /// The stream that the default handle stands for.
  [[nodiscard]] Stream default_stream(int device) const {
    return defaults_.at(static_cast<std::size_t>(device));
  }
  [[nodiscard]] Stream make_stream(int device);
  /// A producer's work: `bytes` are written to device memory when the stream comes to it.
  void store_later(int device, void* to, std::vector<std::byte> bytes, Stream stream);
  /// Any work of a test's own.
  void enqueue(int device, Stream stream, std::function<void()> work);
  void hold(int device, Stream stream) { streams_.hold(real(device, stream)); }
  void let_go(int device, Stream stream) { streams_.let_go(real(device, stream)); }
  bool run_one(int device, Stream stream) { return streams_.run_one(real(device, stream)); }
  int pending(int device, Stream stream) { return streams_.pending(real(device, stream)); }
  void delay(std::uint32_t seed, int microseconds) { streams_.delay(seed, microseconds); }
  void begin_capture(int device, Stream stream) { streams_.begin_capture(real(device, stream)); }
  /// Whether nothing was tried that a capture forbids.
  [[nodiscard]] bool end_capture(int device, Stream stream) {
    return streams_.end_capture(real(device, stream));
  }
  /// Lets everything go, ends captures and failures, and waits until no stream has work.
  void settle();

  // --- for tests: failures ----------------------------------------------------------------------

  /// The `nth` call from now (1 is the next) of that function, or of any, fails once.
  void fail(std::optional<Call> call, int nth, Failure failure = Failure::kDeviceError);
  /// Whether the failure that was asked for last has happened.
  [[nodiscard]] bool has_failed();
  void stop_failing();
  /// Every call fails, work included, and there are no devices.
  void unplug(bool gone);
  /// The stream's work fails from here on; so says every event after it.
  void fail_work(int device, Stream stream, const std::string& error);

  [[nodiscard]] Counts counts();
  void begin_count();
  /// Calls since begin_count(), failed ones included.
  [[nodiscard]] int calls(Call call);
  /// What was done with memory that was given back, and the like. Empty after a good test.
  [[nodiscard]] std::vector<std::string> faults();

 private:
  // Rows of bytes and how far apart they begin, for copies of either kind.
  struct Rows {
    void* to = nullptr;
    std::size_t to_pitch = 0;
    const void* from = nullptr;
    std::size_t from_pitch = 0;
    std::size_t bytes = 0;
    std::size_t rows = 0;
  };

  void enter(Call call);
  void check(int device) const;
  [[nodiscard]] Stream real(int device, Stream stream) const;
  [[nodiscard]] Stream begin(Call call, int device, Stream stream);
  void check_bytes(int device, const void* low, std::size_t bytes);
  [[nodiscard]] bool on_device(const void* address);
  [[nodiscard]] bool is_pageable(const void* address);
  void copy_rows_on(Stream on, int device, const Rows& rows);
  void count_copy(const void* to, const void* from, std::size_t bytes);
  void fault(const std::string& what) noexcept;

  const std::int32_t device_type_;
  const int devices_;
  const pid_t process_;
  std::mutex mutex_;  // never held while a stream's lock is taken
  Memory memory_;
  Counts counts_;
  std::array<int, kCallNames.size()> calls_{};
  std::vector<std::string> faults_;
  std::atomic<bool> gone_ = false;
  struct {
    std::optional<Call> call;
    int left = 0;  // 0: none is to come
    Failure failure = Failure::kDeviceError;
    bool happened = false;
  } failure_;
  std::vector<Stream> defaults_;
  std::vector<Stream> own_;
  Streams streams_;  // last: its workers end first
};

}  // namespace dlbridge::guarded
