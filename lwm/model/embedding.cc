#include "lwm/model/embedding.h"

#include <ATen/ATen.h>

#include "lwm/base/error.h"

namespace lwm::model {
namespace {

// LibTorch's own complaint names neither the id nor the table.
at::Tensor Rows(const at::Tensor& table_VD, const at::Tensor& id_BT, const char* field) {
  if (id_BT.numel() > 0) {
    const auto [low, high] = at::aminmax(id_BT);
    const int64_t least = low.item<int64_t>(), most = high.item<int64_t>();
    LWM_REQUIRE(least >= 0 && most < table_VD.size(0), "token id ", least < 0 ? least : most,
                " is outside the model's ", field, " ", table_VD.size(0));
  }
  return at::embedding(table_VD, id_BT);
}

bool AnyVision(const at::Tensor& vision_BT) {
  return vision_BT.defined() && vision_BT.any().item<bool>();
}

}  // namespace

at::Tensor Embed(const at::Tensor& id_BT, const at::Tensor& vision_BT,
                 const NonLayerWeights& outer) {
  if (!AnyVision(vision_BT)) return Rows(outer.embed_VD, id_BT, "vocab_size");
  LWM_REQUIRE(outer.vision_embed_VD.defined(),
              "vision codes need a model with vision_vocab_size > 0");
  // Each table is read for all tokens and `where` chooses. Ids of the other modality may lie
  // outside a table: they read row 0.
  const at::Tensor text_id_BT = id_BT.masked_fill(vision_BT, 0);
  const at::Tensor vision_id_BT = id_BT.masked_fill(vision_BT.logical_not(), 0);
  return at::where(vision_BT.unsqueeze(-1),
                   Rows(outer.vision_embed_VD, vision_id_BT, "vision_vocab_size"),
                   Rows(outer.embed_VD, text_id_BT, "vocab_size"));
}

void EmbedBackward(const at::Tensor& id_BT, const at::Tensor& vision_BT, const at::Tensor& dx_BTD,
                   NonLayerGradients& gradients) {
  const at::Tensor id_T = id_BT.reshape({-1});
  const at::Tensor dx_TD = dx_BTD.reshape({id_T.size(0), -1}).to(at::kFloat);
  if (!AnyVision(vision_BT)) {
    gradients.embed_VD.index_add_(0, id_T, dx_TD);
    return;
  }
  const at::Tensor vision_T = vision_BT.reshape({-1});
  const auto add = [&](at::Tensor& table_VD, const at::Tensor& chosen_T) {
    const at::Tensor at_N = chosen_T.nonzero().squeeze(-1);
    table_VD.index_add_(0, id_T.index_select(0, at_N), dx_TD.index_select(0, at_N));
  };
  add(gradients.vision_embed_VD, vision_T);
  add(gradients.embed_VD, vision_T.logical_not());
}

}  // namespace lwm::model
