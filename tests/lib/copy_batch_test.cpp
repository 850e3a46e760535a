// Many copies as one piece of work.

#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "dlbridge/copy.hpp"
#include "dlbridge/threads.hpp"

namespace {

using dlbridge::CopyJob;
using dlbridge::DType;

constexpr std::int64_t kRows = 37;
constexpr std::int64_t kColumns = 61;
constexpr std::int64_t kShape[] = {kRows, kColumns};
constexpr std::int64_t kItem = sizeof(float);
constexpr std::int64_t kTransposed[] = {kItem, kRows* kItem};
constexpr std::int64_t kPacked[] = {kColumns * kItem, kItem};

CopyJob job_of(const float* source, float* target) {
  CopyJob job;
  job.ndim = 2;
  job.shape = kShape;
  job.source = source;
  job.source_strides_bytes = kTransposed;
  job.target = target;
  job.target_strides_bytes = kPacked;
  job.source_dtype = job.target_dtype = DType(kDLFloat, 32);
  return job;
}

// Enough for several threads, and a number that they cannot share evenly.
constexpr std::size_t kJobs = 2003;
constexpr std::size_t kSize = kRows * kColumns;

class CopyAll : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { dlbridge::set_copy_threads(GetParam()); }
  void TearDown() override { dlbridge::set_copy_threads(0); }
};

TEST_P(CopyAll, WritesEveryJobOnce) {
  std::vector<float> source(kJobs * kSize);
  std::iota(source.begin(), source.end(), 0.0F);
  std::vector<float> target(kJobs * kSize, -1.0F);
  std::vector<CopyJob> jobs;
  for (std::size_t i = 0; i < kJobs; ++i) {
    jobs.push_back(job_of(source.data() + i * kSize, target.data() + i * kSize));
  }
  dlbridge::copy_all(jobs);
  for (std::size_t i = 0; i < kJobs; ++i) {
    for (std::size_t row = 0; row < kRows; ++row) {
      for (std::size_t column = 0; column < kColumns; ++column) {
        ASSERT_EQ(target[i * kSize + row * kColumns + column],
                  source[i * kSize + column * kRows + row])
            << "job " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, CopyAll, testing::Values(1, 2, 5));

TEST(CopyAllOfNothing, DoesNothing) {
  dlbridge::copy_all({});
}

}  // namespace
