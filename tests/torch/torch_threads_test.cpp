// Law 4: views and exports of torch's tensors on many threads at once.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <barrier>
#include <thread>
#include <utility>
#include <vector>

#include "lib/sixteen_threads.hpp"
#include "torch/torch_doubles.hpp"

namespace dlbridge {
namespace {

using doubles::Choices;
using doubles::CountedMemory;
using doubles::cross_on_threads;
using doubles::Exchange;
using doubles::on_threads;
using doubles::values_of;
using doubles::view_of;

TEST(TorchThreads, a_view_ends_on_another_thread) {
  CountedMemory memory;
  at::Tensor tensor = memory.tensor();
  ManagedTensor view = view_of(tensor);
  tensor.reset();
  std::thread([moved = std::move(view)]() mutable { moved = ManagedTensor(); }).join();
  EXPECT_EQ(memory.freed(), 1);
}

TEST(TorchThreads, a_delivered_tensor_ends_on_another_thread) {
  doubles::Versioned producer;
  at::Tensor tensor = Torch::deliver(ManagedTensor::adopt(&producer.managed));
  std::thread([moved = std::move(tensor)]() mutable { moved.reset(); }).join();
  EXPECT_EQ(producer.deleted(), 1);
  EXPECT_NE(producer.deleted_on(), std::this_thread::get_id());
}

TEST(TorchThreads, eight_of_them_make_the_first_views_of_one_storage) {
  constexpr int kThreads = 8;
  for (int round = 0; round < 100; ++round) {
    CountedMemory memory;
    at::Tensor tensor = memory.tensor();
    std::barrier together(kThreads);
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&together, &right, tensor] {
        together.arrive_and_wait();
        const ManagedTensor view = view_of(tensor);
        right += static_cast<const float*>(view.data())[5] == 5.0F ? 1 : 0;
      });
    }
    for (auto& thread : threads) {
      thread.join();
    }
    ASSERT_EQ(right.load(), kThreads);
    ASSERT_EQ(memory.freed(), 0);
    tensor.reset();
    ASSERT_EQ(memory.freed(), 1);
  }
}

// The first view ends the copy on write, and only once.
TEST(TorchThreads, sixteen_of_them_make_the_first_views_of_a_lazy_clone) {
  for (int round = 0; round < 100; ++round) {
    const at::Tensor original = at::arange(2000, at::kFloat);
    const at::Tensor lazy = original._lazy_clone();
    std::array<const void*, 16> seen{};
    on_threads(16, [&](int number) {
      const ManagedTensor view = view_of(lazy);
      seen[static_cast<std::size_t>(number)] = view.data();
      EXPECT_EQ(static_cast<const float*>(view.data())[1999], 1999.0F);
    });
    EXPECT_THAT(seen, ::testing::Each(lazy.const_data_ptr()));
    EXPECT_NE(lazy.const_data_ptr(), original.const_data_ptr());
    EXPECT_EQ(original[5].item<float>(), 5.0F);
  }
}

TEST(TorchThreads, eight_of_them_cross_one_tensor_again_and_again) {
  constexpr int kThreads = 8;
  CountedMemory memory;
  at::Tensor tensor = memory.tensor();
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&wrong, tensor] {
      for (int crossing = 0; crossing < 500; ++crossing) {
        const at::Tensor other = convert<Torch, Torch>(tensor);
        const ManagedTensor view = view_of(other);
        wrong += static_cast<const float*>(view.data())[5] == 5.0F ? 0 : 1;
      }
    });
  }
  tensor.reset();
  for (auto& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(memory.freed(), 1);
}

TEST(TorchThreads, read_a_tensor_while_another_makes_its_first_view) {
  for (int round = 0; round < 100; ++round) {
    CountedMemory memory;
    const at::Tensor tensor = memory.tensor();
    std::barrier together(2);
    std::thread reader([&together, &tensor] {
      together.arrive_and_wait();
      for (int i = 0; i < 100; ++i) {
        EXPECT_EQ(tensor.const_data_ptr<float>()[5], 5.0F);
      }
    });
    together.arrive_and_wait();
    EXPECT_EQ(static_cast<const float*>(view_of(tensor).data())[5], 5.0F);
    reader.join();
  }
}

// Without it, about every tenth child waits for a lock that nobody in it holds.
TEST(TorchThreads, that_make_first_views_do_not_block_a_forked_child) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer's own allocator does not survive a fork beside other threads";
#endif
  std::atomic<bool> ends = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&ends] {
      while (!ends) {
        EXPECT_TRUE(view_of(at::ones({2, 3})));
      }
    });
  }
  for (int round = 0; round < 30; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      std::vector<at::Tensor> tensors;  // of enough places to need every lock that there is
      for (int i = 0; i < 500; ++i) {
        tensors.push_back(at::empty({2, 3}));
        (void)view_of(tensors.back());
      }
      _exit(0);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << "ended by signal " << WTERMSIG(status);
  }
  ends = true;
  for (auto& thread : threads) {
    thread.join();
  }
}

// ---- sixteen ------------------------------------------------------------------------------------

struct Crossing {
  at::Tensor tensor;
  std::vector<float> values;
};

// One thing that a thread does with a tensor; false where it read anything wrong.
bool do_one(Choices& choose, const Crossing& source, Exchange& exports) {
  switch (choose.below(6)) {
    case 0: {  // a view, exported: another thread releases it
      ManagedTensor view = view_of(source.tensor, Policy::host());
      const bool right = values_of(view) == source.values;
      exports.leave(choose.below(8), std::move(view));
      return right;
    }
    case 1: {
      const at::Tensor other = convert<Torch, Torch>(source.tensor);
      return values_of(view_of(other, Policy::host())) == source.values;
    }
    case 2: {
      ManagedTensor copy = view_of(source.tensor, Policy::snapshot());
      const bool right = values_of(copy) == source.values;
      exports.leave(choose.below(8), std::move(copy));
      return right;
    }
    case 3: {  // a tensor of our memory, which outlives what it was made from
      const at::Tensor delivered = Torch::deliver(view_of(source.tensor, Policy::snapshot()));
      return values_of(view_of(delivered.slice(0, 1))) ==
             std::vector(source.values.begin() + source.tensor.numel() / source.tensor.size(0),
                         source.values.end());
    }
    case 4:  // torch's own reading meanwhile
      return source.tensor.const_data_ptr<float>()[0] == source.values[0];
    default: {
      const ManagedTensor view = view_of(source.tensor, Policy::host());
      return values_of(view.share()) == source.values;
    }
  }
}

TEST(TorchThreads, sixteen_of_them_cross_export_and_drop_the_same_tensors) {
  constexpr int kThreads = 16;
  for (int round = 0; round < 10; ++round) {
    CountedMemory memory;
    doubles::Versioned producer;
    {
      Exchange exports;
      std::array<std::vector<Crossing>, kThreads> sources;
      {
        const std::vector<Crossing> first = {
            {memory.tensor(), {0, 1, 2, 3, 4, 5}},
            {at::arange(12, at::kFloat).slice(0, 2, 10, 2), {2, 4, 6, 8}},
            {at::arange(6, at::kFloat).reshape({2, 3}).t(), {0, 3, 1, 4, 2, 5}},
            {at::arange(4, at::kFloat).requires_grad_(true), {0, 1, 2, 3}},
            {at::arange(4, at::kFloat)._lazy_clone(), {0, 1, 2, 3}},
            {Torch::deliver(ManagedTensor::adopt(&producer.managed)), {0, 1, 2, 3, 4, 5}}};
        sources.fill(first);
      }
      const int wrong = cross_on_threads(
          sources, round,
          [&](Choices& choose, const Crossing& source) { return do_one(choose, source, exports); });
      ASSERT_EQ(wrong, 0);
    }
    ASSERT_EQ(memory.freed(), 1);
    ASSERT_EQ(producer.deleted(), 1);
  }
}

}  // namespace
}  // namespace dlbridge
