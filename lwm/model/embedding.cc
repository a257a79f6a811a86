#include "lwm/model/embedding.h"

#include <ATen/ATen.h>

namespace lwm::model {

at::Tensor Embed(const at::Tensor& id_BT, const at::Tensor& vision_BT, const OuterWeights& outer) {
  if (!vision_BT.defined()) return at::embedding(outer.embed_VD, id_BT);
  const at::Tensor text_id_BT = id_BT.masked_fill(vision_BT, 0);
  const at::Tensor vision_id_BT = id_BT.masked_fill(vision_BT.logical_not(), 0);
  return at::where(vision_BT.unsqueeze(-1), at::embedding(outer.vision_embed_VD, vision_id_BT),
                   at::embedding(outer.embed_VD, text_id_BT));
}

void EmbedBackward(const at::Tensor& id_BT, const at::Tensor& vision_BT, const at::Tensor& dx_BTD,
                   OuterWeights& gradients) {
  const at::Tensor id_T = id_BT.reshape({-1});
  const at::Tensor dx_TD = dx_BTD.reshape({id_T.size(0), -1}).to(at::kFloat);
  if (!vision_BT.defined()) {
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
