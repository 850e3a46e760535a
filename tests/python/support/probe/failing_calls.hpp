// Calls that fail when the test says so: the imports of an extension module, a table of functions,
// and Python's allocator.
//
// An import is reached through a slot that the loader filled in. Each slot of interest is pointed
// at a thunk, which asks failing_step() where the call goes on: to the real function, or to one
// that fails as the real one would. Linux on x86-64; elsewhere nothing can be patched.
#pragma once

#include <Python.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(__linux__) && defined(__x86_64__)
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#define PROBE_PATCHES_CALLS 1
#else
#define PROBE_PATCHES_CALLS 0
#endif

namespace probe {

/// How a function says that it failed.
enum class Failure : std::uint8_t {
  kNull,           // a null pointer, with Python's error set
  kMinusOne,       // -1, with Python's error set
  kMinusOneTaken,  // the same of a function that takes its second argument over even so
  kZero,           // 0, with Python's error set
  kNoMemory,       // a null pointer and no error, as malloc
  kThrow           // std::bad_alloc, as operator new
};

struct FailingCall {
  std::string name;
  Failure failure;
  void** slot = nullptr;
  void* real = nullptr;
};

/// One failure: of call `at`, counted from 1 on the thread that asked for it.
struct Armed {
  bool calls = false;
  bool memory = false;
  long at = 0;
  long count = 0;
  const char* fired = nullptr;
  PyFrameObject* frame = nullptr;  // of the test that asks
};
inline thread_local Armed g_armed;
inline PyObject* g_injected = nullptr;  // what failed calls raise

inline bool reaches_failure(const char* name) {
  Armed& armed = g_armed;
  if (++armed.count != armed.at) {
    return false;
  }
  armed.fired = name;
  return true;
}

inline void* returns_null() {
  return nullptr;
}
inline long returns_minus_one() {
  return -1;
}
inline long returns_minus_one_and_takes(void* /*first*/, PyObject* second) {
  Py_DECREF(second);
  return -1;
}
[[noreturn]] inline void* throws_bad_alloc(std::size_t) {
  throw std::bad_alloc();
}

#if PROBE_PATCHES_CALLS

// Where the code of the patched libraries lies: tables of functions have other callers too.
inline std::vector<std::pair<std::uintptr_t, std::uintptr_t>> g_patched_code;

inline bool is_of_patched_library(const void* address) {
  const auto place = reinterpret_cast<std::uintptr_t>(address);
  return std::any_of(g_patched_code.begin(), g_patched_code.end(), [place](const auto& range) {
    return range.first <= place && place < range.second;
  });
}

// Where a call goes on. Everything it was called with is kept by the thunk.
extern "C" __attribute__((visibility("hidden"), used)) inline void* probe_failing_step(
    FailingCall* call, const void* caller) {
  if (!g_armed.calls || !is_of_patched_library(caller) || !reaches_failure(call->name.c_str())) {
    return call->real;
  }
  switch (call->failure) {
    case Failure::kThrow:
      return reinterpret_cast<void*>(throws_bad_alloc);
    case Failure::kNoMemory:
      return reinterpret_cast<void*>(returns_null);
    case Failure::kMinusOne:
      PyErr_SetString(g_injected, call->name.c_str());
      return reinterpret_cast<void*>(returns_minus_one);
    case Failure::kMinusOneTaken:
      PyErr_SetString(g_injected, call->name.c_str());
      return reinterpret_cast<void*>(returns_minus_one_and_takes);
    default:
      PyErr_SetString(g_injected, call->name.c_str());
      return reinterpret_cast<void*>(returns_null);
  }
}

extern "C" void probe_failing_common();
asm(R"(
.text
.hidden probe_failing_common
.globl probe_failing_common
probe_failing_common:
  push %rbp
  mov %rsp, %rbp
  push %rax
  push %rdi
  push %rsi
  push %rdx
  push %rcx
  push %r8
  push %r9
  push %r10
  sub $128, %rsp
  movdqu %xmm0, 0(%rsp)
  movdqu %xmm1, 16(%rsp)
  movdqu %xmm2, 32(%rsp)
  movdqu %xmm3, 48(%rsp)
  movdqu %xmm4, 64(%rsp)
  movdqu %xmm5, 80(%rsp)
  movdqu %xmm6, 96(%rsp)
  movdqu %xmm7, 112(%rsp)
  mov %r11, %rdi
  mov 8(%rbp), %rsi
  call probe_failing_step
  mov %rax, %r11
  movdqu 0(%rsp), %xmm0
  movdqu 16(%rsp), %xmm1
  movdqu 32(%rsp), %xmm2
  movdqu 48(%rsp), %xmm3
  movdqu 64(%rsp), %xmm4
  movdqu 80(%rsp), %xmm5
  movdqu 96(%rsp), %xmm6
  movdqu 112(%rsp), %xmm7
  add $128, %rsp
  pop %r10
  pop %r9
  pop %r8
  pop %rcx
  pop %rdx
  pop %rsi
  pop %rdi
  pop %rax
  pop %rbp
  jmp *%r11
)");

inline std::deque<FailingCall> g_failing_calls;  // thunks point to them

inline void* new_thunk(FailingCall* call) {
  constexpr std::size_t kSize = 24;
  constexpr std::size_t kPage = 64 * 1024;
  static unsigned char* page = nullptr;
  static std::size_t used = kPage;
  if (used + kSize > kPage) {
    void* mapped = mmap(nullptr, kPage, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
      throw std::runtime_error("no memory that may be executed");
    }
    page = static_cast<unsigned char*>(mapped);
    used = 0;
  }
  unsigned char* code = page + used;
  used += kSize;
  const auto common = reinterpret_cast<std::uintptr_t>(&probe_failing_common);
  code[0] = 0x49;  // movabs $call, %r11
  code[1] = 0xBB;
  std::memcpy(code + 2, &call, 8);
  code[10] = 0x49;  // movabs $common, %r10
  code[11] = 0xBA;
  std::memcpy(code + 12, &common, 8);
  code[20] = 0x41;  // jmp *%r10
  code[21] = 0xFF;
  code[22] = 0xE2;
  return code;
}

inline void write_slot(void** slot, void* value) {
  const auto page = reinterpret_cast<std::uintptr_t>(slot) & ~std::uintptr_t{4095};
  if (mprotect(reinterpret_cast<void*>(page), 8192, PROT_READ | PROT_WRITE) != 0 &&
      mprotect(reinterpret_cast<void*>(page), 4096, PROT_READ | PROT_WRITE) != 0) {
    throw std::runtime_error("a slot cannot be written to");
  }
  *slot = value;
}

inline void patch_slot(const std::string& name, Failure failure, void** slot) {
  FailingCall& call = g_failing_calls.emplace_back(FailingCall{name, failure, slot, *slot});
  write_slot(slot, new_thunk(&call));
}

/// Makes the imports of a loaded library that `failures` names able to fail. Returns the names of
/// all its imported functions that are not among them.
inline std::vector<std::string> patch_imports(const std::string& path,
                                              const std::map<std::string, Failure>& failures) {
  struct Search {
    const std::string& path;
    const std::map<std::string, Failure>& failures;
    std::vector<std::string> others;
    bool found = false;
  } search{path, failures, {}, false};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t /*size*/, void* context) {
        auto& wanted = *static_cast<Search*>(context);
        if (wanted.path != info->dlpi_name) {
          return 0;
        }
        wanted.found = true;
        const ElfW(Dyn)* dynamic = nullptr;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& part = info->dlpi_phdr[i];
          if (part.p_type == PT_LOAD && (part.p_flags & PF_X) != 0) {
            const auto begin = info->dlpi_addr + part.p_vaddr;
            g_patched_code.emplace_back(begin, begin + part.p_memsz);
          }
          if (part.p_type == PT_DYNAMIC) {
            dynamic =
                reinterpret_cast<const ElfW(Dyn)*>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
          }
        }
        const ElfW(Sym)* symbols = nullptr;
        const char* texts = nullptr;
        std::vector<std::pair<const ElfW(Rela)*, std::size_t>> tables(2, {nullptr, 0});
        for (; dynamic != nullptr && dynamic->d_tag != DT_NULL; ++dynamic) {
          const auto value = dynamic->d_un.d_val;
          switch (dynamic->d_tag) {
            case DT_SYMTAB:
              symbols = reinterpret_cast<const ElfW(Sym)*>(value);
              break;
            case DT_STRTAB:
              texts = reinterpret_cast<const char*>(value);
              break;
            case DT_JMPREL:
              tables[0].first = reinterpret_cast<const ElfW(Rela)*>(value);
              break;
            case DT_PLTRELSZ:
              tables[0].second = value / sizeof(ElfW(Rela));
              break;
            case DT_RELA:
              tables[1].first = reinterpret_cast<const ElfW(Rela)*>(value);
              break;
            case DT_RELASZ:
              tables[1].second = value / sizeof(ElfW(Rela));
              break;
            default:
              break;
          }
        }
        for (const auto& [table, count] : tables) {
          for (std::size_t i = 0; i < count; ++i) {
            const auto type = ELF64_R_TYPE(table[i].r_info);
            const auto& symbol = symbols[ELF64_R_SYM(table[i].r_info)];
            if (type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT) {
              continue;
            }
            const std::string name = texts + symbol.st_name;
            const auto known = wanted.failures.find(name);
            if (known != wanted.failures.end()) {
              patch_slot(name, known->second,
                         reinterpret_cast<void**>(info->dlpi_addr + table[i].r_offset));
            } else if (type == R_X86_64_JUMP_SLOT) {
              wanted.others.push_back(name);
            }
          }
        }
        return 1;
      },
      &search);
  if (!search.found) {
    throw std::runtime_error("no such library is loaded: " + path);
  }
  return search.others;
}

/// Everything as it was.
inline void unpatch() {
  for (auto& call : g_failing_calls) {
    if (call.slot != nullptr) {
      write_slot(call.slot, call.real);
      call.slot = nullptr;
    }
  }
  g_patched_code.clear();
}

#endif  // PROBE_PATCHES_CALLS

// ---- Python's allocators ------------------------------------------------------------------------

inline constexpr PyMemAllocatorDomain kDomains[] = {PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
inline constexpr std::size_t kDomainCount = std::size(kDomains);
inline PyMemAllocatorEx g_allocators[kDomainCount];

// Only what C code asks for: while Python code runs nothing fails, since the interpreter of CPython
// 3.11 itself loses references and errors then (PyCell_New in MAKE_CELL, for one).
inline bool memory_ends() {
  if (!g_armed.memory) {
    return false;
  }
  g_armed.memory = false;  // asking for the frame may make its object
  const bool in_python = PyEval_GetFrame() != g_armed.frame;
  g_armed.memory = true;
  return !in_python && reaches_failure("an allocation of Python's");
}

/// Puts allocators that can fail before Python's own, for as long as it lives.
class FailingAllocators {
 public:
  FailingAllocators() {
    for (std::size_t i = 0; i < kDomainCount; ++i) {
      PyMem_GetAllocator(kDomains[i], &g_allocators[i]);
      PyMemAllocatorEx failing{
          &g_allocators[i],
          [](void* inner, std::size_t size) {
            auto* real = static_cast<PyMemAllocatorEx*>(inner);
            return memory_ends() ? nullptr : real->malloc(real->ctx, size);
          },
          [](void* inner, std::size_t count, std::size_t size) {
            auto* real = static_cast<PyMemAllocatorEx*>(inner);
            return memory_ends() ? nullptr : real->calloc(real->ctx, count, size);
          },
          [](void* inner, void* memory, std::size_t size) {
            auto* real = static_cast<PyMemAllocatorEx*>(inner);
            return memory_ends() ? nullptr : real->realloc(real->ctx, memory, size);
          },
          [](void* inner, void* memory) {
            auto* real = static_cast<PyMemAllocatorEx*>(inner);
            real->free(real->ctx, memory);
          }};
      PyMem_SetAllocator(kDomains[i], &failing);
    }
  }
  ~FailingAllocators() {
    for (std::size_t i = 0; i < kDomainCount; ++i) {
      PyMem_SetAllocator(kDomains[i], &g_allocators[i]);
    }
  }
  FailingAllocators(const FailingAllocators&) = delete;
  FailingAllocators& operator=(const FailingAllocators&) = delete;
};

/// Calls `action` without arguments while call `at` fails. Gives what failed (null where the action
/// came to its end before that), the result and the error, one of which is null.
struct Outcome {
  const char* fired = nullptr;
  PyObject* result = nullptr;
  PyObject* error = nullptr;
};

inline Outcome call_with_failure(PyObject* action, long at, bool memory) {
  g_armed = {.calls = !memory, .memory = memory, .at = at, .frame = PyEval_GetFrame()};
  Outcome outcome;
  outcome.result = PyObject_CallNoArgs(action);
  outcome.fired = g_armed.fired;
  g_armed = {};
  if (outcome.result == nullptr || PyErr_Occurred() != nullptr) {
    PyObject *type = nullptr, *trace = nullptr;
    PyErr_Fetch(&type, &outcome.error, &trace);
    PyErr_NormalizeException(&type, &outcome.error, &trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
  }
  return outcome;
}

}  // namespace probe
