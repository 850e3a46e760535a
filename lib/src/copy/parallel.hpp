#pragma once

#include <cstdint>

namespace dlbridge::detail {

/// Calls work(context, begin, end) for pieces of [0, count), each at most `grain` long, on up to
/// `threads` threads of which the caller is one. Returns when all is done. The pieces go to
/// whoever is free, so helpers that start late, or cannot be started, cost no more than their
/// help. `work` must not throw.
void run_in_parallel(std::int64_t count, std::int64_t grain, int threads,
                     void (*work)(void* context, std::int64_t begin, std::int64_t end),
                     void* context) noexcept;

}  // namespace dlbridge::detail
