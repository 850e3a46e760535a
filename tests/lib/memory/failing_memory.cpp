#include "lib/memory/failing_memory.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstdlib>

#include "dlbridge/memory_pool.hpp"

// The linker sends our own calls of these here (--wrap, see cmake/Tests.cmake).
extern "C" {
void* __real_malloc(std::size_t size);
void* __real_aligned_alloc(std::size_t alignment, std::size_t size);
void* __real_mmap(void* at, std::size_t size, int access, int kind, int file, off_t offset);
void* __wrap_malloc(std::size_t size);
void* __wrap_aligned_alloc(std::size_t alignment, std::size_t size);
void* __wrap_mmap(void* at, std::size_t size, int access, int kind, int file, off_t offset);
}

namespace dlbridge::doubles {
namespace {

thread_local long fails_at = 0;  // 0: never
thread_local long allocations = 0;
thread_local bool ended = false;

bool fails_now() noexcept {
  if (fails_at == 0 || ++allocations != fails_at) {
    return false;
  }
  ended = true;
  return true;
}

}  // namespace

MemoryEnds::MemoryEnds(long at) noexcept {
  release_pool();  // what is kept would serve, and nothing fail
  allocations = 0;
  ended = false;
  fails_at = at;
}
MemoryEnds::~MemoryEnds() {
  fails_at = 0;
}
bool MemoryEnds::has_ended() noexcept {
  return ended;
}

}  // namespace dlbridge::doubles

using dlbridge::doubles::fails_now;

extern "C" void* __wrap_malloc(std::size_t size) {
  return fails_now() ? nullptr : __real_malloc(size);
}
extern "C" void* __wrap_aligned_alloc(std::size_t alignment, std::size_t size) {
  return fails_now() ? nullptr : __real_aligned_alloc(alignment, size);
}
extern "C" void* __wrap_mmap(void* at, std::size_t size, int access, int kind, int file,
                             off_t offset) {
  if (fails_now()) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return __real_mmap(at, size, access, kind, file, offset);
}

void* operator new(std::size_t size) {
  void* memory = fails_now() ? nullptr : __real_malloc(size == 0 ? 1 : size);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}
void* operator new(std::size_t size, const std::nothrow_t& /*tag*/) noexcept {
  return fails_now() ? nullptr : __real_malloc(size == 0 ? 1 : size);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t /*size*/) noexcept {
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t& /*tag*/) noexcept {
  std::free(memory);
}
