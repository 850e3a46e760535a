#include "dlbridge/cuda.hpp"

#include <climits>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>

#include "cuda_calls.hpp"
#include "cuda_devices.hpp"
#include "gpu_copy_kernels.hpp"

namespace dlbridge {
namespace cuda {
namespace {

bool captures(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(stream, &status);
  if (error == cudaErrorStreamCaptureImplicit) {
    // The legacy default stream while a stream that waits for it is captured: work on it would
    // become part of that capture, and end it.
    succeeded(error);
    return true;
  }
  check(error, "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

PooledEvent& pooled(Event event) {
  return *static_cast<PooledEvent*>(event.handle);
}

class CudaRuntime final : public DeviceRuntime {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "CUDA"; }
  [[nodiscard]] DeviceSet types() const noexcept override {
    return DeviceSet::of({kDLCUDA, kDLCUDAHost, kDLCUDAManaged});
  }
  [[nodiscard]] int device_count() noexcept override { return devices_.count(); }
  [[nodiscard]] std::string unavailable() override { return devices_.unavailable(); }

  // --- where memory is ---------------------------------------------------------------------------

  [[nodiscard]] std::optional<Device> locate(const void* address) override {
    if (devices_.count() == 0 || address == nullptr) {
      return std::nullopt;
    }
    const RelaxedCapture relaxed;
    cudaPointerAttributes attributes{};
    const cudaError_t error = cudaPointerGetAttributes(&attributes, address);
    if (error == cudaErrorInvalidValue) {
      succeeded(error);
      return std::nullopt;
    }
    check(error, "cudaPointerGetAttributes");
    switch (attributes.type) {
      // DLPack: host memory of either kind has the id 0.
      case cudaMemoryTypeHost:
        return Device{kDLCUDAHost, 0};
      case cudaMemoryTypeManaged:
        return Device{kDLCUDAManaged, 0};
      case cudaMemoryTypeDevice:
        return Device{kDLCUDA, attributes.device};
      default:
        return std::nullopt;
    }
  }

  // --- memory ------------------------------------------------------------------------------------

  [[nodiscard]] void* allocate(int device, std::size_t bytes, Stream stream) override {
    DeviceState& state = devices_.at(device);
    const OnDevice scope(device);
    require_usable(device, stream);
    refuse_captured(stream, "memory that it uses has to be allocated before");
    void* memory = nullptr;
    const std::size_t asked = bytes == 0 ? 1 : bytes;
    if (cudaMemPool_t pool = state.pool(); pool != nullptr) {
      DLBRIDGE_CUDA(cudaMallocFromPoolAsync(&memory, asked, pool, native(stream)));
    } else {
      DLBRIDGE_CUDA(cudaMalloc(&memory, asked));
    }
    return memory;
  }

  void free(int device, void* memory, Stream stream) noexcept override {
    if (memory == nullptr) {
      return;
    }
    try {
      DeviceState& state = devices_.at(device);
      const OnDevice scope(device);
      if (state.pool() != nullptr && !captures(native(stream)) &&
          succeeded(cudaFreeAsync(memory, native(stream)))) {
        return;
      }
      // Waits for all work on the memory: also where the stream is gone or captured.
      succeeded(cudaFree(memory));
    } catch (const std::exception&) {
      // The device is gone, and its memory with it.
    }
  }

  [[nodiscard]] void* allocate_host(std::size_t bytes) override {
    static_cast<void>(devices_.at(0));
    if (bytes > SIZE_MAX - kPage - sizeof(void*)) {
      throw std::bad_alloc();
    }
    const RelaxedCapture relaxed;
    void* given = nullptr;
    DLBRIDGE_CUDA(cudaHostAlloc(&given, bytes + kPage + sizeof given, cudaHostAllocPortable));
    const std::size_t residue = (reinterpret_cast<std::uintptr_t>(given) + sizeof given) % kPage;
    auto* memory =
        static_cast<std::byte*>(given) + sizeof given + (residue == 0 ? 0 : kPage - residue);
    std::memcpy(memory - sizeof given, &given, sizeof given);
    return memory;
  }

  void free_host(void* memory) noexcept override {
    if (memory != nullptr) {
      const RelaxedCapture relaxed;
      void* given = nullptr;
      std::memcpy(&given, static_cast<std::byte*>(memory) - sizeof given, sizeof given);
      succeeded(cudaFreeHost(given));
    }
  }

  // --- order -------------------------------------------------------------------------------------

  [[nodiscard]] Stream own_stream(int device) override {
    DeviceState& state = devices_.at(device);
    const OnDevice scope(device);
    return Stream{state.own_stream()};
  }

  [[nodiscard]] bool is_capturing(int device, Stream stream) override {
    static_cast<void>(devices_.at(device));
    const OnDevice scope(device);
    return captures(native(stream));
  }

  [[nodiscard]] Event record(int device, Stream stream) override {
    DeviceState& state = devices_.at(device);
    const OnDevice scope(device);
    require_usable(device, stream);
    refuse_captured(stream, "nothing on it can be waited for");
    PooledEvent* event = state.take_event();
    try {
      DLBRIDGE_CUDA(cudaEventRecord(event->event, native(stream)));
    } catch (...) {
      state.give_back(event);
      throw;
    }
    return Event{event};
  }

  void wait(int device, Stream stream, Event event) override {
    static_cast<void>(devices_.at(device));
    const OnDevice scope(device);
    require_usable(device, stream);
    refuse_captured(stream, "it cannot wait for work outside of the graph");
    DLBRIDGE_CUDA(cudaStreamWaitEvent(native(stream), pooled(event).event, 0));
  }

  [[nodiscard]] bool has_come(Event event) override {
    const RelaxedCapture relaxed;
    const cudaError_t error = cudaEventQuery(pooled(event).event);
    if (error == cudaErrorNotReady) {
      succeeded(error);
      return false;
    }
    check(error, "cudaEventQuery");
    return true;
  }

  void synchronise(Event event) override {
    const RelaxedCapture relaxed;
    DLBRIDGE_CUDA(cudaEventSynchronize(pooled(event).event));
  }

  void release(Event event) noexcept override {
    if (event.handle != nullptr) {
      // Recording it again does not disturb streams that wait for it: they wait for the point that
      // it stood for when they were told to.
      PooledEvent& held = pooled(event);
      devices_.at(held.device).give_back(&held);
    }
  }

  void call_when_done(int device, Stream stream, void (*action)(void* context),
                      void* context) override {
    static_cast<void>(devices_.at(device));
    const OnDevice scope(device);
    require_usable(device, stream);
    refuse_captured(stream, "a call would be made each time that the graph runs");
    DLBRIDGE_CUDA(cudaLaunchHostFunc(native(stream), action, context));
  }

  void synchronise(int device, Stream stream) override {
    static_cast<void>(devices_.at(device));
    const OnDevice scope(device);
    refuse_captured(stream, "nothing on it can be waited for");
    DLBRIDGE_CUDA(cudaStreamSynchronize(native(stream)));
  }

  // --- copies ------------------------------------------------------------------------------------

  void copy(int device, void* to, const void* from, std::size_t bytes, Stream stream) override {
    static_cast<void>(devices_.at(device));
    if (bytes == 0) {
      return;
    }
    const OnDevice scope(device);
    require_usable(device, stream);
    DLBRIDGE_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, native(stream)));
  }

  void copy_rows(int device, void* to, std::size_t to_pitch, const void* from,
                 std::size_t from_pitch, std::size_t bytes, std::size_t rows,
                 Stream stream) override {
    static_cast<void>(devices_.at(device));
    if (bytes == 0 || rows == 0) {
      return;
    }
    const OnDevice scope(device);
    require_usable(device, stream);
    // CUDA's own limit for a pitch (cudaDevAttrMaxPitch) on every device that there is.
    constexpr std::size_t kMostPitch = INT_MAX;
    if (to_pitch <= kMostPitch && from_pitch <= kMostPitch) {
      DLBRIDGE_CUDA(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, bytes, rows,
                                      cudaMemcpyDefault, native(stream)));
      return;
    }
    auto* target = static_cast<std::byte*>(to);
    const auto* source = static_cast<const std::byte*>(from);
    for (std::size_t row = 0; row < rows; ++row) {
      DLBRIDGE_CUDA(cudaMemcpyAsync(target + row * to_pitch, source + row * from_pitch, bytes,
                                    cudaMemcpyDefault, native(stream)));
    }
  }

  void copy_elements(int device, const CopyJob& job, Stream stream) override {
    static_cast<void>(devices_.at(device));
    const DeviceCopy copy = cut_for_device(job);
    if (copy.words == 0) {
      return;
    }
    const OnDevice scope(device);
    require_usable(device, stream);
    check(launch_copy(copy, native(stream)),
          copy.contiguous && !copy.changes ? "cudaMemcpyAsync" : "cudaLaunchKernel");
  }

 private:
  void require_usable(int device, Stream stream) {
    if (stream.handle == nullptr || native(stream) == cudaStreamLegacy) {
      // It is never captured itself, but work on it would end the capture of a stream that it
      // waits for.
      refuse_captured(stream,
                      "the legacy default stream waits for it and cannot be used until then");
      return;
    }
#if CUDART_VERSION >= 12080
    if (devices_.count() == 1 || native(stream) == cudaStreamPerThread) {
      return;  // the latter is of whichever device is current
    }
    // CUDA lets some work through on a stream of another device, and says "invalid resource handle"
    // to other work.
    int owner = device;
    DLBRIDGE_CUDA(cudaStreamGetDevice(native(stream), &owner));
    if (owner != device) {
      throw DeviceError("the stream belongs to CUDA device " + std::to_string(owner) +
                        ", not to device " + std::to_string(device) + ": give a stream of device " +
                        std::to_string(device));
    }
#else
    static_cast<void>(device);
#endif
  }

  void refuse_captured(Stream stream, const char* purpose) {
    if (captures(native(stream))) {
      throw DeviceError(std::string("a CUDA stream is being captured into a graph: ") + purpose);
    }
  }

  // CUDA cuts small pinned pieces out of a page that it has. One page more makes room for
  // alignment, and for what CUDA gave, noted right below the memory.
  static constexpr std::size_t kPage = 4096;

  Devices devices_;
};

}  // namespace
}  // namespace cuda

DeviceRuntime& cuda_runtime() {
  static auto& runtime = *new cuda::CudaRuntime;
  return runtime;
}

void register_cuda_runtime() {
  set_device_runtime(cuda_runtime());
}

}  // namespace dlbridge
