#include "lwm/train/batch.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "lwm/base/error.h"

namespace lwm::train {
namespace {

// Padding is one segment too, but of no weight: a row of one document and a tail is not "packed".
bool IsPacked(const data::Row& row) {
  const auto used = static_cast<int64_t>(row.begin_S.size()) - row.padding;
  return std::any_of(row.begin_S.begin(), row.begin_S.begin() + std::max<int64_t>(used, 0),
                     [](int32_t begin) { return begin != 0; });
}

std::vector<dist::SequencePlan> PlanRows(const std::vector<const data::Row*>& rows, int ranks) {
  const bool packed =
      std::any_of(rows.begin(), rows.end(), [](const data::Row* row) { return IsPacked(*row); });
  // One kind for all rows: slots per rank can differ between the two kinds, and a batch has one T.
  // Each rank of sp plans for itself; plans are functions of the row alone, so they agree.
  std::vector<dist::SequencePlan> plans;
  for (const data::Row* row : rows) {
    const auto tokens = static_cast<int64_t>(row->token_S.size());
    plans.push_back(packed ? dist::PlanBalanced(tokens, ranks, row->begin_S)
                           : dist::PlanZigzag(tokens, ranks, row->begin_S));
  }
  return plans;
}

// values[index[t]] for this rank's slots of every row, `otherwise` for empty slots.
template <class T, class Source>
at::Tensor GatherSlots(const std::vector<const data::Row*>& rows,
                       const std::vector<dist::SequencePlan>& plans, int rank, at::ScalarType dtype,
                       const Source& values_of, T otherwise) {
  const auto num_rows = static_cast<int64_t>(rows.size());
  const int64_t slots = plans.front().tokens_per_rank;
  at::Tensor out_BT = at::empty({num_rows, slots}, dtype);
  T* out = out_BT.data_ptr<T>();
  for (size_t b = 0; b < rows.size(); ++b) {
    const auto& values = values_of(*rows[b]);
    for (const int32_t index : plans[b].index(rank))
      *out++ = index < 0 ? otherwise : static_cast<T>(values[static_cast<size_t>(index)]);
  }
  return out_BT;
}

bool AnySet(const std::vector<uint8_t>& flags) {
  return std::any_of(flags.begin(), flags.end(), [](uint8_t flag) { return flag != 0; });
}

}  // namespace

Batch MakeBatch(const std::vector<const data::Row*>& rows, dist::Communicator& sp) {
  LWM_CHECK(!rows.empty(), "a batch needs rows");
  for (const data::Row* row : rows)
    LWM_CHECK(row->token_S.size() == rows.front()->token_S.size(), "rows of different lengths");
  const auto plans = PlanRows(rows, sp.size());
  const auto gather = [&]<class T>(at::ScalarType dtype, const auto& values_of, T otherwise) {
    return GatherSlots<T>(rows, plans, sp.rank(), dtype, values_of, otherwise);
  };
  using data::Row;
  Batch batch;
  batch.input.id_BT = gather(
      at::kLong, [](const Row& r) -> auto& { return r.token_S; }, int64_t{0});
  batch.input.position_BT = gather(
      at::kInt, [](const Row& r) -> auto& { return r.position_S; }, int32_t{0});
  batch.input.view = ops::MakeSequenceView(plans, &sp);
  batch.targets.id_BT = gather(
      at::kLong, [](const Row& r) -> auto& { return r.target_S; }, int64_t{kNoTarget});
  batch.targets.weight_BT = gather(
      at::kFloat, [](const Row& r) -> auto& { return r.weight_S; }, 0.0f);
  if (std::any_of(rows.begin(), rows.end(), [](const Row* r) { return AnySet(r->vision_S); }))
    batch.input.vision_BT = gather(
        at::kBool, [](const Row& r) -> auto& { return r.vision_S; }, false);
  if (std::any_of(rows.begin(), rows.end(),
                  [](const Row* r) { return AnySet(r->target_vision_S); }))
    batch.targets.vision_BT = gather(
        at::kBool, [](const Row& r) -> auto& { return r.target_vision_S; }, false);
  return batch;
}

data::Row EmptyRow(int64_t tokens) {
  const auto count = static_cast<size_t>(tokens);
  data::Row row;
  row.token_S.assign(count, 0);
  row.vision_S.assign(count, 0);
  row.target_S.assign(count, kNoTarget);
  row.target_vision_S.assign(count, 0);
  row.weight_S.assign(count, 0);
  row.position_S.assign(count, 0);
  // Every token is a segment of its own. It sees itself, so that no softmax is over nothing.
  row.begin_S.resize(count);
  std::iota(row.begin_S.begin(), row.begin_S.end(), 0);
  row.padding = tokens;
  return row;
}

double AllowedPairs(const data::Row& row) {
  double pairs = 0;
  for (size_t i = 0; i < row.begin_S.size(); ++i)
    pairs += static_cast<double>(i) - row.begin_S[i] + 1;
  return pairs;
}

}  // namespace lwm::train
