// Memory that ends at the first, the second, ... allocation of a call: each leaves nothing behind,
// and is told even where there is no memory for the words.

#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "c/c_doubles.hpp"

namespace {

// Allocations of this thread until one fails; below zero all succeed.
thread_local int left = -1;
thread_local bool failed = false;

}  // namespace

// The library asks these for its memory as well: a program's own come before libstdc++'s.
void* operator new(std::size_t size) {
  if (left == 0) {
    failed = true;
    throw std::bad_alloc();
  }
  left -= left > 0 ? 1 : 0;
  if (void* memory = std::malloc(size)) {
    return memory;
  }
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t& /*none*/) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t /*size*/) noexcept {
  std::free(memory);
}

namespace dlbridge {
namespace {

using namespace c_doubles;  // NOLINT(google-build-using-namespace): the vocabulary of these tests

// Calls `cross` with less and less memory missing, until there is enough. Gives how often there
// was too little.
template <typename Cross>
int with_failing_memory(dlbridge_status wanted, Cross&& cross) {
  int told = 0;
  for (int allowed = 0;; ++allowed) {
    Foreign memory;
    dlbridge_error* error = nullptr;
    left = allowed;
    failed = false;
    const dlbridge_status status = cross(memory, &error);
    left = -1;
    EXPECT_EQ(dlbridge_error_status(error), status);
    EXPECT_EQ(error == nullptr, status == DLBRIDGE_OK);
    EXPECT_TRUE(error == nullptr || dlbridge_error_message(error) != nullptr);
    const bool enough = !failed;
    told += status == DLBRIDGE_NO_MEMORY ? 1 : 0;
    // There is memory that it can do without.
    EXPECT_TRUE(status == wanted || (!enough && status == DLBRIDGE_NO_MEMORY))
        << status << " after " << allowed;
    dlbridge_error_free(error);
    EXPECT_EQ(memory.acquired, memory.released) << "after " << allowed;
    if (enough || allowed == 1000) {
      return told;
    }
  }
}

TEST(CFailingNew, leaves_nothing_behind_in_a_view) {
  const int failures = with_failing_memory(DLBRIDGE_OK, [](Foreign& memory, auto** error) {
    const dlbridge_source source = memory.source();
    Tensor tensor;
    return dlbridge_to_managed(&source, nullptr, nullptr, nullptr, tensor.place(), error);
  });
  EXPECT_GE(failures, 1);
}

TEST(CFailingNew, leaves_nothing_behind_in_a_refusal_and_its_words) {
  const int failures = with_failing_memory(DLBRIDGE_REFUSED, [](Foreign& memory, auto** error) {
    memory.transpose();
    const dlbridge_source source = memory.source();
    const dlbridge_capabilities target = compact();
    const dlbridge_policy policy = preset("strict");
    Tensor tensor;
    return dlbridge_to_managed(&source, &target, &policy, nullptr, tensor.place(), error);
  });
  EXPECT_GE(failures, 10);
}

TEST(CFailingNew, releases_what_it_took) {
  with_failing_memory(DLBRIDGE_OK, [](Foreign& memory, auto** error) {
    ++memory.acquired;
    const dlbridge_lease lease = memory.lease();
    Tensor tensor;
    return dlbridge_own(&memory.tensor, 0, &lease, tensor.place(), error);
  });
  with_failing_memory(DLBRIDGE_USAGE, [](Foreign& memory, auto** error) {
    ++memory.acquired;
    const dlbridge_policy policy = preset("a name that is too long to be kept in place");
    Tensor tensor;
    return dlbridge_convert(&memory.managed, nullptr, nullptr, &policy, nullptr, tensor.place(),
                            error);
  });
  with_failing_memory(DLBRIDGE_OK, [](Foreign& memory, auto** error) {
    ++memory.acquired;
    DLManagedTensor* legacy = nullptr;
    const dlbridge_status status = dlbridge_to_legacy(&memory.managed, nullptr, &legacy, error);
    if (legacy != nullptr) {
      legacy->deleter(legacy);
    }
    return status;
  });
}

TEST(CFailingNew, leaves_nothing_behind_in_a_plan) {
  const int failures = with_failing_memory(DLBRIDGE_OK, [](Foreign& memory, auto** error) {
    memory.transpose();
    const dlbridge_source source = memory.source();
    const dlbridge_capabilities target = compact();
    dlbridge_plan* plan = nullptr;
    const dlbridge_status status =
        dlbridge_plan_make(&source, &target, nullptr, nullptr, &plan, error);
    EXPECT_EQ(plan == nullptr, status != DLBRIDGE_OK);
    dlbridge_plan_free(plan);
    return status;
  });
  EXPECT_GE(failures, 3);
}

TEST(CFailingNew, makes_errors_of_callbacks_that_say_so) {
  left = 0;
  dlbridge_error* error = dlbridge_error_make(DLBRIDGE_DEVICE, "never heard");
  left = -1;
  ASSERT_NE(error, nullptr);
  EXPECT_EQ(dlbridge_error_status(error), DLBRIDGE_NO_MEMORY);
  EXPECT_STREQ(dlbridge_error_message(error), "there is not enough memory");
  EXPECT_EQ(dlbridge_error_reason_count(error), 0U);
  EXPECT_EQ(dlbridge_error_reason(error, 0), nullptr);
  EXPECT_EQ(dlbridge_error_fix(error), nullptr);
  dlbridge_error_free(error);
  dlbridge_error_free(error);  // it is nobody's
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(CAllocate, says_that_there_is_no_memory) {
  const std::int64_t shape[] = {std::int64_t{1} << 50};
  Tensor tensor;
  Failure failure;
  EXPECT_EQ(dlbridge_allocate("int8", 1, shape, tensor.place(), failure.place()),
            DLBRIDGE_NO_MEMORY);
  EXPECT_EQ(failure.message(), "there is not enough memory");
}
#endif

}  // namespace
}  // namespace dlbridge
