// The GPU operations as the host calls them. See metaindex/device/operations.py for what each does.
//
// Launches throw std::runtime_error with CUDA's own text when they fail; shapes that can't be served, std::invalid_argument.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "metaindex/device.hpp"

namespace metaindex::device {

// What a choice of tiles depends on.
struct Card {
    int32_t capability;  // 80 for 8.0
    int32_t multiprocessors;
    int32_t shared_bytes;  // the most that a block may have, which is all of a multiprocessor's but a block's reserve
};

struct MaxSimShape {
    Codec codec;
    int32_t dim;
    int32_t batch, tokens;  // of queries
    int32_t r_c;
    int64_t documents;  // of each list; of a scan, what its runs count as
    bool own_lists;     // each query has candidates of its own
};

// How documents and queries are cut up: `stream` for few query tokens, bound by memory, `tile` for many, bound by arithmetic.
struct TileChoice {
    enum class Path : uint8_t { stream, tile };

    Path path;
    const char* why;
    int32_t kernel_tiles;   // column tiles of 8 that the kernel has room for
    int32_t document_bits;  // 2^document_bits documents for each warp,
    int32_t token_bits;     // and 2^token_bits tokens of each in a step
    int32_t queries;        // side by side for each warp
    int32_t query_tiles;    // column tiles of each, in one pass
    int32_t passes;
    int32_t groups;         // of such columns in a block
    int32_t column_blocks;  // that cover the queries
    int64_t units;          // of documents
    int32_t warps;          // of a block
    int32_t blocks;
    int32_t shared_bytes;
};

// A pure function, and its answer as one line.
TileChoice choose_tile(const MaxSimShape& shape, const Card& card);
std::string describe(const TileChoice& choice);

// Which kernels do a scan: those for every GPU, or those of csrc/cuda/sm90.
enum class ScanPath : uint8_t { portable, sm90 };

struct ScanChoice {
    ScanPath path;
    std::string why;  // with how the scan is cut up, as one line
};

// A pure function. `resident`: whether all levels lie on the device itself.
ScanChoice choose_scan(const MaxSimShape& shape, bool resident, const Card& card);

// What runs of a scan count as, and at most have; see DeviceTable.tiles.
inline constexpr int32_t kRunRows = 128;

// `runs` have size kRunRows.
void maxsim_scan(const Table& table, const Queries& queries, int32_t r_c, const Runs& runs, const uint8_t* allow,
                 const Output& output, Stream stream);
void maxsim_gather(const Table& table, const Queries& queries, int32_t r_c, const Candidates& candidates, const uint8_t* allow,
                   const Output& output, Stream stream);

// The k largest of the first counts[b] of keys [batch, columns], falling, into best [batch, k]; the least integer fills the
// rest. `counts` may be null for all. `scratch` is aligned to 8 bytes.
int64_t topk_scratch_bytes(int64_t batch, int64_t columns, int64_t k);
void topk(const int64_t* keys, const int32_t* counts, int64_t batch, int64_t columns, int64_t k, std::byte* scratch,
          int64_t* best, Stream stream);

// Whether this module was compiled with CUDA. Without it the functions that launch throw std::runtime_error.
bool cuda_built();
// The GPUs of this machine; none without a driver.
std::vector<Card> cuda_cards();

// Makes a GPU the calling thread's current one while it lives.
class OnDevice {
 public:
    explicit OnDevice(int device);
    ~OnDevice();
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

 private:
    int before_ = -1;
};

}  // namespace metaindex::device
