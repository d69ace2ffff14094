// Which numbers of a matrix a lane holds, for mma and wgmma, as the PTX ISA lays them out: lane 4g + t holds `parts` numbers in
// each register.
#pragma once

#include <algorithm>
#include <cstdint>

#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

struct Cell {
    int row, column;
};

// A register holds numbers that follow one another along k, the four lanes of a group 4 * parts of them; registers go down 8
// rows first, where there are 16, then on along k.
struct FragmentA {
    int rows, registers, parts;
    Cell cell(int lane, int number) const {
        const int r = number / parts, blocks = rows / 8;
        return {lane / 4 + r % blocks * 8, lane % 4 * parts + number % parts + r / blocks * 4 * parts};
    }
};

struct FragmentB {
    int registers, parts;
    Cell cell(int lane, int number) const { return {lane % 4 * parts + number % parts + number / parts * 4 * parts, lane / 4}; }
};

// Two neighbouring columns, then 8 rows further down, then 8 columns further on.
struct FragmentD {
    int rows, registers, parts;
    Cell cell(int lane, int number) const {
        const int pair = number / 2, blocks = rows / 8;
        return {lane / 4 + pair % blocks * 8, lane % 4 * 2 + number % 2 + pair / blocks * 8};
    }
};

inline int parts_of(Type type) { return std::max(1, 32 / bits_of(type)); }
inline int registers_of(int numbers, Type type) { return numbers / kLanes / parts_of(type); }
inline FragmentA fragment_a(int rows, int k, Type type) { return {rows, registers_of(rows * k, type), parts_of(type)}; }
inline FragmentB fragment_b(int k, Type type) { return {registers_of(8 * k, type), parts_of(type)}; }
inline FragmentD fragment_d(int rows, Type type, int columns = 8) {
    return {rows, registers_of(rows * columns, type), parts_of(type)};
}

// A number of these bits as matrix units see it.
inline double seen(uint64_t bits, Type type) {
    switch (type) {
        case Type::f16: return get<Half>(bits).wide();
        case Type::bf16: return get<BFloat>(bits).wide();
        case Type::tf32: return tf32_seen(static_cast<uint32_t>(bits));
        case Type::f32: return get<float>(bits);
        case Type::f64: return get<double>(bits);
        case Type::s8: return get<int8_t>(bits);
        case Type::u8: return get<uint8_t>(bits);
        case Type::s32: return get<int32_t>(bits);
        default: fail("matrix units know no such type");
    }
}

inline Slot result_bits(double value, Type type, bool saturate) {
    switch (type) {
        case Type::f16: return slot_of(Half::from(value));
        case Type::f32: return slot_of(static_cast<float>(value));
        case Type::f64: return slot_of(value);
        default: {
            if (saturate) value = std::clamp<double>(value, INT32_MIN, INT32_MAX);
            return static_cast<uint32_t>(static_cast<int64_t>(value));
        }
    }
}

template <class Fragment, class Put>
void read_fragment(const Fragment& fragment, Type type, const Slot* const* registers, Put put) {
    const int bits = bits_of(type);
    for (int r = 0; r < fragment.registers; ++r) {
        for (int lane = 0; lane < kLanes; ++lane) {
            for (int part = 0; part < fragment.parts; ++part) {
                const Cell at = fragment.cell(lane, r * fragment.parts + part);
                put(at.row, at.column, seen(registers[r][lane] >> (bits * part), type));
            }
        }
    }
}

template <class Fragment, class Take>
void write_fragment(const Fragment& fragment, Type type, Slot* const* registers, bool saturate, Take take) {
    const int bits = bits_of(type);
    for (int r = 0; r < fragment.registers; ++r) {
        for (int lane = 0; lane < kLanes; ++lane) {
            Slot slot = 0;
            for (int part = 0; part < fragment.parts; ++part) {
                const Cell at = fragment.cell(lane, r * fragment.parts + part);
                slot |= result_bits(take(at.row, at.column), type, saturate) << (bits * part);
            }
            registers[r][lane] = slot;
        }
    }
}

// These bits for the numbers that `where` picks.
template <class Fragment, class Where>
void write_fragment_where(const Fragment& fragment, Type type, Slot* const* registers, Slot bits, Where where) {
    const Slot mask = (Slot{1} << bits_of(type)) - 1;
    for (int r = 0; r < fragment.registers; ++r) {
        for (int lane = 0; lane < kLanes; ++lane) {
            for (int part = 0; part < fragment.parts; ++part) {
                const Cell at = fragment.cell(lane, r * fragment.parts + part);
                const int shift = bits_of(type) * part;
                Slot& slot = registers[r][lane];
                if (where(at.row, at.column)) slot = (slot & ~(mask << shift)) | (bits & mask) << shift;
            }
        }
    }
}

}  // namespace emulator
