// Brings chunks of a tile's rows and columns into shared memory, ahead of those who multiply them.
#pragma once

#include "geometry.hpp"
#include "ptx.cuh"
#include "work.cuh"

namespace metaindex::device {

// Units follow one another in a block: for each of its tiles every pass over the columns, and in it every block of tokens.
struct Unit {
    int64_t tile;
    int32_t pass;
    int32_t token_block;

    __device__ Unit(const Work& work, int64_t number) {
        token_block = static_cast<int32_t>(number % work.tile.token_blocks);
        number /= work.tile.token_blocks;
        pass = static_cast<int32_t>(number % work.tile.passes);
        tile = blockIdx.x + number / work.tile.passes * gridDim.x;
    }
};

// Each thread loads one piece of every 16th row: eight threads side by side read 128 bytes of a token.
template <class Arithmetic, int N, bool kWide, bool kGather>
class Loader {
    static constexpr int kStep = kThreads / kPieces;
    static constexpr int kOfRows = kRows / kStep;
    static constexpr int kOfColumns = N / kStep;

 public:
    __device__ explicit Loader(const Work& work) : work_(work), piece_(threadIdx.x % kPieces), first_(threadIdx.x / kPieces) {}

    // Finds the tokens of a unit. Every lookup depends on the one before, but what was asked for earlier is still under way.
    __device__ void enter(const Unit& unit) {
        const TileChoice& tile = work_.tile;
        const TilePlace place(work_, unit.tile);
        const int log = 31 - __clz(tile.tokens);
#pragma unroll
        for (int i = 0; i < kOfRows; ++i) {
            const int row = first_ + i * kStep;
            const Document document = find_document<kGather>(work_, place, row >> log);
            const int token = unit.token_block * tile.tokens + (row & (tile.tokens - 1));
            rows_[i] = Token::exists(work_, document, token)
                           ? Token(work_.table, document, token).codes(work_, document.segment)
                           : nullptr;
        }
#pragma unroll
        for (int i = 0; i < kOfColumns; ++i) {
            const int column = first_ + i * kStep;
            const int room = work_.queries.tokens;
            const int query = place.query + (tile.passes > 1 ? 0 : column / room);
            const int token = tile.passes > 1 ? unit.pass * N + column : column % room;
            const bool inside = query < work_.queries.batch && query < place.query + tile.queries &&
                                token < work_.queries.lengths[query < work_.queries.batch ? query : 0];
            columns_[i] = inside ? query * room + token : -1;
        }
    }

    __device__ void load(char* stage, int chunk) const {
#pragma unroll
        for (int i = 0; i < kOfRows; ++i) copy(stage + swizzled(first_ + i * kStep, piece_), rows_[i], chunk);
        char* columns = stage + kRows * kChunkBytes;
#pragma unroll
        for (int i = 0; i < kOfColumns; ++i) {
            const char* codes = static_cast<const char*>(work_.queries.codes);
            const char* token = columns_[i] < 0 ? nullptr : codes + static_cast<int64_t>(columns_[i]) * work_.row_bytes;
            copy(columns + swizzled(first_ + i * kStep, piece_), token, chunk);
        }
    }

 private:
    // What lies past a token's end, and all of a token that is not there, is zero.
    __device__ void copy(char* target, const char* token, int chunk) const {
        const int offset = chunk * kChunkBytes + piece_ * 16;
        const int left = token ? work_.row_bytes - offset : 0;
        if constexpr (kWide) {
            const bool some = left > 0;
            const void* source = some ? token + offset : work_.queries.codes;
            copy_async(shared_address(target), source, some ? 16 : 0);
        } else {
            using Number = typename Arithmetic::Number;
            constexpr int kNumbers = 16 / sizeof(Number);
            Number numbers[kNumbers];
#pragma unroll
            for (int i = 0; i < kNumbers; ++i) {
                const bool there = static_cast<int>((i + 1) * sizeof(Number)) <= left;
                numbers[i] = there ? reinterpret_cast<const Number*>(token + offset)[i] : Number{0};
            }
            uint4 packed;
            memcpy(&packed, numbers, sizeof packed);
            *reinterpret_cast<uint4*>(target) = packed;
        }
    }

    const Work& work_;
    int piece_, first_;
    const char* rows_[kOfRows];
    int32_t columns_[kOfColumns];  // among all query tokens; half the registers of an address
};

}  // namespace metaindex::device
