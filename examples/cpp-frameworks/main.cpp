// Two frameworks that know nothing of each other exchange tensors through dlbridge.
//
// "Grid" owns float matrices and hands them out, some of them read-only. "Tape" takes float vectors
// and matrices in, and writes to them. Each has a bridge; neither bridge decides anything.

#include <cstdio>
#include <cstdlib>
#include <dlbridge/convert.hpp>
#include <dlbridge/tensor_view.hpp>
#include <memory>
#include <vector>

namespace {

// --- a framework that produces ------------------------------------------------------------------

struct Grid {
  std::shared_ptr<std::vector<float>> values;
  std::int64_t shape[2];
  bool frozen = false;
};

struct GridBridge {
  using Object = Grid;

  static void describe(const Grid& grid, dlbridge::Source& source) {
    static constexpr dlbridge::Library kGrid{
        .name = "grid",
        .object = "Grid",
        .fixes = {{{dlbridge::Condition::kReadOnly, "grid.thaw()"}}},
    };
    source.traits.library = &kGrid;
    source.traits.conditions.add_if(grid.frozen, dlbridge::Condition::kReadOnly);
    source.tensor.data = grid.values->data();
    source.tensor.ndim = 2;
    source.tensor.dtype = dlbridge::dtype_of<float>().dl();
    source.tensor.device = dlbridge::Device{}.dl();
    source.tensor.shape = const_cast<std::int64_t*>(grid.shape);
    source.tensor.strides = source.room.data();
    dlbridge::fill_c_strides(grid.shape, source.room.data());
  }

  // The view keeps a share of the values, so it outlives the grid.
  static dlbridge::ManagedTensor acquire(const Grid& grid, dlbridge::Source& source) {
    auto* share = new std::shared_ptr<std::vector<float>>(grid.values);
    return dlbridge::ManagedTensor::own(
        source.tensor, grid.frozen ? DLPACK_FLAG_BITMASK_READ_ONLY : 0,
        {share, [](void* held) noexcept {
           delete static_cast<std::shared_ptr<std::vector<float>>*>(held);
         }});
  }
};

// --- a framework that consumes ------------------------------------------------------------------

struct Tape {
  dlbridge::ManagedTensor tensor;

  void scale(float factor) {
    dlbridge::TensorView<float, 2> view(tensor);
    for (std::int64_t i = 0; i < view.extent(0); ++i) {
      for (std::int64_t j = 0; j < view.extent(1); ++j) {
        view(i, j) *= factor;
      }
    }
  }
};

struct TapeBridge {
  using Object = Tape;

  static const dlbridge::Capabilities& capabilities(const dlbridge::Source& /*source*/) {
    static constexpr dlbridge::Capabilities kTape{
        .name = "Tape",
        .result = "Tape",
        .devices = dlbridge::DeviceSet::host(),
        .wants_host = true,
        .dtypes = dlbridge::DTypeSet::of({"float32"}),
        .readonly = dlbridge::ReadOnlySupport::kUnaware,
    };
    return kTape;
  }

  static Tape deliver(dlbridge::ManagedTensor tensor) { return Tape{std::move(tensor)}; }
};

static_assert(dlbridge::Producer<GridBridge> && dlbridge::Consumer<TapeBridge>);

void require(bool holds, const char* what) {
  std::printf("%s %s\n", holds ? "ok  " : "FAIL", what);
  if (!holds) {
    std::exit(EXIT_FAILURE);
  }
}

}  // namespace

int main() {
  Grid grid{std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4, 5, 6}), {2, 3}};

  // Shared memory: what Tape writes, Grid sees.
  Tape tape = dlbridge::convert<GridBridge, TapeBridge>(grid);
  tape.scale(10);
  require((*grid.values)[5] == 60, "a plain grid crosses as a view");

  // Tape would write to a frozen grid, so it gets a copy ...
  grid.frozen = true;
  Tape copy = dlbridge::convert<GridBridge, TapeBridge>(grid);
  copy.scale(10);
  require((*grid.values)[5] == 60, "a frozen grid crosses as a copy");

  // ... or nothing at all, with the reason and the way out.
  try {
    (void)dlbridge::convert<GridBridge, TapeBridge>(grid, dlbridge::Policy::strict());
    require(false, "a strict policy refuses a frozen grid");
  } catch (const dlbridge::ConversionRefused& refused) {
    std::printf("     %s\n", refused.what());
    require(refused.fix.find("grid.thaw()") != std::string::npos, "the refusal names the way out");
  }

  // The view keeps the memory, whatever becomes of the grid.
  grid = Grid{};
  tape.scale(1);
  require(dlbridge::TensorView<const float, 2>(tape.tensor)(1, 2) == 60,
          "a view outlives its grid");
  return EXIT_SUCCESS;
}
