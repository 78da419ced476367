// The kinds of block.  A new core is included and listed here; everything else goes by the list.

#pragma once

#include <memory>

#include "attention_core.hpp"
#include "block.hpp"
#include "gated_delta_core.hpp"
#include "mamba_core.hpp"
#include "mlp_core.hpp"

namespace recall::RECALL_ISA {

template <class... Cores>
struct KindsOf {
  static bool known(Kind kind) { return ((Cores::kind == kind) || ...); }

  // The block of `description`'s mixer, with `head` in the place of its own.  Null for an unknown kind.
  static std::unique_ptr<AnyBlock> make(const Block& description, const Block& head, bool trained, Arena& saved,
                                        Arena& scratch) {
    std::unique_ptr<AnyBlock> made;
    const auto make_if = [&](auto* core) {
      using Core = std::remove_pointer_t<decltype(core)>;
      if (Core::kind != description.kind) return;
      auto operation = reinterpret_cast<const typename Core::Operation&>(description);
      operation.block = head;
      made = std::make_unique<BlockKernel<Core>>(operation, trained, saved, scratch);
    };
    (make_if(static_cast<Cores*>(nullptr)), ...);
    return made;
  }
};

using Kinds = KindsOf<MambaCore, AttentionCore, GatedDeltaCore, MLPCore>;

inline std::unique_ptr<AnyBlock> make_block(const Block& p, float* scratch) {
  Arena arena(scratch);
  return Kinds::make(p, p, false, arena, arena);
}

inline void block_forward(const Block& p, std::int64_t begin, std::int64_t end, float* scratch) {
  const auto block = make_block(p, scratch);
  block->prepare_forward();
  each_tile(begin, end, tile_sequences(p.length, p.width, p.batch),
            [&](std::int64_t first, std::int64_t count) { block->forward(first, count); });
}

inline void block_backward(const Block& p, std::int64_t begin, std::int64_t end, float* scratch) {
  const auto block = make_block(p, scratch);
  each_shard(
      p, begin, end, tile_sequences(p.length, p.width, p.batch),
      [&](std::int64_t first, std::int64_t count, float* shard) { block->backward(first, count, shard); },
      [&](float* shard) { block->finish(shard); });
}

inline std::int64_t block_scratch(const Block& p) {
  Arena arena(nullptr);
  Kinds::make(p, p, false, arena, arena);
  return arena.used();
}

}  // namespace recall::RECALL_ISA
