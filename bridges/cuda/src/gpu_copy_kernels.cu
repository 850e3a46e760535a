// One family of kernels: words of five widths, as they are or changed on the way, in loops or by
// tiles. What their threads do is in device_copy.hpp.

#include <algorithm>
#include <type_traits>

#include "gpu_copy_kernels.hpp"

namespace dlbridge::cuda {
// With a name: nvcc makes one of the file's path otherwise, and no two folders build the same bytes.
inline namespace kernels {

struct PutWord {
  template <class Word>
  __device__ void operator()(const DeviceCopy&, std::byte* target, Word word) const {
    store_word(target, word);
  }
};

// Once for all kernels: the casts are most of the code, and the compiler's time.
__device__ __noinline__ Lane changed_on_device(const ElementChange& change, Lane source) {
  return changed(change, source);
}

struct PutChanged {
  template <class Word>
  __device__ void operator()(const DeviceCopy& copy, std::byte* target, Word word) const {
    store_lane(target, changed_on_device(copy.change, lane_of(word)), copy.target_width,
               copy.target_aligned);
  }
};

template <class Word, class Index, class Put>
__global__ void __launch_bounds__(kThreads) word_kernel(const __grid_constant__ DeviceCopy copy) {
  copy_words<Word>(copy, static_cast<Index>(Index{blockIdx.x} * kThreads + threadIdx.x),
                   static_cast<Index>(Index{gridDim.x} * kThreads), Put{});
}

__global__ void __launch_bounds__(kThreads)
    scattered_kernel(const __grid_constant__ DeviceCopy copy) {
  copy_scattered(copy, std::uint64_t{blockIdx.x} * kThreads + threadIdx.x,
                 std::uint64_t{gridDim.x} * kThreads, PutChanged{});
}

template <class Word, class Put>
__global__ void __launch_bounds__(kThreads) tile_kernel(const __grid_constant__ DeviceCopy copy) {
  __shared__ Word shared[Tile<Word>::kWords];
  const std::uint64_t tiles = tiles_of<Word>(copy);
  for (std::uint64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const TilePlace place = tile_place<Word>(copy, tile, has_short_indices(copy));
    read_tile(copy, place, threadIdx.x, shared);
    __syncthreads();
    write_tile(copy, place, threadIdx.x, shared, Put{});
    __syncthreads();
  }
}

using Kernel = void (*)(DeviceCopy);

struct Launch {
  Kernel kernel = nullptr;
  std::uint64_t blocks = 0;
};

std::uint64_t blocks_for(std::uint64_t items, std::uint64_t items_of_block) {
  return (items + items_of_block - 1) / items_of_block;
}

template <class Word, class Put>
Launch launch_with(const DeviceCopy& copy) {
  if (copy.tiled) {
    return {tile_kernel<Word, Put>, tiles_of<Word>(copy)};
  }
  const std::uint64_t blocks = blocks_for(copy.words, kThreads * kBatch);
  if constexpr (std::is_same_v<Put, PutWord>) {
    if (!has_short_indices(copy)) {
      return {word_kernel<Word, std::uint64_t, Put>, blocks};
    }
  }
  return {word_kernel<Word, std::uint32_t, Put>, blocks};
}

template <class Put>
Launch launch_of_width(const DeviceCopy& copy) {
  switch (copy.source_width) {
    case 1:
      return launch_with<std::uint8_t, Put>(copy);
    case 2:
      return launch_with<std::uint16_t, Put>(copy);
    case 4:
      return launch_with<std::uint32_t, Put>(copy);
    case 8:
      return launch_with<std::uint64_t, Put>(copy);
    default:
      return launch_with<Lane, Put>(copy);
  }
}

Launch launch_of(const DeviceCopy& copy) {
  if (!copy.changes) {
    return launch_of_width<PutWord>(copy);
  }
  // More than 2^31 elements that change are rare, and kernels of their own dear to compile.
  if (!copy.source_aligned || (!copy.tiled && !has_short_indices(copy))) {
    return {scattered_kernel, blocks_for(copy.words, kThreads)};
  }
  return launch_of_width<PutChanged>(copy);
}

}  // namespace kernels

cudaError_t launch_copy(const DeviceCopy& copy, cudaStream_t stream) noexcept {
  if (copy.words == 0) {
    return cudaSuccess;
  }
  if (!copy.changes && copy.contiguous) {
    return cudaMemcpyAsync(copy.target, copy.source, copy.words * copy.source_width,
                           cudaMemcpyDefault, stream);
  }
  const Launch launch = launch_of(copy);
  const auto blocks = static_cast<unsigned>(std::min<std::uint64_t>(launch.blocks, kMostBlocks));
  void* arguments[] = {const_cast<DeviceCopy*>(&copy)};
  return cudaLaunchKernel(reinterpret_cast<const void*>(launch.kernel), dim3(blocks),
                          dim3(kThreads), arguments, 0, stream);
}

}  // namespace dlbridge::cuda
