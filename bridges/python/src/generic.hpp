#pragma once

// The bridge to every library that has none of its own: whatever speaks the exchange table,
// __dlpack__, __cuda_array_interface__, __array_interface__ or the buffer protocol.

#include <cstdint>
#include <optional>

#include "python.hpp"

namespace dlbridge::python {

/// How an object can be read, in the order in which it is tried.
enum class SourceKind : std::uint8_t {
  kNumPy,
  kNumPyScalar,
  kTorch,
  kManagedTensor,
  kCapsule,
  kExchangeTable,
  kDLPack,
  kCudaArrayInterface,
  kArrayInterface,
  kBuffer,
  kNothing,
};

/// How an object of this type can be read; probed once per type, and again when the type changed.
[[nodiscard]] SourceKind kind_of(PyObject* object);

/// Whether __dlpack__ of this type is known not to take `max_version`, so that it is not tried
/// again.
[[nodiscard]] bool wants_bare_call(PyTypeObject* type) noexcept;
void remember_bare_call(PyTypeObject* type) noexcept;

struct LibraryRow;

/// What was taken from an object, or is borrowed from it, on its way to a plan.
struct Crossing {
  Source source;
  ManagedTensor taken;              // for the kinds whose memory comes as a managed tensor
  const LibraryRow* row = nullptr;  // of the registry, if its library is there
  std::optional<Library> library;   // of an object that no bridge knows by name
  std::string object_name;          // what `library` borrows its texts from
  // Whose stream will read the memory, where it is a device's: the caller's word, or torch's.
  std::optional<Stream> reader;
  bool towards_torch = false;
};

/// The tensor's memory under another description.
[[nodiscard]] ManagedTensor described_as(ManagedTensor tensor, const DLTensor& described,
                                         std::uint64_t flags);

/// Names the object's library after its type.
void name_library(PyObject* object, Crossing& crossing);

/// Refuses what an object handed out, in its library's name.
[[noreturn]] void refuse(const Crossing& crossing, const std::string& fault);

/// Takes a managed tensor from the object by the protocol of its kind, or as its library's row in
/// the registry says, and describes it.
/// Throws what the producer raised, ConversionRefused for what it returned.
void take_generic(PyObject* object, SourceKind kind, Crossing& crossing);

/// Asks the producer for its tensor in host memory: the last resort for a device that nobody here
/// can copy from. Throws ConversionRefused when the producer does not do that.
[[nodiscard]] ManagedTensor ask_for_host_copy(PyObject* object, const Crossing& crossing);

/// Asks the producer for a copy where its tensor is: on a device that nobody here can copy on.
/// Throws ConversionRefused when the producer does not do that.
[[nodiscard]] ManagedTensor ask_for_copy(PyObject* object, const Crossing& crossing);

}  // namespace dlbridge::python
