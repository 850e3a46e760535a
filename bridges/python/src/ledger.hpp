#pragma once

// What crossings are counted and told: the tallies since start, and the blocks of trace(),
// no_copies() and policy(), whose Python side is dlbridge/ledger/.

#include <array>
#include <cstdint>

#include "module_functions.hpp"

namespace dlbridge::python {

/// Where a crossing goes, for the tallies.
enum class Towards : std::uint8_t { kNumPy, kTorch, kManaged, kCapsule, kProcess, kOther };
inline constexpr std::size_t kTowardsCount = static_cast<std::size_t>(Towards::kOther) + 1;

struct Tally {
  std::uint64_t views = 0;
  std::uint64_t copies = 0;
  std::uint64_t bytes_copied = 0;
};

// Plain numbers, since they are only touched with the GIL held.
extern std::array<Tally, kTowardsCount> tallies;
extern std::uint64_t refusals;
extern int open_blocks;
extern int open_ledgers;  // those blocks that write down

/// Whether a block is open anywhere. Where none is, this is all that a crossing pays for them.
[[nodiscard]] inline bool any_block_open() noexcept {
  return open_blocks != 0;
}

/// Times what one call of the module makes cross, if a ledger is open. Crossings that a call of
/// Python's makes meanwhile have a watch of their own.
class Watch {
 public:
  Watch() {
    if (open_ledgers != 0) [[unlikely]] {
      begin();
    }
  }
  ~Watch() {
    if (running_) [[unlikely]] {
      end();
    }
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  [[nodiscard]] static Watch* current() noexcept;

  /// What crossed before, in a tree, has crossed, whatever comes. Time from here on is the ledger's
  /// own.
  static void settle();
  /// Begins the crossing of this Plan.
  void next(Ref plan);

 private:
  void begin();
  void end();
  void finish();

  bool running_ = false;
  int exceptions_ = 0;
  Watch* outer_ = nullptr;
  Ref plan_;
  std::int64_t started_ = 0;  // the crossing, in nanoseconds, as the rest
  std::int64_t began_ = 0;    // after the last pause
  std::int64_t spent_ = 0;
};

/// Runs what one call of the module makes cross. A refusal of C++'s becomes Python's in here, while
/// the watch is there, by which a ledger knows that it is to be told.
template <typename Action>
auto watched(Action&& action) {
  const Watch watch;
  try {
    return action();
  } catch (const ConversionRefused&) {
    translate_exception();
    throw PythonError();
  }
}

/// While a library takes what it is handed: what its row makes cross for that is part of the
/// crossing, which is told of already. It is not counted, and follows no_copies() and the blocks
/// that the row opens itself, but none that was open before.
class Handing {
 public:
  Handing();
  ~Handing();
  Handing(const Handing&) = delete;
  Handing& operator=(const Handing&) = delete;

  /// The blocks that were open before, of this thread and of all; null where there were none.
  struct Before {
    Ref policies;
    Ref ledgers;
    Ref everywhere;
  };
  [[nodiscard]] static const Before& before() noexcept;

 private:
  Before before_;
  const Handing* outer_;
};

/// Tells the open blocks of a crossing that is about to happen, and says whether it counts. Throws
/// if one of them forbids it.
[[nodiscard]] bool report(const Plan& plan, const Source& source, const Capabilities& target,
                          const Policy& policy, const Request& request);

/// Counts a view of which no block has to be told.
inline void count_view(Towards towards) noexcept {
  ++tallies[static_cast<std::size_t>(towards)].views;
}

/// Counts a crossing that has been decided and not yet carried out.
inline void record(Towards towards, const Plan& plan, const Source& source,
                   const Capabilities& target, const Policy& policy, const Request& request) {
  if (any_block_open() && !report(plan, source, target, policy, request)) [[unlikely]] {
    return;
  }
  if (plan.view) [[likely]] {
    count_view(towards);
    return;
  }
  Tally& tally = tallies[static_cast<std::size_t>(towards)];
  ++tally.copies;
  tally.bytes_copied += static_cast<std::uint64_t>(plan.bytes_copied);
}

/// Takes back what was counted of a crossing.
void uncount(Towards towards, const Plan& plan) noexcept;

/// Hands over what was recorded: if that throws, nothing has crossed. To count afterwards would
/// cost every crossing the way to remember it.
template <typename Action>
auto counted(Towards towards, const Plan& plan, Action&& action) {
  try {
    return action();
  } catch (...) {
    uncount(towards, plan);
    throw;
  }
}

/// Counts a refusal, and tells the open blocks.
void refused(PyObject* plan);
/// The same of the error that is set, if it is a refusal, which a row let through.
void refused_by_row();

/// The policy that the innermost block sets, or None. Only asked while a block is open.
[[nodiscard]] Ref policy_of_block();

/// For the module: refused(); file, line and function of the user's innermost frame; it
/// opens blocks and ledgers, or closes them (-1); the tallies as a Stats.
Ref refused_in_python(PyObject* plan);
Ref caller();
Ref count_blocks(ArgumentTuple changes);
Ref stats(PyObject* road);

}  // namespace dlbridge::python
