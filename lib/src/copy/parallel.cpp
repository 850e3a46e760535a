#include "copy/parallel.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <thread>

#include "dlbridge/threads.hpp"
#include "memory/found.hpp"

#ifdef __linux__
#include <sched.h>
#endif

namespace dlbridge {
namespace {

// The helpers live in an array on the stack. Far fewer fill any machine's memory bandwidth.
constexpr int kMaxThreads = 64;

int from_environment(const char* name) {
  const char* text = std::getenv(name);
  // OMP_NUM_THREADS may be a list by nesting level: strtol stops at its first comma.
  return text == nullptr ? 0
                         : static_cast<int>(std::clamp(std::strtol(text, nullptr, 10), 0L, 1024L));
}

int processors() {
#ifdef __linux__
  // hardware_concurrency() counts the machine's processors, also those that taskset or a container
  // keeps us from.
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    return CPU_COUNT(&allowed);
  }
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

int initial_threads() {
  for (const char* name : {"DLBRIDGE_NUM_THREADS", "OMP_NUM_THREADS"}) {
    if (const int count = from_environment(name); count > 0) {
      return count;
    }
  }
  return std::max(1, processors());
}

std::atomic<int> chosen_threads = 0;

}  // namespace

int copy_threads() noexcept {
  const int chosen = chosen_threads.load(std::memory_order_relaxed);
  if (chosen > 0) {
    return chosen;
  }
  return static_cast<int>(detail::found<initial_threads>());
}

void set_copy_threads(int count) noexcept {
  chosen_threads.store(count, std::memory_order_relaxed);
}

namespace detail {

void run_in_parallel(std::int64_t count, std::int64_t grain, int threads,
                     void (*work)(void* context, std::int64_t begin, std::int64_t end),
                     void* context) noexcept {
  std::atomic<std::int64_t> next = 0;
  const auto take_pieces = [&]() noexcept {
    for (;;) {
      const std::int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) {
        return;
      }
      work(context, begin, std::min(begin + grain, count));
    }
  };
  const std::int64_t pieces = (count + grain - 1) / grain;
  const auto helpers = static_cast<std::size_t>(
      std::clamp<std::int64_t>(std::min<std::int64_t>(threads, pieces) - 1, 0, kMaxThreads - 1));
  std::array<std::thread, kMaxThreads - 1> helper;
  for (std::size_t i = 0; i < helpers; ++i) {
    try {
      helper[i] = std::thread(take_pieces);
    } catch (...) {
      break;  // no thread or no memory for one: those that run take its pieces
    }
  }
  take_pieces();
  for (std::size_t i = 0; i < helpers; ++i) {
    if (helper[i].joinable()) {
      helper[i].join();
    }
  }
}

}  // namespace detail
}  // namespace dlbridge
