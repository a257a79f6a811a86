#pragma once

#include <vector>

#include "command.h"

namespace lwm::app {

// All commands that files of this folder define, in no particular order.
std::vector<const Command*>& Commands();

}  // namespace lwm::app
