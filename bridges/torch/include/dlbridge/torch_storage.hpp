#pragma once

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/StorageImpl.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <utility>

#include "dlbridge/managed_tensor.hpp"

namespace dlbridge::torch_detail {

/// How the last user of torch memory lets go. Python's modules use their own, since torch's
/// deleters wait for the GIL when the memory belongs to a Python object.
struct ReleaseAtOnce {
  static void run(void* context, void (*action)(void*)) noexcept { action(context); }
};

/// The deleter of the storages that deliver() makes: their context is the managed tensor.
inline void delete_managed(void* context) {
  auto* managed = static_cast<DLManagedTensorVersioned*>(context);
  managed->deleter(managed);
}

/// Keeps a storage's memory valid for views, whatever becomes of the storage.
///
/// share_memory_(), set_() and Module.to() replace a storage's memory or a tensor's storage while
/// views exist (torch 2.15; pytorch#51849). So on the first export this holder takes the place of
/// the storage's DataPtr: same pointer, but counted, with the original kept inside. Whoever swaps
/// the storage's contents then drops one count, and the memory stays for the views.
template <typename Release>
class StorageHolder {
 public:
  /// A lease on the memory of `storage`, whose contents are read and perhaps replaced by a holder;
  /// it is resizable no more, so that resize_() raises instead of moving the memory (as .numpy()
  /// does). Crossings of one storage on several threads are ordered here; mutating it meanwhile is
  /// the caller's race, as everywhere in torch.
  static Lease lease(c10::StorageImpl& storage) {
    c10::DataPtr& memory = storage._mutable_data_ptr_no_checks();
    if (memory.get_deleter() == &let_go) [[likely]] {
      // The deleter is set last, so what it belongs to is there.
      std::atomic_thread_fence(std::memory_order_acquire);
      auto* holder = static_cast<StorageHolder*>(memory.get_context());
      holder->users_.fetch_add(1, std::memory_order_relaxed);
      return {holder, &let_go_noexcept};
    }
    return first_lease(storage, memory);
  }

  /// The deleter of the memory's allocator, whether or not a holder has taken its place.
  static c10::DeleterFnPtr original_deleter(c10::DataPtr& memory) {
    if (memory.get_deleter() != &let_go) {
      return memory.get_deleter();
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    return static_cast<const StorageHolder*>(memory.get_context())->original_.get_deleter();
  }

 private:
  // One lock for many storages: held for some nanoseconds, never while anything else is called.
  class Locked {
   public:
    explicit Locked(const void* address)
        : flag_(flags()[(reinterpret_cast<std::uintptr_t>(address) >> 6) % kFlags]) {
      while (flag_.exchange(true, std::memory_order_acquire)) {
      }
    }
    ~Locked() { flag_.store(false, std::memory_order_release); }
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;

   private:
    static constexpr std::size_t kFlags = 64;
    using Flags = std::array<std::atomic<bool>, kFlags>;
    static Flags& flags() {
      static Flags all{};
      // A thread that was inside when another forked is not in the child to leave again.
      [[maybe_unused]] static const int registered = pthread_atfork(nullptr, nullptr, [] {
        for (auto& flag : all) {
          flag.store(false, std::memory_order_relaxed);
        }
      });
      return all;
    }
    std::atomic<bool>& flag_;
  };

  static Lease first_lease(c10::StorageImpl& storage, c10::DataPtr& memory) {
    const Locked lock(&storage);
    if (storage.resizable()) {
      storage.set_resizable(false);
    }
    if (memory.get_deleter() == &let_go) {  // another thread was first
      auto* holder = static_cast<StorageHolder*>(memory.get_context());
      holder->users_.fetch_add(1, std::memory_order_relaxed);
      return {holder, &let_go_noexcept};
    }
    if (!replaceable(memory)) {
      return storage_lease(storage);
    }
    auto* holder = new StorageHolder;
    void* data = memory.get();
    const c10::Device device = memory.device();
    holder->original_ = std::move(memory);
    memory = c10::DataPtr(data, holder, &let_go_unfinished, device);
    std::atomic_thread_fence(std::memory_order_release);
    (void)memory.compare_exchange_deleter(&let_go_unfinished, &let_go);
    return {holder, &let_go_noexcept};
  }

  // Whether nobody recognises this memory by its deleter. Shared memory, for one, would no longer
  // count as shared; it needs no holder, since share_memory_() leaves it where it is.
  static bool replaceable(const c10::DataPtr& memory) {
    static const c10::DeleterFnPtr kForeignMemory = c10::InefficientStdFunctionContext::makeDataPtr(
                                                        nullptr, [](void*) {}, c10::kCPU)
                                                        .get_deleter();
    if (memory.device().type() != c10::DeviceType::CPU) {
      return false;
    }
    return memory.get_context() == memory.get() || memory.get_deleter() == kForeignMemory ||
           memory.get_deleter() == &delete_managed || at::globalContext().isPinnedPtr(memory.get());
  }

  static Lease storage_lease(c10::StorageImpl& storage) {
    c10::raw::intrusive_ptr::incref(&storage);
    return {&storage, [](void* context) noexcept {
              Release::run(context, [](void* held) {
                c10::raw::intrusive_ptr::decref(static_cast<c10::StorageImpl*>(held));
              });
            }};
  }

  // Memory of torch's own allocator is freed on any thread; other deleters may wait for the GIL.
  static void let_go(void* context) {
    auto* holder = static_cast<StorageHolder*>(context);
    if (holder->users_.fetch_sub(1, std::memory_order_acq_rel) != 1) {
      return;
    }
    if (holder->original_.get_context() == holder->original_.get()) {
      delete holder;
    } else {
      Release::run(holder, [](void* last) { delete static_cast<StorageHolder*>(last); });
    }
  }
  static void let_go_noexcept(void* context) noexcept { let_go(context); }
  // Of a holder whose storage is being given its DataPtr: no other thread takes it for ready yet.
  static void let_go_unfinished(void* context) { let_go(context); }

  std::atomic<std::uint32_t> users_{2};  // the storage, and the first view
  c10::DataPtr original_;
};

}  // namespace dlbridge::torch_detail
