// The C interface called with any structs, texts, tensors and callbacks: what it gives is sound and
// as planned, what it refuses it explains, and everything is released once.
//
// Structs lie in memory of exactly the size that they say, and elements in memory of exactly the
// size that they reach, so that AddressSanitizer sees a byte too many.

#include <array>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "dlbridge/condition.hpp"
#include "dlbridge/dlbridge.h"
#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/policy.hpp"
#include "fuzz.hpp"

namespace dlbridge::fuzz {
namespace {

constexpr std::array kStatuses{DLBRIDGE_OK, DLBRIDGE_REFUSED, DLBRIDGE_NO_MEMORY, DLBRIDGE_DEVICE,
                               DLBRIDGE_INTERNAL};
constexpr std::array kWrong{"", "float", "gpu", "None", "x", "cuda:-1", "cuda:99999999999"};

// Mostly NULL, often one of the names, and now and then none of them. Tables hold literals.
template <typename Table>
const char* any_text(FuzzedDataProvider& bytes, const Table& table, int null_in = 2) {
  const int kind = bytes.ConsumeIntegralInRange(0, 31);
  if (kind == 0) {
    return one_of(bytes, kWrong);
  }
  if (kind % null_in != 0) {
    return nullptr;
  }
  const std::string_view name = one_of(bytes, table).name;
  return name.empty() ? nullptr : name.data();
}

struct Name {
  std::string_view name;
};
constexpr std::array kPresets{Name{"host"}, Name{"strict"}, Name{"zero_copy"}, Name{"snapshot"}};
constexpr std::array kCopies{Name{"when_needed"}, Name{"never"}, Name{"always"}};
constexpr std::array kDevices{Name{"cpu"}, Name{"cuda"}, Name{"cuda:1"}, Name{"cuda_host"},
                              Name{"metal"}};
constexpr std::array kDeviceSets{Name{"cpu"}, Name{"cuda"}, Name{"any"}, Name{"metal"}};
constexpr std::array kStrides{Name{"any"}, Name{"non-negative"}, Name{"compact"}};
constexpr std::array kReadOnly{Name{"honours"}, Name{"unaware"}, Name{"never"}};

// A list that ends with NULL, or none.
class Texts {
 public:
  template <typename Table>
  const char* const* fill(FuzzedDataProvider& bytes, const Table& table, int most) {
    for (int i = bytes.ConsumeIntegralInRange(0, most); i > 0; --i) {
      if (const char* text = any_text(bytes, table, 1); text != nullptr) {
        texts_.push_back(text);
      }
    }
    texts_.push_back(nullptr);
    return texts_.size() == 1 && bytes.ConsumeBool() ? nullptr : texts_.data();
  }

 private:
  std::vector<const char*> texts_;
};

// The struct in memory of the size that it says, which is mostly its own.
template <typename Struct>
class Sized {
 public:
  Sized(FuzzedDataProvider& bytes, const Struct& given) {
    std::size_t size = sizeof(Struct);
    bool larger = false;
    switch (bytes.ConsumeIntegralInRange(0, 63)) {
      case 0:
        size = 0;
        break;
      case 1:
        size = bytes.ConsumeIntegralInRange<std::size_t>(1, sizeof(Struct));
        break;
      case 2:
        size += 8 * bytes.ConsumeIntegralInRange<std::size_t>(1, 3);
        larger = bytes.ConsumeBool();
        break;
      case 3:
        memory_ = nullptr;
        return;
      default:
        break;
    }
    memory_ = std::make_unique<unsigned char[]>(std::max(size, sizeof(std::size_t)));
    std::memcpy(memory_.get(), &given, std::min(size, sizeof(Struct)));
    std::memcpy(memory_.get(), &size, sizeof size);
    if (larger) {
      memory_[size - 1] = 1;
    }
  }
  [[nodiscard]] const Struct* get() const { return reinterpret_cast<const Struct*>(memory_.get()); }

 private:
  std::unique_ptr<unsigned char[]> memory_;
};

enum class Habit { kGood, kFails, kFailsInWords, kThrows, kForgets, kTakesTheMemoryAway };

// A C program's tensor, and how its callbacks behave.
class Program {
 public:
  explicit Program(FuzzedDataProvider& bytes) {
    shape_.resize(bytes.ConsumeIntegralInRange<std::size_t>(0, 4));
    for (auto& size : shape_) {
      size = bytes.ConsumeIntegralInRange<std::int64_t>(0, 4);
    }
    strides_.resize(shape_.size());
    fill_c_strides(shape_, strides_.data());
    if (bytes.ConsumeIntegralInRange(0, 2) == 0) {
      for (auto& stride : strides_) {
        stride = bytes.ConsumeIntegralInRange<std::int64_t>(-6, 12);
      }
    }
    tensor.dtype = any_dtype(bytes).dl();
    tensor.dtype.lanes = std::min<std::uint16_t>(tensor.dtype.lanes, 16);
    tensor.device = {bytes.ConsumeIntegralInRange(0, 3) == 0 ? kDLCUDA : kDLCPU, 0};
    tensor.ndim = static_cast<std::int32_t>(shape_.size());
    tensor.shape = shape_.data();
    tensor.strides = strides_.data();
    place(bytes);
    habit = static_cast<Habit>(std::max(0, bytes.ConsumeIntegralInRange(-20, 5)));
    status = one_of(bytes, kStatuses);
    malformed = bytes.ConsumeIntegralInRange(0, 7) == 0;
    if (malformed) {
      spoil(bytes);
    }
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  static void release(void* self) { ++static_cast<Program*>(self)->released; }

  static dlbridge_status misbehave(Program& self, dlbridge_error** error) {
    if (self.habit == Habit::kThrows) {
      throw std::runtime_error("thrown");
    }
    if (self.habit == Habit::kFailsInWords) {
      *error = dlbridge_error_make(self.status, "told");
    }
    const bool fails = self.habit == Habit::kFails || self.habit == Habit::kFailsInWords;
    return fails ? self.status : DLBRIDGE_OK;
  }

  static dlbridge_status acquire(void* context, void** data, dlbridge_lease* lease,
                                 dlbridge_error** error) {
    auto& self = *static_cast<Program*>(context);
    const dlbridge_status told = misbehave(self, error);
    if (told == DLBRIDGE_OK && self.habit != Habit::kForgets) {
      ++self.taken;
      *lease = {context, release};
    }
    if (self.habit == Habit::kTakesTheMemoryAway) {
      *data = nullptr;
    }
    return told;
  }

  static dlbridge_status prepare(void* context, const dlbridge_leg* leg,
                                 DLManagedTensorVersioned** out, dlbridge_error** error) {
    auto& self = *static_cast<Program*>(context);
    require(leg->steps != nullptr, "a leg without steps");
    const dlbridge_status told = misbehave(self, error);
    self.prepared = true;
    if (told == DLBRIDGE_OK && self.habit != Habit::kForgets) {
      *out = self.give(leg->device);
    }
    return told;
  }

  // What another library hands over: counted like a lease.
  DLManagedTensorVersioned* give(DLDevice device) {
    ++taken;
    auto* managed = new DLManagedTensorVersioned{};
    managed->version = kVersion;
    managed->manager_ctx = this;
    managed->deleter = [](DLManagedTensorVersioned* self) {
      release(self->manager_ctx);
      delete self;
    };
    managed->flags = flags;
    managed->dl_tensor = tensor;
    managed->dl_tensor.device = device;
    if (habit == Habit::kTakesTheMemoryAway) {
      managed->dl_tensor.data = nullptr;
    }
    return managed;
  }

  DLTensor tensor{};
  std::uint64_t flags = 0;
  Habit habit = Habit::kGood;
  dlbridge_status status = DLBRIDGE_OK;
  bool malformed = false;
  bool prepared = false;
  int taken = 0;
  int released = 0;

 private:
  void place(FuzzedDataProvider& bytes) {
    const std::int64_t bits = DType(tensor.dtype).element_bits();
    std::int64_t low = 0;
    std::int64_t high = 0;
    for (std::size_t i = 0; i < shape_.size(); ++i) {
      const std::int64_t reach = std::max<std::int64_t>(shape_[i] - 1, 0) * strides_[i] * bits;
      (reach < 0 ? low : high) += reach;
    }
    const std::int64_t below = (-low + 7) / 8;
    const std::int64_t size = below + (high + bits + 7) / 8;
    const auto shift = bytes.ConsumeIntegralInRange<std::int64_t>(0, 4);
    memory_ = std::make_unique<unsigned char[]>(static_cast<std::size_t>(shift + size));
    for (std::int64_t i = 0; i < shift + size; ++i) {
      memory_[static_cast<std::size_t>(i)] = static_cast<unsigned char>(37 * i);
    }
    tensor.data = memory_.get() + below;
    tensor.byte_offset = static_cast<std::uint64_t>(shift);
  }

  void spoil(FuzzedDataProvider& bytes) {
    const auto number = bytes.ConsumeIntegral<std::int64_t>();
    switch (bytes.ConsumeIntegralInRange(0, 6)) {
      case 0:
        tensor.ndim = static_cast<std::int32_t>(number);
        tensor.shape = nullptr;
        break;
      case 1:
        tensor.data = nullptr;
        break;
      case 2:
        tensor.byte_offset = static_cast<std::uint64_t>(number);
        break;
      case 3:
        tensor.device.device_type = static_cast<DLDeviceType>(number);
        break;
      case 4:
        tensor.dtype.bits = 0;
        break;
      default:
        if (!shape_.empty()) {
          one_of(bytes, std::array{&shape_, &strides_})->front() = number;
        }
    }
  }

  std::vector<std::int64_t> shape_;
  std::vector<std::int64_t> strides_;
  std::unique_ptr<unsigned char[]> memory_;
};

// Ends what a call gave, and holds what it told against the rules of every call.
class Outcome {
 public:
  template <typename Made>
  Made* check(dlbridge_status status, Made* made) {
    require((status == DLBRIDGE_OK) == (made != nullptr), "an output beside a failure, or none");
    require((status == DLBRIDGE_OK) == (error == nullptr), "an error beside success, or none");
    require(dlbridge_error_status(error) == status, "the error is of another status");
    const char* message = dlbridge_error_message(error);
    require(status == DLBRIDGE_OK || (message != nullptr && *message != '\0'), "no message");
    const std::size_t reasons = dlbridge_error_reason_count(error);
    require(dlbridge_error_reason(error, reasons) == nullptr, "a reason behind the last");
    dlbridge_error_free(error);
    error = nullptr;
    return made;
  }
  dlbridge_error* error = nullptr;
};

bool says_read_only(const dlbridge_source& source) {
  bool said = (source.flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
  for (const char* const* each = source.conditions; each != nullptr && *each != nullptr; ++each) {
    said = said || std::string_view(*each) == "read_only";
  }
  return said;
}

void end(DLManagedTensorVersioned* tensor) {
  if (tensor != nullptr) {
    require(tensor_fault(tensor->dl_tensor).empty(), "what was given is malformed");
    tensor->deleter(tensor);
  }
}

}  // namespace
}  // namespace dlbridge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dlbridge;        // NOLINT(google-build-using-namespace)
  using namespace dlbridge::fuzz;  // NOLINT(google-build-using-namespace)
  FuzzedDataProvider bytes(data, size);

  dlbridge_policy policy{};
  policy.preset = any_text(bytes, kPresets);
  static constexpr std::array kMembers{&dlbridge_policy::grad,     &dlbridge_policy::bits,
                                       &dlbridge_policy::device,   &dlbridge_policy::layout,
                                       &dlbridge_policy::dtype,    &dlbridge_policy::readonly,
                                       &dlbridge_policy::mutable_, &dlbridge_policy::overlap};
  for (std::size_t i = 0; i < kFields.size(); ++i) {
    policy.*kMembers[i] = any_text(bytes, kFields[i].values);
  }
  policy.copy = any_text(bytes, kCopies);
  const Sized<dlbridge_policy> sized_policy(bytes, policy);

  const char* warning = nullptr;
  dlbridge_request request{};
  request.dtype = any_text(bytes, kNamedDTypes, 4);
  request.device = any_text(bytes, kDevices, 8);
  request.c_order = bytes.ConsumeBool();
  request.writable = bytes.ConsumeBool();
  request.warning = bytes.ConsumeBool() ? &warning : nullptr;
  const Sized<dlbridge_request> sized_request(bytes, request);

  Texts devices;
  Texts dtypes;
  dlbridge_capabilities target{};
  target.devices = bytes.ConsumeBool() ? devices.fill(bytes, kDeviceSets, 3) : nullptr;
  target.dtypes = bytes.ConsumeBool() ? dtypes.fill(bytes, kNamedDTypes, 6) : nullptr;
  target.strides = any_text(bytes, kStrides);
  target.read_only = any_text(bytes, kReadOnly);
  target.alignment =
      bytes.ConsumeIntegralInRange(0, 3) == 0 ? bytes.ConsumeIntegral<std::int8_t>() : 0;
  target.max_dimensions = bytes.ConsumeIntegralInRange(0, 7) == 0 ? 2 : 0;
  target.reads_unaligned = bytes.ConsumeBool();
  target.never_writable = bytes.ConsumeIntegralInRange(0, 7) == 0;
  target.takes_as_constant = bytes.ConsumeIntegralInRange(0, 7) == 0;
  target.carries_padding = bytes.ConsumeBool();
  const Sized<dlbridge_capabilities> sized_target(bytes, target);

  Texts fixes;
  dlbridge_library library{};
  library.name = "fuzz";
  library.fixes = bytes.ConsumeBool() ? fixes.fill(bytes, kConditions, 6) : nullptr;
  const Sized<dlbridge_library> sized_library(bytes, library);

  Program program(bytes);
  program.flags = bytes.ConsumeIntegralInRange<std::uint64_t>(0, 8);
  Texts conditions;
  const std::array<std::int64_t, 4> byte_strides{0, 0, 0, 0};
  dlbridge_source source{};
  source.library = sized_library.get();
  source.tensor = bytes.ConsumeIntegralInRange(0, 63) == 0 ? nullptr : &program.tensor;
  source.flags = program.flags;
  source.conditions = conditions.fill(bytes, kConditions, 2);
  source.byte_strides = bytes.ConsumeBool() ? byte_strides.data() : nullptr;
  source.context = &program;
  source.acquire = bytes.ConsumeIntegralInRange(0, 63) == 0 ? nullptr : Program::acquire;
  source.prepare = bytes.ConsumeBool() ? Program::prepare : nullptr;
  source.copies_to_host = bytes.ConsumeBool();
  source.copies_there = bytes.ConsumeBool();
  const Sized<dlbridge_source> sized_source(bytes, source);

  Outcome outcome;
  dlbridge_plan* planned = nullptr;
  dlbridge_status status =
      dlbridge_plan_make(sized_source.get(), sized_target.get(), sized_policy.get(),
                         sized_request.get(), &planned, &outcome.error);
  outcome.check(status, planned);
  const bool refused = dlbridge_plan_is_refused(planned) != 0;
  require(!refused || dlbridge_plan_message(planned) != nullptr, "a refusal without a message");
  require(!refused || dlbridge_plan_reason_count(planned) != 0, "a refusal without a reason");

  if (program.malformed && tensor_fault(program.tensor).empty()) {
    dlbridge_plan_free(planned);
    return 0;  // sound, but of memory that is not there
  }
  DLManagedTensorVersioned* made = nullptr;
  status = dlbridge_to_managed(sized_source.get(), sized_target.get(), sized_policy.get(),
                               sized_request.get(), &made, &outcome.error);
  outcome.check(status, made);
  // Without a callback, as an older struct is, a source can be planned only.
  require(!refused || status == DLBRIDGE_REFUSED || status == DLBRIDGE_USAGE,
          "refused in the plan, and not when asked");
  require(planned != nullptr || made == nullptr, "without a plan, and made");
  if (made != nullptr) {
    // What prepare() gives lies there as well, for all that it should be private.
    const bool view = made->dl_tensor.data == program.tensor.data && !program.prepared;
    const bool written = (made->flags & DLPACK_FLAG_BITMASK_READ_ONLY) == 0;
    require(dlbridge_plan_is_view(planned) != 0 || !view || made->dl_tensor.data == nullptr,
            "a view where a copy was planned");
    const bool said = says_read_only(source);
    require(!said || !view || !written || made->dl_tensor.data == nullptr,
            "writable, and said to be read-only");
    // An alias is both: for a target that is unaware, and at the caller's risk.
    require(written || said || dlbridge_plan_is_writable(planned) == 0,
            "read-only, planned as writable");
  }
  dlbridge_plan_free(planned);

  // On with it by the other functions, which take what they are given.
  DLManagedTensorVersioned* next = made;
  if (next == nullptr && !program.malformed && dtype_fault(program.tensor.dtype).empty()) {
    next = program.give(program.tensor.device);
  } else if (next != nullptr) {
    DLManagedTensorVersioned* shared = nullptr;
    outcome.check(dlbridge_share(next, &shared, &outcome.error), shared);
    end(shared);
  }
  if (next != nullptr) {
    made = nullptr;
    status = dlbridge_convert(next, sized_library.get(), sized_target.get(), sized_policy.get(),
                              sized_request.get(), &made, &outcome.error);
    next = outcome.check(status, made);
  }
  if (next != nullptr && bytes.ConsumeBool()) {
    DLManagedTensor* legacy = nullptr;
    status = dlbridge_to_legacy(next, sized_policy.get(), &legacy, &outcome.error);
    next = nullptr;
    if (outcome.check(status, legacy) != nullptr) {
      status = dlbridge_from_legacy(legacy, bytes.ConsumeBool(), &next, &outcome.error);
      outcome.check(status, next);
    }
  }
  end(next);

  ++program.taken;
  const dlbridge_lease lease{&program, Program::release};
  DLManagedTensorVersioned* owned = nullptr;
  status = dlbridge_own(source.tensor, program.flags, &lease, &owned, &outcome.error);
  end(outcome.check(status, owned));

  require(program.taken == program.released, "not released exactly once");
  require(live_managed_tensors() == 0, "managed tensors are left");
  return 0;
}
