#pragma once

namespace dlbridge {

/// How many threads one large copy may use, the calling one included; at least 1.
/// At first DLBRIDGE_NUM_THREADS, else OMP_NUM_THREADS, else the processors that this process may
/// run on.
[[nodiscard]] int copy_threads() noexcept;

/// For the copies that begin from now on. Less than 1 goes back to what it was at first.
void set_copy_threads(int count) noexcept;

}  // namespace dlbridge
