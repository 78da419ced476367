// Threads for the C ABI.  There is no thread pool of its own, and a forked process may call it too.

#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace recall {

// States decay towards zero for ever; numbers below the normal range would slow each step a hundredfold,
// so they count as zero while a kernel runs.
class FlushSubnormals {
#if defined(__x86_64__)
 public:
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#else
 public:
  FlushSubnormals() {}
#endif
};

// Whether scratch memory is filled before use, and the bits of each number: tests fill it with several patterns,
// and a result that depends on them has read what nobody wrote.
inline bool fill = false;
inline std::uint32_t pattern = 0;

// The memory of a scratch arena.
class Scratch {
 public:
  explicit Scratch(std::int64_t floats)
      : memory_(static_cast<float*>(::operator new(floats * sizeof(float), alignment))) {
    for (std::int64_t i = 0; fill && i < floats; ++i) std::memcpy(memory_ + i, &pattern, sizeof pattern);
  }
  ~Scratch() { ::operator delete(memory_, alignment); }
  Scratch(const Scratch&) = delete;
  float* get() const { return memory_; }

 private:
  static constexpr std::align_val_t alignment{64};
  float* memory_;
};

// OpenMP's way to run work(data) on a team of threads, from the library that PyTorch has loaded: its threads
// spin for a while after each call, and threads of ours would compete with them for the cores.
using Parallel = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);
inline Parallel team = nullptr;

// A team does not survive a fork: a child that inherits one would wait for threads it lacks.
inline const int at_fork = pthread_atfork(nullptr, nullptr, [] { team = nullptr; });

// Items in equal ranges.  Whichever thread is free takes the next range, so that all of them are done by
// however many threads come.
template <class Body>
class Ranges {
 public:
  Ranges(int count, std::int64_t items, const Body& body) : count_(count), items_(items), body_(body) {}

  void work() {
    const FlushSubnormals guard;
    for (int i; (i = next_++) < count_;) body_(items_ * i / count_, items_ * (i + 1) / count_);
  }
  static void work_on(void* ranges) { static_cast<Ranges*>(ranges)->work(); }

 private:
  const int count_;
  const std::int64_t items_;
  const Body& body_;
  std::atomic<int> next_{0};
};

// body(begin, end) for `threads` ranges of the items.
template <class Body>
void parallel_for(int threads, std::int64_t items, const Body& body) {
  Ranges<Body> ranges(threads, items, body);
  if (threads > 1 && team) return team(ranges.work_on, &ranges, threads, 0);
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back([&ranges] { ranges.work(); });
  ranges.work();
  for (auto& other : others) other.join();
}

// work(operation, begin, end, scratch), with a scratch arena for each range.
template <class Operation>
void parallel_for(int threads, std::int64_t items, const Operation& p,
                  void (*work)(const Operation&, std::int64_t, std::int64_t, float*),
                  std::int64_t (*floats)(const Operation&)) {
  parallel_for(threads, items, [&](std::int64_t begin, std::int64_t end) {
    const Scratch scratch(floats(p));
    work(p, begin, end, scratch.get());
  });
}

}  // namespace recall
