// The elementary functions that the kernels need, on a vector at a time, as minimax polynomials.
//
// Each states its relative error where the result is a normal number, measured over its range against
// float64 for every instruction set, and what it gives elsewhere.  All give NaN for NaN, as long as the lowest
// nine bits of the NaN are zero: arithmetic makes no others.  Subnormal arguments and results count as zero
// (`parallel.hpp`).  `recall_elementary` calls each by its name, and tests/test_elementary.py holds it to this.

#pragma once

#include <cstring>

#include "lanes.hpp"

namespace recall::RECALL_ISA {

constexpr float log2_e = 1.44269504f;

// Square root, rounded correctly: error 6e-8.  NaN below zero.
inline Lanes sqrt(Lanes x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(x);
#else
  for (int lane = 0; lane < lanes; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
  return x;
#endif
}

// 1 / x for 2^-126 < |x| < 2^126, error 1.2e-7.  Beyond that, at zero and at infinity: exact but for AVX-512,
// where it may be NaN.  Its estimate has 14 bits; one step of Newton's method doubles them, in a quarter of
// the time of a division.
inline Lanes reciprocal(Lanes x) {
#if defined(__AVX512F__)
  const Lanes estimate = _mm512_rcp14_ps(x);
  return estimate + estimate * (1.0f - x * estimate);
#else
  return 1.0f / x;
#endif
}

// 2^x where x <= 128 is known, as in innermost loops; error 2e-7.  Infinity at 128; zero or subnormal below
// -126, zero at -infinity.  Above 128 it is wrong, infinity with AVX-512 and any number without.
//
// x = k + f with |f| <= 1/2; a polynomial for 2^f, exact at 0; and k added to its exponent.
inline Lanes exp2_bounded(Lanes x) {
#if defined(__AVX512F__)
  const Lanes f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Lanes k = x - f;
#else
  constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer in the low bits
  x = at_least(x, -127.0f);             // where the exponent becomes that of zero
  const Lanes shifted = x + round;
  const Lanes f = x - (shifted - round);
#endif
  Lanes p = splat(1.32647261e-3f);
  p = p * f + 9.67151299e-3f;
  p = p * f + 5.55073358e-2f;
  p = p * f + 0.240222424f;
  p = p * f + 0.693147004f;
  p = p * f + 1.0f;
#if defined(__AVX512F__)
  return _mm512_scalef_ps(p, k);
#else
  Wrapping exponent, value;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  std::memcpy(&value, &p, sizeof value);
  value += exponent << 23;  // the bits of `round` itself leave at the top
  std::memcpy(&p, &value, sizeof p);
  return p;
#endif
}

// 2^x, error 2e-7.  Infinity from 128 on; zero or subnormal below -126.
inline Lanes exp2(Lanes x) { return exp2_bounded(at_most(x, 128.0f)); }

// exp(x), error 2.5e-7 + 8e-8 |x|, for x log2(e) is rounded.  Infinity from 88.73 on; zero or subnormal below
// -87.33.
inline Lanes exp(Lanes x) { return exp2(x * log2_e); }

// 1 / (1 + exp(-x)), error 3e-7 + 8e-8 max(-x, 0) down to -87, where it stops falling, at 1.6e-38.
inline Lanes sigmoid(Lanes x) {
  return reciprocal(exp2_bounded(-log2_e * at_least(x, -87.0f)) + 1.0f);
}

struct Softplus {
  Lanes value, slope;
};

// Softplus log(1 + exp(x)) and its slope, the sigmoid: errors 3e-7 + 8e-8 max(-x, 0); zero or subnormal
// below -87.33.  At infinity: infinity and 1.
//
// log(1 + exp(x)) = max(x, 0) + log1p(t), t = exp(-|x|) in (0, 1], with a polynomial for log1p(t) / t that
// keeps the relative accuracy where the result is small.
inline Softplus softplus(Lanes x) {
  const Lanes negative = x < 0.0f ? x : -x;
  const Lanes t = exp2_bounded(negative * log2_e);
  Lanes p = splat(5.23318537e-3f);
  p = p * t - 2.95072626e-2f;
  p = p * t + 7.82293826e-2f;
  p = p * t - 0.136635542f;
  p = p * t + 0.191061646f;
  p = p * t - 0.248430282f;
  p = p * t + 0.333191037f;
  p = p * t - 0.499994934f;
  p = p * t + 0.99999994f;
  return {at_least(x, 0.0f) + p * t, (x < 0.0f ? t : splat(1.0f)) * reciprocal(t + 1.0f)};
}

// An activation function's value, and its slope there.
struct Activation {
  Lanes value, slope;
};

// x sigmoid(x): errors 4e-7 + 8e-8 max(-x, 0) of the value; 1.2e-6 of the slope, absolute.  Down to -87.
inline Activation silu(Lanes x) {
  const Lanes gate = sigmoid(x);
  return {x * gate, gate * (1.0f + x * (1.0f - gate))};
}

// x Phi(x), Phi the distribution function of a normal number (arXiv:1606.08415): errors 6e-7 + 1.2e-7 x^2 of the
// value; 6e-7 of the slope, absolute.  Down to -12.5.
//
// Phi(-|x|) = exp(-x^2 / 2) t q(t), t = 1 / (1 + 0.3 |x|), q a polynomial.
inline Activation gelu(Lanes x) {
  const Lanes away = x < 0.0f ? -x : x;
  const Lanes bell = exp2_bounded(x * x * (-0.5f * log2_e));
  const Lanes t = reciprocal(away * 0.3f + 1.0f);
  Lanes q = splat(3.60889994e-2f);
  q = q * t - 0.158934399f;
  q = q * t + 0.209347576f;
  q = q * t - 5.64512014e-2f;
  q = q * t + 0.13003321f;
  q = q * t + 9.94648784e-2f;
  q = q * t + 0.120826349f;
  q = q * t + 0.11962454f;
  const Lanes tail = bell * t * q;
  const Lanes below = x < 0.0f ? tail : 1.0f - tail;
  return {x * below, below + x * bell * 0.39894228f};
}

// One of these functions on `count` numbers.  False for a name that none has.
inline bool elementary(const char* name, const float* x, float* y, std::int64_t count) {
  struct {
    const char* name;
    Lanes (*of)(Lanes);
  } constexpr functions[] = {
      {"sqrt", sqrt},
      {"reciprocal", reciprocal},
      {"exp2", exp2},
      {"exp2_bounded", exp2_bounded},
      {"exp", exp},
      {"sigmoid", sigmoid},
      {"softplus", [](Lanes x) { return softplus(x).value; }},
      {"softplus_slope", [](Lanes x) { return softplus(x).slope; }},
      {"silu", [](Lanes x) { return silu(x).value; }},
      {"silu_slope", [](Lanes x) { return silu(x).slope; }},
      {"gelu", [](Lanes x) { return gelu(x).value; }},
      {"gelu_slope", [](Lanes x) { return gelu(x).slope; }},
  };
  for (const auto& function : functions) {
    if (std::strcmp(function.name, name) != 0) continue;
    for (std::int64_t i = 0; i < count; i += lanes)
      store(y + i, function.of(load(x + i, filled(count - i))), filled(count - i));
    return true;
  }
  return false;
}

}  // namespace recall::RECALL_ISA
