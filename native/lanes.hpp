// A vector of floats as wide as the instruction set that this file is compiled for,
// and the elementary functions that the kernels need, as polynomials.
//
// Every file that includes this one is compiled once for each instruction set; the
// namespace keeps the copies apart.

#pragma once

#include <cstdint>
#include <cstring>

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

namespace recall::RECALL_ISA {

constexpr int lanes = RECALL_LANES;
typedef float Lanes __attribute__((vector_size(4 * RECALL_LANES)));
typedef std::int32_t Bits __attribute__((vector_size(4 * RECALL_LANES)));

inline Lanes splat(float x) { return Lanes{} + x; }

// Loads `count` floats and sets the remaining lanes to zero.
inline Lanes load(const float* from, int count = lanes) {
  Lanes x{};
  if (count == lanes) {
    std::memcpy(&x, from, sizeof x);
  } else {
    for (int lane = 0; lane < count; ++lane) x[lane] = from[lane];
  }
  return x;
}

inline void store(float* to, Lanes x, int count = lanes) {
  if (count == lanes) {
    std::memcpy(to, &x, sizeof x);
  } else {
    for (int lane = 0; lane < count; ++lane) to[lane] = x[lane];
  }
}

inline Lanes at_least(Lanes x, float bound) {
#if defined(__AVX512F__)
  return _mm512_max_ps(splat(bound), x);
#elif defined(__AVX2__)
  return _mm256_max_ps(splat(bound), x);
#else
  return x < bound ? splat(bound) : x;
#endif
}

// Adds the lanes in halves, so that the order is the same on every call.
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

// exp(x) for x <= 88: x = k ln 2 + r with |r| <= ln 2 / 2, a polynomial for exp(r), and k
// added to the exponent.  The coefficients are those of Cephes' expf.  Below -87 the
// result stays at exp(-87), about 2e-38, so that no subnormal number arises.
inline Lanes exponential(Lanes x) {
  constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer in the low bits
  x = at_least(x, -87.0f);
  const Lanes shifted = x * 1.44269504f + round;
  const Lanes k = shifted - round;
  const Lanes r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  Lanes p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
#if defined(__AVX512F__)
  return _mm512_scalef_ps(p, k);
#else
  Bits exponent, value;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  std::memcpy(&value, &p, sizeof value);
  value += exponent << 23;  // the bits of `round` itself leave at the top
  std::memcpy(&p, &value, sizeof p);
  return p;
#endif
}

inline Lanes magnitude(Lanes x) { return x < 0.0f ? -x : x; }

inline Lanes sigmoid(Lanes x) {
  const Lanes e = exponential(-magnitude(x));
  return (x < 0.0f ? e : splat(1.0f)) / (e + 1.0f);
}

// log(1 + exp(x)) = max(x, 0) + log1p(t), t = exp(-|x|) in (0, 1], and
// log1p(t) = 2 atanh(s) with s = t / (2 + t) <= 1/3, whose series keeps the relative
// accuracy where the result is small.
inline Lanes softplus(Lanes x) {
  const Lanes t = exponential(-magnitude(x));
  const Lanes s = t / (t + 2.0f);
  const Lanes q = s * s;
  Lanes p = splat(1.0f / 15.0f);
  p = p * q + 1.0f / 13.0f;
  p = p * q + 1.0f / 11.0f;
  p = p * q + 1.0f / 9.0f;
  p = p * q + 1.0f / 7.0f;
  p = p * q + 1.0f / 5.0f;
  p = p * q + 1.0f / 3.0f;
  p = p * q + 1.0f;
  return at_least(x, 0.0f) + 2.0f * s * p;
}

}  // namespace recall::RECALL_ISA
