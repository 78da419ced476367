// What one core can do at most: multiply-adds, exponentials and bytes a second.
//
// Built by roofline.py with -O3 -march=native, so a vector is as wide as the machine has.

#include <chrono>
#include <cstddef>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

typedef float Lanes __attribute__((vector_size(4 * lanes)));
typedef float InMemory __attribute__((vector_size(4 * lanes), aligned(4), may_alias));
typedef int Bits __attribute__((vector_size(4 * lanes)));

namespace {

// Keeps a value alive without doing anything with it.
template <class T>
inline void use(T& value) {
  asm volatile("" : "+m"(value) : : "memory");
}

// The best rate of `work`, which does `count` things, in tries that last `seconds` together.
template <class Work>
double best_rate(double count, double seconds, Work work) {
  using clock = std::chrono::steady_clock;
  const auto since = [](clock::time_point start) {
    return std::chrono::duration<double>(clock::now() - start).count();
  };
  work();
  double best = 0;
  for (const auto start = clock::now(); since(start) < seconds;) {
    const auto began = clock::now();
    work();
    const double rate = count / since(began);
    if (rate > best) best = rate;
  }
  return best;
}

// e^x: x = (n + r) ln 2 with n whole; 2^r by a polynomial of degree 5; n added to the exponent.
// Three instructions, five multiply-adds, and two more: as short as one in float32 gets.
inline Lanes exponential(Lanes x) {
  constexpr float log2_e = 1.44269504f;
  constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer in the low bits
  const Lanes shifted = x * log2_e + round;
  const Lanes r = x * log2_e - (shifted - round);
  Lanes value = r * 1.339086337e-3f + 9.676031918e-3f;
  value = value * r + 5.550357114e-2f;
  value = value * r + 2.402210749e-1f;
  value = value * r + 6.931471880e-1f;
  value = value * r + 1.000000075f;
  Bits bits, exponent;
  std::memcpy(&bits, &value, sizeof bits);
  std::memcpy(&exponent, &shifted, sizeof exponent);
  bits += exponent << 23;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

}  // namespace

extern "C" double multiply_adds_per_second(double seconds) {
  constexpr int chains = 12, steps = 1 << 14;  // more chains than the latency times the units
  Lanes sum[chains] = {};
  Lanes factor = sum[0] + 0.999f, term = sum[0] + 1e-3f;
  use(factor);
  use(term);
  return best_rate(double(chains) * steps * lanes, seconds, [&] {
    Lanes s[chains];
    std::memcpy(s, sum, sizeof s);
    for (int i = 0; i < steps; ++i)
#pragma GCC unroll 12
      for (int chain = 0; chain < chains; ++chain) s[chain] = s[chain] * factor + term;
    std::memcpy(sum, s, sizeof s);
    use(sum);
  });
}

extern "C" double exponentials_per_second(double seconds) {
  constexpr int count = 2048, repeats = 64;  // 16 KiB: the first cache
  std::vector<float> x(count), y(count);
  for (int i = 0; i < count; ++i) x[i] = -8.0f * i / count;
  return best_rate(double(count) * repeats, seconds, [&] {
    for (int repeat = 0; repeat < repeats; ++repeat) {
#pragma GCC unroll 8
      for (int i = 0; i < count; i += lanes)
        reinterpret_cast<InMemory&>(y[i]) = exponential(reinterpret_cast<InMemory&>(x[i]));
      use(y[0]);
    }
  });
}

// Reading two arrays and writing a third, which take so many bytes together.
extern "C" double bytes_per_second(std::size_t bytes, double seconds) {
  const std::size_t count = bytes / (3 * sizeof(float)) / lanes * lanes + lanes;
  std::vector<float> a(count, 1.0f), b(count, 2.0f), c(count);
  return best_rate(3.0 * sizeof(float) * count, seconds, [&] {
    for (std::size_t i = 0; i < count; ++i) c[i] = a[i] + 0.5f * b[i];
    use(c[0]);
  });
}

// exp(x), for a test: the peak is that of a function that is right.
extern "C" float exponential_of(float x) { return exponential(Lanes{} + x)[0]; }
