// Threads that work on the same tensors at once. Nothing but the code under test orders what they
// do: ThreadSanitizer (`make tsan`) sees only what is not ordered by a test's own locks.
#pragma once

#include <array>
#include <atomic>
#include <barrier>
#include <cstddef>
#include <random>
#include <thread>
#include <vector>

#include "dlbridge/managed_tensor.hpp"

namespace dlbridge::doubles {

/// Runs body(number) on `count` threads that begin together; returns when all have ended.
template <typename Body>
void on_threads(int count, const Body& body) {
  std::barrier together(count);
  std::vector<std::thread> threads;
  for (int number = 0; number < count; ++number) {
    threads.emplace_back([&together, &body, number] {
      together.arrive_and_wait();
      body(number);
    });
  }
  for (auto& thread : threads) {
    thread.join();
  }
}

/// Numbers below `bound`, the same for one thread in every run.
class Choices {
 public:
  explicit Choices(int thread) : random_(static_cast<unsigned>(thread)) {}
  [[nodiscard]] std::size_t below(std::size_t bound) {
    return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random_);
  }

 private:
  std::mt19937 random_;
};

/// A hundred crossings on each thread, each of one of its own sources, which it drops at the end.
/// Returns how many cross_one(choices, source) called wrong.
template <typename Source, std::size_t Threads, typename CrossOne>
int cross_on_threads(std::array<std::vector<Source>, Threads>& sources, int round,
                     const CrossOne& cross_one) {
  constexpr int kCount = static_cast<int>(Threads);
  std::atomic<int> wrong{0};
  on_threads(kCount, [&](int number) {
    Choices choose(round * kCount + number);
    auto& own = sources[static_cast<std::size_t>(number)];
    for (int i = 0; i < 100; ++i) {
      wrong += cross_one(choose, own[choose.below(own.size())]) ? 0 : 1;
    }
    own.clear();
  });
  return wrong;
}

/// Places where threads leave exports for each other to release.
class Exchange {
 public:
  Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  ~Exchange() {
    for (auto& place : places_) {
      end(place.exchange(nullptr));
    }
  }
  /// Leaves the tensor, or nothing, and releases what another thread left there.
  void leave(std::size_t number, ManagedTensor tensor) {
    DLManagedTensorVersioned* left = tensor ? tensor.release() : nullptr;
    end(places_[number % kPlaces].exchange(left, std::memory_order_acq_rel));
  }

 private:
  static constexpr std::size_t kPlaces = 4;
  static void end(DLManagedTensorVersioned* left) {
    if (left != nullptr) {
      left->deleter(left);
    }
  }
  std::array<std::atomic<DLManagedTensorVersioned*>, kPlaces> places_{};
};

}  // namespace dlbridge::doubles
