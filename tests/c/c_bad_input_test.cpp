// All that a C program can get wrong: a status and words, nothing leaked, nothing released twice.

#include <gmock/gmock.h>

#include <array>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "c/c_doubles.hpp"

namespace dlbridge {
namespace {

using namespace c_doubles;  // NOLINT(google-build-using-namespace): the vocabulary of these tests
using ::testing::HasSubstr;

// All arguments of dlbridge_to_managed(), right until a test spoils them.
struct Arguments {
  Memory memory;
  dlbridge_source source = memory.source();
  dlbridge_library library = empty<dlbridge_library>();
  dlbridge_capabilities target = empty<dlbridge_capabilities>();
  dlbridge_policy policy = empty<dlbridge_policy>();
  dlbridge_request request = empty<dlbridge_request>();
  std::array<const char*, 48> texts{};

  const char* const* list(std::initializer_list<const char*> given) {
    std::copy(given.begin(), given.end(), texts.begin());
    return texts.data();
  }
};

struct Mistake {
  const char* said;
  void (*make)(Arguments& with);
  dlbridge_status status = DLBRIDGE_USAGE;
};

const Mistake kMistakes[] = {
    {"dlbridge_source.struct_size is 0", [](Arguments& with) { with.source.struct_size = 0; }},
    {"dlbridge_library.struct_size is 0", [](Arguments& with) { with.library.struct_size = 0; }},
    {"dlbridge_capabilities.struct_size is 0",
     [](Arguments& with) { with.target.struct_size = 0; }},
    {"dlbridge_policy.struct_size is 0", [](Arguments& with) { with.policy.struct_size = 0; }},
    {"dlbridge_request.struct_size is 0", [](Arguments& with) { with.request.struct_size = 0; }},
    {"no version of the struct has that size",
     [](Arguments& with) { with.policy.struct_size = static_cast<std::size_t>(-8); }},
    {"no version of the struct has that size",
     [](Arguments& with) { with.policy.struct_size = sizeof(dlbridge_policy) - 3; }},
    {"dlbridge_source.tensor is NULL", [](Arguments& with) { with.source.tensor = nullptr; }},
    {"dlbridge_source.acquire is NULL", [](Arguments& with) { with.source.acquire = nullptr; }},
    {"has no prepare()", [](Arguments& with) { with.source.copies_there = 1; }},
    {"flags has a bit", [](Arguments& with) { with.source.flags = 1 << 5; }},
    {"a condition in dlbridge_source.conditions is \"sparze\"; use one of in_graph, ",
     [](Arguments& with) { with.source.conditions = with.list({"sparze"}); }},
    {"\"copy_asked\" is for a plan to find",
     [](Arguments& with) { with.source.conditions = with.list({"copy_asked"}); }},
    {"needs dlbridge_source.byte_strides",
     [](Arguments& with) { with.source.conditions = with.list({"fractional_strides"}); }},
    {"fixes is \"readonly\"; use one of",
     [](Arguments& with) {
       with.library.fixes = with.list({"readonly", "x.copy()"});
     }},
    {"ends with a condition that has no call",
     [](Arguments& with) { with.library.fixes = with.list({"read_only"}); }},
    {"more than 20 pairs",
     [](Arguments& with) {
       for (std::size_t i = 0; i < 42; i += 2) {
         with.texts[i] = "read_only";
         with.texts[i + 1] = "x.copy()";
       }
       with.library.fixes = with.texts.data();
     }},
    {"dlbridge_policy.preset is \"lenient\"; use one of strict, host, zero_copy, snapshot",
     [](Arguments& with) { with.policy.preset = "lenient"; }},
    {"dlbridge_policy.grad is \"detatch\"; use one of detach, refuse, detach_writable",
     [](Arguments& with) { with.policy.grad = "detatch"; }},
    {"dlbridge_policy.mutable is \"\"; use one of alias, copy, refuse",
     [](Arguments& with) { with.policy.mutable_ = ""; }},
    {"dlbridge_policy.copy is \"None\"; use one of when_needed, never, always",
     [](Arguments& with) { with.policy.copy = "None"; }},
    {"dlbridge_request.dtype is \"float\"; use one of bool, int8,",
     [](Arguments& with) { with.request.dtype = "float"; }},
    {"dlbridge_request.device is \"gpu:0\"",
     [](Arguments& with) { with.request.device = "gpu:0"; }},
    {"dlbridge_capabilities.devices is \"gpu\"",
     [](Arguments& with) {
       with.target.devices = with.list({"cpu", "gpu"});
     }},
    {"devices is a list of none", [](Arguments& with) { with.target.devices = with.list({}); }},
    {"dlbridge_capabilities.dtypes is \"f4\"",
     [](Arguments& with) { with.target.dtypes = with.list({"f4"}); }},
    {"dtypes is a list of none", [](Arguments& with) { with.target.dtypes = with.list({}); }},
    {"dlbridge_capabilities.strides is \"C\"; use one of any, non-negative, compact",
     [](Arguments& with) { with.target.strides = "C"; }},
    {"dlbridge_capabilities.read_only is \"yes\"; use one of honours, unaware, never",
     [](Arguments& with) { with.target.read_only = "yes"; }},
    {"no power of two", [](Arguments& with) { with.target.alignment = 24; }},
    {"no power of two", [](Arguments& with) { with.target.alignment = -64; }},
    {"between 0 and 64", [](Arguments& with) { with.target.min_dimensions = -1; }},
    {"between 0 and 64", [](Arguments& with) { with.target.max_dimensions = 65; }},
    {"reserved is to be zero", [](Arguments& with) { with.target.reserved = 1; }},
    {"-1 dimensions", [](Arguments& with) { with.memory.tensor.ndim = -1; }, DLBRIDGE_MALFORMED},
    {"its shape is NULL", [](Arguments& with) { with.memory.tensor.shape = nullptr; },
     DLBRIDGE_MALFORMED},
    {"has size -2", [](Arguments& with) { with.memory.shape[0] = -2; }, DLBRIDGE_MALFORMED},
    {"its data is NULL", [](Arguments& with) { with.memory.tensor.data = nullptr; },
     DLBRIDGE_MALFORMED},
    {"its device type is 0",
     [](Arguments& with) { with.memory.tensor.device.device_type = DLDeviceType{}; },
     DLBRIDGE_MALFORMED},
    {"its type is", [](Arguments& with) { with.memory.tensor.dtype.bits = 0; }, DLBRIDGE_MALFORMED},
    {"overflows", [](Arguments& with) { with.memory.shape[0] = std::int64_t{1} << 62; },
     DLBRIDGE_MALFORMED},
    {"leave the address space",
     [](Arguments& with) {
       static const std::int64_t kStrides[] = {-(std::int64_t{1} << 59), 4};
       with.source.conditions = with.list({"fractional_strides"});
       with.source.byte_strides = kStrides;
     },
     DLBRIDGE_MALFORMED},
    {"elements of whole bytes",
     [](Arguments& with) {
       static const std::int64_t kStrides[] = {1, 1};
       with.memory.tensor.dtype = {kDLUInt, 4, 1};
       with.source.conditions = with.list({"fractional_strides"});
       with.source.byte_strides = kStrides;
     },
     DLBRIDGE_MALFORMED},
};

class CMistake : public ::testing::TestWithParam<Mistake> {};

TEST_P(CMistake, is_told_with_nothing_taken) {
  Arguments with;
  with.source.library = &with.library;
  GetParam().make(with);
  Tensor tensor;
  Failure failure;
  EXPECT_EQ(dlbridge_to_managed(&with.source, &with.target, &with.policy, &with.request,
                                tensor.place(), failure.place()),
            GetParam().status);
  EXPECT_EQ(dlbridge_error_status(failure.get()), GetParam().status);
  EXPECT_THAT(failure.message(), HasSubstr(GetParam().said));
  EXPECT_EQ(tensor.get(), nullptr);
  EXPECT_EQ(with.memory.acquired, 0);
}

INSTANTIATE_TEST_SUITE_P(Each, CMistake, ::testing::ValuesIn(kMistakes));

TEST(CBadInput, null_arguments_are_usage) {
  Memory memory;
  const dlbridge_source source = memory.source();
  const dlbridge_lease lease = memory.lease();
  Tensor tensor;
  Failure failure;
  EXPECT_EQ(
      dlbridge_to_managed(nullptr, nullptr, nullptr, nullptr, tensor.place(), failure.place()),
      DLBRIDGE_USAGE);
  EXPECT_EQ(dlbridge_to_managed(&source, nullptr, nullptr, nullptr, nullptr, failure.place()),
            DLBRIDGE_USAGE);
  EXPECT_THAT(failure.message(), HasSubstr("out is NULL"));
  EXPECT_EQ(dlbridge_to_managed(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr),
            DLBRIDGE_USAGE);
  EXPECT_EQ(dlbridge_plan_make(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr),
            DLBRIDGE_USAGE);
  EXPECT_EQ(dlbridge_convert(nullptr, nullptr, nullptr, nullptr, nullptr, tensor.place(), nullptr),
            DLBRIDGE_USAGE);
  EXPECT_EQ(dlbridge_share(nullptr, tensor.place(), nullptr), DLBRIDGE_USAGE);
  EXPECT_EQ(dlbridge_from_legacy(nullptr, 0, tensor.place(), nullptr), DLBRIDGE_USAGE);
  EXPECT_EQ(dlbridge_to_legacy(nullptr, nullptr, nullptr, nullptr), DLBRIDGE_USAGE);
  EXPECT_EQ(dlbridge_allocate(nullptr, 0, nullptr, tensor.place(), nullptr), DLBRIDGE_USAGE);
  EXPECT_EQ(dlbridge_own(&memory.tensor, 0, nullptr, tensor.place(), nullptr), DLBRIDGE_USAGE);
  EXPECT_EQ(memory.acquired + memory.released, 0);
  EXPECT_EQ(dlbridge_own(nullptr, 0, &lease, tensor.place(), nullptr), DLBRIDGE_USAGE);
  EXPECT_EQ(memory.released, 1);
  EXPECT_EQ(tensor.get(), nullptr);
}

TEST(CBadInput, words_of_null_are_none) {
  EXPECT_EQ(dlbridge_error_status(nullptr), DLBRIDGE_OK);
  EXPECT_EQ(dlbridge_error_message(nullptr), nullptr);
  EXPECT_EQ(dlbridge_error_reason_count(nullptr), 0U);
  EXPECT_EQ(dlbridge_error_reason(nullptr, 0), nullptr);
  EXPECT_EQ(dlbridge_error_fix(nullptr), nullptr);
  dlbridge_error_free(nullptr);
  EXPECT_EQ(dlbridge_plan_is_refused(nullptr), 0);
  EXPECT_EQ(dlbridge_plan_is_view(nullptr), 0);
  EXPECT_EQ(dlbridge_plan_is_writable(nullptr), 0);
  EXPECT_EQ(dlbridge_plan_bytes_copied(nullptr), 0);
  EXPECT_EQ(dlbridge_plan_step(nullptr, 0), nullptr);
  EXPECT_EQ(dlbridge_plan_step_count(nullptr), 0U);
  EXPECT_EQ(dlbridge_plan_reason(nullptr, 0), nullptr);
  EXPECT_EQ(dlbridge_plan_reason_count(nullptr), 0U);
  EXPECT_EQ(dlbridge_plan_note(nullptr, 0), nullptr);
  EXPECT_EQ(dlbridge_plan_note_count(nullptr), 0U);
  EXPECT_EQ(dlbridge_plan_message(nullptr), nullptr);
  EXPECT_EQ(dlbridge_plan_fix(nullptr), nullptr);
  dlbridge_plan_free(nullptr);
}

TEST(CBadInput, what_is_taken_is_released_whatever_was_wrong) {
  auto wrong = empty<dlbridge_policy>();
  wrong.bits = "refused";
  const auto released = [&](auto&& call) {
    Foreign foreign;
    Tensor tensor;
    call(foreign, tensor.place());
    EXPECT_EQ(tensor.get(), nullptr);
    EXPECT_EQ(foreign.released, 1);
  };
  released([&](Foreign& it, DLManagedTensorVersioned** out) {
    EXPECT_EQ(dlbridge_convert(&it.managed, nullptr, nullptr, &wrong, nullptr, out, nullptr),
              DLBRIDGE_USAGE);
  });
  released([](Foreign& it, DLManagedTensorVersioned** /*out*/) {
    EXPECT_EQ(dlbridge_convert(&it.managed, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr),
              DLBRIDGE_USAGE);
  });
  released([](Foreign& it, DLManagedTensorVersioned** out) {
    it.managed.version.major = 7;
    EXPECT_EQ(dlbridge_convert(&it.managed, nullptr, nullptr, nullptr, nullptr, out, nullptr),
              DLBRIDGE_MALFORMED);
  });
  released([](Foreign& it, DLManagedTensorVersioned** out) {
    it.shape[1] = -3;
    EXPECT_EQ(dlbridge_convert(&it.managed, nullptr, nullptr, nullptr, nullptr, out, nullptr),
              DLBRIDGE_MALFORMED);
  });
  released([](Foreign& it, DLManagedTensorVersioned** /*out*/) {
    EXPECT_EQ(dlbridge_to_legacy(&it.managed, nullptr, nullptr, nullptr), DLBRIDGE_USAGE);
  });
  released([](Foreign& it, DLManagedTensorVersioned** /*out*/) {
    EXPECT_EQ(dlbridge_from_legacy(&it.legacy, 0, nullptr, nullptr), DLBRIDGE_USAGE);
  });
  released([](Foreign& it, DLManagedTensorVersioned** out) {
    it.legacy.dl_tensor.ndim = 65;
    EXPECT_EQ(dlbridge_from_legacy(&it.legacy, 0, out, nullptr), DLBRIDGE_MALFORMED);
  });
  released([](Foreign& it, DLManagedTensorVersioned** out) {
    const dlbridge_lease lease = it.lease();
    it.tensor.ndim = -1;
    EXPECT_EQ(dlbridge_own(&it.tensor, 0, &lease, out, nullptr), DLBRIDGE_MALFORMED);
  });
  released([](Foreign& it, DLManagedTensorVersioned** out) {
    const dlbridge_lease lease = it.lease();
    EXPECT_EQ(dlbridge_own(&it.tensor, ~std::uint64_t{0}, &lease, out, nullptr), DLBRIDGE_USAGE);
  });
  released([](Foreign& it, DLManagedTensorVersioned** /*out*/) {
    const dlbridge_lease lease = it.lease();
    EXPECT_EQ(dlbridge_own(&it.tensor, 0, &lease, nullptr, nullptr), DLBRIDGE_USAGE);
  });
}

TEST(CBadInput, a_lease_has_a_release) {
  Memory memory;
  dlbridge_source source = memory.source();
  source.acquire = [](void*, void**, dlbridge_lease*, dlbridge_error**) -> dlbridge_status {
    return DLBRIDGE_OK;
  };
  Tensor tensor;
  Failure failure;
  EXPECT_EQ(
      dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), failure.place()),
      DLBRIDGE_USAGE);
  EXPECT_THAT(failure.message(), HasSubstr("set no release()"));
  const dlbridge_lease lease{};
  EXPECT_EQ(dlbridge_own(&memory.tensor, 0, &lease, tensor.place(), failure.place()),
            DLBRIDGE_USAGE);
}

TEST(CBadInput, memory_corrected_to_nothing_is_given_back) {
  Memory memory;
  dlbridge_source source = memory.source();
  source.acquire = [](void* self, void** data, dlbridge_lease* lease, dlbridge_error** error) {
    *data = nullptr;
    return Memory::acquire(self, data, lease, error);
  };
  Tensor tensor;
  EXPECT_EQ(dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), nullptr),
            DLBRIDGE_MALFORMED);
  EXPECT_EQ(memory.released, 1);
}

TEST(CBadInput, callbacks_that_fail_are_told_in_their_words) {
  Memory memory;
  dlbridge_source source = memory.source();
  Tensor tensor;
  Failure failure;
  const auto outcome = [&](dlbridge_acquire acquire) {
    source.acquire = acquire;
    const dlbridge_status status =
        dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), failure.place());
    EXPECT_EQ(tensor.get(), nullptr);
    return status;
  };
  EXPECT_EQ(outcome([](void*, void**, dlbridge_lease*, dlbridge_error** error) -> dlbridge_status {
              *error = dlbridge_error_make(DLBRIDGE_DEVICE, "the camera is unplugged");
              return DLBRIDGE_DEVICE;
            }),
            DLBRIDGE_DEVICE);
  EXPECT_EQ(failure.message(), "the camera is unplugged");
  EXPECT_EQ(outcome([](void*, void**, dlbridge_lease*, dlbridge_error**) -> dlbridge_status {
              return DLBRIDGE_NO_MEMORY;
            }),
            DLBRIDGE_NO_MEMORY);
  EXPECT_EQ(failure.message(), "acquire() of the source failed");
  EXPECT_EQ(outcome([](void*, void**, dlbridge_lease*, dlbridge_error**) -> dlbridge_status {
              return -3;
            }),
            DLBRIDGE_USAGE);
  EXPECT_THAT(failure.message(), HasSubstr("returned -3"));
  EXPECT_EQ(memory.released, 0);
}

TEST(CBadInput, an_error_beside_success_is_ended) {
  Memory memory;
  dlbridge_source source = memory.source();
  source.acquire = [](void* self, void** data, dlbridge_lease* lease, dlbridge_error** error) {
    *error = dlbridge_error_make(DLBRIDGE_OK, nullptr);
    return Memory::acquire(self, data, lease, nullptr);
  };
  Tensor tensor;
  EXPECT_EQ(dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), nullptr),
            DLBRIDGE_OK);
}

TEST(CBadInput, exceptions_of_callbacks_do_not_cross) {
  Memory memory;
  dlbridge_source source = memory.source();
  Tensor tensor;
  Failure failure;
  source.acquire = [](void*, void**, dlbridge_lease*, dlbridge_error** error) -> dlbridge_status {
    *error = dlbridge_error_make(DLBRIDGE_DEVICE, "ended as well");
    throw std::runtime_error("thrown by a callback");
  };
  EXPECT_EQ(
      dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), failure.place()),
      DLBRIDGE_INTERNAL);
  EXPECT_EQ(failure.message(), "thrown by a callback");
  source.acquire = [](void*, void**, dlbridge_lease*, dlbridge_error**) -> dlbridge_status {
    throw 7;  // NOLINT(hicpp-exception-baseclass)
  };
  EXPECT_EQ(
      dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), failure.place()),
      DLBRIDGE_INTERNAL);
  const dlbridge_lease lease{&memory, [](void* self) {
                               Memory::release(self);
                               throw std::runtime_error("thrown by a release");
                             }};
  ASSERT_EQ(dlbridge_own(&memory.tensor, 0, &lease, tensor.place(), nullptr), DLBRIDGE_OK);
  tensor.end();
  EXPECT_EQ(memory.released, 1);
  memory.tensor.ndim = -1;
  EXPECT_EQ(dlbridge_own(&memory.tensor, 0, &lease, tensor.place(), nullptr), DLBRIDGE_MALFORMED);
  EXPECT_EQ(memory.released, 2);
  Foreign foreign;
  foreign.managed.deleter = [](DLManagedTensorVersioned* self) {
    Memory::release(self->manager_ctx);
    throw std::runtime_error("thrown by a deleter");
  };
  ASSERT_EQ(dlbridge_convert(&foreign.managed, nullptr, nullptr, nullptr, nullptr, tensor.place(),
                             nullptr),
            DLBRIDGE_OK);
  tensor.end();
  EXPECT_EQ(foreign.released, 1);
}

TEST(CBadInput, prepare_that_gives_nothing_is_told) {
  Memory memory;
  memory.tensor.device = {kDLCUDA, 0};
  dlbridge_source source = memory.source();
  source.copies_to_host = 1;
  source.prepare = [](void*, const dlbridge_leg*, DLManagedTensorVersioned**,
                      dlbridge_error**) -> dlbridge_status { return DLBRIDGE_OK; };
  const dlbridge_capabilities target = compact();
  Tensor tensor;
  Failure failure;
  EXPECT_EQ(
      dlbridge_to_managed(&source, &target, nullptr, nullptr, tensor.place(), failure.place()),
      DLBRIDGE_USAGE);
  EXPECT_THAT(failure.message(), HasSubstr("succeeded and gave nothing"));
}

TEST(CBadInput, sizes_of_allocations_are_checked) {
  Tensor tensor;
  Failure failure;
  const std::int64_t shape[] = {std::int64_t{1} << 40, std::int64_t{1} << 40};
  const std::int64_t negative[] = {-1};
  EXPECT_EQ(dlbridge_allocate("float32", 2, shape, tensor.place(), nullptr), DLBRIDGE_MALFORMED);
  EXPECT_EQ(dlbridge_allocate("float32", 1, negative, tensor.place(), nullptr), DLBRIDGE_MALFORMED);
  EXPECT_EQ(dlbridge_allocate("float32", -1, shape, tensor.place(), nullptr), DLBRIDGE_MALFORMED);
  EXPECT_EQ(dlbridge_allocate("float32", 65, shape, tensor.place(), nullptr), DLBRIDGE_MALFORMED);
  EXPECT_EQ(dlbridge_allocate("float32", 1, nullptr, tensor.place(), nullptr), DLBRIDGE_MALFORMED);
  EXPECT_EQ(dlbridge_allocate("float", 1, shape, tensor.place(), failure.place()), DLBRIDGE_USAGE);
  EXPECT_THAT(failure.message(), HasSubstr("dtype is \"float\""));
}

// A program that was compiled against an older header, and one against a newer one.
TEST(CStructSize, of_an_older_program_leaves_the_rest_at_its_default) {
  dlbridge_request request = empty<dlbridge_request>();
  request.struct_size = offsetof(dlbridge_request, device);
  request.dtype = "float64";
  request.device = "nowhere";  // memory that the older program does not have
  Foreign foreign;
  Tensor tensor;
  EXPECT_EQ(dlbridge_convert(&foreign.managed, nullptr, nullptr, nullptr, &request, tensor.place(),
                             nullptr),
            DLBRIDGE_OK);
  EXPECT_EQ(tensor.dl().dtype.bits, 64);
}

TEST(CStructSize, of_a_newer_program_may_be_larger_by_zeros) {
  struct Newer {
    dlbridge_policy policy;
    const char* later;
  } newer{};
  newer.policy.struct_size = sizeof newer;
  newer.policy.preset = "host";
  {
    Foreign foreign;
    Tensor tensor;
    EXPECT_EQ(dlbridge_convert(&foreign.managed, nullptr, nullptr, &newer.policy, nullptr,
                               tensor.place(), nullptr),
              DLBRIDGE_OK);
  }
  newer.later = "asked for";
  Foreign foreign;
  Tensor tensor;
  Failure failure;
  EXPECT_EQ(dlbridge_convert(&foreign.managed, nullptr, nullptr, &newer.policy, nullptr,
                             tensor.place(), failure.place()),
            DLBRIDGE_USAGE);
  EXPECT_THAT(failure.message(), HasSubstr("asks for what this dlbridge, of 1.0, does not know"));
  EXPECT_EQ(foreign.released, 1);
}

#if defined(__SANITIZE_ADDRESS__)
TEST(CBadInput, a_tensor_that_is_freed_twice_is_found) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        DLManagedTensorVersioned* tensor = nullptr;
        (void)dlbridge_allocate("int8", 0, nullptr, &tensor, nullptr);
        tensor->deleter(tensor);
        tensor->deleter(tensor);
      },
      "AddressSanitizer: heap-use-after-free");
}

TEST(CBadInput, an_error_that_is_freed_twice_is_found) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        dlbridge_error* error = dlbridge_error_make(DLBRIDGE_USAGE, "once");
        dlbridge_error_free(error);
        dlbridge_error_free(error);
      },
      "AddressSanitizer");
}
#endif

}  // namespace
}  // namespace dlbridge
