// Sizes and collectives as the command line spells them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/comm/collectives.h"

namespace ninefold::collectives {

// "8", "4K", "1M", "2G": a positive number of bytes, with powers of 1024. Throws UserError that names the option.
int64_t parse_bytes(const std::string& option, const std::string& text);

// The collectives that have algorithms and move data, by name.
std::vector<std::pair<std::string, Operation>> named_collectives();

}  // namespace ninefold::collectives
