#include "lwm/ops/serial_mkl.h"

// LibTorch has MKL inside, without its headers; builds for other processors have none. Returns the
// number before, 0: the number of the whole process.
extern "C" __attribute__((weak)) int MKL_Set_Num_Threads_Local(int threads);

namespace lwm::ops {

SerialMkl::SerialMkl() {
  if (MKL_Set_Num_Threads_Local) before_ = MKL_Set_Num_Threads_Local(1);
}

SerialMkl::~SerialMkl() {
  if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(before_);
}

}  // namespace lwm::ops
