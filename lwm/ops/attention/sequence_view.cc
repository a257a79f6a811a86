#include "lwm/ops/attention/sequence_view.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "lwm/base/error.h"

namespace lwm::ops {
SequenceView MakeSequenceView(const std::vector<dist::SequencePlan>& plans,
                              dist::Communicator* sp) {
  LWM_REQUIRE(!plans.empty(), "a sequence view needs at least one row");
  const int ranks = plans[0].ranks;
  LWM_REQUIRE(ranks == (sp ? sp->size() : 1), "plans over ", ranks, " ranks for a group of ",
              sp ? sp->size() : 1);
  // T is the most slots that any row needs; slots beyond a row's own are empty.
  int64_t tokens = 0;
  for (const auto& plan : plans) {
    LWM_REQUIRE(plan.ranks == ranks && plan.row_tokens == plans[0].row_tokens,
                "rows of one view must have one length and one number of ranks, got ",
                plan.row_tokens, " tokens over ", plan.ranks, " ranks beside ", plans[0].row_tokens,
                " over ", ranks);
    tokens = std::max(tokens, plan.tokens_per_rank);
  }
  SequenceView view;
  view.sp = sp;
  view.same_packed_layout = !sp || sp->same_instructions();
  const auto rows = static_cast<int64_t>(plans.size());
  // The slots of all ranks, on every rank: two integers a token. So each rank can compute which
  // slots the others hold and need, without messages.
  view.index_PBT = at::full({ranks, rows, tokens}, -1, at::kInt);
  view.begin_PBT = at::zeros({ranks, rows, tokens}, at::kInt);
  for (int rank = 0; rank < ranks; ++rank) {
    for (int64_t row = 0; row < rows; ++row) {
      const auto index_T = plans[row].index(rank), begin_T = plans[row].begin(rank);
      std::copy(index_T.begin(), index_T.end(), view.index_PBT[rank][row].data_ptr<int32_t>());
      std::copy(begin_T.begin(), begin_T.end(), view.begin_PBT[rank][row].data_ptr<int32_t>());
    }
  }
  return view;
}

SequenceView MakeCausalView(int64_t rows, int64_t tokens) {
  SequenceView view;
  view.index_PBT =
      at::arange(tokens, at::kInt).view({1, 1, tokens}).expand({1, rows, tokens}).contiguous();
  view.begin_PBT = at::zeros({1, rows, tokens}, at::kInt);
  return view;
}

}  // namespace lwm::ops
