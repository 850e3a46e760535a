// Messages with anything in them, over one real block: refused, or tensors that lie in it.

#include <unistd.h>

#include <cstring>
#include <system_error>
#include <vector>

#include "dlbridge/error.hpp"
#include "dlbridge/shared_memory.hpp"
#include "fuzz.hpp"

namespace {

using namespace dlbridge;  // NOLINT(google-build-using-namespace)

// Packed once; what the input has is put over its bytes, here and there.
struct Sample {
  Sample() {
    const std::int64_t shape[] = {2, 3};
    SharedArena arena(SharedMode::kWrite, 4096);
    std::vector<ManagedTensor> tensors;
    for (int i = 0; i < 3; ++i) {
      tensors.push_back(arena.allocate(DType{kDLFloat, 32}, shape));
    }
    message = pack(tensors, SharedMode::kWrite);
  }
  Message message;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Sample sample;
  FuzzedDataProvider input(data, size);
  std::vector<std::byte> bytes = sample.message.bytes;
  while (input.remaining_bytes() != 0) {
    const auto at = input.ConsumeIntegralInRange<std::size_t>(0, bytes.size());
    const auto more = input.ConsumeBytes<std::uint8_t>(input.ConsumeIntegralInRange(0, 16));
    if (at + more.size() > bytes.size() || input.ConsumeIntegralInRange(0, 31) == 0) {
      bytes.resize(at + more.size());
    }
    if (!more.empty()) {
      std::memcpy(bytes.data() + at, more.data(), more.size());
    }
    if (bytes.empty()) {
      break;
    }
  }
  if (bytes.size() >= 16 && input.remaining_bytes() == 0) {
    const std::uint64_t length = bytes.size();  // or else hardly one gets further than its head
    std::memcpy(bytes.data() + 8, &length, sizeof length);
  }
  try {
    std::vector<OwnedDescriptor> descriptors;
    descriptors.emplace_back(dup(sample.message.descriptors.at(0).get()));
    const Received received = unpack(bytes, std::move(descriptors));
    for (const ManagedTensor& tensor : received.tensors) {
      fuzz::require(tensor_fault(tensor.tensor()).empty(), "a malformed tensor was taken");
      fuzz::require(element_count(tensor.tensor()) == 0 || is_in_block(tensor.tensor()),
                    "it lies outside of its block");
    }
  } catch (const ConversionRefused& refused) {
    fuzz::require(!refused.reasons.empty(), "refused without a reason");
  } catch (const std::system_error&) {
  }
  return 0;
}
