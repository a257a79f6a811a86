#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/model/weights.h"

namespace lwm::model {

// Rows of the text table, or of the vision table where vision_BT says so (undefined = all text).
//   id_BT      in  i64; an id only has to lie inside the table of its own modality
//   vision_BT  in  bool
//   return x_BTD, dtype of the tables
// Throws Error(kInvalidArgument) naming the id that is not in its table.
at::Tensor Embed(const at::Tensor& id_BT, const at::Tensor& vision_BT,
                 const NonLayerWeights& outer);

// Adds dx_BTD to the rows of the f32 tables that Embed took.
void EmbedBackward(const at::Tensor& id_BT, const at::Tensor& vision_BT, const at::Tensor& dx_BTD,
                   NonLayerGradients& gradients);

}  // namespace lwm::model
