#include "device/staging.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <utility>

#include "copy/parallel.hpp"
#include "copy/slices.hpp"
#include "device/pinned_pool.hpp"
#include "dlbridge/threads.hpp"

namespace dlbridge::detail {
namespace {

// What one staging buffer holds at most: a bus moves it in some 40 us, ten times as long as it
// takes to ask for it, and the host's copy of it stays on one thread. Small copies go in smaller
// pieces, down to the least, so that the bus and the processor are at work together there too.
constexpr std::int64_t kStagingBytes = 2 * 1024 * 1024;
constexpr std::int64_t kLeastStagingBytes = 512 * 1024;
// Where host memory lies is asked for copies of this size; smaller ones are faster staged.
constexpr std::int64_t kWorthLookingUp = 64 * 1024;
// Threads that fill or empty staging buffers. More do not make the bus faster.
constexpr int kMostThreads = 12;

/// Everything that a copy between a device and the host knows.
struct Crossing {
  DeviceRuntime& runtime;
  int device;
  Stream stream;
  const FlatJob& whole;
  mutable std::atomic<bool> fits = true;  // of what the host cast

  [[nodiscard]] bool is_pinned(const void* memory) const {
    const auto place = runtime.locate(memory);
    return place && (place->type == kDLCUDAHost || place->type == kDLROCMHost);
  }
};

/// Device memory for the time of a copy, in the order of its stream.
class DeviceScratch {
 public:
  DeviceScratch(const Crossing& crossing, std::int64_t bytes) noexcept
      : crossing_(crossing), bytes_(static_cast<std::size_t>(bytes)) {}
  DeviceScratch(const DeviceScratch&) = delete;
  DeviceScratch& operator=(const DeviceScratch&) = delete;
  ~DeviceScratch() {
    if (memory_ != nullptr) {
      crossing_.runtime.free(crossing_.device, memory_, crossing_.stream);
    }
  }
  /// Allocated when it is first needed.
  void* get() {
    if (memory_ == nullptr) {
      memory_ = crossing_.runtime.allocate(crossing_.device, bytes_, crossing_.stream);
    }
    return memory_;
  }

 private:
  const Crossing& crossing_;
  std::size_t bytes_;
  void* memory_ = nullptr;
};

// Brings a slice of the source, packed and converted, to host memory that the device can write.
void fetch(const Crossing& crossing, const Slice& slice, void* host, DeviceScratch& scratch) {
  DeviceRuntime& runtime = crossing.runtime;
  const auto [device, stream] = std::pair(crossing.device, crossing.stream);
  const auto bytes = static_cast<std::size_t>(slice.bytes);
  const bool plain = crossing.whole.plain();
  if (plain && source_packed(slice.job)) {
    runtime.copy(device, host, slice.job.source, bytes, stream);
  } else if (plain && slice.source_in_rows()) {
    const auto rows = static_cast<std::size_t>(slice.shape[0]);
    const auto pitch = static_cast<std::size_t>(slice.job.source_strides_bytes[0]);
    runtime.copy_rows(device, host, bytes / rows, slice.job.source, pitch, bytes / rows, rows,
                      stream);
  } else {
    runtime.copy_elements(device, slice.into_packed(scratch.get()), stream);
    runtime.copy(device, host, scratch.get(), bytes, stream);
  }
}

/// A staging buffer and what is going through it.
class Lane {
 public:
  Lane(const Crossing& crossing, std::int64_t bytes)
      : crossing_(crossing),
        pool_(PinnedPool::of(crossing.runtime)),
        block_(pool_.take(static_cast<std::size_t>(bytes))),
        scratch_(crossing, bytes) {}
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;
  ~Lane() {
    if (begun_ && block_.busy.handle == nullptr) {
      // Under way without an event to wait for: something failed in between.
      try {
        crossing_.runtime.synchronise(crossing_.device, crossing_.stream);
      } catch (...) {
        return;  // the device may write to the block at any time: lost rather than reused
      }
    }
    pool_.give_back(block_);
  }

  // Device to host.
  void begin_fetch(const Slices& slices, std::int64_t index) {
    slices.cut(index, slice_);
    begun_ = true;
    fetch(crossing_, slice_, block_.memory, scratch_);
  }
  void mark() { block_.busy = crossing_.runtime.record(crossing_.device, crossing_.stream); }
  void wait() {
    if (block_.busy.handle != nullptr) {
      crossing_.runtime.synchronise(block_.busy);
      crossing_.runtime.release(std::exchange(block_.busy, Event{}));
      begun_ = false;
    }
  }
  void wait_for_stream() {
    crossing_.runtime.synchronise(crossing_.device, crossing_.stream);
    begun_ = false;
  }
  void unload() const { copy_elements(slice_.from_packed(block_.memory)); }

  // Host to device.
  void send(const Slices& slices, std::int64_t index) {
    slices.cut(index, slice_);
    wait();
    if (!copy_elements(slice_.into_packed(block_.memory))) {
      crossing_.fits.store(false, std::memory_order_relaxed);
    }
    DeviceRuntime& runtime = crossing_.runtime;
    const auto [device, stream] = std::pair(crossing_.device, crossing_.stream);
    const auto bytes = static_cast<std::size_t>(slice_.bytes);
    begun_ = true;
    if (target_packed(slice_.job)) {
      runtime.copy(device, slice_.job.target, block_.memory, bytes, stream);
    } else {
      void* packed = scratch_.get();
      runtime.copy(device, packed, block_.memory, bytes, stream);
      runtime.copy_elements(device, slice_.from_packed(packed), stream);
    }
    mark();
  }

 private:
  const Crossing& crossing_;
  PinnedPool& pool_;
  PinnedBlock block_;
  DeviceScratch scratch_;
  Slice slice_;
  bool begun_ = false;
};

// What a slice has at most, of pieces of that size: no less than an element.
std::int64_t slice_bytes(const FlatJob& whole, std::int64_t piece) {
  return std::min(whole.bytes(), std::max(piece, std::int64_t{whole.job.target_dtype.itemsize()}));
}

std::int64_t staged_bytes(const FlatJob& whole) {
  return slice_bytes(whole, std::clamp(whole.bytes() / 4, kLeastStagingBytes, kStagingBytes));
}

/// The slices of one copy, taken by several threads until none is left or one fails.
class Crew {
 public:
  Crew(const Crossing& crossing, const Slices& slices) : crossing_(crossing), slices_(slices) {}

  /// What one thread does, from the slice of that index on, with two buffers of its own: one is on
  /// the bus while the processor is at the other.
  using Work = void (*)(Crew& crew, std::int64_t index, Lane& first, Lane& second);

  /// Does it on as many threads as are worth it; throws what the first of them threw.
  void run(Work action) {
    const auto threads = static_cast<int>(std::clamp<std::int64_t>(
        crossing_.whole.bytes() / kStagingBytes, 1, std::min(copy_threads(), kMostThreads)));
    std::pair<Crew*, Work> context{this, action};
    run_in_parallel(
        threads, 1, threads,
        [](void* held, std::int64_t, std::int64_t) {
          const auto& [crew, task] = *static_cast<std::pair<Crew*, Work>*>(held);
          crew->work(task);
        },
        &context);
    if (failure_) {
      std::rethrow_exception(failure_);
    }
  }

  /// The next slice, or a negative number.
  std::int64_t next() {
    const std::int64_t index = next_.fetch_add(1, std::memory_order_relaxed);
    return index < slices_.count() ? index : -1;
  }
  [[nodiscard]] const Slices& slices() const { return slices_; }

 private:
  void work(Work action) noexcept {
    try {
      if (const std::int64_t index = next(); index >= 0) {
        const std::int64_t bytes = staged_bytes(crossing_.whole);
        Lane first(crossing_, bytes);
        Lane second(crossing_, bytes);
        action(*this, index, first, second);
      }
    } catch (...) {
      fail();
    }
  }

  void fail() noexcept {
    next_.store(slices_.count(), std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    if (!failure_) {
      failure_ = std::current_exception();
    }
  }

  const Crossing& crossing_;
  const Slices& slices_;
  std::atomic<std::int64_t> next_ = 0;
  std::mutex mutex_;
  std::exception_ptr failure_;
};

void fetch_slices(Crew& crew, std::int64_t index, Lane& first, Lane& second) {
  Lane* ahead = &first;
  Lane* behind = &second;
  ahead->begin_fetch(crew.slices(), index);
  ahead->mark();
  while ((index = crew.next()) >= 0) {
    std::swap(ahead, behind);
    ahead->begin_fetch(crew.slices(), index);
    ahead->mark();
    behind->wait();
    behind->unload();
  }
  ahead->wait();
  ahead->unload();
}

void send_slices(Crew& crew, std::int64_t index, Lane& first, Lane& second) {
  Lane* lane = &first;
  for (; index >= 0; index = crew.next()) {
    lane->send(crew.slices(), index);
    lane = lane == &first ? &second : &first;
  }
}

// Straight into a packed target that the device itself can write.
void fetch_directly(const Crossing& crossing) {
  const FlatJob& whole = crossing.whole;
  Slice slice;
  const Slices at_once(whole, whole.bytes());
  at_once.cut(0, slice);
  if (whole.plain() && (source_packed(slice.job) || slice.source_in_rows())) {
    DeviceScratch unused(crossing, 0);
    fetch(crossing, slice, slice.job.target, unused);
    return;
  }
  const std::int64_t most = slice_bytes(whole, kStagingBytes);
  DeviceScratch scratch(crossing, most);
  const Slices slices(whole, most);
  for (std::int64_t index = 0; index < slices.count(); ++index) {
    slices.cut(index, slice);
    fetch(crossing, slice, slice.job.target, scratch);
  }
}

}  // namespace

void order(DeviceRuntime& runtime, int device_before, Stream before, int device_after,
           Stream after) {
  if (device_before == device_after && before == after) {
    return;
  }
  const OwnedEvent reached(runtime, runtime.record(device_before, before));
  runtime.wait(device_after, after, reached.event);
}

void copy_to_host(DeviceRuntime& runtime, int device, const CopyJob& job, Stream stream) {
  const FlatJob whole(job);
  const Crossing crossing{runtime, device, stream, whole};
  if (target_packed(whole.job) && whole.bytes() >= kWorthLookingUp &&
      crossing.is_pinned(whole.job.target)) {
    or_wait(runtime, device, stream, [&] {
      fetch_directly(crossing);
      runtime.synchronise(device, stream);
    });
    return;
  }
  const Slices slices(whole, staged_bytes(whole));
  if (slices.count() == 1) {
    Lane lane(crossing, staged_bytes(whole));
    lane.begin_fetch(slices, 0);
    lane.wait_for_stream();
    lane.unload();
    return;
  }
  or_wait(runtime, device, stream, [&] { Crew(crossing, slices).run(fetch_slices); });
}

Event begin_copy_to_host(DeviceRuntime& runtime, int device, const CopyJob& job, Stream stream) {
  const FlatJob whole(job);
  const Crossing crossing{runtime, device, stream, whole};
  Event filled;
  or_wait(runtime, device, stream, [&] {
    fetch_directly(crossing);
    filled = runtime.record(device, stream);
  });
  return filled;
}

bool copy_to_device(DeviceRuntime& runtime, int device, const CopyJob& job, Stream stream) {
  const FlatJob whole(job);
  const Crossing crossing{runtime, device, stream, whole};
  if (whole.plain() && source_packed(whole.job) && target_packed(whole.job) &&
      whole.bytes() >= kWorthLookingUp && crossing.is_pinned(whole.job.source)) {
    or_wait(runtime, device, stream, [&] {
      runtime.copy(device, whole.job.target, whole.job.source,
                   static_cast<std::size_t>(whole.bytes()), stream);
      // The caller may write to the source as soon as this returns.
      runtime.synchronise(device, stream);
    });
    return true;
  }
  const Slices slices(whole, staged_bytes(whole));
  if (slices.count() == 1) {
    Lane lane(crossing, staged_bytes(whole));
    lane.send(slices, 0);
    return crossing.fits;
  }
  or_wait(runtime, device, stream, [&] { Crew(crossing, slices).run(send_slices); });
  return crossing.fits;
}

}  // namespace dlbridge::detail
