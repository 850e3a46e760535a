// The C interface, used as it is meant to be: every deleter and every release() runs once.

#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "c/c_doubles.hpp"
#include "dlbridge/policy.hpp"

namespace dlbridge {
namespace {

using namespace c_doubles;  // NOLINT(google-build-using-namespace): the vocabulary of these tests
using ::testing::HasSubstr;

TEST(CToManaged, gives_a_view_that_keeps_its_memory) {
  Memory memory;
  const dlbridge_source source = memory.source();
  Tensor tensor;
  Failure failure;
  ASSERT_EQ(
      dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), failure.place()),
      DLBRIDGE_OK);
  EXPECT_EQ(failure.get(), nullptr);
  EXPECT_EQ(tensor.dl().data, memory.values.data());
  EXPECT_EQ(tensor.get()->flags, 0U);
  EXPECT_EQ(memory.acquired, 1);
  EXPECT_EQ(memory.released, 0);
  tensor.end();
  EXPECT_EQ(memory.released, 1);
}

TEST(CToManaged, copies_what_the_target_cannot_take_and_acquires_nothing) {
  Memory memory;
  memory.transpose();
  const dlbridge_source source = memory.source();
  const dlbridge_capabilities target = compact();
  Tensor tensor;
  ASSERT_EQ(dlbridge_to_managed(&source, &target, nullptr, nullptr, tensor.place(), nullptr),
            DLBRIDGE_OK);
  EXPECT_EQ(memory.acquired, 0);
  EXPECT_EQ(tensor.get()->flags, DLPACK_FLAG_BITMASK_IS_COPIED);
  EXPECT_THAT(std::vector<float>(tensor.values(), tensor.values() + 6),
              ::testing::ElementsAre(0, 3, 1, 4, 2, 5));
}

TEST(CToManaged, refuses_in_the_words_of_c_with_nothing_taken) {
  Memory memory;
  memory.transpose();
  const char* const fixes[] = {"not_compact", "packed(x)", nullptr};
  auto library = empty<dlbridge_library>();
  library.name = "sheets";
  library.object = "sheet_t";
  library.fixes = fixes;
  dlbridge_source source = memory.source();
  source.library = &library;
  const dlbridge_capabilities target = compact();
  const dlbridge_policy policy = preset("zero_copy");
  Tensor tensor;
  Failure failure;
  EXPECT_EQ(
      dlbridge_to_managed(&source, &target, &policy, nullptr, tensor.place(), failure.place()),
      DLBRIDGE_REFUSED);
  EXPECT_EQ(tensor.get(), nullptr);
  EXPECT_EQ(memory.acquired, 0);
  EXPECT_EQ(failure.message(),
            "cannot view a sheet_t that is not C-contiguous as grid (grid takes no other layout); "
            "use dlbridge_policy{.preset = \"host\"} to copy, or packed(x)");
  EXPECT_EQ(failure.fix(), "dlbridge_policy{.preset = \"host\"} to copy, or packed(x)");
  ASSERT_EQ(dlbridge_error_reason_count(failure.get()), 1U);
  EXPECT_STREQ(dlbridge_error_reason(failure.get(), 0),
               "a sheet_t that is not C-contiguous: grid takes no other layout");
  EXPECT_EQ(dlbridge_error_reason(failure.get(), 1), nullptr);
}

TEST(CToManaged, marks_what_is_in_a_graph_as_read_only) {
  Memory memory;
  const char* const conditions[] = {"in_graph", nullptr};
  dlbridge_source source = memory.source();
  source.conditions = conditions;
  Tensor tensor;
  ASSERT_EQ(dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), nullptr),
            DLBRIDGE_OK);
  EXPECT_EQ(tensor.get()->flags, DLPACK_FLAG_BITMASK_READ_ONLY);
}

TEST(CToManaged, passes_on_that_nobody_may_write_however_it_was_said) {
  const char* const conditions[] = {"read_only", nullptr};
  auto target = empty<dlbridge_capabilities>();
  target.read_only = "honours";
  for (const bool by_flag : {false, true}) {
    Memory memory;
    dlbridge_source source = memory.source();
    source.flags = by_flag ? DLPACK_FLAG_BITMASK_READ_ONLY : 0;
    source.conditions = by_flag ? nullptr : conditions;
    Tensor tensor;
    ASSERT_EQ(dlbridge_to_managed(&source, &target, nullptr, nullptr, tensor.place(), nullptr),
              DLBRIDGE_OK);
    EXPECT_EQ(tensor.get()->flags, DLPACK_FLAG_BITMASK_READ_ONLY);
    EXPECT_EQ(tensor.dl().data, memory.values.data());
  }
}

TEST(CToManaged, reads_strides_in_bytes) {
  struct [[gnu::packed]] Record {
    char mark;
    float value;
  } records[3] = {{'a', 1.5F}, {'b', 2.5F}, {'c', 3.5F}};
  const std::int64_t byte_strides[] = {sizeof(Record)};
  const char* const conditions[] = {"fractional_strides", nullptr};
  Memory memory;
  memory.tensor.ndim = 1;
  memory.shape[0] = 3;
  memory.tensor.strides = nullptr;
  memory.tensor.data = &records[0].mark;
  memory.tensor.byte_offset = 1;
  dlbridge_source source = memory.source();
  source.conditions = conditions;
  source.byte_strides = byte_strides;
  Tensor tensor;
  ASSERT_EQ(dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), nullptr),
            DLBRIDGE_OK);
  EXPECT_THAT(std::vector<float>(tensor.values(), tensor.values() + 3),
              ::testing::ElementsAre(1.5F, 2.5F, 3.5F));
}

TEST(CToManaged, takes_conditions_without_memory) {
  Memory memory;
  memory.tensor.data = nullptr;
  dlbridge_source source = memory.source();
  const char* const zeros[] = {"zero_tensor", nullptr};
  source.conditions = zeros;
  Tensor tensor;
  Failure failure;
  ASSERT_EQ(dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), nullptr),
            DLBRIDGE_OK);
  EXPECT_EQ(tensor.values()[5], 0);
  tensor.end();
  const char* const meta[] = {"meta", nullptr};
  source.conditions = meta;
  EXPECT_EQ(
      dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), failure.place()),
      DLBRIDGE_REFUSED);
  EXPECT_THAT(failure.message(), HasSubstr("on the meta device"));
  source.conditions = nullptr;
  EXPECT_EQ(
      dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), failure.place()),
      DLBRIDGE_MALFORMED);
  EXPECT_THAT(failure.message(), HasSubstr("its data is NULL"));
}

// A library whose tensors are on a device, and which brings them to the host when it is asked.
struct OnDevice : Memory {
  OnDevice() { tensor.device = {kDLCUDA, 0}; }
  int prepared = 0;
  std::string steps;
  Foreign brought;

  static dlbridge_status prepare(void* context, const dlbridge_leg* leg,
                                 DLManagedTensorVersioned** out, dlbridge_error** /*error*/) {
    auto* self = static_cast<OnDevice*>(static_cast<Memory*>(context));
    ++self->prepared;
    EXPECT_EQ(leg->struct_size, sizeof(dlbridge_leg));
    EXPECT_EQ(leg->device.device_type, kDLCPU);
    for (const char* const* step = leg->steps; *step != nullptr; ++step) {
      self->steps += *step;
    }
    *out = &self->brought.managed;
    return DLBRIDGE_OK;
  }
  [[nodiscard]] dlbridge_source source() {
    dlbridge_source source = Memory::source();
    source.prepare = prepare;
    source.copies_to_host = 1;
    return source;
  }
};

TEST(CToManaged, asks_the_library_for_what_only_it_can_do) {
  OnDevice memory;
  const dlbridge_source source = memory.source();
  const dlbridge_capabilities target = compact();
  Tensor tensor;
  ASSERT_EQ(dlbridge_to_managed(&source, &target, nullptr, nullptr, tensor.place(), nullptr),
            DLBRIDGE_OK);
  EXPECT_EQ(memory.prepared, 1);
  EXPECT_EQ(memory.steps, "copy to host");
  EXPECT_EQ(memory.acquired, 0);
  EXPECT_EQ(tensor.values()[5], 5);
  tensor.end();
  EXPECT_EQ(memory.brought.released, 1);
}

TEST(CToManaged, refuses_what_a_library_prepared_wrongly) {
  const dlbridge_capabilities target = compact();
  const auto outcome = [&](auto&& spoil, dlbridge_status wanted, const char* said) {
    OnDevice memory;
    spoil(memory);
    const dlbridge_source source = memory.source();
    Tensor tensor;
    Failure failure;
    EXPECT_EQ(
        dlbridge_to_managed(&source, &target, nullptr, nullptr, tensor.place(), failure.place()),
        wanted);
    EXPECT_EQ(tensor.get(), nullptr);
    EXPECT_THAT(failure.message(), HasSubstr(said));
    EXPECT_EQ(memory.brought.released, 1) << said;
  };
  outcome([](OnDevice& it) { it.brought.shape[0] = 1; }, DLBRIDGE_REFUSED,
          "another dtype or shape");
  outcome([](OnDevice& it) { it.brought.managed.dl_tensor.dtype.code = kDLInt; }, DLBRIDGE_REFUSED,
          "another dtype or shape");
  outcome([](OnDevice& it) { it.brought.managed.flags = DLPACK_FLAG_BITMASK_READ_ONLY; },
          DLBRIDGE_USAGE, "read-only");
  outcome([](OnDevice& it) { it.brought.managed.dl_tensor.device.device_type = kDLROCM; },
          DLBRIDGE_REFUSED, "gave one on rocm:0");
  outcome([](OnDevice& it) { it.brought.managed.dl_tensor.ndim = -1; }, DLBRIDGE_MALFORMED,
          "-1 dimensions");
  outcome([](OnDevice& it) { it.brought.managed.version.major = 2; }, DLBRIDGE_MALFORMED,
          "version 2");
}

TEST(CConvert, passes_the_same_memory_on) {
  Foreign foreign;
  Tensor tensor;
  ASSERT_EQ(dlbridge_convert(&foreign.managed, nullptr, nullptr, nullptr, nullptr, tensor.place(),
                             nullptr),
            DLBRIDGE_OK);
  EXPECT_EQ(tensor.dl().data, foreign.values.data());
  EXPECT_EQ(foreign.released, 0);
  tensor.end();
  EXPECT_EQ(foreign.released, 1);
}

TEST(CConvert, releases_the_tensor_at_once_where_it_copies_or_refuses) {
  const dlbridge_capabilities target = compact();
  const dlbridge_policy policy = preset("zero_copy");
  const dlbridge_policy* const policies[] = {nullptr, &policy};
  for (const dlbridge_policy* each : policies) {
    Foreign foreign;
    foreign.transpose();
    Tensor tensor;
    EXPECT_EQ(dlbridge_convert(&foreign.managed, nullptr, &target, each, nullptr, tensor.place(),
                               nullptr),
              each == nullptr ? DLBRIDGE_OK : DLBRIDGE_REFUSED);
    EXPECT_EQ(tensor.get() == nullptr, each != nullptr);
    EXPECT_EQ(foreign.released, 1);
  }
}

TEST(CConvert, holds_casts_to_their_values) {
  const char* warning = "left from before";
  auto request = empty<dlbridge_request>();
  request.warning = &warning;
  request.dtype = "int8";
  {
    Foreign foreign;
    Tensor tensor;
    ASSERT_EQ(dlbridge_convert(&foreign.managed, nullptr, nullptr, nullptr, &request,
                               tensor.place(), nullptr),
              DLBRIDGE_OK);
    EXPECT_EQ(warning, nullptr);
    EXPECT_EQ(tensor.values<std::int8_t>()[5], 5);
  }
  {
    Foreign foreign;
    foreign.values[3] = std::numeric_limits<float>::quiet_NaN();
    Tensor tensor;
    ASSERT_EQ(dlbridge_convert(&foreign.managed, nullptr, nullptr, nullptr, &request,
                               tensor.place(), nullptr),
              DLBRIDGE_OK);
    EXPECT_STREQ(warning, "invalid");
  }
  std::int32_t large[] = {1, 2, 300};
  std::int64_t shape[] = {3};
  Foreign foreign;
  foreign.managed.dl_tensor.data = large;
  foreign.managed.dl_tensor.dtype = {kDLInt, 32, 1};
  foreign.managed.dl_tensor.ndim = 1;
  foreign.managed.dl_tensor.shape = shape;
  foreign.managed.dl_tensor.strides = nullptr;
  Tensor tensor;
  Failure failure;
  EXPECT_EQ(dlbridge_convert(&foreign.managed, nullptr, nullptr, nullptr, &request, tensor.place(),
                             failure.place()),
            DLBRIDGE_REFUSED);
  EXPECT_THAT(failure.message(), HasSubstr("x[2] is 300"));
  EXPECT_THAT(failure.fix(), HasSubstr("dlbridge_request{.dtype = \"int16\"}"));
  EXPECT_EQ(foreign.released, 1);
}

TEST(CConvert, leaves_no_warning_from_before_where_an_argument_is_wrong) {
  const char* warning = "left from before";
  auto request = empty<dlbridge_request>();
  request.warning = &warning;
  auto policy = empty<dlbridge_policy>();
  policy.preset = "none of them";
  Foreign foreign;
  Tensor tensor;
  EXPECT_EQ(dlbridge_convert(&foreign.managed, nullptr, nullptr, &policy, &request, tensor.place(),
                             nullptr),
            DLBRIDGE_USAGE);
  EXPECT_EQ(warning, nullptr);
}

TEST(COwn, gives_the_lease_back_once) {
  Memory memory;
  const dlbridge_lease lease = memory.lease();
  Tensor tensor;
  ASSERT_EQ(
      dlbridge_own(&memory.tensor, DLPACK_FLAG_BITMASK_READ_ONLY, &lease, tensor.place(), nullptr),
      DLBRIDGE_OK);
  EXPECT_EQ(tensor.get()->flags, DLPACK_FLAG_BITMASK_READ_ONLY);
  EXPECT_EQ(memory.released, 0);
  tensor.end();
  EXPECT_EQ(memory.released, 1);
}

TEST(CAllocate, gives_memory_as_copies_have_it) {
  const std::int64_t shape[] = {3, 5};
  Tensor tensor;
  ASSERT_EQ(dlbridge_allocate("bfloat16", 2, shape, tensor.place(), nullptr), DLBRIDGE_OK);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.dl().data) % 64, 0U);
  EXPECT_EQ(tensor.dl().strides[0], 5);
  EXPECT_EQ(tensor.get()->flags, 0U);
  Tensor packed;
  ASSERT_EQ(dlbridge_allocate("int4", 2, shape, packed.place(), nullptr), DLBRIDGE_OK);
  EXPECT_EQ(packed.get()->flags, 0U);
  packed.values<char>()[7] = 1;  // 15 elements are 8 bytes
  Tensor scalar;
  EXPECT_EQ(dlbridge_allocate("float64", 0, nullptr, scalar.place(), nullptr), DLBRIDGE_OK);
  *scalar.values<double>() = 1;
}

TEST(CShare, keeps_the_memory_until_the_last_ends) {
  Memory memory;
  const dlbridge_lease lease = memory.lease();
  Tensor first;
  Tensor second;
  ASSERT_EQ(dlbridge_own(&memory.tensor, 0, &lease, first.place(), nullptr), DLBRIDGE_OK);
  ASSERT_EQ(dlbridge_share(first.get(), second.place(), nullptr), DLBRIDGE_OK);
  EXPECT_NE(first.get(), second.get());
  EXPECT_EQ(first.dl().data, second.dl().data);
  first.end();
  EXPECT_EQ(memory.released, 0);
  second.end();
  EXPECT_EQ(memory.released, 1);
}

// DLPack's rule for the one who makes a tensor, whatever address the memory of none has.
TEST(CTensors, without_elements_have_no_address) {
  const std::int64_t shape[] = {0, 3};
  Foreign foreign;
  foreign.shape[0] = 0;
  const dlbridge_lease lease = foreign.lease();
  std::array<Tensor, 4> tensors;
  EXPECT_EQ(dlbridge_allocate("int16", 2, shape, tensors[0].place(), nullptr), DLBRIDGE_OK);
  EXPECT_EQ(dlbridge_own(&foreign.tensor, 0, &lease, tensors[1].place(), nullptr), DLBRIDGE_OK);
  EXPECT_EQ(dlbridge_share(tensors[1].get(), tensors[2].place(), nullptr), DLBRIDGE_OK);
  EXPECT_EQ(dlbridge_from_legacy(&foreign.legacy, 1, tensors[3].place(), nullptr), DLBRIDGE_OK);
  for (Tensor& tensor : tensors) {
    EXPECT_EQ(tensor.dl().data, nullptr);
    tensor.end();
  }
  EXPECT_EQ(foreign.released, 2);
}

TEST(CShare, is_for_tensors_of_dlbridge) {
  Foreign foreign;
  Tensor tensor;
  Failure failure;
  EXPECT_EQ(dlbridge_share(&foreign.managed, tensor.place(), failure.place()), DLBRIDGE_USAGE);
  EXPECT_THAT(failure.message(), HasSubstr("dlbridge_convert()"));
  EXPECT_EQ(foreign.released, 0);
}

TEST(CLegacy, goes_there_and_back) {
  Foreign foreign;
  Tensor tensor;
  ASSERT_EQ(dlbridge_from_legacy(&foreign.legacy, 1, tensor.place(), nullptr), DLBRIDGE_OK);
  EXPECT_EQ(tensor.get()->flags, 0U);
  DLManagedTensor* legacy = nullptr;
  ASSERT_EQ(dlbridge_to_legacy(tensor.release(), nullptr, &legacy, nullptr), DLBRIDGE_OK);
  EXPECT_EQ(legacy->dl_tensor.data, foreign.values.data());
  EXPECT_EQ(foreign.released, 0);
  legacy->deleter(legacy);
  EXPECT_EQ(foreign.released, 1);
}

TEST(CLegacy, never_carries_read_only_memory) {
  Foreign foreign;
  Tensor tensor;
  ASSERT_EQ(dlbridge_from_legacy(&foreign.legacy, 0, tensor.place(), nullptr), DLBRIDGE_OK);
  EXPECT_EQ(tensor.get()->flags, DLPACK_FLAG_BITMASK_READ_ONLY);
  Tensor copied;
  ASSERT_EQ(dlbridge_share(tensor.get(), copied.place(), nullptr), DLBRIDGE_OK);
  DLManagedTensor* legacy = nullptr;
  Failure failure;
  EXPECT_EQ(dlbridge_to_legacy(tensor.release(), nullptr, &legacy, failure.place()),
            DLBRIDGE_REFUSED);
  EXPECT_EQ(legacy, nullptr);
  EXPECT_THAT(failure.fix(), HasSubstr("dlbridge_policy{.preset = \"snapshot\"} to copy"));
  const dlbridge_policy policy = preset("snapshot");
  ASSERT_EQ(dlbridge_to_legacy(copied.release(), &policy, &legacy, nullptr), DLBRIDGE_OK);
  EXPECT_EQ(foreign.released, 1);
  EXPECT_NE(legacy->dl_tensor.data, foreign.values.data());
  legacy->deleter(legacy);
}

TEST(CPlan, says_what_would_be_done_and_does_nothing) {
  Memory memory;
  memory.transpose();
  const dlbridge_source source = memory.source();
  const dlbridge_capabilities target = compact();
  dlbridge_plan* plan = nullptr;
  ASSERT_EQ(dlbridge_plan_make(&source, &target, nullptr, nullptr, &plan, nullptr), DLBRIDGE_OK);
  EXPECT_EQ(dlbridge_plan_is_refused(plan), 0);
  EXPECT_EQ(dlbridge_plan_is_view(plan), 0);
  EXPECT_EQ(dlbridge_plan_is_writable(plan), 1);
  EXPECT_EQ(dlbridge_plan_bytes_copied(plan), 24);
  ASSERT_EQ(dlbridge_plan_step_count(plan), 1U);
  EXPECT_STREQ(dlbridge_plan_step(plan, 0), "repack");
  EXPECT_EQ(dlbridge_plan_step(plan, 1), nullptr);
  ASSERT_EQ(dlbridge_plan_reason_count(plan), 1U);
  EXPECT_THAT(dlbridge_plan_reason(plan, 0), HasSubstr("not C-contiguous"));
  EXPECT_EQ(dlbridge_plan_note_count(plan), 0U);
  EXPECT_EQ(dlbridge_plan_message(plan), nullptr);
  EXPECT_EQ(dlbridge_plan_fix(plan), nullptr);
  dlbridge_plan_free(plan);
  EXPECT_EQ(memory.acquired, 0);
}

TEST(CPlan, of_a_refusal_is_a_plan_too) {
  Memory memory;
  memory.transpose();
  const dlbridge_source source = memory.source();
  const dlbridge_capabilities target = compact();
  const dlbridge_policy policy = preset("strict");
  dlbridge_plan* plan = nullptr;
  ASSERT_EQ(dlbridge_plan_make(&source, &target, &policy, nullptr, &plan, nullptr), DLBRIDGE_OK);
  EXPECT_EQ(dlbridge_plan_is_refused(plan), 1);
  EXPECT_THAT(dlbridge_plan_message(plan), HasSubstr("cannot view a tensor"));
  EXPECT_STREQ(dlbridge_plan_fix(plan), "dlbridge_policy{.preset = \"host\"} to copy");
  dlbridge_plan_free(plan);
}

TEST(CPlan, notes_what_the_taker_should_know) {
  Memory memory;
  const dlbridge_source source = memory.source();
  auto target = empty<dlbridge_capabilities>();
  target.takes_as_constant = 1;
  dlbridge_plan* plan = nullptr;
  ASSERT_EQ(dlbridge_plan_make(&source, &target, nullptr, nullptr, &plan, nullptr), DLBRIDGE_OK);
  EXPECT_EQ(dlbridge_plan_is_view(plan), 1);
  ASSERT_EQ(dlbridge_plan_note_count(plan), 1U);
  EXPECT_THAT(dlbridge_plan_note(plan, 0), HasSubstr("takes memory as constant"));
  dlbridge_plan_free(plan);
}

TEST(CPolicy, takes_every_value_of_every_field) {
  static constexpr const char* dlbridge_policy::*kMembers[] = {
      &dlbridge_policy::grad,     &dlbridge_policy::bits,   &dlbridge_policy::device,
      &dlbridge_policy::layout,   &dlbridge_policy::dtype,  &dlbridge_policy::readonly,
      &dlbridge_policy::mutable_, &dlbridge_policy::overlap};
  static_assert(std::size(kMembers) == kFieldCount);
  for (std::size_t i = 0; i < kFields.size(); ++i) {
    for (const auto& value : kFields[i].values) {
      if (value.name.empty()) {
        continue;
      }
      auto policy = empty<dlbridge_policy>();
      const std::string name(value.name);
      policy.*kMembers[i] = name.c_str();
      Foreign foreign;
      Tensor tensor;
      Failure failure;
      EXPECT_EQ(dlbridge_convert(&foreign.managed, nullptr, nullptr, &policy, nullptr,
                                 tensor.place(), failure.place()),
                DLBRIDGE_OK)
          << kFields[i].name << " = " << name << ": " << failure.message();
    }
  }
}

TEST(CPolicy, has_fields_that_stand_over_the_preset) {
  const dlbridge_capabilities target = compact();
  dlbridge_policy policy = preset("zero_copy");
  policy.copy = "when_needed";
  Foreign foreign;
  foreign.managed.dl_tensor.shape = foreign.strides.data();  // 3, 1
  foreign.managed.dl_tensor.strides = foreign.shape.data();  // 2, 3
  Tensor tensor;
  EXPECT_EQ(dlbridge_convert(&foreign.managed, nullptr, &target, &policy, nullptr, tensor.place(),
                             nullptr),
            DLBRIDGE_OK);
  EXPECT_EQ(tensor.get()->flags, DLPACK_FLAG_BITMASK_IS_COPIED);
}

TEST(CApi, is_one_table_of_all_functions) {
  const dlbridge_api* api = dlbridge_get_api(DLBRIDGE_ABI_MAJOR);
  ASSERT_NE(api, nullptr);
  EXPECT_EQ(api->struct_size, sizeof(dlbridge_api));
  EXPECT_EQ(api->abi_version, dlbridge_abi_version());
  EXPECT_EQ(api->convert, &dlbridge_convert);
  EXPECT_EQ(api->plan_free, &dlbridge_plan_free);
  const auto* words = reinterpret_cast<const void* const*>(&api->error_status);
  const std::size_t count = (sizeof *api - offsetof(dlbridge_api, error_status)) / sizeof(void*);
  for (std::size_t i = 0; i < count; ++i) {
    EXPECT_NE(words[i], nullptr) << i;
  }
  EXPECT_EQ(dlbridge_get_api(DLBRIDGE_ABI_MAJOR + 1), nullptr);
  EXPECT_EQ(dlbridge_get_api(0), nullptr);
}

TEST(CThreads, share_and_end_one_memory) {
  Memory memory;
  const dlbridge_lease lease = memory.lease();
  Tensor first;
  ASSERT_EQ(dlbridge_own(&memory.tensor, 0, &lease, first.place(), nullptr), DLBRIDGE_OK);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const dlbridge_capabilities target = compact();
      const dlbridge_policy policy = preset("snapshot");
      for (int turn = 0; turn < 200; ++turn) {
        Tensor shared;
        Tensor copied;
        Failure failure;
        EXPECT_EQ(dlbridge_share(first.get(), shared.place(), nullptr), DLBRIDGE_OK);
        EXPECT_EQ(dlbridge_convert(shared.release(), nullptr, &target, &policy, nullptr,
                                   copied.place(), nullptr),
                  DLBRIDGE_OK);
        EXPECT_EQ(copied.values()[5], 5);
        EXPECT_EQ(dlbridge_convert(nullptr, nullptr, nullptr, nullptr, nullptr, shared.place(),
                                   failure.place()),
                  DLBRIDGE_USAGE);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(memory.released, 0);
  first.end();
  EXPECT_EQ(memory.released, 1);
}

}  // namespace
}  // namespace dlbridge
