#pragma once

namespace lwm::ops {

// While it lives, MKL computes this thread's products with one thread. In a parallel region MKL has
// no other threads, but still splits rows as if it had. With AVX2 the rows beside a split are
// rounded differently, so results would depend on the number of threads. Without MKL it does
// nothing.
class SerialMkl {
 public:
  SerialMkl();
  ~SerialMkl();
  SerialMkl(const SerialMkl&) = delete;
  SerialMkl& operator=(const SerialMkl&) = delete;

 private:
  int before_ = 0;
};

}  // namespace lwm::ops
