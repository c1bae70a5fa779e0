// What --debug-comm adds before every collective.
#pragma once

#include "common/comm/group.h"

namespace ninefold {

// All ranks of the group tell each other their call. Where they differ in operation, count, type, reduction or root,
// every rank throws an Error that names both calls, where it would have waited forever.
void compare_calls(const Group& group, const Call& call);

}  // namespace ninefold
