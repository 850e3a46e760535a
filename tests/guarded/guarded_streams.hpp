// Streams that are real queues: what is begun on one has visibly not happened until its turn comes.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "dlbridge/device_runtime.hpp"

namespace dlbridge::guarded {

/// A point in a stream's work. Guarded by the streams' lock.
struct Point {
  bool come = false;
  bool captured = false;  // recorded in a capture: it never comes
  std::string error;      // what the work before it failed with
};

/// The streams of a device and their workers, one thread each.
///
/// Thread-safe, and nothing of the caller's runs under the lock. What waits gives up after a
/// minute with a DeviceError: a test that held a stream and waited for it fails instead of hanging.
class Streams {
 public:
  Streams() = default;
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;
  ~Streams();

  [[nodiscard]] Stream make(int device);

  /// Throws DeviceError for what is no stream of that device.
  void check(int device, Stream stream);

  /// Begins `work`; what it throws is the stream's error from then on.
  void enqueue(Stream stream, std::function<void()> work);
  /// The same for what is done also after an error: to give back memory, to run an action.
  void enqueue_always(Stream stream, std::function<void()> work);
  [[nodiscard]] std::shared_ptr<Point> record(Stream stream);
  void wait(Stream stream, std::shared_ptr<Point> point);

  [[nodiscard]] bool has_come(const Point& point);
  void synchronise(const Point& point);
  void synchronise(Stream stream);

  // --- for tests --------------------------------------------------------------------------------

  /// Stops a stream before its next piece of work, once the present one is done.
  void hold(Stream stream);
  void let_go(Stream stream);
  /// Does the next piece of work of a held stream on the calling thread. False where there is none,
  /// or where it waits for a point that has not come.
  bool run_one(Stream stream);
  /// Pieces of work that have not begun, or are not done.
  [[nodiscard]] int pending(Stream stream);
  /// From now on every piece of work of every stream begins after a random time up to
  /// `microseconds`; 0 for none.
  void delay(std::uint32_t seed, int microseconds);
  /// Lets all streams go and waits until none has work.
  void settle();

  /// Records what is begun instead of doing it, until end_capture(); that says whether nothing was
  /// tried meanwhile that a capture forbids.
  void begin_capture(Stream stream);
  [[nodiscard]] bool end_capture(Stream stream);
  [[nodiscard]] bool is_capturing(Stream stream);
  /// Marks a capture broken and throws, where the stream is capturing.
  void forbid_in_capture(Stream stream, const char* call);
  void forbid_captured(const Point& point, const char* call);

 private:
  struct Work {
    std::function<void()> run = nullptr;
    std::shared_ptr<Point> until = nullptr;  // waited for
    std::shared_ptr<Point> comes = nullptr;  // comes with it
    bool always = false;
  };
  struct Queue {
    int device = 0;
    std::deque<Work> work;
    bool held = false;
    bool running = false;
    bool capturing = false;
    bool broken = false;
    std::string error;
    std::thread worker;
  };

  static Queue& queue(Stream stream) { return *static_cast<Queue*>(stream.handle); }
  void push(Stream stream, Work work);
  void serve(Queue& queue);
  [[nodiscard]] static bool ready(const Queue& queue);
  void do_one(Queue& queue, std::unique_lock<std::mutex>& lock);
  template <typename Condition>
  void wait_until(std::unique_lock<std::mutex>& lock, const char* what, Condition condition);
  void break_captures();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Queue>> queues_;
  bool ending_ = false;
  std::mt19937 random_;
  int longest_delay_ = 0;
};

}  // namespace dlbridge::guarded
