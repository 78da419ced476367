// A vector of floats as wide as the instruction set that this file is compiled for; a lane is one of its
// numbers.
//
// Every file that includes this one is compiled once for each instruction set; the namespace keeps the
// copies apart.

#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
#define RECALL_ISA avx512
#define RECALL_LANES 16
#elif defined(__AVX2__)
#define RECALL_ISA avx2
#define RECALL_LANES 8
#else
#define RECALL_ISA baseline  // SSE2 on x86-64, NEON on 64-bit Arm
#define RECALL_LANES 4
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// For the lambdas of innermost loops, for what must stay in registers, and for functions that only prefetch:
// GCC takes a call of one for a call that does nothing, and drops it.
#define RECALL_INLINE __attribute__((always_inline))

namespace recall::RECALL_ISA {

constexpr int lanes = RECALL_LANES;
typedef float Lanes __attribute__((vector_size(4 * RECALL_LANES)));
typedef std::int32_t Bits __attribute__((vector_size(4 * RECALL_LANES)));
typedef std::uint32_t Wrapping __attribute__((vector_size(4 * RECALL_LANES)));

inline Lanes splat(float x) { return x - Lanes{}; }  // x + 0 would have to care for -0

inline std::int64_t round_up(std::int64_t x, std::int64_t to) { return (x + to - 1) / to * to; }

// How many lanes the next vector fills where `left` numbers are left.
inline int filled(std::int64_t left) { return left < lanes ? static_cast<int>(left) : lanes; }

#if defined(__AVX2__) && !defined(__AVX512F__)
inline __m256i first_lanes(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// Loads `count` floats and sets the remaining lanes to zero.  Half a vector needs no mask, which some
// processors are slow with.
inline Lanes load(const float* from, int count = lanes) {
  Lanes x{};
  if (count == lanes) {
    std::memcpy(&x, from, sizeof x);
    return x;
  }
#if defined(__AVX512F__)
  if (count == lanes / 2) return _mm512_zextps256_ps512(_mm256_loadu_ps(from));
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
#elif defined(__AVX2__)
  return _mm256_maskload_ps(from, first_lanes(count));
#else
  for (int lane = 0; lane < count; ++lane) x[lane] = from[lane];
  return x;
#endif
}

inline void store(float* to, Lanes x, int count = lanes) {
  if (count == lanes) {
    std::memcpy(to, &x, sizeof x);
    return;
  }
#if defined(__AVX512F__)
  if (count == lanes / 2) return _mm256_storeu_ps(to, _mm512_castps512_ps256(x));
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), x);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(to, first_lanes(count), x);
#else
  for (int lane = 0; lane < count; ++lane) to[lane] = x[lane];
#endif
}

constexpr std::make_integer_sequence<int, lanes> every_lane{};

template <int... lane>
inline Bits counted(std::integer_sequence<int, lane...>) { return Bits{lane...}; }

// x with all lanes but the first `count` at zero.
inline Lanes first_of(Lanes x, int count) {
  return counted(every_lane) < count ? x : Lanes{};
}

// The larger of x and the bound; NaN where x is NaN.
inline Lanes at_least(Lanes x, float bound) {
#if defined(__AVX512F__)
  return _mm512_max_ps(splat(bound), x);
#elif defined(__AVX2__)
  return _mm256_max_ps(splat(bound), x);
#else
  return x < bound ? splat(bound) : x;
#endif
}

// The smaller of x and the bound; NaN where x is NaN.
inline Lanes at_most(Lanes x, float bound) {
#if defined(__AVX512F__)
  return _mm512_min_ps(splat(bound), x);
#elif defined(__AVX2__)
  return _mm256_min_ps(splat(bound), x);
#else
  return x > bound ? splat(bound) : x;
#endif
}

// The sum of all lanes, added in an order that never changes.
inline float sum(Lanes x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(x);
#else
  float part[lanes];
  std::memcpy(part, &x, sizeof x);
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) part[lane] += part[lane + half];
  return part[0];
#endif
}

template <class Body, int... i>
RECALL_INLINE inline void each_of(const Body& body, std::integer_sequence<int, i...>) {
  (body(i), ...);
}

// body(0), body(1), ... written out, so that an array which they index can stay in registers.
template <int count, class Body>
RECALL_INLINE inline void each(const Body& body) {
  each_of(body, std::make_integer_sequence<int, count>());
}

// The lanes of a, then those of b, are numbered from 0; lane i of the result is number from[i].
template <int... from>
inline Lanes shuffle(Lanes a, Lanes b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, from...);
#else
  return __builtin_shuffle(a, b, Bits{from...});
#endif
}

// Lane i of the result is lane from[i] of x.
inline Lanes permuted(Lanes x, Bits from) {
#if defined(__AVX512F__)
  return _mm512_permutexvar_ps(reinterpret_cast<__m512i>(from), x);
#elif defined(__AVX2__)
  return _mm256_permutevar8x32_ps(x, reinterpret_cast<__m256i>(from));
#else
  Lanes y;
  for (int lane = 0; lane < lanes; ++lane) y[lane] = x[from[lane]];
  return y;
#endif
}

// Transposes the 2 x 2 blocks that a pair of rows has at distance `apart`: b's left numbers change
// places with a's right ones.
template <int apart, int... lane>
inline void exchange(Lanes& a, Lanes& b, std::integer_sequence<int, lane...>) {
  const Lanes left = shuffle<(lane & apart ? lanes + lane - apart : lane)...>(a, b);
  b = shuffle<(lane & apart ? lanes + lane : lane + apart)...>(a, b);
  a = left;
}

// Two numbers that follow one another, over and over.
inline Lanes splat_pair(const float* two) {
  typedef std::int64_t Pairs __attribute__((vector_size(4 * RECALL_LANES)));
  std::int64_t bits;
  std::memcpy(&bits, two, sizeof bits);
  const Pairs pairs = bits - Pairs{};
  Lanes x;
  std::memcpy(&x, &pairs, sizeof x);
  return x;
}

// a_0, b_0, a_1, b_1, ...: the first halves of a and b.
template <int... lane>
inline Lanes zipped(Lanes a, Lanes b, std::integer_sequence<int, lane...>) {
  return shuffle<(lane % 2 * lanes + lane / 2)...>(a, b);
}

// x_0 + x_1, x_2 + x_3, ..., twice.
template <int... lane>
inline Lanes neighbours(Lanes x, std::integer_sequence<int, lane...>) {
  return shuffle<(2 * lane)...>(x, x) + shuffle<(2 * lane + 1)...>(x, x);
}

// Lane i of the result is the sum of row i's lanes, added in an order that never changes.
template <int rows = lanes>
inline Lanes sums(const Lanes* row) {
  if constexpr (rows == 1) {
    return row[0];
  } else {
    constexpr int half = rows / 2;
    Lanes a = sums<half>(row), b = sums<half>(row + half);
    exchange<half>(a, b, every_lane);
    return a + b;
  }
}

// Transposes a square of vectors.
template <int apart = 1>
inline void transpose(Lanes* row) {
  if constexpr (apart < lanes) {
    for (int i = 0; i < lanes; ++i)
      if (!(i & apart))
        exchange<apart>(row[i], row[i + apart], every_lane);
    transpose<2 * apart>(row);
  }
}

}  // namespace recall::RECALL_ISA
