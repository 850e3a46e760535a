// What the torch bridge says of a tensor, what becomes of it under the policy, and what it makes of
// a managed tensor.

#include <ATen/DLConvertor.h>
#include <ATen/FunctionalTensorWrapper.h>
#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/native/Resize.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <algorithm>
#include <complex>
#include <cstring>
#include <map>
#include <ostream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "torch/torch_doubles.hpp"

namespace dlbridge {
namespace {

using doubles::storage_of;
using doubles::values_of;
using doubles::view_of;
using ::testing::ElementsAre;

static_assert(Producer<Torch> && Consumer<Torch> && Preparer<Torch>);

at::Tensor counting() {
  return at::arange(6, at::kFloat).reshape({2, 3});
}
at::Tensor complex() {
  return at::complex(counting(), counting() + 10);
}

at::Tensor with_storage_of(std::int64_t bytes) {
  at::Tensor tensor = at::zeros({2, 3});
  at::native::resize_bytes_nocuda(tensor.storage(), bytes);
  return tensor;
}

struct Kind {
  std::string name;
  at::Tensor (*make)();
  Conditions conditions;
  std::string cells;  // for a host-only target under strict, host, zero_copy, snapshot
};

void PrintTo(const Kind& kind, std::ostream* out) {
  *out << kind.name;
}

std::vector<Kind> kinds() {
  using enum Condition;
  return {
      {"plain", counting, {}, "VVVC"},
      {"transposed", [] { return counting().t(); }, {}, "VVVC"},
      {"offset", [] { return counting().slice(1, 1, 3); }, {}, "VVVC"},
      {"stepped", [] { return counting().slice(1, 0, 3, 2); }, {}, "VVVC"},
      {"of_no_dimensions", [] { return at::scalar_tensor(3.0F); }, {}, "VVVC"},
      {"empty",
       [] {
         return at::zeros({0, 3});
       },
       {},
       "VVVC"},
      {"expanded",
       [] {
         return at::ones({1, 3}).expand({4, 3});
       },
       {},
       "OOOC"},
      {"expanded_to_nothing",
       [] {
         return at::ones({1, 3}).expand({0, 3});
       },
       {},
       "VVVC"},
      {"sliding", [] { return counting().flatten().unfold(0, 3, 1); }, {}, "OOOC"},
      {"bfloat16", [] { return counting().to(at::kBFloat16); }, {}, "RVVC"},
      {"detached", [] { return (counting().requires_grad_() * 2).detach(); }, {}, "VVVC"},
      {"leaf_in_a_graph", [] { return counting().requires_grad_(); }, {kInGraph}, "ROOC"},
      {"result_in_a_graph", [] { return counting().requires_grad_() * 2; }, {kInGraph}, "ROOC"},
      {"view_in_a_graph", [] { return counting().requires_grad_().t(); }, {kInGraph}, "ROOC"},
      {"made_without_grad",
       [] {
         const at::NoGradGuard none;
         return counting().requires_grad_() * 2;
       },
       {},
       "VVVC"},
      {"made_in_inference_mode",
       [] {
         const c10::InferenceMode mode;
         return counting() * 2;
       },
       {},
       "VVVC"},
      {"conjugated", [] { return complex().conj(); }, {kConjBit}, "RCRC"},
      {"conjugated_twice", [] { return complex().conj().conj(); }, {}, "VVVC"},
      {"negated_bit", [] { return at::imag(complex().conj()); }, {kNegBit}, "RCRC"},
      {"zero_tensor",
       [] {
         return at::_efficientzerotensor({2, 3});
       },
       {kZeroTensor},
       "RCRC"},
      {"sparse_coo", [] { return counting().to_sparse(); }, {kSparse}, "RRRR"},
      {"sparse_csr", [] { return counting().to_sparse_csr(); }, {kSparse}, "RRRR"},
      {"meta",
       [] {
         return at::empty({2, 3}, at::kMeta);
       },
       {kMeta},
       "RRRR"},
      {"quantised",
       [] { return at::quantize_per_tensor(counting(), 0.1, 10, at::kQInt8); },
       {kQuantised},
       "RRRR"},
      {"nested",
       [] { return at::_nested_tensor_from_tensor_list(std::vector<at::Tensor>{counting()}); },
       {kNested},
       "RRRR"},
      {"functionalised",
       [] { return at::functionalization::impl::to_functional_tensor(counting()); },
       {kFunctionalised},
       "RRRR"},
      {"batched",
       [] { return at::functorch::makeBatched(counting(), 0, 1); },
       {kFunctorch},
       "RRRR"},
      {"with_freed_storage", [] { return with_storage_of(0); }, {kFreedStorage}, "RRRR"},
      {"with_shrunk_storage", [] { return with_storage_of(23); }, {kFreedStorage}, "RRRR"},
      {"with_storage_of_just_its_size", [] { return with_storage_of(24); }, {}, "VVVC"},
      {"of_narrow_integers",
       [] { return at::empty({2}, at::ScalarType::UInt4); },
       {kPaddedSubByte},
       "RRRR"},
      {"of_mere_bits",
       [] { return at::empty({2}, at::ScalarType::Bits8); },
       {kInexpressibleDType},
       "RRRR"},
  };
}

class Described : public ::testing::TestWithParam<Kind> {};

TEST_P(Described, has_exactly_its_conditions) {
  const at::Tensor tensor = GetParam().make();
  Source source;
  Torch::describe(tensor, source);
  EXPECT_EQ(source.traits.conditions, GetParam().conditions);
  EXPECT_STREQ(source.traits.library->name.data(), "torch");
}

// The glance for the common case may say less than a closer look, but nothing else.
void expect_the_glance_agrees(const at::Tensor& tensor, Glance expected) {
  DLTensor glance{};
  Source closely;
  Torch::describe_closely(tensor, closely);
  EXPECT_EQ(Torch::plain(tensor, glance), expected);
  if (expected != Glance::kCloser) {
    const bool in_graph = expected == Glance::kInGraph;
    EXPECT_EQ(closely.traits.conditions, in_graph ? Conditions{Condition::kInGraph} : Conditions{});
    EXPECT_FALSE(closely.traits.maybe_pinned);
    EXPECT_TRUE(closely.traits.stream_known);
    EXPECT_EQ(Device(glance.device), Device(closely.tensor.device));
    EXPECT_EQ(glance.data, closely.tensor.data);
    EXPECT_EQ(glance.byte_offset, closely.tensor.byte_offset);
    EXPECT_EQ(DType(glance.dtype), DType(closely.tensor.dtype));
    EXPECT_EQ(glance.ndim, closely.tensor.ndim);
    EXPECT_EQ(glance.shape, closely.tensor.shape);
    EXPECT_EQ(glance.strides, closely.tensor.strides);
    EXPECT_TRUE(is_c_contiguous(glance));
  }
}

TEST_P(Described, is_the_same_at_a_glance) {
  const std::set<std::string> plain{"plain",
                                    "of_no_dimensions",
                                    "bfloat16",
                                    "detached",
                                    "conjugated_twice",
                                    "made_without_grad",
                                    "made_in_inference_mode",
                                    "with_storage_of_just_its_size"};
  const std::set<std::string> in_graph{"leaf_in_a_graph", "result_in_a_graph"};
  const Glance expected = plain.contains(GetParam().name)      ? Glance::kPlain
                          : in_graph.contains(GetParam().name) ? Glance::kInGraph
                                                               : Glance::kCloser;
  const at::Tensor tensor = GetParam().make();
  expect_the_glance_agrees(tensor, expected);
  if (GetParam().cells[1] == 'V') {
    const ManagedTensor held = view_of(tensor, Policy::host());
    expect_the_glance_agrees(tensor, expected);
  }
}

TEST(Torch, sees_at_a_glance_where_more_has_to_be_asked) {
  doubles::CountedMemory counted;
  expect_the_glance_agrees(counted.tensor(), Glance::kCloser);  // memory of others may be pinned
  const at::Tensor tensor = counting();
  expect_the_glance_agrees(tensor.slice(0, 1, 2), Glance::kPlain);
  const auto level = torch::autograd::ForwardADLevel::get_next_idx();
  expect_the_glance_agrees(tensor.t().t(), Glance::kCloser);  // a view may have its base's tangent
  torch::autograd::ForwardADLevel::release_idx(level);
  expect_the_glance_agrees(tensor.t().t(), Glance::kPlain);
}

TEST_P(Described, crosses_to_the_host_as_the_policy_says) {
  for (std::size_t i = 0; i < cases::kPresets.size(); ++i) {
    SCOPED_TRACE(cases::kPresets[i].name);
    const at::Tensor tensor = GetParam().make();
    const char cell = GetParam().cells[i];
    const auto references = tensor.use_count();
    if (cell == 'R') {
      EXPECT_THROW((void)view_of(tensor, cases::kPresets[i].policy), ConversionRefused);
    } else {
      const ManagedTensor result = view_of(tensor, cases::kPresets[i].policy);
      EXPECT_EQ(result.readonly(), cell == 'O');
      EXPECT_EQ((result.flags() & DLPACK_FLAG_BITMASK_IS_COPIED) != 0, cell == 'C');
      EXPECT_EQ(std::vector(result.shape().begin(), result.shape().end()), tensor.sizes().vec());
      if (cell != 'C' && tensor.numel() != 0) {
        EXPECT_EQ(result.data(), tensor.const_data_ptr());
        EXPECT_EQ(std::vector(result.strides().begin(), result.strides().end()),
                  tensor.strides().vec());
      }
      if (cell == 'C' && tensor.numel() != 0 && result.dtype() == DType(kDLFloat, 32)) {
        const at::Tensor plain = tensor.detach().resolve_neg().clone().contiguous();
        EXPECT_EQ(0, std::memcmp(result.data(), plain.const_data_ptr(),
                                 static_cast<std::size_t>(byte_count(result.tensor()))));
      }
    }
    EXPECT_EQ(tensor.use_count(), references);
  }
}

INSTANTIATE_TEST_SUITE_P(Tensor, Described, ::testing::ValuesIn(kinds()),
                         [](const auto& test) { return test.param.name; });

TEST(Torch, says_the_same_of_a_tensor_in_a_graph_in_every_mode) {
  const at::Tensor tensor = counting().requires_grad_();
  {
    const at::NoGradGuard none;
    EXPECT_THROW((void)view_of(tensor), ConversionRefused);
    EXPECT_TRUE(view_of(tensor, Policy::host()).readonly());
  }
  const c10::InferenceMode mode;
  EXPECT_THROW((void)view_of(tensor), ConversionRefused);
  EXPECT_TRUE(view_of(tensor, Policy::host()).readonly());
}

TEST(Torch, keeps_the_tangent_of_a_forward_mode_dual_from_getting_lost_unsaid) {
  const auto level = torch::autograd::ForwardADLevel::get_next_idx();
  const at::Tensor dual = at::_make_dual(counting(), at::ones({2, 3}), 0);
  EXPECT_THROW((void)view_of(dual), ConversionRefused);
  EXPECT_TRUE(view_of(dual, Policy::host()).readonly());
  EXPECT_FALSE(view_of(dual, Policy::snapshot()).readonly());
  torch::autograd::ForwardADLevel::release_idx(level);
}

TEST(Torch, refuses_with_what_it_met_why_and_the_call_that_works) {
  try {
    (void)view_of(counting().requires_grad_());
    FAIL() << "a tensor in a graph passed strict";
  } catch (const ConversionRefused& refused) {
    EXPECT_STREQ(refused.what(),
                 "cannot view a torch.Tensor that requires grad as Host (requires_grad is set, and "
                 "autograd would not see a "
                 "write through the view); use Policy::host() for a read-only view, or "
                 "x.detach()");
    EXPECT_THAT(refused.reasons, ElementsAre("a torch.Tensor that requires grad: requires_grad is "
                                             "set, and autograd would not see a write "
                                             "through the view"));
    EXPECT_EQ(refused.fix, "Policy::host() for a read-only view, or x.detach()");
  }
}

TEST(Torch, names_the_type_that_dlpack_lacks) {
  try {
    (void)view_of(at::empty({2}, at::ScalarType::UInt4));
    FAIL() << "narrow integers passed";
  } catch (const ConversionRefused& refused) {
    EXPECT_STREQ(refused.what(),
                 "cannot view a torch.Tensor of dtype uint4 as Host (its elements are padded to "
                 "whole bytes, and would arrive as other numbers)");
  }
}

TEST(Torch, resolves_a_conjugate_and_a_negative_at_once) {
  // imag of a conjugate has the negative bit, and a conjugate of a negative view has both.
  const at::Tensor both = at::_neg_view(complex().conj());
  const ManagedTensor result = view_of(both, Policy::host());
  const auto* values = static_cast<const std::complex<float>*>(result.data());
  EXPECT_EQ(values[0], std::complex<float>(0, 10));
  EXPECT_EQ(values[5], std::complex<float>(-5, 15));
}

TEST(Torch, densifies_a_sparse_tensor_when_asked_into_private_memory) {
  const Policy dense = Policy::host().with(Field::kLayout, Ruling::kDensify);
  for (const at::Tensor& sparse : {counting().to_sparse(), counting().to_sparse_csr(),
                                   counting().requires_grad_().to_sparse()}) {
    const ManagedTensor result = view_of(sparse, dense);
    EXPECT_THAT(values_of(result), ElementsAre(0, 1, 2, 3, 4, 5));
    EXPECT_FALSE(result.readonly());
    EXPECT_NE(result.flags() & DLPACK_FLAG_BITMASK_IS_COPIED, 0U);
  }
  EXPECT_THROW((void)view_of(counting().to_sparse(), dense.with_copy(CopyRule::kNever)),
               ConversionRefused);
}

TEST(Torch, densifies_an_mkldnn_tensor_when_asked) {
  if (!at::hasMKLDNN()) {
    GTEST_SKIP() << "this torch was built without mkldnn";
  }
  const at::Tensor opaque = counting().to_mkldnn();
  EXPECT_THROW((void)view_of(opaque, Policy::host()), ConversionRefused);
  EXPECT_THAT(values_of(view_of(opaque, Policy::host().with(Field::kLayout, Ruling::kDensify))),
              ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(Torch, casts_on_the_way_when_asked) {
  const at::Tensor tensor = counting().t();
  const ManagedTensor result =
      to_managed<Torch>(tensor, cases::kHostOnly, Policy::host(), cases::as_type({kDLInt, 16}));
  EXPECT_EQ(result.dtype(), DType(kDLInt, 16));
  EXPECT_EQ(static_cast<const std::int16_t*>(result.data())[1], 3);
}

// ---- types
// ----------------------------------------------------------------------------------------

// What torch's own door says of its types; it throws for those that DLPack has none for. uint1 to
// int7 it calls uint8 and int8 (torch 2.15), which they are not.
std::map<at::ScalarType, DType> types_of_torch() {
  std::map<at::ScalarType, DType> types;
  for (int number = 0; number < static_cast<int>(at::ScalarType::NumOptions); ++number) {
    const auto type = static_cast<at::ScalarType>(number);
    try {
      const DType dtype(at::getDLDataType(at::empty({0}, type)));
      const auto is_it = [&](const auto& pair) { return pair.second == dtype; };
      if (std::none_of(types.begin(), types.end(), is_it)) {
        types.emplace(type, dtype);
      }
    } catch (const c10::Error&) {
    }
  }
  return types;
}

TEST(TorchTypes, go_out_and_come_back_over_the_same_memory) {
  for (const auto& [type, dtype] : types_of_torch()) {
    SCOPED_TRACE(to_string(dtype));
    const at::Tensor tensor = at::empty({2, 3}, type);
    ManagedTensor managed = to_managed<Torch>(tensor, managed_tensor_capabilities());
    EXPECT_EQ(managed.dtype(), dtype);
    const at::Tensor back = Torch::deliver(std::move(managed));
    EXPECT_EQ(back.scalar_type(), type);
    EXPECT_EQ(back.const_data_ptr(), tensor.const_data_ptr());
    EXPECT_EQ(back.sizes(), tensor.sizes());
  }
}

TEST(TorchTypes, are_the_ones_that_torch_takes_and_no_others) {
  Source source;
  const DTypeSet taken = Torch::capabilities(source).dtypes;
  const auto types = types_of_torch();
  for (const auto& row : kNamedDTypes) {
    const bool known = std::any_of(types.begin(), types.end(),
                                   [&](const auto& pair) { return pair.second == row.dtype; });
    EXPECT_EQ(taken.contains(row.dtype), known) << row.name;
  }
}

TEST(TorchTypes, bear_their_numbers) {
  for (const auto& [type, dtype] : types_of_torch()) {
    EXPECT_EQ(torch_detail::kScalarTypes[static_cast<std::size_t>(type)].dtype, dtype);
  }
}

TEST(TorchDevices, are_dlpacks_both_ways) {
  for (const auto type : {c10::DeviceType::CUDA, c10::DeviceType::HIP, c10::DeviceType::XPU,
                          c10::DeviceType::MPS, c10::DeviceType::PrivateUse1}) {
    const Device device(torch_detail::device_type_of(type), 1);
    EXPECT_EQ(torch_detail::device_of(device), c10::Device(type, 1));
  }
  EXPECT_EQ(torch_detail::device_type_of(c10::DeviceType::CPU), kDLCPU);
  EXPECT_EQ(torch_detail::device_type_of(c10::DeviceType::MTIA), kDLExtDev);
  EXPECT_TRUE(torch_detail::device_of(Device(kDLCUDAHost, 0)).is_cpu());
}

// ---- into torch
// -----------------------------------------------------------------------------------

TEST(TorchDelivery, shares_memory_shape_and_strides) {
  doubles::Versioned producer({2, 3});
  producer.strides = {1, 2};
  producer.tensor().strides = producer.strides.data();
  producer.tensor().byte_offset = 8;
  const at::Tensor tensor = Torch::deliver(ManagedTensor::adopt(&producer.managed));
  EXPECT_EQ(tensor.const_data_ptr(), producer.memory.data() + 2);
  EXPECT_EQ(tensor.sizes().vec(), (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(tensor.strides().vec(), (std::vector<std::int64_t>{1, 2}));
  EXPECT_FALSE(tensor.requires_grad());
  tensor[0][0].fill_(70.0F);
  EXPECT_EQ(producer.memory[2], 70.0F);
}

TEST(TorchDelivery, is_a_whole_tensor_for_autograd_and_operators) {
  doubles::Versioned producer({2, 3});
  at::Tensor tensor = Torch::deliver(ManagedTensor::adopt(&producer.managed));
  tensor.requires_grad_();
  (tensor * tensor).sum().backward();
  EXPECT_EQ(tensor.grad()[1][2].item<float>(), 10.0F);
  EXPECT_EQ(at::matmul(tensor, tensor.t()).sizes().vec(), (std::vector<std::int64_t>{2, 2}));
}

TEST(TorchDelivery, is_not_resizable_and_owns_just_its_extent) {
  doubles::Versioned producer({2, 3});
  at::Tensor tensor = Torch::deliver(ManagedTensor::adopt(&producer.managed));
  EXPECT_FALSE(storage_of(tensor).resizable());
  EXPECT_EQ(storage_of(tensor).nbytes(), 24U);
  EXPECT_THROW(tensor.resize_({100}), c10::Error);
  EXPECT_EQ(producer.deleted(), 0);
}

TEST(TorchDelivery, takes_no_dimensions_no_elements_and_odd_strides_of_one_element) {
  doubles::Versioned scalar(std::vector<std::int64_t>{});
  EXPECT_EQ(Torch::deliver(ManagedTensor::adopt(&scalar.managed)).dim(), 0);

  doubles::Versioned empty({0, 3});
  empty.tensor().data = nullptr;
  EXPECT_EQ(Torch::deliver(ManagedTensor::adopt(&empty.managed)).numel(), 0);

  doubles::Versioned odd({1, 3});
  odd.strides = {-3, 1};
  odd.tensor().strides = odd.strides.data();
  const at::Tensor tensor = Torch::deliver(ManagedTensor::adopt(&odd.managed));
  EXPECT_EQ(tensor.strides().vec(), (std::vector<std::int64_t>{3, 1}));
  EXPECT_EQ(scalar.deleted() + empty.deleted() + odd.deleted(), 2);
}

TEST(TorchDelivery, counts_pinned_memory_as_the_hosts) {
  doubles::Versioned producer({2, 3});
  producer.tensor().device = {kDLCUDAHost, 0};
  EXPECT_TRUE(Torch::deliver(ManagedTensor::adopt(&producer.managed)).device().is_cpu());
}

TEST(TorchFromDLPack, shares_what_passes_as_it_is_and_ends_with_the_tensor) {
  doubles::Versioned producer({2, 3});
  {
    const at::Tensor tensor = Torch::from_dlpack(&producer.managed, Policy::strict());
    EXPECT_EQ(tensor.const_data_ptr(), producer.memory.data());
    EXPECT_EQ(tensor.sizes().vec(), (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(producer.deleted(), 0);
  }
  EXPECT_EQ(producer.deleted(), 1);
}

TEST(TorchFromDLPack, shares_other_layouts_too) {
  doubles::Versioned turned({2, 3});
  turned.strides = {1, 2};
  turned.tensor().strides = turned.strides.data();
  turned.tensor().byte_offset = 8;
  doubles::Versioned compact({2, 3});
  compact.tensor().strides = nullptr;
  doubles::Versioned without_deleter({2, 3});
  without_deleter.managed.deleter = nullptr;
  {
    const at::Tensor first = Torch::from_dlpack(&turned.managed);
    EXPECT_EQ(first.const_data_ptr(), turned.memory.data() + 2);
    EXPECT_EQ(first.strides().vec(), (std::vector<std::int64_t>{1, 2}));
    const at::Tensor second = Torch::from_dlpack(&compact.managed);
    EXPECT_EQ(second.const_data_ptr(), compact.memory.data());
    EXPECT_EQ(second.strides().vec(), (std::vector<std::int64_t>{3, 1}));
    EXPECT_EQ(Torch::from_dlpack(&without_deleter.managed).numel(), 6);
    EXPECT_EQ(turned.deleted() + compact.deleted(), 0);
  }
  EXPECT_EQ(turned.deleted(), 1);
  EXPECT_EQ(compact.deleted(), 1);
}

TEST(TorchFromDLPack, goes_by_the_policy_where_torch_cannot_take_it_as_it_is) {
  doubles::Versioned read_only({2, 3});
  read_only.managed.flags = DLPACK_FLAG_BITMASK_READ_ONLY;
  const at::Tensor copy = Torch::from_dlpack(&read_only.managed);
  EXPECT_NE(copy.const_data_ptr(), read_only.memory.data());
  EXPECT_EQ(copy[1][2].item<float>(), 5.0F);
  EXPECT_EQ(read_only.deleted(), 1);  // a copy holds nothing

  doubles::Versioned refused({2, 3});
  refused.managed.flags = DLPACK_FLAG_BITMASK_READ_ONLY;
  EXPECT_THROW((void)Torch::from_dlpack(&refused.managed, Policy::zero_copy()), ConversionRefused);
  EXPECT_EQ(refused.deleted(), 1);

  doubles::Versioned reversed({2, 3});
  reversed.strides = {-3, 1};
  reversed.tensor().strides = reversed.strides.data();
  reversed.tensor().data = reversed.memory.data() + 3;
  EXPECT_EQ(Torch::from_dlpack(&reversed.managed)[0][0].item<float>(), 3.0F);
  EXPECT_EQ(reversed.deleted(), 1);

  doubles::Versioned snapshot({2, 3});
  EXPECT_NE(Torch::from_dlpack(&snapshot.managed, Policy::snapshot()).const_data_ptr(),
            snapshot.memory.data());
  EXPECT_EQ(snapshot.deleted(), 1);
}

// torch loads by type, and its processor may end the process where the address does not allow it.
TEST(TorchFromDLPack, copies_elements_at_an_address_that_is_no_multiple_of_their_size) {
  const auto lies_oddly = [](doubles::Versioned& producer) {
    auto* odd = reinterpret_cast<char*>(producer.memory.data()) + 1;
    std::memmove(odd, producer.memory.data(), 6 * sizeof(float));
    producer.tensor().data = odd;
  };
  doubles::Versioned producer({2, 3});
  lies_oddly(producer);
  const at::Tensor copy = Torch::from_dlpack(&producer.managed);
  EXPECT_NE(copy.const_data_ptr(), producer.tensor().data);
  for (std::int64_t i = 0; i < 6; ++i) {
    EXPECT_EQ(copy[i / 3][i % 3].item<float>(), static_cast<float>(i));
  }
  EXPECT_EQ(producer.deleted(), 1);

  doubles::Versioned refused({2, 3});
  lies_oddly(refused);
  EXPECT_THROW((void)Torch::from_dlpack(&refused.managed, Policy::zero_copy()), ConversionRefused);
  EXPECT_EQ(refused.deleted(), 1);
}

TEST(TorchFromDLPack, refuses_what_is_no_sound_tensor_and_runs_its_deleter_once) {
  const auto expect_refused = [](auto&& damage) {
    doubles::Versioned producer({2, 3});
    damage(producer);
    EXPECT_THROW((void)Torch::from_dlpack(&producer.managed), ConversionRefused);
    EXPECT_EQ(producer.deleted(), 1);
  };
  expect_refused([](auto& producer) { producer.managed.version.major = 2; });
  expect_refused([](auto& producer) { producer.tensor().ndim = -1; });
  expect_refused([](auto& producer) { producer.tensor().shape = nullptr; });
  expect_refused([](auto& producer) { producer.tensor().data = nullptr; });
  expect_refused([](auto& producer) { producer.shape[0] = -2; });
  expect_refused([](auto& producer) { producer.tensor().dtype = DType{kDLInt, 4}.dl(); });
  EXPECT_THROW((void)Torch::from_dlpack(nullptr), ConversionRefused);
}

TEST(TorchToTorch, hands_over_a_writable_alias_of_an_expanded_tensor) {
  const at::Tensor tensor = at::ones({1, 3}).expand({4, 3});
  const at::Tensor other = convert<Torch, Torch>(tensor, Policy::strict());
  EXPECT_EQ(other.const_data_ptr(), tensor.const_data_ptr());
  EXPECT_THROW(other.add_(1.0F), c10::Error);  // torch guards it by itself
}

TEST(TorchToTorch, copies_what_is_in_a_graph_since_torch_knows_no_read_only) {
  const at::Tensor tensor = counting().requires_grad_();
  const at::Tensor copy = convert<Torch, Torch>(tensor, Policy::host());
  EXPECT_NE(copy.const_data_ptr(), tensor.const_data_ptr());
  EXPECT_TRUE(at::equal(copy, tensor));
  EXPECT_FALSE(copy.requires_grad());
  EXPECT_THROW((void)(convert<Torch, Torch>(tensor, Policy::zero_copy())), ConversionRefused);
  const at::Tensor alias = convert<Torch, Torch>(
      tensor, Policy::zero_copy().with(Field::kGrad, Ruling::kDetachWritable));
  EXPECT_EQ(alias.const_data_ptr(), tensor.const_data_ptr());
}

}  // namespace
}  // namespace dlbridge
