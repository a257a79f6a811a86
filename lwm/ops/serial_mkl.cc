#include "lwm/ops/serial_mkl.h"

// LibTorch contains MKL, but not its headers; builds for other processors have none, hence the weak
// symbol. Returns the thread's number before; 0 means that the process's number applies.
extern "C" __attribute__((weak)) int MKL_Set_Num_Threads_Local(int threads);

namespace lwm::ops {

SerialMkl::SerialMkl() {
  if (MKL_Set_Num_Threads_Local) before_ = MKL_Set_Num_Threads_Local(1);
}

SerialMkl::~SerialMkl() {
  if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(before_);
}

}  // namespace lwm::ops
