#pragma once

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/StorageImpl.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <memory>
#include <thread>

#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define DLBRIDGE_KNOWS_SINGLE_THREADED 1
#endif

#include "dlbridge/managed_tensor.hpp"

namespace dlbridge::torch_detail {

/// How the last user of torch memory lets go. Python's modules use their own, since torch's
/// deleters wait for the GIL when the memory belongs to a Python object.
struct ReleaseAtOnce {
  static void run(void* context, void (*action)(void*)) noexcept { action(context); }
  /// Of so many bytes that need no lock to be freed.
  static void free(void* context, void (*action)(void*), std::size_t /*bytes*/) noexcept {
    action(context);
  }
};

/// A count of users that threads share. Where the process has one thread, which glibc 2.32 and
/// later knows, no atomic operation is needed, and two of them are half of a small crossing;
/// libstdc++'s shared_ptr does the same.
class UserCount {
 public:
  explicit UserCount(std::uint32_t users) : users_(users) {}
  void add() noexcept {
    if (alone()) {
      users_.store(users_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    } else {
      users_.fetch_add(1, std::memory_order_relaxed);
    }
  }
  /// Whether that was the last.
  bool drop() noexcept {
    if (alone()) {
      const std::uint32_t left = users_.load(std::memory_order_relaxed) - 1;
      users_.store(left, std::memory_order_relaxed);
      return left == 0;
    }
    return users_.fetch_sub(1, std::memory_order_acq_rel) == 1;
  }

 private:
  static bool alone() noexcept {
#ifdef DLBRIDGE_KNOWS_SINGLE_THREADED
    return __libc_single_threaded != 0;
#else
    return false;
#endif
  }
  std::atomic<std::uint32_t> users_;
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
  /// A lease on the memory of `storage`, and in `data` where it begins. The storage's contents are
  /// read and perhaps replaced by a holder, and a copy-on-write one gets memory of its own; it is
  /// resizable no more, so that resize_() raises instead of moving the memory (as .numpy() does).
  ///
  /// Crossings of one storage on several threads are ordered here, and torch may read its address
  /// meanwhile, since that is not written. Mutating it meanwhile is the caller's race, as
  /// everywhere in torch, and so is reading it while a crossing ends its copy on write.
  static Lease lease(c10::StorageImpl& storage, void*& data) {
    Context& context = context_of(storage);
    if (deleter_of(context) == &let_go) [[likely]] {
      data = storage.mutable_data();
      return further_lease(context);
    }
    return first_lease(storage, data);
  }

  /// Whether the memory is of torch's ordinary allocator for the host, whether or not a holder has
  /// taken the place of its deleter.
  static bool is_ordinary(c10::StorageImpl& storage) {
    Context& context = context_of(storage);
    const c10::DeleterFnPtr deleter = deleter_of(context);
    return deleter == &let_go ? static_cast<const StorageHolder*>(context.get())->ordinary_
                              : is_ordinary(deleter);
  }

 private:
  static bool is_ordinary(c10::DeleterFnPtr deleter) {
    static const c10::DeleterFnPtr kOrdinary = c10::GetDefaultCPUAllocator()->raw_deleter();
    return deleter == kOrdinary;
  }

  // What a DataPtr owns, beside the address that it gives out.
  using Context = std::unique_ptr<void, c10::DeleterFnPtr>;
  static Context& context_of(c10::StorageImpl& storage) {
    auto&& context = storage._mutable_data_ptr_no_checks().move_context();  // it moves nothing
    return context;
  }

  // The deleter says whose the context is, so it is written last and read first. The variable is
  // torch's, and no atomic one.
  static c10::DeleterFnPtr deleter_of(Context& context) {
    return std::atomic_ref(context.get_deleter()).load(std::memory_order_acquire);
  }
  static void set_deleter(Context& context, c10::DeleterFnPtr deleter) {
    std::atomic_ref(context.get_deleter()).store(deleter, std::memory_order_release);
  }

  // One lock for many storages: held for some nanoseconds, or while torch makes the memory that
  // copy on write has put off; never while anything of Python's is called.
  class Locked {
   public:
    explicit Locked(const void* address)
        : flag_(flags()[(reinterpret_cast<std::uintptr_t>(address) >> 6) % kFlags]) {
      while (flag_.exchange(true, std::memory_order_acquire)) {
        std::this_thread::yield();
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

  static Lease further_lease(const Context& context) {
    auto* holder = static_cast<StorageHolder*>(context.get());
    holder->users_.add();
    return {holder, &let_go_noexcept};
  }

  static Lease first_lease(c10::StorageImpl& storage, void*& data) {
    const Locked lock(&storage);
    data = storage.mutable_data();
    if (storage.resizable()) {
      storage.set_resizable(false);
    }
    Context& context = context_of(storage);
    if (deleter_of(context) == &let_go) {  // another thread was first
      return further_lease(context);
    }
    const c10::DataPtr& memory = storage._mutable_data_ptr_no_checks();
    if (!replaceable(memory)) {
      return storage_lease(storage);
    }
    auto* holder = new StorageHolder;
    holder->bytes_ = storage.nbytes();
    holder->ordinary_ = is_ordinary(memory.get_deleter());
    holder->original_ =
        c10::DataPtr(memory.get(), memory.get_context(), memory.get_deleter(), memory.device());
    // A process may be forked at any point of this: at none of them may the storage end its memory
    // by a deleter that is not the memory's.
    (void)context.release();
    set_deleter(context, &let_go_unfinished);
    context.reset(holder);
    set_deleter(context, &let_go);
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
    if (!holder->users_.drop()) {
      return;
    }
    const auto end = [](void* last) { delete static_cast<StorageHolder*>(last); };
    if (holder->original_.get_context() == holder->original_.get()) {
      Release::free(holder, end, holder->bytes_);
    } else {
      Release::run(holder, end);
    }
  }
  static void let_go_noexcept(void* context) noexcept { let_go(context); }
  // Of a holder whose storage is being given its DataPtr: no other thread takes it for ready yet.
  static void let_go_unfinished(void* context) { let_go(context); }

  UserCount users_{2};  // the storage, and the first view
  bool ordinary_ = false;
  std::size_t bytes_ = 0;
  c10::DataPtr original_;
};

}  // namespace dlbridge::torch_detail
