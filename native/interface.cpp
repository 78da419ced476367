// The C ABI: chooses the instruction set, shares the sequences out among threads, and adds
// the sequences' shares of the parameters' gradients in a fixed order.  There is no thread pool of
// its own, and a forked process may call it too.

#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

#include "operations.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace recall {

namespace baseline { extern const Kernels kernels; }
#if defined(RECALL_AVX2)  // CMake defines these for the instruction sets that the compiler took
namespace avx2 { extern const Kernels kernels; }
#endif
#if defined(RECALL_AVX512)
namespace avx512 { extern const Kernels kernels; }
#endif

namespace {

std::vector<const Kernels*> supported() {  // the best one first
  std::vector<const Kernels*> list;
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
#if defined(RECALL_AVX512)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
    list.push_back(&avx512::kernels);
#endif
#if defined(RECALL_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    list.push_back(&avx2::kernels);
#endif
  list.push_back(&baseline::kernels);
  return list;
}

const Kernels* chosen = supported().front();

// States decay towards zero for ever; numbers below the normal range would slow each step
// a hundredfold, so they count as zero while a kernel runs.
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

class Scratch {
 public:
  explicit Scratch(std::int64_t floats)
      : memory_(static_cast<float*>(::operator new(floats * sizeof(float), alignment))) {}
  ~Scratch() { ::operator delete(memory_, alignment); }
  Scratch(const Scratch&) = delete;
  float* get() const { return memory_; }

 private:
  static constexpr std::align_val_t alignment{64};
  float* memory_;
};

// OpenMP's way to run work(data) on a team of threads, of the library that PyTorch has loaded: its
// threads wait for work, awake for a while, and would keep ours from the cores.
using Parallel = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);
Parallel team = nullptr;

// A team does not survive a fork: a child that inherits one would wait for threads it lacks.
const int at_fork = pthread_atfork(nullptr, nullptr, [] { team = nullptr; });

// body(begin, end) for equal shares of the items.  Whoever is free takes the next share, so that all
// are done by however many threads come.
template <class Body>
class Shares {
 public:
  Shares(int count, std::int64_t items, const Body& body) : count_(count), items_(items), body_(body) {}

  void work() {
    const FlushSubnormals guard;
    for (int i; (i = next_++) < count_;) body_(items_ * i / count_, items_ * (i + 1) / count_);
  }
  static void work_on(void* shares) { static_cast<Shares*>(shares)->work(); }

 private:
  const int count_;
  const std::int64_t items_;
  const Body& body_;
  std::atomic<int> next_{0};
};

template <class Body>
void share_out(int threads, std::int64_t items, const Body& body) {
  Shares<Body> shares(threads, items, body);
  if (threads > 1 && team) return team(shares.work_on, &shares, threads, 0);
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back([&shares] { shares.work(); });
  shares.work();
  for (auto& other : others) other.join();
}

// work(operation, begin, end, scratch) for equal shares of the items, each with scratch of its own.
template <class Operation>
void share_out(int threads, std::int64_t items, const Operation& p,
               void (*work)(const Operation&, std::int64_t, std::int64_t, float*),
               std::int64_t (*floats)(const Operation&)) {
  share_out(threads, items, [&](std::int64_t begin, std::int64_t end) {
    const Scratch scratch(floats(p));
    work(p, begin, end, scratch.get());
  });
}

// Adds the shares of all sequences into that of the first.
void add_shares(float* shares, std::int64_t batch, std::int64_t size) {
  for (std::int64_t sequence = 1; sequence < batch; ++sequence)
    for (std::int64_t i = 0; i < size; ++i) shares[i] += shares[sequence * size + i];
}

// Whether all of `count` numbers are in 0..below-1.
bool all_below(std::int64_t below, const std::int64_t* numbers, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    if (numbers[i] < 0 || numbers[i] >= below) return false;
  return true;
}

// Takes a share of a stack's gradients apart, weight by weight.
void put_in_place(const Stack& p, const float* share) {
  for (std::int64_t weight = 0; weight < p.weights; ++weight) {
    const auto [to, rows, columns] = p.places[weight];
    for (std::int64_t column = 0; to && column < columns; ++column)
      for (std::int64_t row = 0; row < rows; ++row)
        to[row * columns + column] = share[column * rows + row];
    share += rows * columns;
  }
}

}  // namespace
}  // namespace recall

extern "C" {

const char* recall_instruction_set() { return recall::chosen->name; }

// Returns 0, or 1 if this processor or this build lacks the instruction set.
int recall_choose_instruction_set(const char* name) {
  for (const recall::Kernels* candidate : recall::supported()) {
    if (std::strcmp(candidate->name, name) == 0) {
      recall::chosen = candidate;
      return 0;
    }
  }
  return 1;
}

// From now on calls of several threads run on the team of this OpenMP, given its GOMP_parallel.
void recall_use_team(void* parallel) { recall::team = reinterpret_cast<recall::Parallel>(parallel); }

void recall_scan_forward(const recall::Scan* p, int threads) {
  recall::share_out(threads, p->batch, [p](std::int64_t begin, std::int64_t end) {
    recall::chosen->scan_forward(*p, begin, end);
  });
}

void recall_scan_backward(const recall::Scan* p, int threads) {
  recall::share_out(threads, p->batch, *p, recall::chosen->scan_backward,
                    recall::chosen->scan_scratch);
  recall::add_shares(p->grad_A, p->batch, (p->state + 2) * p->channels);
}

void recall_conv_forward(const recall::Conv* p, int threads) {
  recall::share_out(threads, p->batch, [p](std::int64_t begin, std::int64_t end) {
    recall::chosen->conv_forward(*p, begin, end);
  });
}

void recall_conv_backward(const recall::Conv* p, int threads) {
  recall::share_out(threads, p->batch, [p](std::int64_t begin, std::int64_t end) {
    recall::chosen->conv_backward(*p, begin, end);
  });
  recall::add_shares(p->grad_weight, p->batch, (p->window + 1) * p->channels);
}

void recall_attention_forward(const recall::Attention* p, int threads) {
  recall::share_out(threads, p->batch * p->heads, *p, recall::chosen->attention_forward,
                    recall::chosen->attention_scratch);
}

void recall_attention_backward(const recall::Attention* p, int threads) {
  recall::share_out(threads, p->batch * p->heads, *p, recall::chosen->attention_backward,
                    recall::chosen->attention_scratch);
}

void recall_mamba_forward(const recall::Mamba* p, int threads) {
  recall::share_out(threads, p->batch, *p, recall::chosen->mamba_forward,
                    recall::chosen->mamba_scratch);
}

void recall_mamba_backward(const recall::Mamba* p, int threads) {
  recall::share_out(threads, p->portions, *p, recall::chosen->mamba_backward,
                    recall::chosen->mamba_scratch);
  recall::add_shares(p->gradients, p->portions, p->numbers);
}

void recall_self_attention_forward(const recall::SelfAttention* p, int threads) {
  recall::share_out(threads, p->batch, *p, recall::chosen->self_attention_forward,
                    recall::chosen->self_attention_scratch);
}

void recall_self_attention_backward(const recall::SelfAttention* p, int threads) {
  recall::share_out(threads, p->portions, *p, recall::chosen->self_attention_backward,
                    recall::chosen->self_attention_scratch);
  recall::add_shares(p->gradients, p->portions, p->numbers);
}

// These return 0, or 1 if a token or an answer is not in the vocabulary: then nothing is done.
int recall_stack_logits(const recall::Stack* p, int threads) {
  if (!recall::all_below(p->vocabulary, p->tokens, p->batch * p->length)) return 1;
  recall::share_out(threads, p->batch, *p, recall::chosen->stack_logits, recall::chosen->stack_scratch);
  return 0;
}

int recall_stack_gradients(const recall::Stack* p, int threads) {
  if (!recall::all_below(p->vocabulary, p->tokens, p->batch * p->length)) return 1;
  if (!recall::all_below(p->vocabulary, p->answers, p->batch)) return 1;
  recall::share_out(threads, p->portions, *p, recall::chosen->stack_gradients,
                    recall::chosen->stack_scratch);
  recall::add_shares(p->gradients, p->portions, p->numbers);
  recall::put_in_place(*p, p->gradients);
  return 0;
}

}  // extern "C"
