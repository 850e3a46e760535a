// What the probe hands out, and what it knows about it afterwards.
#pragma once

#include <Python.h>
#include <dlpack/dlpack.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace probe {

inline constexpr unsigned char kPoison = 0xDD;

/// What happened to one source. Lives to the end of the process, so that a second call of a deleter
/// is counted and not a crash.
struct Record {
  std::atomic<long> exports{0};
  std::atomic<long> deletes{0};
  std::atomic<int> had_gil{-1};  // of the last deleter: 0, 1, or 2 after Py_Finalize
  std::atomic<unsigned long> thread{0};
};

// Of all sources: exports that wait for their deleter, and deleters that were called once more.
inline std::atomic<long> g_outstanding{0};
inline std::atomic<long> g_deleted_twice{0};

inline std::mutex g_records_lock;
inline std::deque<Record> g_records;

inline long new_record() {
  const std::lock_guard<std::mutex> lock(g_records_lock);
  g_records.emplace_back();
  return static_cast<long>(g_records.size()) - 1;
}

inline Record& record(long token) {
  const std::lock_guard<std::mutex> lock(g_records_lock);
  if (token < 0 || token >= static_cast<long>(g_records.size())) {
    throw std::out_of_range("no such token");
  }
  return g_records[static_cast<std::size_t>(token)];
}

/// malloc'd bytes. When the last owner goes they are filled with 0xDD and, with poison, kept to the
/// end of the process: whoever still reads them reads 0xDD and not somebody else's values. Without
/// poison they are freed, which is what the address sanitizer wants to see.
struct Memory {
  Memory(const std::string& bytes, std::size_t misalign, bool poison) : poison_(poison) {
    size = bytes.size();
    block_ = std::aligned_alloc(64, (size + misalign + 127) / 64 * 64);
    if (block_ == nullptr) {
      throw std::bad_alloc();
    }
    base = static_cast<unsigned char*>(block_) + misalign;
    std::memcpy(base, bytes.data(), size);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    std::memset(base, kPoison, size);
    if (poison_) {
      const std::lock_guard<std::mutex> lock(g_records_lock);
      graveyard().push_back(block_);
    } else {
      std::free(block_);
    }
  }

  unsigned char* base = nullptr;
  std::size_t size = 0;

 private:
  static std::vector<void*>& graveyard() {
    static auto* blocks = new std::vector<void*>;  // outlives every deleter
    return *blocks;
  }
  void* block_ = nullptr;
  bool poison_;
};

/// How the exported structure shall look; everything may be wrong on purpose.
struct Spec {
  std::vector<std::int64_t> shape;
  std::optional<std::vector<std::int64_t>> strides;
  std::optional<int> ndim;  // stands over the length of shape
  int code = kDLFloat;
  int bits = 32;
  int lanes = 1;
  int device_type = kDLCPU;
  int device_id = 0;
  std::uint64_t byte_offset = 0;
  std::uint64_t flags = 0;
  unsigned major = 1;
  unsigned minor = 3;
  std::int64_t start = 0;  // dl_tensor.data is this many bytes behind the memory's first
  bool null_data = false;
  bool null_shape = false;
  bool null_deleter = false;
  PyObject* on_delete = nullptr;  // called by the deleter, which leaves what it raises where it is
};

/// One exported structure of either kind. Never freed, only poisoned: a late reader of shape and
/// strides sees 0xDD, and a second deleter is counted.
struct Export {
  DLManagedTensorVersioned versioned{};
  DLManagedTensor legacy{};
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  std::shared_ptr<Memory> memory;
  long token = 0;
  std::atomic<bool> deleted{false};
  PyObject* on_delete = nullptr;
};

// As a deleter does that takes the GIL for itself and looks at no error.
inline void call_back(PyObject* function) {
  const PyGILState_STATE state = PyGILState_Ensure();
  Py_XDECREF(PyObject_CallNoArgs(function));
  PyGILState_Release(state);
}

inline void note_delete(Export* self) {
  Record& r = record(self->token);
  if (self->deleted.exchange(true)) {
    g_deleted_twice += 1;
  } else {
    g_outstanding -= 1;
  }
  r.had_gil = Py_IsInitialized() == 0 ? 2 : PyGILState_Check();
  r.thread = PyThread_get_thread_ident();
  r.deletes += 1;
  std::fill(self->shape.begin(), self->shape.end(), -0x22222222);
  std::fill(self->strides.begin(), self->strides.end(), -0x22222222);
  self->memory.reset();
  if (self->on_delete != nullptr) {
    call_back(self->on_delete);
  }
}

inline void delete_versioned(DLManagedTensorVersioned* t) {
  note_delete(static_cast<Export*>(t->manager_ctx));
}
inline void delete_legacy(DLManagedTensor* t) {
  note_delete(static_cast<Export*>(t->manager_ctx));
}

inline Export* new_export(const Spec& spec, std::shared_ptr<Memory> memory, long token) {
  auto* e = new Export;
  e->memory = std::move(memory);
  e->token = token;
  e->on_delete = spec.on_delete;
  e->shape = spec.shape;
  e->shape.resize(std::max<std::size_t>(e->shape.size(), 1));  // never a NULL from an empty vector
  if (spec.strides) {
    e->strides = *spec.strides;
    e->strides.resize(std::max<std::size_t>(e->strides.size(), 1));
  }
  DLTensor t{};
  t.data = spec.null_data ? nullptr : e->memory->base + spec.start;
  t.device = {static_cast<DLDeviceType>(spec.device_type), spec.device_id};
  t.ndim = spec.ndim.value_or(static_cast<int>(spec.shape.size()));
  t.dtype = {static_cast<std::uint8_t>(spec.code), static_cast<std::uint8_t>(spec.bits),
             static_cast<std::uint16_t>(spec.lanes)};
  t.shape = spec.null_shape ? nullptr : e->shape.data();
  t.strides = spec.strides ? e->strides.data() : nullptr;
  t.byte_offset = spec.byte_offset;
  e->versioned = {
      {spec.major, spec.minor}, e, spec.null_deleter ? nullptr : delete_versioned, spec.flags, t};
  e->legacy = {t, e, spec.null_deleter ? nullptr : delete_legacy};
  record(token).exports += 1;
  g_outstanding += spec.null_deleter ? 0 : 1;
  return e;
}

// A managed tensor of either kind, taken out of a capsule by somebody who now owns it.
struct Owned {
  DLManagedTensorVersioned* versioned = nullptr;
  DLManagedTensor* legacy = nullptr;

  [[nodiscard]] bool empty() const { return versioned == nullptr && legacy == nullptr; }
  [[nodiscard]] DLTensor& tensor() const {
    return versioned != nullptr ? versioned->dl_tensor : legacy->dl_tensor;
  }
  void release() {
    const Owned mine = *this;
    *this = {};
    if (mine.versioned != nullptr && mine.versioned->deleter != nullptr) {
      mine.versioned->deleter(mine.versioned);
    }
    if (mine.legacy != nullptr && mine.legacy->deleter != nullptr) {
      mine.legacy->deleter(mine.legacy);
    }
  }
};

/// What a capsule holds, whether it was used or not; empty for a capsule of another kind.
inline Owned peek(PyObject* capsule) {
  const char* name = PyCapsule_GetName(capsule);
  const std::string kind = name == nullptr ? "" : name;
  Owned owned;
  if (kind == "dltensor_versioned" || kind == "used_dltensor_versioned") {
    owned.versioned = static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule, name));
  } else if (kind == "dltensor" || kind == "used_dltensor") {
    owned.legacy = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, name));
  }
  return owned;
}

/// Takes the tensor out, as a consumer must: renamed, and refused when it was used before.
inline Owned consume(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, "dltensor_versioned") == 0 &&
      PyCapsule_IsValid(capsule, "dltensor") == 0) {
    throw std::invalid_argument("not an unused DLPack capsule");
  }
  const Owned owned = peek(capsule);
  PyCapsule_SetName(capsule,
                    owned.versioned != nullptr ? "used_dltensor_versioned" : "used_dltensor");
  return owned;
}

inline void capsule_destructor(PyObject* capsule) {
  const char* name = PyCapsule_GetName(capsule);
  if (name != nullptr && std::strncmp(name, "used_", 5) != 0) {
    Owned owned = peek(capsule);
    owned.release();
  }
}

}  // namespace probe
