// Law 3: a view keeps its memory valid whatever becomes of the tensor, or what would break it
// throws.

#include <ATen/MapAllocator.h>
#include <ATen/StorageUtils.h>
#include <ATen/native/Resize.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "torch/torch_doubles.hpp"

namespace dlbridge {
namespace {

using doubles::CountedMemory;
using doubles::storage_of;
using doubles::values_of;
using doubles::view_of;
using ::testing::ElementsAre;

// What share_memory_() does to a storage: its contents become those of another one, and the old
// ones end with it.
void swap_contents(const at::Tensor& tensor) {
  const at::Tensor other = at::full(tensor.sizes(), 5.0F);
  storage_of(tensor).swap_data_ptr(storage_of(other));
}

struct Change {
  std::string name;
  void (*make)(at::Tensor& tensor);
};

void PrintTo(const Change& change, std::ostream* out) {
  *out << change.name;
}

std::vector<Change> changes() {
  return {
      {"reset", [](at::Tensor& t) { t.reset(); }},
      {"set_", [](at::Tensor& t) { t.set_(); }},
      {"set_to_another_storage",
       [](at::Tensor& t) {
         t.set_(at::full({2, 3}, 5.0F));
       }},
      {"set_data",
       [](at::Tensor& t) {
         t.set_data(at::full({2, 3}, 5.0F));
       }},
      {"set_data_of_another_type", [](at::Tensor& t) { t.set_data(at::full({7}, 5.0)); }},
      {"swapped_contents", [](at::Tensor& t) { swap_contents(t); }},
      {"swapped_contents_twice",
       [](at::Tensor& t) {
         swap_contents(t);
         swap_contents(t);
       }},
      {"another_data_ptr",
       [](at::Tensor& t) {
         storage_of(t).set_data_ptr(c10::GetCPUAllocator()->allocate(storage_of(t).nbytes()));
       }},
      {"another_data_ptr_without_swap",
       [](at::Tensor& t) {
         storage_of(t).set_data_ptr_noswap(
             c10::GetCPUAllocator()->allocate(storage_of(t).nbytes()));
       }},
      {"transposed_in_place", [](at::Tensor& t) { t.t_(); }},
      {"unsqueezed_in_place",
       [](at::Tensor& t) {
         for (int i = 0; i < 6; ++i) {
           t.unsqueeze_(0);
         }
       }},
      {"resized_to_less", [](at::Tensor& t) { t.resize_({1}); }},
      {"storage_freed_by_its_owner", [](at::Tensor& t) { storage_of(t).release_resources(); }},
      {"grad_required", [](at::Tensor& t) { t.requires_grad_(); }},
  };
}

// Memory as torch allocates it, and memory that torch was given.
enum class Memory { kOwn, kGiven };

class ViewOf : public ::testing::TestWithParam<std::tuple<Memory, Change>> {
 protected:
  at::Tensor tensor() {
    return std::get<0>(GetParam()) == Memory::kOwn
               ? at::arange(6, at::kFloat).reshape({2, 3}).clone()
               : memory.tensor();
  }
  void change(at::Tensor& tensor) { std::get<1>(GetParam()).make(tensor); }
  // Takes the place of what may have been freed.
  static std::vector<at::Tensor> scribble() {
    std::vector<at::Tensor> others;
    for (int i = 0; i < 64; ++i) {
      others.push_back(at::full({2, 3}, 9.0F));
    }
    return others;
  }
  CountedMemory memory;
};

TEST_P(ViewOf, a_tensor_keeps_its_memory_shape_and_strides) {
  at::Tensor source = tensor();
  const ManagedTensor view = view_of(source);
  const void* address = view.data();
  change(source);
  const auto others = scribble();
  EXPECT_EQ(view.data(), address);
  EXPECT_THAT(view.shape(), ElementsAre(2, 3));
  EXPECT_THAT(view.strides(), ElementsAre(3, 1));
  EXPECT_THAT(values_of(view), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(memory.freed(), 0);
}

TEST_P(ViewOf, a_tensor_frees_its_memory_once_when_both_are_gone) {
  at::Tensor source = tensor();
  ManagedTensor view = view_of(source);
  change(source);
  source.reset();
  EXPECT_EQ(memory.freed(), 0);
  view = ManagedTensor();
  EXPECT_EQ(memory.freed(), std::get<0>(GetParam()) == Memory::kGiven ? 1 : 0);
}

TEST_P(ViewOf, a_view_of_a_tensor_keeps_its_memory_too) {
  at::Tensor source = tensor();
  const ManagedTensor view = view_of(source.t().narrow(0, 1, 2));
  change(source);
  const auto others = scribble();
  EXPECT_THAT(values_of(view), ElementsAre(1, 4, 2, 5));
}

INSTANTIATE_TEST_SUITE_P(Changed, ViewOf,
                         ::testing::Combine(::testing::Values(Memory::kOwn, Memory::kGiven),
                                            ::testing::ValuesIn(changes())),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param) == Memory::kOwn ? "own_"
                                                                                      : "given_") +
                                  std::get<1>(test.param).name;
                         });

TEST(TorchStorage, is_resizable_no_more_once_a_view_of_it_left) {
  at::Tensor tensor = at::zeros({2, 3});
  EXPECT_TRUE(storage_of(tensor).resizable());
  const ManagedTensor view = view_of(tensor);
  EXPECT_FALSE(storage_of(tensor).resizable());
  EXPECT_THROW(tensor.resize_({1000, 1000}), c10::Error);
  EXPECT_THROW(at::native::resize_bytes_nocuda(tensor.storage(), 0), c10::Error);
  EXPECT_THROW(at::native::resize_bytes_nocuda(tensor.storage(), 1 << 20), c10::Error);
  EXPECT_THAT(values_of(view), ElementsAre(0, 0, 0, 0, 0, 0));
}

TEST(TorchStorage, stays_as_it_was_where_the_crossing_is_refused_or_copies) {
  at::Tensor tensor = at::zeros({2, 3});
  tensor.requires_grad_();
  const void* context = storage_of(tensor).data_ptr().get_context();
  EXPECT_THROW((void)view_of(tensor), ConversionRefused);
  { const ManagedTensor copy = view_of(tensor, Policy::snapshot()); }
  EXPECT_TRUE(storage_of(tensor).resizable());
  EXPECT_EQ(storage_of(tensor).data_ptr().get_context(), context);
}

TEST(TorchStorage, keeps_its_address_size_and_device_under_the_holder) {
  at::Tensor tensor = at::zeros({2, 3});
  const void* data = tensor.const_data_ptr();
  const auto bytes = storage_of(tensor).nbytes();
  const ManagedTensor view = view_of(tensor);
  EXPECT_EQ(tensor.const_data_ptr(), data);
  EXPECT_EQ(storage_of(tensor).nbytes(), bytes);
  EXPECT_EQ(storage_of(tensor).data_ptr().device(), c10::Device(c10::kCPU));
}

TEST(TorchStorage, has_one_holder_for_all_its_views) {
  CountedMemory memory;
  at::Tensor tensor = memory.tensor();
  ManagedTensor first = view_of(tensor);
  const void* holder = storage_of(tensor).data_ptr().get_context();
  ManagedTensor second = view_of(tensor.t());
  ManagedTensor third = view_of(tensor.slice(1, 0, 2));
  EXPECT_EQ(storage_of(tensor).data_ptr().get_context(), holder);
  first = ManagedTensor();
  tensor.reset();
  second = ManagedTensor();
  EXPECT_EQ(memory.freed(), 0);
  EXPECT_THAT(values_of(third), ElementsAre(0, 1, 3, 4));
  third = ManagedTensor();
  EXPECT_EQ(memory.freed(), 1);
}

TEST(TorchStorage, can_be_exported_again_after_its_last_view_ended) {
  CountedMemory memory;
  at::Tensor tensor = memory.tensor();
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(values_of(view_of(tensor)), ElementsAre(0, 1, 2, 3, 4, 5));
    EXPECT_EQ(memory.freed(), 0);
  }
  tensor.reset();
  EXPECT_EQ(memory.freed(), 1);
}

TEST(TorchStorage, has_views_of_both_memories_after_its_contents_were_swapped) {
  CountedMemory memory;
  at::Tensor tensor = memory.tensor();
  ManagedTensor before = view_of(tensor);
  swap_contents(tensor);
  const ManagedTensor after = view_of(tensor);
  EXPECT_THAT(values_of(before), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(values_of(after), ElementsAre(5, 5, 5, 5, 5, 5));
  before = ManagedTensor();
  EXPECT_EQ(memory.freed(), 1);
  tensor.reset();
  EXPECT_THAT(values_of(after), ElementsAre(5, 5, 5, 5, 5, 5));
}

TEST(TorchStorage, in_shared_memory_still_counts_as_shared) {
  const c10::Storage shared = at::new_shm_fd_storage(24);
  at::Tensor tensor = at::empty({0}, at::kFloat).set_(shared, 0, {2, 3}, {3, 1});
  tensor.fill_(4.0F);
  const ManagedTensor view = view_of(tensor);
  EXPECT_NE(at::MapAllocator::fromDataPtr(shared.data_ptr()), nullptr);
  tensor.reset();
  EXPECT_THAT(values_of(view), ElementsAre(4, 4, 4, 4, 4, 4));
}

TEST(TorchStorage, without_elements_is_left_alone) {
  at::Tensor tensor = at::zeros({2, 0, 3});
  const ManagedTensor view = view_of(tensor);
  EXPECT_TRUE(storage_of(tensor).resizable());
  EXPECT_THAT(view.shape(), ElementsAre(2, 0, 3));
}

// ---- memory that came from another library ------------------------------------------------------

TEST(DeliveredTensor, ends_its_lease_once_when_it_ends) {
  doubles::Versioned producer;
  at::Tensor tensor = Torch::deliver(ManagedTensor::adopt(&producer.managed));
  const at::Tensor alias = tensor.view({6});
  tensor.reset();
  EXPECT_EQ(producer.deleted(), 0);
  EXPECT_EQ(alias[5].item<float>(), 5.0F);
}

TEST(DeliveredTensor, is_viewed_again_and_ends_its_lease_after_the_last) {
  doubles::Versioned producer;
  at::Tensor tensor = Torch::deliver(ManagedTensor::adopt(&producer.managed));
  ManagedTensor view = view_of(tensor);
  tensor.reset();
  EXPECT_EQ(producer.deleted(), 0);
  view = ManagedTensor();
  EXPECT_EQ(producer.deleted(), 1);
}

// share_memory_() on a tensor that shares an array's memory, while the array is viewed.
TEST(DeliveredTensor, keeps_its_lease_for_views_when_its_contents_are_swapped) {
  doubles::Versioned producer;
  at::Tensor tensor = Torch::deliver(ManagedTensor::adopt(&producer.managed));
  ManagedTensor view = view_of(tensor);
  swap_contents(tensor);
  EXPECT_EQ(producer.deleted(), 0);
  EXPECT_EQ(view.data(), producer.memory.data());
  view = ManagedTensor();
  EXPECT_EQ(producer.deleted(), 1);
}

TEST(DeliveredTensor, goes_round_through_torch_and_frees_once) {
  CountedMemory memory;
  at::Tensor tensor = memory.tensor();
  at::Tensor again = convert<Torch, Torch>(tensor);
  at::Tensor third = convert<Torch, Torch>(again);
  tensor.reset();
  again.reset();
  EXPECT_EQ(memory.freed(), 0);
  EXPECT_EQ(third.sum().item<float>(), 15.0F);
  third.reset();
  EXPECT_EQ(memory.freed(), 1);
}

// ---- copy on write ------------------------------------------------------------------------------

TEST(CopyOnWrite, gives_a_view_memory_of_its_own) {
  const at::Tensor original = at::arange(6, at::kFloat);
  const at::Tensor lazy = original._lazy_clone();
  ASSERT_EQ(lazy.const_data_ptr(), original.const_data_ptr());
  const ManagedTensor view = view_of(lazy);
  EXPECT_EQ(view.data(), lazy.const_data_ptr());
  static_cast<float*>(view.data())[0] = 7.0F;
  EXPECT_EQ(lazy[0].item<float>(), 7.0F);
  EXPECT_EQ(original[0].item<float>(), 0.0F);
}

TEST(CopyOnWrite, keeps_the_place_of_a_view_with_an_offset) {
  const at::Tensor original = at::arange(6, at::kFloat);
  const at::Tensor lazy = original._lazy_clone();
  const ManagedTensor view = view_of(lazy.slice(0, 2, 6, 2));
  EXPECT_THAT(values_of(view), ElementsAre(2, 4));
  EXPECT_EQ(view.data(), lazy.slice(0, 2).const_data_ptr());
}

}  // namespace
}  // namespace dlbridge
