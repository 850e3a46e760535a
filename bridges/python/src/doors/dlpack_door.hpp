#pragma once

#include "doors/door.hpp"

namespace dlbridge::python {

/// Whether the TypeError that is set says that the producer does not know the keyword: the only
/// error that may lead to a second try without it. Anything else is the producer's own.
[[nodiscard]] bool is_about_keyword(const char* keyword);

/// Takes what the door reads by __dlpack__, told whose stream it is for. Throws what the producer
/// raised, ConversionRefused for what it returned.
void take_by_dlpack(Door& door);

/// Of a class whose objects lie here or there, one says by an AttributeError that this protocol is
/// not for it: what it has else counts, as if the name were missing. Throws any other error that is
/// set, and that one where there is nothing else.
void take_by_next_way(Door& door);

/// Makes of the managed tensor that the door took what plan() has to know.
void describe_taken(Door& door);
/// The same of what its library exported, which copies when asked; says so where it did already.
void describe_export(Door& door);

/// What the door took.
[[nodiscard]] ManagedTensor give_taken(Door& door);

/// Asks the producer for the copy of a leg: in host memory, or where its tensor is, for a device
/// that nobody here can copy from or on. Throws ConversionRefused where the producer does not do
/// that.
[[nodiscard]] ManagedTensor ask_for_copy(const Door& door, const Leg& leg);
[[nodiscard]] ManagedTensor prepare_by_dlpack(Door& door, const Leg& leg, Source& made);

/// Reads by its own bridge, which the door's way is, what a registered library named in its
/// object's place. It speaks as that library does.
void take_by_bridge(Door& door);

/// Describes an object of a library without a bridge, as its row in the registry says.
void describe_by_registry(Door& door);

}  // namespace dlbridge::python
