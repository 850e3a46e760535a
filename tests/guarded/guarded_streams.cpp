#include "guarded/guarded_streams.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace dlbridge::guarded {

namespace {
constexpr auto kPatience = std::chrono::seconds(60);
}  // namespace

Streams::~Streams() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  for (auto& queue : queues_) {
    if (queue->worker.joinable()) {
      queue->worker.join();
    }
  }
}

Stream Streams::make(int device) {
  const std::lock_guard lock(mutex_);
  queues_.push_back(std::make_unique<Queue>());
  queues_.back()->device = device;
  return Stream{queues_.back().get()};
}

void Streams::check(int device, Stream stream) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(queues_.begin(), queues_.end(),
                                  [&](const auto& queue) { return queue.get() == stream.handle; });
  if (found == queues_.end()) {
    throw DeviceError("guarded device: no such stream");
  }
  if ((*found)->device != device) {
    throw DeviceError("guarded device: a stream of device " + std::to_string((*found)->device) +
                      " used on device " + std::to_string(device));
  }
}

void Streams::push(Stream stream, Work work) {
  {
    const std::lock_guard lock(mutex_);
    Queue& into = queue(stream);
    if (into.capturing) {
      if (work.comes) {
        work.comes->captured = true;
      }
      return;  // recorded, which is to say: not done
    }
    if (!into.worker.joinable()) {
      into.worker = std::thread([this, &into] { serve(into); });
    }
    into.work.push_back(std::move(work));
  }
  changed_.notify_all();
}

void Streams::enqueue(Stream stream, std::function<void()> work) {
  push(stream, Work{.run = std::move(work)});
}

void Streams::enqueue_always(Stream stream, std::function<void()> work) {
  push(stream, Work{.run = std::move(work), .always = true});
}

std::shared_ptr<Point> Streams::record(Stream stream) {
  auto point = std::make_shared<Point>();
  push(stream, Work{.comes = point});
  return point;
}

void Streams::wait(Stream stream, std::shared_ptr<Point> point) {
  {
    const std::lock_guard lock(mutex_);
    Queue& waiting = queue(stream);
    if (point->captured) {
      waiting.capturing = true;  // it joins the capture, as CUDA's do
      return;
    }
    if (waiting.capturing) {
      waiting.broken = true;
      throw DeviceError("guarded device: a capture waits for work outside of it");
    }
  }
  push(stream, Work{.until = std::move(point)});
}

bool Streams::ready(const Queue& queue) {
  return !queue.work.empty() && !queue.running &&
         (queue.work.front().until == nullptr || queue.work.front().until->come);
}

void Streams::do_one(Queue& queue, std::unique_lock<std::mutex>& lock) {
  Work work = std::move(queue.work.front());
  queue.work.pop_front();
  if (work.until && !work.until->error.empty()) {
    queue.error = work.until->error;
  }
  if (work.run) {
    queue.running = true;
    const bool does = queue.error.empty() || work.always;
    const auto pause =
        longest_delay_ == 0 ? 0 : std::uniform_int_distribution<int>(0, longest_delay_)(random_);
    lock.unlock();
    std::string error;
    try {
      std::this_thread::sleep_for(std::chrono::microseconds(pause));
      if (does) {
        work.run();
      }
    } catch (const std::exception& failed) {
      error = failed.what();
    }
    work.run = nullptr;  // what it holds ends before anybody hears that it is done
    lock.lock();
    queue.running = false;
    if (!error.empty()) {
      queue.error = error;
    }
  }
  if (work.comes) {
    work.comes->come = true;
    work.comes->error = queue.error;
  }
  changed_.notify_all();
}

void Streams::serve(Queue& queue) {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return ending_ || (!queue.held && ready(queue)); });
    if (ending_) {
      return;
    }
    do_one(queue, lock);
  }
}

template <typename Condition>
void Streams::wait_until(std::unique_lock<std::mutex>& lock, const char* what,
                         Condition condition) {
  if (!changed_.wait_for(lock, kPatience, condition)) {
    throw DeviceError(std::string("guarded device: gave up waiting for ") + what);
  }
}

bool Streams::has_come(const Point& point) {
  const std::lock_guard lock(mutex_);
  if (point.come && !point.error.empty()) {
    throw DeviceError(point.error);
  }
  return point.come;
}

void Streams::synchronise(const Point& point) {
  std::unique_lock lock(mutex_);
  wait_until(lock, "an event", [&] { return point.come; });
  if (!point.error.empty()) {
    throw DeviceError(point.error);
  }
}

void Streams::synchronise(Stream stream) {
  const auto point = record(stream);
  synchronise(*point);
}

void Streams::hold(Stream stream) {
  std::unique_lock lock(mutex_);
  queue(stream).held = true;
  wait_until(lock, "a stream's present work", [&] { return !queue(stream).running; });
}

void Streams::let_go(Stream stream) {
  {
    const std::lock_guard lock(mutex_);
    queue(stream).held = false;
  }
  changed_.notify_all();
}

bool Streams::run_one(Stream stream) {
  std::unique_lock lock(mutex_);
  Queue& one = queue(stream);
  if (!one.held || !ready(one)) {
    return false;
  }
  do_one(one, lock);
  return true;
}

int Streams::pending(Stream stream) {
  const std::lock_guard lock(mutex_);
  const Queue& of = queue(stream);
  return static_cast<int>(of.work.size()) + (of.running ? 1 : 0);
}

void Streams::delay(std::uint32_t seed, int microseconds) {
  const std::lock_guard lock(mutex_);
  random_.seed(seed);
  longest_delay_ = microseconds;
}

void Streams::settle() {
  std::unique_lock lock(mutex_);
  for (auto& queue : queues_) {
    queue->held = false;
    queue->capturing = false;
  }
  changed_.notify_all();
  wait_until(lock, "all streams", [&] {
    return std::all_of(queues_.begin(), queues_.end(),
                       [](const auto& queue) { return queue->work.empty() && !queue->running; });
  });
  for (auto& queue : queues_) {
    queue->error.clear();
  }
}

void Streams::begin_capture(Stream stream) {
  const std::lock_guard lock(mutex_);
  queue(stream).capturing = true;
  queue(stream).broken = false;
}

bool Streams::end_capture(Stream stream) {
  const std::lock_guard lock(mutex_);
  queue(stream).capturing = false;
  return !queue(stream).broken;
}

bool Streams::is_capturing(Stream stream) {
  const std::lock_guard lock(mutex_);
  return queue(stream).capturing;
}

void Streams::forbid_in_capture(Stream stream, const char* call) {
  const std::lock_guard lock(mutex_);
  if (queue(stream).capturing) {
    queue(stream).broken = true;
    throw DeviceError(std::string("guarded device: ") + call + " of a stream that is capturing");
  }
}

void Streams::forbid_captured(const Point& point, const char* call) {
  const std::lock_guard lock(mutex_);
  if (point.captured) {
    break_captures();
    throw DeviceError(std::string("guarded device: ") + call + " of an event in a capture");
  }
}

void Streams::break_captures() {
  for (auto& queue : queues_) {
    queue->broken = queue->capturing;
  }
}

}  // namespace dlbridge::guarded
