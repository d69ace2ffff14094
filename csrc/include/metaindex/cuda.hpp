// The GPU operations, as the host calls them. See metaindex/device/operations.py for what each does.
//
// All throw std::runtime_error with CUDA's own text when a launch fails, and std::invalid_argument for what they can't serve.
#pragma once

#include <cstdint>
#include <string>

#include "metaindex/device.hpp"

namespace metaindex::device {

// How a request is cut into tiles: `rows` document tokens by `columns` query tokens, multiplied 128 bytes of a token at a time.
struct TileChoice {
    int32_t columns;       // 16, 32 or 128
    int32_t tokens;        // of one document in a tile, a power of two
    int32_t documents;     // in a tile
    int32_t queries;       // packed side by side into the columns
    int32_t passes;        // over the columns, where one query has more tokens than there are columns
    int32_t token_blocks;  // over a document's tokens, where it has more than a tile holds
    int32_t stages;        // of the ring of loads
    int32_t shared_bytes;
    bool wide_loads;  // 16 bytes at a time, which needs tokens of a multiple of 16 bytes
};

// What the kernel needs to know of the shapes: pure, so that it is tested without a GPU. `r_q` is the number of tokens that
// queries have room for, `together` how many queries share their documents.
TileChoice choose_tile(Codec codec, int32_t dim, int32_t r_q, int32_t r_c, int32_t together);
std::string describe(const TileChoice& choice);

void maxsim_scan(const Table& table, const Queries& queries, int32_t r_c, const Runs& runs, const uint8_t* allow,
                 const Output& out, Stream stream);

// `candidates` [batch, count], or [1, count] for all queries where `shared`.
void maxsim_gather(const Table& table, const Queries& queries, int32_t r_c, const int64_t* candidates, int64_t count,
                   bool shared, const uint8_t* allow, const Output& out, Stream stream);

// The k largest of the first counts[b] of keys [batch, n], in no order, into best [batch, k]; the least integer fills the rest.
// With `sorted` they fall; that serves k up to `kSortedKeys`.
inline constexpr int64_t kSortedKeys = 4096;
int64_t topk_scratch_bytes(int64_t batch, int64_t n, int64_t k);
void topk(const int64_t* keys, const int32_t* counts, int64_t batch, int64_t n, int64_t k, bool sorted, void* scratch,
          int64_t* best, Stream stream);

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
