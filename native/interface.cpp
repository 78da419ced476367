// The C ABI: chooses the instruction set, divides the work among threads, and adds the partial gradients of
// sequences or shards in a fixed order, so that no result depends on the number of threads.

#include <cstring>

#include "interface.hpp"
#include "parallel.hpp"

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

// Adds the partial gradients of all items into those of the first.
void add_partial(float* gradients, std::int64_t items, std::int64_t numbers) {
  for (std::int64_t item = 1; item < items; ++item)
    for (std::int64_t i = 0; i < numbers; ++i) gradients[i] += gradients[item * numbers + i];
}

// Whether all of `count` ids are in 0..below-1.
bool all_below(std::int64_t below, const std::int64_t* ids, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    if (ids[i] < 0 || ids[i] >= below) return false;
  return true;
}

// What the calls of blocks and stacks return; but for `done`, nothing has been done.
enum Status : int { done = 0, outside_vocabulary = 1, unknown_kind = 2, outside_sequence = 3 };

Status check(const Block& p) {
  if (!chosen->knows(p.kind)) return unknown_kind;
  const bool inside = !p.tokens.distinct || all_below(p.tokens.distinct, p.tokens.rows, p.batch * p.length);
  return inside ? done : outside_vocabulary;
}

Status check(const Stack& p) {
  for (std::int64_t i = 0; i < p.depth; ++i)
    if (!chosen->knows(p.layers[i]->kind)) return unknown_kind;
  if (p.where && !all_below(p.length, p.where, p.batch * p.asked)) return outside_sequence;
  return all_below(p.vocabulary, p.tokens, p.batch * p.length) ? done : outside_vocabulary;
}

// Copies a shard's gradients to where the weights want them.
void distribute(const Stack& p, const float* shard) {
  for (std::int64_t weight = 0; weight < p.weights; ++weight) {
    const auto [to, rows, columns] = p.places[weight];
    for (std::int64_t column = 0; to && column < columns; ++column)
      for (std::int64_t row = 0; row < rows; ++row) to[row * columns + column] = shard[column * rows + row];
    shard += rows * columns;
  }
}

}  // namespace
}  // namespace recall

extern "C" {

const char* recall_instruction_set() { return recall::chosen->name; }

int recall_choose_instruction_set(const char* name) {
  for (const recall::Kernels* candidate : recall::supported()) {
    if (std::strcmp(candidate->name, name) == 0) {
      recall::chosen = candidate;
      return 0;
    }
  }
  return 1;
}

void recall_use_team(void* parallel) { recall::team = reinterpret_cast<recall::Parallel>(parallel); }

void recall_fill_scratch(int fill, std::uint32_t pattern) {
  recall::fill = fill;
  recall::pattern = pattern;
}

int recall_elementary(const char* name, const float* x, float* y, std::int64_t count) {
  const recall::FlushSubnormals guard;
  return recall::chosen->elementary(name, x, y, count) ? 0 : 1;
}

int recall_scan_forward(const recall::Scan* p, int threads) {
  recall::parallel_for(threads, p->batch, [p](std::int64_t begin, std::int64_t end) {
    recall::chosen->scan_forward(*p, begin, end);
  });
  return recall::done;
}

int recall_scan_backward(const recall::Scan* p, int threads) {
  recall::parallel_for(threads, p->batch, *p, recall::chosen->scan_backward, recall::chosen->scan_scratch);
  recall::add_partial(p->grad_A, p->batch, (p->state + 2) * p->channels);
  return recall::done;
}

int recall_conv_forward(const recall::Conv* p, int threads) {
  recall::parallel_for(threads, p->batch, [p](std::int64_t begin, std::int64_t end) {
    recall::chosen->conv_forward(*p, begin, end);
  });
  return recall::done;
}

int recall_conv_backward(const recall::Conv* p, int threads) {
  recall::parallel_for(threads, p->batch, [p](std::int64_t begin, std::int64_t end) {
    recall::chosen->conv_backward(*p, begin, end);
  });
  recall::add_partial(p->grad_weight, p->batch, (p->window + 1) * p->channels);
  return recall::done;
}

int recall_attention_forward(const recall::Attention* p, int threads) {
  recall::parallel_for(threads, p->batch * p->heads, *p, recall::chosen->attention_forward,
                       recall::chosen->attention_scratch);
  return recall::done;
}

int recall_attention_backward(const recall::Attention* p, int threads) {
  recall::parallel_for(threads, p->batch * p->heads, *p, recall::chosen->attention_backward,
                       recall::chosen->attention_scratch);
  return recall::done;
}

int recall_delta_forward(const recall::Delta* p, int threads) {
  recall::parallel_for(threads, p->batch * p->heads, *p, recall::chosen->delta_forward, recall::chosen->delta_scratch);
  return recall::done;
}

int recall_delta_backward(const recall::Delta* p, int threads) {
  recall::parallel_for(threads, p->batch * p->heads, *p, recall::chosen->delta_backward, recall::chosen->delta_scratch);
  return recall::done;
}

int recall_block_forward(const recall::Block* p, int threads) {
  if (const recall::Status status = recall::check(*p)) return status;
  recall::parallel_for(threads, p->batch, *p, recall::chosen->block_forward, recall::chosen->block_scratch);
  return recall::done;
}

int recall_block_backward(const recall::Block* p, int threads) {
  if (const recall::Status status = recall::check(*p)) return status;
  recall::parallel_for(threads, p->shards, *p, recall::chosen->block_backward, recall::chosen->block_scratch);
  recall::add_partial(p->gradients, p->shards, p->numbers);
  return recall::done;
}

int recall_stack_logits(const recall::Stack* p, int threads) {
  if (const recall::Status status = recall::check(*p)) return status;
  recall::parallel_for(threads, p->batch, *p, recall::chosen->stack_logits, recall::chosen->stack_scratch);
  return recall::done;
}

int recall_stack_gradients(const recall::Stack* p, int threads) {
  if (const recall::Status status = recall::check(*p)) return status;
  if (!recall::all_below(p->vocabulary, p->answers, p->batch * p->asked)) return recall::outside_vocabulary;
  recall::parallel_for(threads, p->shards, *p, recall::chosen->stack_gradients, recall::chosen->stack_scratch);
  recall::add_partial(p->gradients, p->shards, p->numbers);
  recall::distribute(*p, p->gradients);
  return recall::done;
}

}  // extern "C"
