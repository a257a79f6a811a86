#include "lwm/dist/sequence_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "lwm/base/error.h"

namespace lwm::dist {
namespace {

constexpr double kEven = 0.997;  // balance from which on there is nothing to gain

// A run of tokens that goes to one rank as a whole.
struct Chunk {
  int64_t first, count;
  int64_t area;  // allowed query-key pairs of its queries
};

struct Load {
  std::vector<Chunk> chunks;
  int64_t tokens = 0, area = 0;

  void Add(const Chunk& chunk) {
    chunks.push_back(chunk);
    tokens += chunk.count;
    area += chunk.area;
  }
};

void CheckArguments(int64_t row_tokens, int ranks, std::span<const int32_t> begin_S) {
  LWM_REQUIRE(row_tokens >= 1 && row_tokens <= std::numeric_limits<int32_t>::max(), "a row of ",
              row_tokens, " tokens; want 1 to 2^31 - 1");
  LWM_CHECK(ranks >= 1, "a plan over ", ranks, " ranks");
  LWM_CHECK(begin_S.empty() || static_cast<int64_t>(begin_S.size()) == row_tokens, begin_S.size(),
            " segment starts for ", row_tokens, " tokens");
}

Chunk MakeChunk(int64_t first, int64_t count, std::span<const int32_t> begin_S) {
  int64_t area = 0;
  for (int64_t i = first; i < first + count; ++i)
    area += i + 1 - (begin_S.empty() ? 0 : begin_S[i]);
  return {first, count, area};
}

// Chunk i of n when the row is cut into n lengths that differ by at most one.
Chunk EvenChunk(int64_t i, int64_t n, int64_t row_tokens, std::span<const int32_t> begin_S) {
  const int64_t first = row_tokens * i / n;
  return MakeChunk(first, row_tokens * (i + 1) / n - first, begin_S);
}

SequencePlan MakePlan(int64_t row_tokens, std::span<const int32_t> begin_S,
                      std::vector<Load>& load_P) {
  SequencePlan plan;
  plan.ranks = static_cast<int>(load_P.size());
  plan.row_tokens = row_tokens;
  for (const Load& load : load_P) {
    plan.tokens_per_rank = std::max(plan.tokens_per_rank, load.tokens);
  }
  const size_t slots = load_P.size() * static_cast<size_t>(plan.tokens_per_rank);
  plan.index_PT.assign(slots, -1);
  plan.begin_PT.assign(slots, 0);
  for (size_t rank = 0; rank < load_P.size(); ++rank) {
    auto& chunks = load_P[rank].chunks;
    std::sort(chunks.begin(), chunks.end(),
              [](const Chunk& a, const Chunk& b) { return a.first < b.first; });
    size_t slot = rank * static_cast<size_t>(plan.tokens_per_rank);
    for (const Chunk& chunk : chunks) {
      for (int64_t i = chunk.first; i < chunk.first + chunk.count; ++i, ++slot) {
        plan.index_PT[slot] = static_cast<int32_t>(i);
        plan.begin_PT[slot] = begin_S.empty() ? 0 : begin_S[i];
      }
    }
  }
  return plan;
}

// Long enough that the tiles of a rank are mostly runs of neighbours, short enough that every rank
// gets a good mix.
int64_t BalancedChunkTokens(int64_t row_tokens, int ranks) {
  const int64_t tokens = row_tokens / (int64_t{32} * ranks);
  if (tokens >= 256) return 256;
  return tokens >= 64 ? tokens / 64 * 64 : std::max<int64_t>(tokens, 1);
}

std::vector<Chunk> EqualChunks(int64_t row_tokens, int64_t length,
                               std::span<const int32_t> begin_S) {
  std::vector<Chunk> chunks;
  for (int64_t first = 0; first < row_tokens; first += length) {
    chunks.push_back(MakeChunk(first, std::min(length, row_tokens - first), begin_S));
  }
  return chunks;
}

// Segments of up to a few lengths stay whole, so that their rank needs nothing from the others; the
// long ones are cut.
std::vector<Chunk> SegmentChunks(int64_t row_tokens, int64_t length,
                                 std::span<const int32_t> begin_S) {
  constexpr int64_t kWholeLengths = 8;
  std::vector<Chunk> chunks;
  for (int64_t first = 0; first < row_tokens;) {
    int64_t end = first + 1;
    while (end < row_tokens && (begin_S.empty() || begin_S[end] == begin_S[first])) ++end;
    const int64_t step = end - first <= kWholeLengths * length ? end - first : length;
    for (; first < end; first += step) {
      chunks.push_back(MakeChunk(first, std::min(step, end - first), begin_S));
    }
    first = end;
  }
  return chunks;
}

// Mean over largest area.
double Balance(const std::vector<Load>& load_P) {
  double sum = 0, largest = 1;
  for (const Load& load : load_P) {
    const auto area = static_cast<double>(load.area);
    sum += area;
    largest = std::max(largest, area);
  }
  return sum / static_cast<double>(load_P.size()) / largest;
}

// Heaviest first to the least loaded rank with room for it (the longest-processing-time rule of
// scheduling); what fits nowhere whole is cut. The order of equal chunks and ranks is fixed, since
// every rank makes the plan by itself.
std::vector<Load> AssignGreedily(std::vector<Chunk> chunks, int64_t capacity, int ranks,
                                 std::span<const int32_t> begin_S) {
  std::stable_sort(chunks.begin(), chunks.end(),
                   [](const Chunk& a, const Chunk& b) { return a.area > b.area; });
  std::vector<Load> load_P(static_cast<size_t>(ranks));
  for (const Chunk& whole : chunks) {
    Chunk chunk = whole;
    while (chunk.count > 0) {
      Load* best = nullptr;
      Load* roomiest = &load_P[0];
      for (Load& load : load_P) {
        if (load.tokens < roomiest->tokens) roomiest = &load;
        const bool fits = load.tokens + chunk.count <= capacity;
        if (fits && (!best || load.area < best->area)) best = &load;
      }
      if (best) {
        best->Add(chunk);
        break;
      }
      // Above 0: capacity times ranks is at least the row, and the chunk is not placed yet.
      const int64_t room = capacity - roomiest->tokens;
      roomiest->Add(MakeChunk(chunk.first, room, begin_S));
      chunk = MakeChunk(chunk.first + room, chunk.count - room, begin_S);
    }
  }
  return load_P;
}

}  // namespace

std::span<const int32_t> SequencePlan::index(int rank) const {
  return std::span(index_PT).subspan(static_cast<size_t>(rank * tokens_per_rank),
                                     static_cast<size_t>(tokens_per_rank));
}

std::span<const int32_t> SequencePlan::begin(int rank) const {
  return std::span(begin_PT).subspan(static_cast<size_t>(rank * tokens_per_rank),
                                     static_cast<size_t>(tokens_per_rank));
}

SequencePlan PlanZigzag(int64_t row_tokens, int ranks, std::span<const int32_t> begin_S) {
  CheckArguments(row_tokens, ranks, begin_S);
  std::vector<Load> load_P(static_cast<size_t>(ranks));
  const int64_t n = int64_t{2} * ranks;
  for (int rank = 0; rank < ranks; ++rank) {
    // Causal work of a chunk grows with its position: an early and a late one together have the
    // same area on every rank.
    load_P[rank].Add(EvenChunk(rank, n, row_tokens, begin_S));
    load_P[rank].Add(EvenChunk(n - 1 - rank, n, row_tokens, begin_S));
  }
  return MakePlan(row_tokens, begin_S, load_P);
}

SequencePlan PlanBalanced(int64_t row_tokens, int ranks, std::span<const int32_t> begin_S) {
  CheckArguments(row_tokens, ranks, begin_S);
  const int64_t capacity = (row_tokens + ranks - 1) / ranks;
  const int64_t length = BalancedChunkTokens(row_tokens, ranks);
  // Whole segments first: a rank that holds one needs no keys of other ranks for it. Only where
  // that leaves ranks uneven are equal chunks tried, and the better of the two is taken.
  std::vector<Load> whole_P =
      AssignGreedily(SegmentChunks(row_tokens, length, begin_S), capacity, ranks, begin_S);
  const double balance = Balance(whole_P);
  if (balance >= kEven) return MakePlan(row_tokens, begin_S, whole_P);
  std::vector<Load> load_P =
      AssignGreedily(EqualChunks(row_tokens, length, begin_S), capacity, ranks, begin_S);
  return MakePlan(row_tokens, begin_S, balance >= Balance(load_P) ? whole_P : load_P);
}

std::vector<int64_t> AllowedAreaPerRank(const SequencePlan& plan) {
  std::vector<int64_t> area_P(static_cast<size_t>(plan.ranks), 0);
  for (int rank = 0; rank < plan.ranks; ++rank) {
    const auto index_T = plan.index(rank), begin_T = plan.begin(rank);
    for (size_t t = 0; t < index_T.size(); ++t) area_P[rank] += index_T[t] + 1 - begin_T[t];
  }
  return area_P;
}

}  // namespace lwm::dist
