#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/DispatchKeySet.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <utility>

#include "dlbridge/capabilities.hpp"
#include "dlbridge/convert.hpp"
#include "dlbridge/torch_devices.hpp"
#include "dlbridge/torch_library.hpp"
#include "dlbridge/torch_storage.hpp"
#include "dlbridge/torch_types.hpp"

namespace dlbridge {

namespace torch_detail {

/// Keys that an ordinary tensor may have; any other one changes what its memory means.
inline constexpr std::uint64_t kOrdinaryKeys = std::bit_cast<std::uint64_t>(
    c10::DispatchKeySet({c10::DispatchKey::ADInplaceOrView, c10::DispatchKey::AutogradFunctionality,
                         c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA,
                         c10::DispatchKey::Dense}) |
    c10::DispatchKeySet(c10::DispatchKeySet::RAW, c10::full_backend_mask));

/// Keys that a plain tensor of host memory may have: the ordinary ones, and no backend but the CPU.
inline constexpr std::uint64_t kPlainKeys = std::bit_cast<std::uint64_t>(
    c10::DispatchKeySet({c10::DispatchKey::ADInplaceOrView, c10::DispatchKey::AutogradCPU,
                         c10::DispatchKey::AutocastCPU, c10::DispatchKey::CPU}));

// Tangents exist only while a level of forward-mode differentiation does; asking for one takes a
// mutex, asking for a level does not. Older releases (before torch 2.15) cannot be asked.
template <typename Level = torch::autograd::ForwardADLevel>
bool tangents_exist() {
  if constexpr (requires { Level::has_any_level(); }) {
    return Level::has_any_level();
  }
  return true;
}

inline bool has_tangent(const at::Tensor& tensor) {
  return tangents_exist() && tensor._fw_grad(0).defined();
}

// Bytes from the first element to behind the last; strides are never negative here.
inline std::int64_t extent_bytes(const DLTensor& tensor, std::int64_t itemsize) {
  // Beside a size of zero the others may be anything.
  if (std::find(tensor.shape, tensor.shape + tensor.ndim, 0) != tensor.shape + tensor.ndim) {
    return 0;
  }
  std::int64_t last = 0;
  for (std::int32_t i = 0; i < tensor.ndim; ++i) {
    last += (tensor.shape[i] - 1) * tensor.strides[i];
  }
  return (last + 1) * itemsize;
}

}  // namespace torch_detail

/// The bridge to torch, on LibTorch: compiled against the torch that its user links.
///
/// Functions may be called on any thread. acquire() touches the tensor's storage (see
/// StorageHolder); what torch throws comes through as c10::Error.
template <typename Release = torch_detail::ReleaseAtOnce>
struct BasicTorch {
  using Object = at::Tensor;

  static void describe(const at::Tensor& tensor, Source& source) {
    if (plain(tensor, source.tensor) == Glance::kPlain) [[likely]] {
      source.traits = torch_detail::kTraits;
    } else {
      describe_closely(tensor, source);
    }
  }

  /// describe() without the glance, which has to come to the same.
  static void describe_closely(const at::Tensor& tensor, Source& source) {
    source.traits = torch_detail::kTraits;
    const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
    Conditions& conditions = source.traits.conditions;
    if (impl->autograd_meta() != nullptr) {
      conditions.add_if(impl->requires_grad(), Condition::kInGraph);
      conditions.add_if(torch_detail::has_tangent(tensor), Condition::kForwardDual);
    }
    c10::DispatchKeySet keys = impl->key_set();  // its questions are const since torch 2.8
    if ((keys.raw_repr() & ~torch_detail::kOrdinaryKeys) != 0 || !impl->has_storage() ||
        impl->device_type() == c10::DeviceType::Meta) [[unlikely]] {
      describe_odd(tensor, keys, source);
      if (conditions.meets(kOdd)) {
        return;
      }
    }
    describe_type(tensor.scalar_type(), source);
    source.tensor.device =
        DLDevice{static_cast<DLDeviceType>(torch_detail::device_type_of(impl->device_type())),
                 impl->device_type() == c10::DeviceType::CPU ? 0 : impl->device().index()};
    if (impl->device_type() != c10::DeviceType::CPU) [[unlikely]] {
      describe_order(impl->device(), source);
    }
    const auto sizes = tensor.sizes();
    source.tensor.ndim = static_cast<std::int32_t>(sizes.size());
    source.tensor.shape = const_cast<std::int64_t*>(sizes.data());
    if (conditions.meets({Condition::kSparse, Condition::kOpaqueLayout})) {
      return;
    }
    source.tensor.strides = const_cast<std::int64_t*>(tensor.strides().data());
    if (!conditions.has(Condition::kInexpressibleDType)) {
      describe_memory(*impl, source);
    }
  }

  /// The common case of describe() at a glance, see PlainProducer. Inlined, as the other parts of
  /// the way out, since a call's own cost shows there.
  [[gnu::always_inline]] inline static Glance plain(const at::Tensor& tensor, DLTensor& plain) {
    const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
    // With these keys the tensor is dense, on the host, and has no rules of its own.
    const c10::StorageImpl* storage = impl.unsafe_storage().unsafeGetStorageImpl();
    if ((impl.key_set().raw_repr() & ~torch_detail::kPlainKeys) != 0 || storage == nullptr) {
      return Glance::kCloser;
    }
    Glance glance = Glance::kPlain;
    if (const auto* meta = impl.autograd_meta(); meta != nullptr) {
      if (torch_detail::tangents_exist()) [[unlikely]] {
        return Glance::kCloser;
      }
      glance = meta->requires_grad() ? Glance::kInGraph : Glance::kPlain;
    }
    caffe2::TypeMeta held = impl.dtype();  // so are this one's
    const auto type = static_cast<std::size_t>(held.toScalarType());
    if (type >= torch_detail::kScalarTypes.size() || !impl.is_contiguous()) {
      return Glance::kCloser;
    }
    const DType dtype = torch_detail::kScalarTypes[type].dtype;
    const auto itemsize = static_cast<std::int64_t>(impl.itemsize());
    const auto* start = static_cast<const char*>(storage->data());
    const std::int64_t count = impl.numel();
    const std::int64_t offset = impl.storage_offset();
    if (dtype.bits == 0 || start == nullptr || count == 0 ||
        (offset + count) * itemsize > static_cast<std::int64_t>(storage->nbytes()) ||
        is_foreign(const_cast<c10::StorageImpl&>(*storage))) {
      return Glance::kCloser;
    }
    const auto sizes = impl.sizes();
    plain = DLTensor{.data = const_cast<char*>(start + offset * itemsize),
                     .device = {kDLCPU, 0},
                     .ndim = static_cast<std::int32_t>(sizes.size()),
                     .dtype = dtype.dl(),
                     .shape = const_cast<std::int64_t*>(sizes.data()),
                     .strides = const_cast<std::int64_t*>(impl.strides().data()),
                     .byte_offset = 0};
    return glance;
  }

  static ManagedTensor acquire(const at::Tensor& tensor, Source& source) {
    if (source.traits.maybe_pinned) [[unlikely]] {
      wait_for_pinned(source);
    }
    const Lease held = lease(tensor, source.tensor);
    return ManagedTensor::own_trusted(source.tensor, 0, held);
  }

  /// What acquire() holds. A copy-on-write storage gets memory of its own only now that it leaves,
  /// so the data pointer that was described may change.
  [[gnu::always_inline]] inline static Lease lease(const at::Tensor& tensor, DLTensor& described) {
    if (described.data == nullptr) {
      return {};
    }
    const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
    void* start = nullptr;
    const Lease held = torch_detail::StorageHolder<Release>::lease(
        *impl.unsafe_storage().unsafeGetStorageImpl(), start);
    described.data =
        static_cast<char*>(start) + impl.storage_offset() * DType(described.dtype).itemsize();
    return held;
  }

  /// Packed, without bits that are still to be resolved, and private: a copy in every case.
  static at::Tensor prepare(const at::Tensor& tensor, const Leg& leg) {
    const at::Tensor detached = tensor.detach();
    at::Tensor prepared = leg.has(Step::kDensify) ? detached.to_dense() : detached;
    if (leg.has(Step::kCopyToHost)) {
      prepared = prepared.to(c10::kCPU);
    }
    prepared = prepared.resolve_conj().resolve_neg().contiguous();
    const bool made = leg.has(Step::kDensify) || leg.has(Step::kCopyToHost);
    return made && !prepared._is_zerotensor() ? prepared : prepared.clone();
  }

  static const Capabilities& capabilities(const Source& /*source*/) { return kCapabilities; }

  /// A tensor over the memory, with a storage of its own that owns it and is not resizable.
  static at::Tensor deliver(ManagedTensor managed) {
    managed.drop_negative_strides();
    return deliver(managed.release());
  }

  /// The same for a managed tensor without negative strides: takes it in every case.
  static at::Tensor deliver(DLManagedTensorVersioned* managed) {
    std::unique_ptr<DLManagedTensorVersioned, decltype(&torch_detail::delete_managed)> owner(
        managed, &torch_detail::delete_managed);
    const DLTensor& tensor = managed->dl_tensor;
    const auto scalar_type = torch_detail::scalar_type_of(tensor.dtype).value();
    const auto ndim = static_cast<std::size_t>(tensor.ndim);
    const c10::IntArrayRef sizes(tensor.shape, ndim);
    const c10::IntArrayRef strides(tensor.strides, ndim);
    if (Device(tensor.device).host_accessible()) {
      const auto bytes = torch_detail::extent_bytes(tensor, DType(tensor.dtype).itemsize());
      auto impl = host_tensor(owner.release(), bytes, scalar_type);
      impl->set_sizes_and_strides(sizes, strides);
      return at::Tensor(std::move(impl));
    }
    const c10::Device device = torch_detail::device_of(tensor.device);
    order_streams(tensor.device, managed_stream(tensor.device),
                  torch_detail::current_stream(device));
    void* data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    owner.release();
    return at::from_blob(
        data, sizes, strides, [managed](void*) { torch_detail::delete_managed(managed); },
        at::TensorOptions().device(device).dtype(scalar_type), device);
  }

  /// A tensor over somebody's managed tensor, under `policy`. Takes `managed` in every case: its
  /// deleter runs once, when torch's last use of the memory ends or before this throws
  /// ConversionRefused.
  static at::Tensor from_dlpack(DLManagedTensorVersioned* managed, const Policy& policy = {}) {
    if (const auto bytes = passes_as_it_is(managed, policy); bytes != 0) [[likely]] {
      const DLTensor& tensor = managed->dl_tensor;
      auto impl = host_tensor(managed, bytes, *torch_detail::scalar_type_of(tensor.dtype));
      impl->set_sizes_contiguous({tensor.shape, static_cast<std::size_t>(tensor.ndim)});
      return at::Tensor(std::move(impl));
    }
    return from_dlpack_by_plan(managed, policy);
  }

 private:
  static constexpr Capabilities kCapabilities =
      torch_detail::capabilities_with(torch_detail::kTypesHere.types());

  // The bytes of what plan() lets through without a step, so that torch's own structs can be made
  // of it without a block of ours between; 0 where that takes a closer look.
  static std::int64_t passes_as_it_is(const DLManagedTensorVersioned* managed,
                                      const Policy& policy) {
    if (managed == nullptr || managed->version.major != DLPACK_MAJOR_VERSION ||
        managed->deleter == nullptr || (managed->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0) {
      return 0;
    }
    const std::int64_t bytes = plain_bytes(managed->dl_tensor);
    return bytes != 0 && takes_as_it_is(kCapabilities, managed->dl_tensor, policy) ? bytes : 0;
  }

  // As from_dlpack(), whatever the tensor is like. Apart, so that the common case stays short.
  static at::Tensor from_dlpack_by_plan(DLManagedTensorVersioned* managed, const Policy& policy) {
    return convert<DLPack, BasicTorch>(ManagedTensor::adopt(managed), policy);
  }

  // A tensor over the memory, still without its sizes. Takes `managed` in every case.
  static c10::intrusive_ptr<c10::TensorImpl> host_tensor(DLManagedTensorVersioned* managed,
                                                         std::int64_t bytes, c10::ScalarType type) {
    static const c10::Device kHost(c10::kCPU);  // making one checks it
    auto storage = c10::make_intrusive<c10::StorageImpl>(
        c10::StorageImpl::use_byte_size_t(), bytes,
        c10::DataPtr(managed->dl_tensor.data, managed, &torch_detail::delete_managed, kHost),
        /*allocator=*/nullptr, /*resizable=*/false);
    return c10::make_intrusive<c10::TensorImpl>(c10::Storage(std::move(storage)),
                                                c10::DispatchKeySet(c10::DispatchKey::CPU),
                                                c10::scalarTypeToTypeMeta(type));
  }

  // Where these hold, shape and type may not even be asked for.
  static constexpr Conditions kOdd{Condition::kNested,          Condition::kFake,
                                   Condition::kFunctorch,       Condition::kFunctionalised,
                                   Condition::kWrapperSubclass, Condition::kDispatchSubclass,
                                   Condition::kQuantised,       Condition::kMeta,
                                   Condition::kFreedStorage};

  static void describe_odd(const at::Tensor& tensor, c10::DispatchKeySet keys, Source& source) {
    using c10::DispatchKey;
    Conditions& conditions = source.traits.conditions;
    conditions.add_if(keys.has(DispatchKey::Conjugate), Condition::kConjBit);
    conditions.add_if(keys.has(DispatchKey::Negative), Condition::kNegBit);
    conditions.add_if(keys.has(DispatchKey::Functionalize), Condition::kFunctionalised);
    conditions.add_if(keys.has_any(c10::DispatchKeySet(
                          {DispatchKey::FuncTorchBatched, DispatchKey::FuncTorchGradWrapper,
                           DispatchKey::FuncTorchVmapMode, DispatchKey::Batched})),
                      Condition::kFunctorch);
    if (conditions.meets({Condition::kFunctionalised, Condition::kFunctorch})) {
      return;
    }
    if (tensor.is_nested()) {
      conditions.add(Condition::kNested);
    } else if (keys.has(DispatchKey::Python)) {
      // Made by _make_wrapper_subclass: a storage of no bytes, or of a null pointer.
      const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
      const bool memory = impl->has_storage() && impl->unsafe_storage().data() != nullptr;
      conditions.add(memory ? Condition::kDispatchSubclass : Condition::kWrapperSubclass);
    } else if (tensor.is_quantized()) {
      conditions.add(Condition::kQuantised);
    } else if (tensor.is_meta()) {
      conditions.add(Condition::kMeta);
    } else if (tensor.layout() != c10::kStrided) {
      conditions.add(tensor.layout() == c10::kMkldnn ? Condition::kOpaqueLayout
                                                     : Condition::kSparse);
    } else if (!tensor.has_storage()) {
      conditions.add(Condition::kFreedStorage);
    } else if (tensor._is_zerotensor()) {
      conditions.add(Condition::kZeroTensor);
    }
  }

  static void describe_type(c10::ScalarType type, Source& source) {
    const auto index = static_cast<std::size_t>(type);
    if (index >= torch_detail::kScalarTypes.size()) {
      source.traits.conditions.add(Condition::kInexpressibleDType);
      source.detail = c10::toString(type);
      return;
    }
    const auto& row = torch_detail::kScalarTypes[index];
    if (row.dtype.bits == 0) [[unlikely]] {
      source.traits.conditions.add(row.padded ? Condition::kPaddedSubByte
                                              : Condition::kInexpressibleDType);
      source.detail = row.name;
      return;
    }
    source.tensor.dtype = row.dtype.dl();
  }

  static void describe_order(c10::Device device, Source& source) {
    source.traits.stream_known = torch_detail::kTellsStreams<>;
    source.stream = torch_detail::current_stream(device);
  }

  // A copy with non_blocking=True may still be writing to pinned memory, on torch's stream.
  static void wait_for_pinned(const Source& source) {
    DeviceRuntime* runtime = device_runtime(kDLCUDA);
    if (runtime == nullptr || !at::globalContext().isPinnedPtr(source.tensor.data)) {
      return;
    }
    for (int device = 0; device < runtime->device_count(); ++device) {
      const c10::Device place(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device));
      runtime->synchronise(device, torch_detail::current_stream(place));
    }
  }

  // Whether the memory is not of torch's ordinary allocator: pinned memory has one of its own.
  static bool is_foreign(c10::StorageImpl& storage) {
    return !torch_detail::StorageHolder<Release>::is_ordinary(storage);
  }

  static void describe_memory(const c10::TensorImpl& impl, Source& source) {
    if (source.traits.conditions.has(Condition::kZeroTensor) || impl.numel() == 0) {
      return;
    }
    const auto itemsize = static_cast<std::int64_t>(impl.itemsize());
    const c10::StorageImpl& storage = *impl.unsafe_storage().unsafeGetStorageImpl();
    const void* start = storage.data();
    const auto offset = impl.storage_offset() * itemsize;
    // resize_() of the storage can leave a tensor larger than its memory (torch 2.15).
    if (start == nullptr || offset + torch_detail::extent_bytes(source.tensor, itemsize) >
                                static_cast<std::int64_t>(storage.nbytes())) {
      source.traits.conditions.add(Condition::kFreedStorage);
      return;
    }
    source.tensor.data = static_cast<char*>(const_cast<void*>(start)) + offset;
    source.traits.maybe_pinned = impl.device_type() == c10::DeviceType::CPU &&
                                 is_foreign(const_cast<c10::StorageImpl&>(storage));
  }
};

using Torch = BasicTorch<>;

}  // namespace dlbridge
