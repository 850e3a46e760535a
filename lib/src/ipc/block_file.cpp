#include "ipc/block_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

#include "dlbridge/error.hpp"

#ifdef __linux__
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace dlbridge {

#ifdef __linux__

OwnedDescriptor::~OwnedDescriptor() {
  if (number_ >= 0) {
    (void)close(number_);
  }
}

namespace detail {
namespace {

// Newer than some C libraries: Linux 6.3 and 5.1.
constexpr unsigned kNoExec = 0x0008U;
constexpr int kSealFutureWrite = 0x0010;

[[noreturn]] void fail(int error, const std::string& what) {
  std::string advice;
  if (error == EMFILE || error == ENFILE) {
    advice = " (each block needs a descriptor: raise `ulimit -n`, or keep fewer shared trees)";
  }
  throw std::system_error(error, std::generic_category(), what + advice);
}

// A number in a file of the kernel's, behind `name`; the most there is where it has none.
std::uint64_t number_in(const char* path, std::string_view name) noexcept {
  std::array<char, 4096> text{};
  std::size_t size = 0;
  if (FILE* file = std::fopen(path, "re")) {
    size = std::fread(text.data(), 1, text.size() - 1, file);
    (void)std::fclose(file);
  }
  const std::size_t at = std::string_view(text.data(), size).find(name);
  if (size == 0 || at == std::string_view::npos) {
    return UINT64_MAX;
  }
  const char* first = text.data() + at + name.size();
  char* last = nullptr;
  const unsigned long long number = std::strtoull(first, &last, 10);
  return last == first ? UINT64_MAX : number;
}

// The kernel reserves until there is no more, and then ends processes: asked before, it says no.
void require_memory(std::size_t bytes) {
  constexpr std::size_t kWorthAsking = std::size_t{16} << 20;
  if (bytes < kWorthAsking) {
    return;
  }
  const std::uint64_t free = number_in("/proc/meminfo", "MemAvailable:");
  const std::uint64_t swap = number_in("/proc/meminfo", "SwapFree:");
  // Of the second kind of control groups. What files are cached in counts as used, and is not.
  const std::uint64_t most = number_in("/sys/fs/cgroup/memory.max", "");
  const std::uint64_t used = number_in("/sys/fs/cgroup/memory.current", "");
  const std::uint64_t cached = number_in("/sys/fs/cgroup/memory.stat", "\ninactive_file ");
  const std::uint64_t kept = cached < used ? used - cached : used;
  const bool too_much = free != UINT64_MAX && swap != UINT64_MAX && bytes / 1024 > free + swap;
  const bool over_limit =
      most != UINT64_MAX && used != UINT64_MAX && bytes > most - std::min(most, kept);
  if (too_much || over_limit) {
    throw std::bad_alloc();
  }
}

}  // namespace

BlockFile file_of(const OwnedDescriptor& descriptor) {
  struct stat status {};
  if (fstat(descriptor.get(), &status) != 0) {
    fail(errno, "cannot ask for the size of a shared block");
  }
  if (!S_ISREG(status.st_mode)) {
    throw ConversionRefused("cannot take a shared block in: it is no memory",
                            {"its descriptor is of another kind of file"});
  }
  return {status.st_dev, status.st_ino, static_cast<std::uint64_t>(status.st_size)};
}

OwnedDescriptor new_file(std::size_t size) {
  require_memory(size);
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  OwnedDescriptor file(memfd_create("dlbridge", kFlags | kNoExec));
  if (file.get() < 0 && errno == EINVAL) {
    file = OwnedDescriptor(memfd_create("dlbridge", kFlags));
  }
  if (file.get() < 0) {
    fail(errno, "cannot make a shared block");
  }
  int error = 0;
  do {
    error = fallocate(file.get(), 0, 0, static_cast<off_t>(size)) == 0 ? 0 : errno;
  } while (error == EINTR);
  if (error == ENOMEM || error == ENOSPC || error == EFBIG) {
    throw std::bad_alloc();
  }
  if (error != 0) {
    fail(error, "cannot reserve a shared block's memory");
  }
  if (fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    fail(errno, "cannot seal a shared block");
  }
  return file;
}

OwnedDescriptor reopened(const OwnedDescriptor& file, bool write) {
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  OwnedDescriptor other(open(path.c_str(), (write ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (other.get() < 0) {
    fail(errno, "cannot open a shared block again by " + path);
  }
  return other;
}

std::byte* map_file(const OwnedDescriptor& file, std::size_t size, Mapping mapping,
                    std::size_t from) {
  const int access = mapping == Mapping::kRead ? PROT_READ : PROT_READ | PROT_WRITE;
  // New pages at once: one that is there already is cheap, a fault for each is not.
  const int kind = mapping == Mapping::kPrivate ? MAP_PRIVATE
                   : mapping == Mapping::kNew   ? MAP_SHARED | MAP_POPULATE
                                                : MAP_SHARED;
  void* memory = mmap(nullptr, size, access, kind, file.get(), static_cast<off_t>(from));
  if (memory == MAP_FAILED) {
    if (errno == ENOMEM) {
      throw std::bad_alloc();
    }
    fail(errno, "cannot map a shared block");
  }
  return static_cast<std::byte*>(memory);
}

void unmap_file(void* memory, std::size_t size) noexcept {
  (void)munmap(memory, size);
}

bool has_fixed_size(const OwnedDescriptor& file) noexcept {
  const int seals = fcntl(file.get(), F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && (seals & F_SEAL_GROW) != 0;
}

bool is_sealed(const OwnedDescriptor& file) noexcept {
  const int seals = fcntl(file.get(), F_GET_SEALS);
  return seals < 0 || (seals & kSealFutureWrite) != 0;
}

void seal(const OwnedDescriptor& file) {
  const int seals = kSealFutureWrite | F_SEAL_SEAL;
  if (!is_sealed(file) && fcntl(file.get(), F_ADD_SEALS, seals) != 0) {
    fail(errno, "cannot seal a shared block against others' writes");
  }
}

void lock_shared(const OwnedDescriptor& file) {
  if (flock(file.get(), LOCK_SH | LOCK_NB) != 0) {
    fail(errno, "cannot lock a shared block");
  }
}

void unlock(const OwnedDescriptor& file) noexcept {
  (void)flock(file.get(), LOCK_UN);
}

bool is_unlocked(const OwnedDescriptor& file) noexcept {
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    return false;
  }
  unlock(file);
  return true;
}

}  // namespace detail

#else  // the names, without what is Linux's own

OwnedDescriptor::~OwnedDescriptor() = default;

namespace detail {

BlockFile file_of(const OwnedDescriptor& /*descriptor*/) {
  not_here();
}
OwnedDescriptor new_file(std::size_t /*size*/) {
  not_here();
}
OwnedDescriptor reopened(const OwnedDescriptor& /*file*/, bool /*write*/) {
  not_here();
}
std::byte* map_file(const OwnedDescriptor& /*file*/, std::size_t /*size*/, Mapping /*mapping*/,
                    std::size_t /*from*/) {
  not_here();
}
void unmap_file(void* /*memory*/, std::size_t /*size*/) noexcept {}
bool has_fixed_size(const OwnedDescriptor& /*file*/) noexcept {
  return false;
}
bool is_sealed(const OwnedDescriptor& /*file*/) noexcept {
  return true;
}
void seal(const OwnedDescriptor& /*file*/) {
  not_here();
}
void lock_shared(const OwnedDescriptor& /*file*/) {
  not_here();
}
void unlock(const OwnedDescriptor& /*file*/) noexcept {}
bool is_unlocked(const OwnedDescriptor& /*file*/) noexcept {
  return false;
}

}  // namespace detail

#endif

namespace detail {

void not_here() {
  throw std::system_error(std::make_error_code(std::errc::not_supported),
                          "memory is shared between processes on Linux only");
}

}  // namespace detail
}  // namespace dlbridge
