#pragma once

// How many views a storage has, where only Python can keep its memory in place.

#include <memory>

#include "errors.hpp"

namespace dlbridge::python {

/// A view that is counted for its storage.
using CountedView = std::unique_ptr<void, void (*)(void* views)>;

/// One more view of the storage, which is guarded from its first one on.
[[nodiscard]] CountedView counted_view(const Ref& storage);

/// Ends a view, for who took it out of its CountedView. Needs the GIL.
void let_go_of_view(void* context);

}  // namespace dlbridge::python
