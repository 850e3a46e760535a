#include <algorithm>
#include <atomic>
#include <new>

#include "dlbridge/copy.hpp"
#include "dlbridge/threads.hpp"
#include "parallel.hpp"

namespace dlbridge {
namespace {

// With less to do than this a thread starts too late to be of use.
constexpr std::int64_t kBytesPerThread = std::int64_t{4} << 20;

struct Batch {
  std::span<const CopyJob> jobs;
  std::atomic<bool> out_of_memory = false;

  static void run(void* context, std::int64_t begin, std::int64_t end) {
    auto& batch = *static_cast<Batch*>(context);
    for (std::int64_t i = begin; i < end; ++i) {
      try {
        copy_elements(batch.jobs[static_cast<std::size_t>(i)]);
      } catch (const std::bad_alloc&) {
        batch.out_of_memory = true;
      }
    }
  }
};

std::int64_t bytes_of(const CopyJob& job) {
  std::int64_t bytes = (job.target_dtype.bits * job.target_dtype.lanes + 7) / 8;
  for (std::int32_t i = 0; i < job.ndim; ++i) {
    bytes *= job.shape[i];
  }
  return bytes;
}

}  // namespace

void copy_all(std::span<const CopyJob> jobs) {
  std::int64_t bytes = 0;
  for (const CopyJob& job : jobs) {
    bytes += bytes_of(job);
  }
  const auto count = static_cast<std::int64_t>(jobs.size());
  const auto threads =
      static_cast<int>(std::min<std::int64_t>(bytes / kBytesPerThread, copy_threads()));
  Batch batch{jobs};
  if (threads <= 1 || count <= 1) {
    Batch::run(&batch, 0, count);
  } else {
    const std::int64_t grain = std::max<std::int64_t>(1, count / (threads * 4));
    detail::run_in_parallel(count, grain, threads, Batch::run, &batch);
  }
  if (batch.out_of_memory) {
    throw std::bad_alloc();
  }
}

}  // namespace dlbridge
