#pragma once

#include <vector>

#include "arrays.hpp"
#include "metaindex/levels.hpp"

namespace metaindex::bindings {

// A level table and the arrays its pointers point into.
struct OwnedLevelTable {
    LevelTable table;
    std::vector<Array> arrays;
};

}  // namespace metaindex::bindings
