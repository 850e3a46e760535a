#include "guarded/guarded_device.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "dlbridge/managed_tensor.hpp"

namespace dlbridge::guarded {
namespace {

std::shared_ptr<Point>& point_of(Event event) {
  return *static_cast<std::shared_ptr<Point>*>(event.handle);
}

// The first byte that a walk over the shape reaches, and how many there are up to the last.
struct Extent {
  const std::byte* low = nullptr;
  std::size_t bytes = 0;
};
Extent extent(const CopyJob& job, const void* data, const std::int64_t* strides, DType dtype) {
  std::int64_t below = 0;
  std::int64_t above = dtype.itemsize();
  for (std::int32_t i = 0; i < job.ndim; ++i) {
    if (job.shape[i] == 0) {
      return {};
    }
    const std::int64_t reach = (job.shape[i] - 1) * strides[i];
    (reach < 0 ? below : above) += reach;
  }
  return {static_cast<const std::byte*>(data) + below, static_cast<std::size_t>(above - below)};
}

}  // namespace

GuardedDevice::GuardedDevice(std::int32_t device_type, int devices)
    : device_type_(device_type), devices_(devices), process_(getpid()), memory_(devices) {
  for (int i = 0; i < devices; ++i) {
    defaults_.push_back(streams_.make(i));
    own_.push_back(streams_.make(i));
  }
}

GuardedDevice::~GuardedDevice() = default;

// --- what every call begins with
// ------------------------------------------------------------------

void GuardedDevice::enter(Call call) {
  // Before the lock: in a forked process nobody may be left to unlock it.
  if (getpid() != process_) {
    throw DeviceError("guarded device: this process was forked from the one that opened it");
  }
  const std::lock_guard lock(mutex_);
  ++calls_.at(static_cast<std::size_t>(call));
  const std::string name(kCallNames.at(static_cast<std::size_t>(call)));
  if (gone_) {
    throw DeviceError("guarded device: " + name + " failed: the device is gone");
  }
  if (failure_.left > 0 && failure_.call.value_or(call) == call && --failure_.left == 0) {
    failure_.happened = true;
    if (failure_.failure == Failure::kOutOfMemory) {
      throw std::bad_alloc();
    }
    throw DeviceError("guarded device: " + name + " failed, as it was told to");
  }
}

void GuardedDevice::check(int device) const {
  if (device < 0 || device >= devices_) {
    throw DeviceError("guarded device: there is no device " + std::to_string(device));
  }
}

Stream GuardedDevice::real(int device, Stream stream) const {
  return stream == Stream{} ? defaults_.at(static_cast<std::size_t>(device)) : stream;
}

Stream GuardedDevice::begin(Call call, int device, Stream stream) {
  enter(call);
  check(device);
  const Stream found = real(device, stream);
  streams_.check(device, found);
  return found;
}

void GuardedDevice::fault(const std::string& what) noexcept {
  const std::lock_guard lock(mutex_);
  faults_.push_back(what);
}

int GuardedDevice::device_count() noexcept {
  return getpid() != process_ || gone_ ? 0 : devices_;
}

std::string GuardedDevice::unavailable() {
  if (getpid() != process_) {
    return "this process was forked from the one that opened it";
  }
  return gone_ ? "the device is gone" : "";
}

// --- memory
// ---------------------------------------------------------------------------------------

std::optional<Device> GuardedDevice::locate(const void* address) {
  enter(Call::kLocate);
  const std::lock_guard lock(mutex_);
  const Block* block = memory_.find(address);
  if (block == nullptr || block->given_back) {
    return std::nullopt;
  }
  switch (block->kind) {
    case MemoryKind::kDevice:
      return Device(device_type_, block->device);
    case MemoryKind::kPinned:
      return Device(kDLCUDAHost, 0);
    case MemoryKind::kManaged:
      break;
  }
  return Device(kDLCUDAManaged, 0);
}

void* GuardedDevice::allocate(int device, std::size_t bytes, Stream stream) {
  (void)begin(Call::kAllocate, device, stream);
  const std::lock_guard lock(mutex_);
  return memory_.allocate(MemoryKind::kDevice, device, bytes);
}

void GuardedDevice::free(int device, void* memory, Stream stream) noexcept {
  if (memory == nullptr || getpid() != process_) {
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    const Block* block = memory_.give_back(memory);
    if (block == nullptr || block->kind != MemoryKind::kDevice || block->device != device) {
      faults_.emplace_back("free() of what is no memory of that device, or was freed before");
      return;
    }
  }
  streams_.enqueue_always(real(device, stream), [this, memory] {
    const std::lock_guard lock(mutex_);
    memory_.end(memory);
  });
}

void* GuardedDevice::allocate_host(std::size_t bytes) {
  enter(Call::kAllocateHost);
  const std::lock_guard lock(mutex_);
  return memory_.allocate(MemoryKind::kPinned, 0, bytes);
}

void GuardedDevice::free_host(void* memory) noexcept {
  if (memory == nullptr || getpid() != process_) {
    return;
  }
  const std::lock_guard lock(mutex_);
  const Block* block = memory_.give_back(memory);
  if (block == nullptr || block->kind != MemoryKind::kPinned) {
    faults_.emplace_back("free_host() of what is no pinned memory, or was freed before");
    return;
  }
  memory_.end(memory);
}

// --- order
// ----------------------------------------------------------------------------------------

Stream GuardedDevice::own_stream(int device) {
  enter(Call::kOwnStream);
  check(device);
  return own_.at(static_cast<std::size_t>(device));
}

bool GuardedDevice::is_capturing(int device, Stream stream) {
  return streams_.is_capturing(begin(Call::kIsCapturing, device, stream));
}

Event GuardedDevice::record(int device, Stream stream) {
  const Stream on = begin(Call::kRecord, device, stream);
  auto event = std::make_unique<std::shared_ptr<Point>>(streams_.record(on));
  const std::lock_guard lock(mutex_);
  ++counts_.events;
  return Event{event.release()};
}

void GuardedDevice::wait(int device, Stream stream, Event event) {
  streams_.wait(begin(Call::kWait, device, stream), point_of(event));
}

bool GuardedDevice::has_come(Event event) {
  enter(Call::kHasCome);
  streams_.forbid_captured(*point_of(event), "has_come()");
  return streams_.has_come(*point_of(event));
}

void GuardedDevice::synchronise(Event event) {
  enter(Call::kSynchroniseEvent);
  streams_.forbid_captured(*point_of(event), "synchronise()");
  streams_.synchronise(*point_of(event));
}

void GuardedDevice::release(Event event) noexcept {
  if (getpid() != process_) {
    return;
  }
  const std::unique_ptr<std::shared_ptr<Point>> ended(&point_of(event));
  const std::lock_guard lock(mutex_);
  --counts_.events;
}

void GuardedDevice::call_when_done(int device, Stream stream, void (*action)(void* context),
                                   void* context) {
  const Stream on = begin(Call::kCallWhenDone, device, stream);
  streams_.forbid_in_capture(on, "call_when_done()");
  streams_.enqueue_always(on, [action, context] { action(context); });
}

void GuardedDevice::synchronise(int device, Stream stream) {
  const Stream on = begin(Call::kSynchroniseStream, device, stream);
  streams_.forbid_in_capture(on, "synchronise()");
  streams_.synchronise(on);
}

// --- copies
// ---------------------------------------------------------------------------------------

bool GuardedDevice::on_device(const void* address) {
  const std::lock_guard lock(mutex_);
  const Block* block = memory_.find(address);
  return block != nullptr && block->kind == MemoryKind::kDevice;
}

// Throws where work on these bytes may not even begin.
void GuardedDevice::check_bytes(int device, const void* low, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  try {
    (void)memory_.open(device, low, bytes);
    const Block* block = memory_.find(low);
    if (block != nullptr && block->given_back) {
      throw std::out_of_range("memory that was given back");
    }
  } catch (const std::out_of_range& wrong) {
    faults_.push_back(std::string("a copy was begun with ") + wrong.what());
    throw DeviceError(std::string("guarded device: invalid value: ") + wrong.what());
  }
}

// When work comes to its memory: what is wrong now cannot be told to anybody but the test.
std::byte* GuardedDevice::open(int device, const void* low, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  try {
    return memory_.open(device, low, bytes);
  } catch (const std::out_of_range& wrong) {
    faults_.push_back(std::string("work came late to ") + wrong.what());
    throw;
  }
}

void GuardedDevice::count_copy(const void* to, const void* from, std::size_t bytes) {
  const bool from_device = on_device(from);
  const bool to_device = on_device(to);
  const std::lock_guard lock(mutex_);
  auto& count = from_device && to_device ? counts_.within
                : from_device            ? counts_.to_host
                                         : counts_.to_device;
  count += static_cast<std::int64_t>(bytes);
}

void GuardedDevice::copy(int device, void* to, const void* from, std::size_t bytes, Stream stream) {
  copy_rows_on(begin(Call::kCopy, device, stream), device, {to, bytes, from, bytes, bytes, 1});
}

void GuardedDevice::copy_rows(int device, void* to, std::size_t to_pitch, const void* from,
                              std::size_t from_pitch, std::size_t bytes, std::size_t rows,
                              Stream stream) {
  const Stream on = begin(Call::kCopyRows, device, stream);
  if (to_pitch < bytes || from_pitch < bytes) {
    throw DeviceError("guarded device: invalid value: rows that overlap");
  }
  copy_rows_on(on, device, {to, to_pitch, from, from_pitch, bytes, rows});
}

void GuardedDevice::copy_rows_on(Stream on, int device, const Rows& rows) {
  if (rows.bytes == 0 || rows.rows == 0) {
    return;
  }
  const std::size_t from_bytes = (rows.rows - 1) * rows.from_pitch + rows.bytes;
  const std::size_t to_bytes = (rows.rows - 1) * rows.to_pitch + rows.bytes;
  check_bytes(device, rows.from, from_bytes);
  check_bytes(device, rows.to, to_bytes);
  if (!on_device(rows.from) && !on_device(rows.to)) {
    fault("a copy was begun from host memory to host memory");
    throw DeviceError("guarded device: invalid value: neither side is on the device");
  }
  // Pageable memory as CUDA treats it: read before the call returns, and written before it.
  Rows now = rows;
  std::shared_ptr<std::vector<std::byte>> staged;
  const bool reads_pageable = is_pageable(rows.from);
  const bool writes_pageable = is_pageable(rows.to);
  if (reads_pageable || writes_pageable) {
    const std::lock_guard lock(mutex_);
    ++counts_.pageable_copies;
  }
  if (reads_pageable) {
    const auto* first = static_cast<const std::byte*>(rows.from);
    staged = std::make_shared<std::vector<std::byte>>(first, first + from_bytes);
    now.from = staged->data();
  }
  if (writes_pageable) {
    streams_.forbid_in_capture(on, "a copy into pageable memory");
  }
  streams_.enqueue(on, [this, device, now, from_bytes, to_bytes, staged] {
    const std::byte* from = open(device, now.from, from_bytes);
    std::byte* to = open(device, now.to, to_bytes);
    for (std::size_t i = 0; i < now.rows; ++i) {
      std::memmove(to + i * now.to_pitch, from + i * now.from_pitch, now.bytes);
    }
    count_copy(now.to, now.from, now.bytes * now.rows);
  });
  if (writes_pageable) {
    streams_.synchronise(on);
  }
}

bool GuardedDevice::is_pageable(const void* address) {
  const std::lock_guard lock(mutex_);
  return memory_.find(address) == nullptr;
}

void GuardedDevice::copy_elements(int device, const CopyJob& job, Stream stream) {
  const Stream on = begin(Call::kCopyElements, device, stream);
  const Extent source = extent(job, job.source, job.source_strides_bytes, job.source_dtype);
  const Extent target = extent(job, job.target, job.target_strides_bytes, job.target_dtype);
  if (source.bytes == 0) {
    return;
  }
  check_bytes(device, source.low, source.bytes);
  check_bytes(device, target.low, target.bytes);
  if (!on_device(job.source) || !on_device(job.target)) {
    fault("copy_elements() was begun with memory that is not on the device");
    throw DeviceError("guarded device: invalid value: copy_elements() with host memory");
  }
  struct Owned {
    CopyJob job;
    std::vector<std::int64_t> numbers;
  };
  const auto ndim = static_cast<std::size_t>(job.ndim);
  const auto owned = std::make_shared<Owned>(Owned{job, {}});
  for (const auto* numbers : {job.shape, job.source_strides_bytes, job.target_strides_bytes}) {
    owned->numbers.insert(owned->numbers.end(), numbers, numbers + ndim);
  }
  owned->job.shape = owned->numbers.data();
  owned->job.source_strides_bytes = owned->numbers.data() + ndim;
  owned->job.target_strides_bytes = owned->numbers.data() + 2 * ndim;
  streams_.enqueue(on, [this, device, owned, source, target] {
    const std::byte* from = open(device, source.low, source.bytes);
    std::byte* to = open(device, target.low, target.bytes);
    CopyJob opened = owned->job;
    opened.source = from + (static_cast<const std::byte*>(owned->job.source) - source.low);
    opened.target = to + (static_cast<const std::byte*>(owned->job.target) - target.low);
    dlbridge::copy_elements(opened);
    const std::lock_guard lock(mutex_);
    ++counts_.kernels;
  });
}

// --- for tests
// ------------------------------------------------------------------------------------

void* GuardedDevice::make(int device, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  return memory_.allocate(MemoryKind::kDevice, device, bytes);
}

void* GuardedDevice::make_host(MemoryKind kind, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  return memory_.allocate(kind, 0, bytes);
}

void GuardedDevice::unmake(void* memory) noexcept {
  const std::lock_guard lock(mutex_);
  if (memory != nullptr && memory_.give_back(memory) == nullptr) {
    faults_.emplace_back("memory of a test was freed by somebody else");
    return;
  }
  memory_.end(memory);
}

void GuardedDevice::store(void* to, const void* from, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const Block* block = memory_.find(to);
  if (bytes != 0) {
    std::memcpy(memory_.open(block == nullptr ? 0 : block->device, to, bytes), from, bytes);
  }
}

void GuardedDevice::load(void* to, const void* from, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const Block* block = memory_.find(from);
  if (bytes != 0) {
    std::memcpy(to, memory_.open(block == nullptr ? 0 : block->device, from, bytes), bytes);
  }
}

Stream GuardedDevice::make_stream(int device) {
  check(device);
  return streams_.make(device);
}

void GuardedDevice::store_later(int device, void* to, std::vector<std::byte> bytes, Stream stream) {
  enqueue(device, stream, [this, device, to, held = std::move(bytes)] {
    if (!held.empty()) {
      std::memcpy(open(device, to, held.size()), held.data(), held.size());
    }
  });
}

void GuardedDevice::enqueue(int device, Stream stream, std::function<void()> work) {
  streams_.enqueue(real(device, stream), std::move(work));
}

void GuardedDevice::settle() {
  {
    const std::lock_guard lock(mutex_);
    failure_.left = 0;
    gone_ = false;
  }
  streams_.delay(0, 0);
  streams_.settle();
  const std::lock_guard lock(mutex_);
  memory_.end_given_back();
}

void GuardedDevice::fail(std::optional<Call> call, int nth, Failure failure) {
  const std::lock_guard lock(mutex_);
  failure_.call = call;
  failure_.left = nth;
  failure_.failure = failure;
  failure_.happened = false;
}

bool GuardedDevice::has_failed() {
  const std::lock_guard lock(mutex_);
  return failure_.happened;
}

void GuardedDevice::stop_failing() {
  const std::lock_guard lock(mutex_);
  failure_.left = 0;
}

void GuardedDevice::unplug(bool gone) {
  gone_ = gone;
}

void GuardedDevice::fail_work(int device, Stream stream, const std::string& error) {
  enqueue(device, stream, [error] { throw DeviceError(error); });
}

Counts GuardedDevice::counts() {
  const std::lock_guard lock(mutex_);
  Counts counts = counts_;
  counts.allocations = memory_.live(MemoryKind::kDevice);
  counts.pinned = memory_.live(MemoryKind::kPinned);
  counts.managed = memory_.live(MemoryKind::kManaged);
  return counts;
}

void GuardedDevice::begin_count() {
  const std::lock_guard lock(mutex_);
  counts_ = Counts{.events = counts_.events};
  calls_ = {};
}

int GuardedDevice::calls(Call call) {
  const std::lock_guard lock(mutex_);
  return calls_.at(static_cast<std::size_t>(call));
}

std::vector<std::string> GuardedDevice::faults() {
  const std::lock_guard lock(mutex_);
  return std::exchange(faults_, {});
}

}  // namespace dlbridge::guarded
